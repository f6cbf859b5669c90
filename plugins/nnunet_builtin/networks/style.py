"""What the blocks and ends of a U-Net are made of."""

from __future__ import annotations

from dataclasses import dataclass

#: Groups of `norm=group`.
GROUPS = 8


@dataclass(frozen=True)
class Style:
    """What blocks and ends of a U-Net are made of.

    Attributes:
        norm, activation, negative_slope, norm_last: See `plain_unet.PlainUNet`.
        own_kernels: Kernels of a decoder stage are those of its resolution, instead of the next
            coarser one.
        upsampling_bias, head_bias: Biases in transposed convolutions and in heads.
        residual_blocks: Per resolution, of a residual encoder.
    """

    norm: str = "instance"
    activation: str = "leaky_relu"
    negative_slope: float = 0.01
    norm_last: bool = False
    own_kernels: bool = False
    upsampling_bias: bool = False
    head_bias: bool = False
    residual_blocks: tuple[int, ...] = ()
