"""What the builders build: logits of every resolution, gradients, MONAI's names of weights, patches
of any multiple of the divisor; and what they refuse.
"""

import pytest
import torch
from monai.networks import nets

from nnunet_builtin.networks.weights import shapes_of
from nnunet_core.data.plans import NetworkSpec
from nnunet_core.errors import UsageError
from nnunet_monai.dynunet import DynUNet
from nnunet_monai.segresnet import SegResNet, SegResNetDS
from nnunet_monai.swinunetr import SwinUNETR
from nnunet_monai.unetr import UNETR

SMALL = {
    "segresnet": SegResNet(init_filters=8),
    "segresnet_ds": SegResNetDS(init_filters=8, blocks_down=(1, 1, 1, 1), dsdepth=3),
    "dynunet": DynUNet(res_block=True, trans_bias=True),
    "unetr": UNETR(feature_size=4, hidden_size=24, mlp_dim=48, num_heads=2),
    "swinunetr": SwinUNETR(feature_size=12, depths=(1, 1, 2, 1), num_heads=(1, 1, 2, 2)),
}
#: {name: heads in training}.
HEADS = {"segresnet_ds": 3, "dynunet": 3}


def spec_of(pools, dimensions=3, patch=()):
    pools = [step if isinstance(step, tuple) else (step,) * dimensions for step in pools]
    return NetworkSpec(
        dimensions=dimensions,
        input_channels=2,
        output_channels=3,
        pool_kernels=pools,
        conv_kernels=((3,) * dimensions,) * (len(pools) + 1),
        base_features=8,
        patch_size=patch,
    )


def smallest(name, dimensions):
    """Return the specification of a network for the smallest patch that it takes."""
    spec = spec_of((2, 2, 2), dimensions)
    return spec.model_copy(update={"patch_size": SMALL[name].divisor(spec)})


@pytest.mark.parametrize("dimensions", [2, 3])
@pytest.mark.parametrize("name", SMALL)
def test_the_smallest_patch_gives_logits_and_gradients(name, dimensions):
    torch.manual_seed(0)
    spec = smallest(name, dimensions)
    network = SMALL[name].build(spec).train()
    returned = network(torch.randn(1, 2, *spec.patch_size))
    heads = list(returned) if isinstance(returned, list) else [returned]
    sizes = [tuple(size // 2**n for size in spec.patch_size) for n in range(HEADS.get(name, 1))]
    assert [tuple(head.shape) for head in heads] == [(1, 3, *size) for size in sizes]
    torch.stack([(head**2).mean() for head in heads]).sum().backward()
    trained = {name: p for name, p in network.named_parameters() if p.requires_grad}
    for weight, parameter in trained.items():
        assert parameter.grad is not None, weight
        assert parameter.grad.isfinite().all(), weight


@pytest.mark.parametrize("name", HEADS)
def test_deep_supervision_can_be_switched_off(name):
    spec = smallest(name, 3)
    network = SMALL[name].build(spec).train()
    images = torch.randn(1, 2, *spec.patch_size)
    assert network.deep_supervision is True
    full = network(images)[0]
    assert isinstance(network.eval()(images), torch.Tensor)
    network.train().deep_supervision = False
    assert network(images).equal(full)


def test_heads_of_dynunet_are_not_kept():
    """Kept logits of a batch would hold its memory, and a network with them cannot be copied."""
    network = SMALL["dynunet"].build(smallest("dynunet", 3)).train()
    network(torch.randn(1, 2, 32, 32, 32))
    assert all(head.numel() == 0 for head in network.heads)


MONAI = {
    "segresnet": lambda: nets.SegResNet(3, 8, 2, 3),
    "segresnet_ds": lambda: nets.SegResNetDS(
        3, 8, 2, 3, norm="instance", blocks_down=(1, 1, 1, 1), dsdepth=3
    ),
    "dynunet": lambda: nets.DynUNet(
        3, 2, 3, [3] * 4, [1, 2, 2, 2], [2, 2, 2], [8, 16, 32, 64], res_block=True,
        trans_bias=True, deep_supervision=True, deep_supr_num=2,
    ),
    "unetr": lambda: nets.UNETR(2, 3, (16, 16, 16), 4, 24, 48, 2),
    "swinunetr": lambda: nets.SwinUNETR(
        2, 3, feature_size=12, depths=(1, 1, 2, 1), num_heads=(1, 1, 2, 2)
    ),
}  # fmt: skip


def state_of(network):
    """Return the state of a network, without the second names of the same tensors in DynUNet."""
    state = network.state_dict()
    return {name: value for name, value in state.items() if not name.startswith("skip_layers.")}


@pytest.mark.parametrize("name", SMALL)
def test_weights_of_monai_fit_and_predict_equally(name):
    spec = smallest(name, 3)
    theirs, ours = MONAI[name]().eval(), SMALL[name].build(spec).eval()
    ours.load_state_dict(state_of(theirs))
    patch = list(spec.patch_size)
    if name != "unetr":  # MONAI's refuse what is one voxel after all halvings
        patch[0] *= 2
    images = torch.randn(1, 2, *patch)
    with torch.no_grad():
        assert ours(images).equal(theirs(images))


@pytest.mark.parametrize("name", SMALL)
def test_shapes_are_found_without_memory(name):
    """An archive is checked like that before its model is installed."""
    spec = smallest(name, 3)
    expected = {key: tuple(value.shape) for key, value in state_of(MONAI[name]()).items()}
    assert shapes_of(SMALL[name], spec) == expected


@pytest.mark.parametrize(
    ("pools", "expected"),
    [
        ((2, 2, 2, 2), (16, 16, 16)),
        (((1, 2, 2), (1, 2, 2), 2, 2), (4, 16, 16)),
        (((1, 1, 2), (1, 2, 2), 2, 2), (4, 8, 16)),
        (((1, 2, 2),) * 4, (2, 16, 16)),
    ],
)
def test_segresnet_ds_waits_with_thick_slices(pools, expected):
    builder, spec = SegResNetDS(init_filters=8, blocks_down=(1,) * 5), spec_of(pools)
    network = builder.build(spec)
    assert builder.divisor(spec) == tuple(network.shape_factor()) == expected
    assert network.eval()(torch.zeros(1, 2, *expected)).shape == (1, 3, *expected)


@pytest.mark.parametrize(
    ("builder", "spec", "said"),
    [
        (SegResNet(blocks_up=(1, 1)), spec_of((2,)), "halves 3 times"),
        (SegResNet(init_filters=12), spec_of((2,)), "Choose 8 or 16"),
        (DynUNet(), spec_of((2,)), "needs three resolutions; these plans have 2"),
        (DynUNet(filters=(8, 8)), spec_of((2, 2)), "this network needs 3"),
        (UNETR(hidden_size=25), spec_of((2,), patch=(16,) * 3), "no multiple of network.num_heads"),
        (UNETR(), spec_of((2,)), "built for one patch size"),
        (SwinUNETR(feature_size=20), spec_of((2,)), "no multiple of 12"),
        (SwinUNETR(num_heads=(5, 6, 12, 24)), spec_of((2,)), "cannot be divided among 5 heads"),
    ],
)
def test_what_cannot_be_built_is_said(builder, spec, said):
    with pytest.raises(UsageError, match=said):
        builder.build(spec)
