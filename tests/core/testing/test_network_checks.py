"""Each check of networks finds the network that is wrong in its way, and no other check does."""

import math

import pytest
import torch
from torch import nn
from wrong_components import failures, own_checks

CONVOLUTIONS = {2: nn.Conv2d, 3: nn.Conv3d}


class TwoResolutions(nn.Module):
    """A right network, which the wrong ones change: two convolutions, logits of two resolutions."""

    def __init__(self, spec):
        super().__init__()
        kind = CONVOLUTIONS[spec.dimensions]
        self.deep_supervision = True
        self.first = kind(spec.input_channels, 4, 3, padding=1)
        self.fine = kind(4, spec.output_channels, 1)
        self.coarse = kind(4, spec.output_channels, 2, stride=2)

    def forward(self, images):
        features = self.first(images).tanh()
        heads = [self.fine(features), self.coarse(features)]
        heads = self.changed(heads, images)
        return heads if self.deep_supervision else heads[0]

    def changed(self, heads, images):
        return heads


class Right:
    """Its builder."""

    Network = TwoResolutions

    def build(self, spec):
        return self.Network(spec)

    def memory(self, spec, patch_size):
        return 100.0 * math.prod(patch_size)

    def divisor(self, spec):
        return (2,) * spec.dimensions


class ShortOfARow(Right):
    class Network(TwoResolutions):
        def changed(self, heads, images):
            return [heads[0], heads[1][..., 1:]]


class DividesByTheImage(Right):
    class Network(TwoResolutions):
        def changed(self, heads, images):
            return [head / images.abs().amax() for head in heads]


class SpareParameter(Right):
    class Network(TwoResolutions):
        def __init__(self, spec):
            super().__init__(spec)
            self.spare = nn.Parameter(torch.randn(3))


class FirstChannelAlone(Right):
    class Network(TwoResolutions):
        def forward(self, images):
            return super().forward(images[:, :1].expand_as(images))


class MixesSamples(Right):
    class Network(TwoResolutions):
        def changed(self, heads, images):
            return [head + head.mean(0, keepdim=True) for head in heads]


class SeedsItself(Right):
    def build(self, spec):
        torch.manual_seed(0)
        return super().build(spec)


class DrawsElsewhere(Right):
    def build(self, spec):
        torch.seed()
        return super().build(spec)


class HiddenState(Right):
    class Network(TwoResolutions):
        def __init__(self, spec):
            super().__init__(spec)
            self.shift = torch.rand(1).item()

        def forward(self, images):
            return super().forward(images + self.shift)


class OtherAlone(Right):
    class Network(TwoResolutions):
        def changed(self, heads, images):
            return heads if self.deep_supervision else [heads[0] + 1]


class FourNotTwo(Right):
    class Network(TwoResolutions):
        def forward(self, images):
            if any(size % 4 for size in images.shape[2:]):
                raise ValueError("sizes are multiples of four")
            return super().forward(images)


class MemoryOfOneAxis(Right):
    def memory(self, spec, patch_size):
        return 10_000.0 * patch_size[0]


WRONG = {
    ShortOfARow: "network_returns_logits_of_the_patch",
    DividesByTheImage: "network_has_finite_logits",
    SpareParameter: "network_learns_with_every_parameter",
    FirstChannelAlone: "network_sees_every_channel",
    MixesSamples: "network_treats_samples_apart",
    SeedsItself: "network_follows_the_seed",
    DrawsElsewhere: "network_follows_the_seed",
    HiddenState: "network_is_its_state",
    OtherAlone: "network_can_leave_out_resolutions",
    FourNotTwo: "network_keeps_its_divisor",
    MemoryOfOneAxis: "network_memory_rises_with_the_patch",
}


def test_a_right_network_passes_every_check():
    assert failures("network", Right) == {}


@pytest.mark.parametrize("wrong", WRONG, ids=lambda wrong: wrong.__name__)
def test_a_wrong_network_fails_the_check_that_names_its_fault(wrong):
    assert set(failures("network", wrong)) == {WRONG[wrong]}


def test_every_check_of_networks_has_a_network_that_fails_it():
    assert own_checks("network") == set(WRONG.values())
