"""The builder of the U-Net; planning asks it for memory, so it imports PyTorch only to build."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from pydantic import NonNegativeFloat

from nnunet_builtin.networks.estimate import pooling_divisor, unet_memory
from nnunet_builtin.networks.style import GROUPS
from nnunet_core.data.limits import Features, Layers
from nnunet_core.data.plans import NetworkSpec
from nnunet_core.errors import UsageError

if TYPE_CHECKING:
    from nnunet_builtin.networks.unet import UNet

Norm = Literal["instance", "batch", "group", "frn", "none"]
Activation = Literal["leaky_relu", "gelu", "mish"]
Layout = Literal["v1", "v2"]


@dataclass
class PlainUNet:
    """Builds the U-Net of nnU-Net v1: strided convolutions down, transposed convolutions up, a head
    per resolution.

    Args:
        negative_slope: Of the leaky ReLU; 0 is a ReLU.
        norm: `instance`, `batch`, `group` (8 groups), `frn` (filter response norm with its
            thresholded linear unit in the place of the activation) or `none`.
        activation: `leaky_relu`, `gelu` or `mish`; without effect for `norm=frn`.
        norm_last: Norm after the activation instead of before it.
        head_bias: Biases in the heads.
        layout: `v1`, or `v2`: biases in transposed convolutions and heads, and decoder kernels of
            the own resolution instead of the next coarser one. Weights of either nnU-Net fit their
            layout whole.
        conv_bias: Biases in convolutions.
        features, convs, decoder_convs: Features and convolutions at each resolution, the finest
            first, in the place of those of the plans; the decoder has none at the coarsest.
    """

    negative_slope: NonNegativeFloat = 0.01
    norm: Norm = "instance"
    activation: Activation = "leaky_relu"
    norm_last: bool = False
    head_bias: bool = False
    layout: Layout = "v1"
    conv_bias: bool = True
    features: tuple[Features, ...] = ()
    convs: tuple[Layers, ...] = ()
    decoder_convs: tuple[Layers, ...] = ()

    def build(self, spec: NetworkSpec) -> UNet:
        """Return the network (contracts.NetworkBuilder), initialised as v1 initialises it.

        Raises:
            UsageError: The features of the plans cannot be grouped, or a setting has not a number
                for each resolution.
        """
        from nnunet_builtin.networks.style import Style
        from nnunet_builtin.networks.unet import UNet, initialise

        check_groups(self.norm, spec)
        check_counts(
            spec, features=self.features, convs=self.convs, decoder_convs=self.decoder_convs
        )
        v2 = self.layout == "v2"
        style = Style(
            norm=self.norm,
            activation=self.activation,
            negative_slope=self.negative_slope,
            norm_last=self.norm_last,
            own_kernels=v2,
            upsampling_bias=v2 and self.conv_bias,  # v2 has one switch for both
            head_bias=v2 or self.head_bias,
            conv_bias=self.conv_bias,
            features=self.features,
            convs=self.convs,
            decoder_convs=self.decoder_convs,
        )
        network = UNet(spec, style)
        network.apply(initialise)
        return network

    def memory(self, spec: NetworkSpec, patch_size: Sequence[int]) -> float:
        """Return the bytes of training on one patch (contracts.NetworkBuilder)."""
        return unet_memory(spec, patch_size)

    def divisor(self, spec: NetworkSpec) -> tuple[int, ...]:
        """Return what patch sizes are multiples of (contracts.NetworkBuilder)."""
        return pooling_divisor(spec)


def check_groups(norm: str, spec: NetworkSpec) -> None:
    """Check that the features of every resolution can be grouped, if the norm is `group`.

    Raises:
        UsageError: They cannot.
    """
    odd = [
        size for stage in range(len(spec.conv_kernels)) if (size := spec.features(stage)) % GROUPS
    ]
    if norm == "group" and odd:
        raise UsageError(
            f"network.norm=group has {GROUPS} groups, but the network has stages with {odd[0]} "
            f"features. Plan with a multiple of {GROUPS}: --set planner.base_features=..."
        )


def check_counts(spec: NetworkSpec, **settings: tuple[int, ...]) -> None:
    """Check that settings of a network have a number for each of its resolutions, or none; those of
    the decoder have one less.

    Raises:
        UsageError: One does not.
    """
    for name, numbers in settings.items():
        wanted = len(spec.conv_kernels) - name.startswith("decoder")
        if numbers and len(numbers) != wanted:
            raise UsageError(
                f"network.{name}={list(numbers)} has {len(numbers)} numbers; this network needs "
                f"{wanted}, the finest resolution first, or none: then the plans decide."
            )
