"""What CPUs get to be faster: the same names, weights, hooks and, but for rounding, results."""

import copy

import pytest
import torch
from small_training import isotropic
from torch import nn
from torch.nn import functional

from nnunet_builtin.computing.devices import CHANNELS_LAST, ResolvedRuntime
from nnunet_builtin.networks.cpu import coarse, norm
from nnunet_builtin.networks.cpu.acceleration import accelerate
from nnunet_builtin.networks.placing import placed
from nnunet_builtin.networks.plain_unet import PlainUNet
from nnunet_builtin.networks.residual_unet import ResidualUNet

RUNTIME = ResolvedRuntime(torch.device("cpu"), torch.float32, 1, 0)
BUILDERS = {
    "plain": PlainUNet(),
    "residual": ResidualUNet(),
    "layout of v2": PlainUNet(layout="v2"),
}
CONVOLUTIONS = (nn.Conv2d, nn.Conv3d, nn.ConvTranspose2d, nn.ConvTranspose3d)


def pair_of(builder, dimensions, depth=2):
    """Return a network as it was built, one that was placed, and images in either memory order."""
    torch.manual_seed(0)
    # with 4, oneDNN (PyTorch 2.13) writes past its memory: strided convolutions in 2D with kernels
    # of 1, channels last
    network = builder.build(isotropic(depth, dimensions, base_features=8))
    for name, parameter in network.named_parameters():
        if name.endswith("bias"):
            nn.init.normal_(parameter, std=0.1)  # zeros would hide where they are used
    images = torch.randn(2, 1, *{2: (48, 32), 3: (24, 16, 16)}[dimensions])
    fast = placed(copy.deepcopy(network), RUNTIME, dimensions)
    return network, fast, images, images.to(memory_format=CHANNELS_LAST[dimensions])


@pytest.fixture
def used(monkeypatch):
    """Return the list of the fast ways that are taken."""
    taken = []
    for module, name in ((norm, "_by_samples"), (coarse, "upsampled_convolution")):
        plain = getattr(module, name)
        monkeypatch.setattr(
            module,
            name,
            lambda *given, name=name, plain=plain: taken.append(name) or plain(*given),
        )
    return taken


@pytest.mark.parametrize("dimensions", [2, 3])
@pytest.mark.parametrize("builder", BUILDERS.values(), ids=BUILDERS)
def test_results_and_gradients_agree(builder, dimensions, used):
    network, fast, images, ordered = pair_of(builder, dimensions)
    expected, found = network(images), fast(ordered)
    assert used.count("_by_samples") == sum(
        isinstance(layer, nn.InstanceNorm2d | nn.InstanceNorm3d) for layer in fast.modules()
    )
    # transposed convolutions of v2 have a bias, which would have to be left out at the borders
    assert ("upsampled_convolution" in used) == (builder is not BUILDERS["layout of v2"])
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-4)
    for heads in (expected, found):
        sum(head.square().mean() for head in heads).backward()
    wanted = dict(network.named_parameters())
    largest = max(weight.grad.abs().max() for weight in wanted.values())
    for name, weight in fast.named_parameters():
        assert (weight.grad - wanted[name].grad).abs().max() < 1e-4 * largest, name


@pytest.mark.parametrize("builder", BUILDERS.values(), ids=BUILDERS)
def test_names_and_weights_stay(builder):
    network, fast, *_ = pair_of(builder, 3)
    before, after = network.state_dict(), fast.state_dict()
    assert list(before) == list(after)
    assert all(torch.equal(before[name], after[name]) for name in before)
    assert [name for name, _ in network.named_modules()] == [
        name for name, _ in fast.named_modules()
    ]
    copied = copy.deepcopy(fast)
    assert [type(layer) for layer in copied.modules()] == [type(layer) for layer in fast.modules()]
    copied.load_state_dict(before)


@pytest.mark.parametrize("dimensions", [2, 3])
@pytest.mark.parametrize("builder", BUILDERS.values(), ids=BUILDERS)
def test_hooks_on_convolutions_are_called_once(builder, dimensions):
    network, fast, images, ordered = pair_of(builder, dimensions)
    seen = []
    for name, layer in fast.named_modules():
        if isinstance(layer, CONVOLUTIONS):
            layer.register_forward_hook(
                lambda _, __, result, name=name: seen.append((name, result))
            )
    expected = network(images)
    for one, other in zip(fast(ordered), expected, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-4)
    convolutions = {n for n, layer in network.named_modules() if isinstance(layer, CONVOLUTIONS)}
    assert sorted(name for name, _ in seen) == sorted(convolutions)
    watched = {}
    for name in convolutions:
        layer = network.get_submodule(name)
        layer.register_forward_hook(lambda _, __, result, name=name: watched.update({name: result}))
    network(images)
    for name, result in seen:
        torch.testing.assert_close(result, watched[name], rtol=1e-4, atol=1e-4)


