"""Logits and gradients of networks on a card are those of a CPU in float64."""

import copy
import itertools

import pytest
import small_training as small
import torch
from small_on_card import relative_error, resolved_on
from torch.nn import functional

from nnunet_builtin.networks.placing import placed
from nnunet_builtin.networks.plain_unet import PlainUNet
from nnunet_builtin.networks.residual_unet import ResidualUNet
from nnunet_core.data.plans import NetworkSpec

pytestmark = pytest.mark.gpu

CLOSE = 1e-4
#: Rounding in float32 must not carry a feature over the kink of the activation at 0.
FROM_KINKS = 2e-5


def volumes(**changes):
    return small.isotropic(2, output_channels=3, base_features=4, **changes)


ANISOTROPIC = NetworkSpec(
    dimensions=3,
    input_channels=1,
    output_channels=3,
    pool_kernels=((1, 2, 2), (2, 2, 2)),
    conv_kernels=((1, 3, 3), (3, 3, 3), (3, 3, 3)),
    base_features=4,
)
GROUPED = small.isotropic(1, output_channels=3, base_features=8)
NETWORKS = {
    "isotropic": (PlainUNet(), volumes(), (8, 12, 8)),
    "anisotropic": (PlainUNet(), ANISOTROPIC, (6, 16, 12)),
    "planes": (PlainUNet(), small.isotropic(3, 2, output_channels=3, base_features=4), (32, 24)),
    "cascade": (PlainUNet(), volumes(input_channels=4), (8, 8, 12)),
    "residual": (ResidualUNet(), volumes(), (8, 12, 8)),
    "layout of v2": (PlainUNet(layout="v2"), volumes(), (8, 8, 8)),
    "group norm": (PlainUNet(activation="gelu", norm="group"), GROUPED, (8, 8, 8)),
    "batch norm": (PlainUNet(norm="batch"), volumes(), (8, 8, 8)),
}


def make(builder, spec, patch, seed):
    """Return a network and images in float64."""
    torch.manual_seed(seed)
    network = builder.build(spec).double()
    for name, parameter in network.named_parameters():
        if name.endswith("bias"):
            torch.nn.init.normal_(parameter, std=0.1)  # zeros would hide where they are used
    return network, torch.randn(2, spec.input_channels, *patch, dtype=torch.float64)


def make_away_from_kinks(builder, spec, patch):
    """Return the first network and images whose features all keep their sign when rounded."""
    drawn = (make(builder, spec, patch, seed) for seed in itertools.count())
    return next(pair for pair in drawn if distance_to_kinks(*pair) > FROM_KINKS)


def distance_to_kinks(network, images):
    """Return the least absolute value that any leaky ReLU gets."""
    distances = [1.0]
    plain = functional.leaky_relu

    def watched(features, *arguments, **more):
        distances.append(float(features.detach().abs().min()))
        return plain(features, *arguments, **more)

    with pytest.MonkeyPatch.context() as patch, torch.no_grad():
        patch.setattr(functional, "leaky_relu", watched)
        network(images)
    return min(distances)


def computed(network, images):
    """Return the logits of every head, and the gradients of a weighted sum of them all by name."""
    heads = network(images)
    generator = torch.Generator().manual_seed(1)
    weights = [torch.randn(head.shape, generator=generator, dtype=torch.float64) for head in heads]
    pairs = zip(heads, weights, strict=True)
    total = torch.stack([(head * weight.to(head)).mean() for head, weight in pairs]).sum()
    total.backward()
    return heads, {name: parameter.grad for name, parameter in network.named_parameters()}


@pytest.mark.parametrize("name", NETWORKS)
def test_logits_and_gradients_are_those_of_a_cpu(device, exact, name):
    builder, spec, patch = NETWORKS[name]
    reference, images = make_away_from_kinks(builder, spec, patch)
    network = placed(copy.deepcopy(reference).float(), resolved_on(device), spec.dimensions)
    expected, expected_gradients = computed(reference, images)
    heads, gradients = computed(network, images.float().to(device))
    assert len(heads) == len(spec.pool_kernels)
    for head, exact_head in zip(heads, expected, strict=True):
        assert head.device == device
        assert relative_error(head, exact_head) < CLOSE
    assert gradients.keys() == expected_gradients.keys()
    largest = max(float(gradient.norm()) for gradient in expected_gradients.values())
    for parameter, gradient in gradients.items():
        exact_gradient = expected_gradients[parameter]
        difference = (gradient.cpu().double() - exact_gradient).norm()
        # a bias before a norm has no gradient but rounding: it is small in comparison with others
        assert difference < CLOSE * max(exact_gradient.norm(), largest / 100), parameter


@pytest.mark.parametrize("name", ["isotropic", "planes"])
def test_without_deep_supervision_only_the_full_resolution_is_returned(device, exact, name):
    network, images = make(*NETWORKS[name], seed=0)
    dimensions = images.ndim - 2
    expected = network(images)[0]
    network.deep_supervision = False
    found = placed(network.float(), resolved_on(device), dimensions)(images.float().to(device))
    assert relative_error(found, expected) < CLOSE