def test_the_fast_way_comes_back_when_nobody_watches(used):
    _, fast, _, ordered = pair_of(PlainUNet(), 3)
    handle = fast.decoder[-1][0].conv.register_forward_pre_hook(lambda *_: None)
    fast(ordered)
    assert used.count("upsampled_convolution") == 0
    handle.remove()
    fast(ordered)
    assert used.count("upsampled_convolution") == 1


@pytest.mark.parametrize("where", ["decoder.1", "decoder.1.0", "upsampling.1", "everywhere"])
def test_hooks_on_what_holds_convolutions_are_called(where, used):
    _, fast, _, ordered = pair_of(PlainUNet(), 3)
    called = []
    hook = lambda *given: called.append(given[0])  # noqa: E731
    if where == "everywhere":
        handle = nn.modules.module.register_module_forward_hook(hook)
    else:
        handle = fast.get_submodule(where).register_forward_hook(hook)
    fast(ordered)
    handle.remove()
    expected = list(fast.modules()) if where == "everywhere" else [fast.get_submodule(where)]
    assert {id(module) for module in called} >= {
        id(module) for module in expected if not isinstance(module, nn.ModuleList)
    }
    assert "upsampled_convolution" not in used


def test_layers_of_any_network_are_found(used):
    """Another one's norms, one of them with statistics of its own; and a weight of four axes that
    is no convolution's.
    """
    torch.manual_seed(0)

    class Theirs(nn.Module):
        def __init__(self):
            super().__init__()
            self.layers = nn.Sequential(
                nn.Conv3d(1, 4, 3, padding=1),
                nn.InstanceNorm3d(4),
                nn.Conv3d(4, 4, 3, padding=1),
                nn.InstanceNorm3d(4, affine=True, track_running_stats=True),
            )
            self.scales = nn.Parameter(torch.randn(4, 1, 1, 1))

        def forward(self, images):
            return self.layers(images) * self.scales

    network, images = Theirs(), torch.randn(2, 1, 6, 6, 6)
    fast = placed(copy.deepcopy(network), RUNTIME, 3)
    found = fast(images.to(memory_format=torch.channels_last_3d))
    torch.testing.assert_close(found, network(images), rtol=1e-4, atol=1e-5)
    assert used == ["_by_samples"]
    assert type(fast.layers[3]) is nn.InstanceNorm3d


def test_other_devices_get_the_network_as_it_is():
    network = PlainUNet().build(isotropic(1, base_features=4))
    classes = [type(layer) for layer in network.modules()]
    accelerate(network, ResolvedRuntime(torch.device("cuda"), torch.float16, 1, 0))
    assert [type(layer) for layer in network.modules()] == classes


@pytest.mark.parametrize("shape", [(2, 8, 6, 7, 5), (3, 4, 9, 8), (1, 16, 2, 2, 2)])
@pytest.mark.parametrize("affine", [False, True])
def test_the_norm_has_the_values_and_gradients_of_pytorch(shape, affine, used):
    torch.manual_seed(0)
    kind = nn.InstanceNorm3d if len(shape) == 5 else nn.InstanceNorm2d
    plain = kind(shape[1], affine=affine)
    for parameter in plain.parameters():
        nn.init.normal_(parameter)
    fast, images, outer = copy.deepcopy(plain), torch.randn(shape), torch.randn(shape)
    accelerate(fast, RUNTIME)
    ordered = images.contiguous(memory_format=CHANNELS_LAST[len(shape) - 2]).requires_grad_()
    images.requires_grad_()
    found, expected = fast(ordered), plain(images)
    assert used
    assert found.is_contiguous(memory_format=CHANNELS_LAST[len(shape) - 2])
    torch.testing.assert_close(found, expected)
    found.backward(outer)
    expected.backward(outer)
    torch.testing.assert_close(ordered.grad, images.grad, rtol=1e-4, atol=2e-5)
    for one, other in zip(fast.parameters(), plain.parameters(), strict=True):
        torch.testing.assert_close(one.grad, other.grad, rtol=1e-4, atol=2e-5)


def test_the_norm_is_exact_far_from_zero():
    torch.manual_seed(0)
    features = (torch.randn(1, 8, 20, 20, 20) + 50).contiguous(memory_format=torch.channels_last_3d)
    layer = nn.InstanceNorm3d(8)
    accelerate(layer, RUNTIME)
    exact = functional.instance_norm(features.double())
    assert (layer(features) - exact).abs().max() < 1e-3
