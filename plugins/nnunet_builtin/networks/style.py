"""What the blocks and ends of a U-Net are made of."""

from __future__ import annotations

from dataclasses import dataclass

#: Groups of `norm=group`.
GROUPS = 8


@dataclass(frozen=True)
class Style:
    """What blocks and ends of a U-Net are made of.

    Numbers per resolution, the finest first, are those of the plans where they are empty.

    Attributes:
        norm, activation, negative_slope, norm_last: See `plain_unet.PlainUNet`.
        own_kernels: Kernels of a decoder stage are those of its resolution, instead of the next
            coarser one.
        conv_bias, upsampling_bias, head_bias: Biases in convolutions, transposed ones, and heads.
        features: Per resolution.
        convs, decoder_convs: Convolutions per resolution; the decoder has none at the coarsest.
        residual_blocks: Per resolution, of a residual encoder.
        stem_features: Of the first convolution of a residual encoder; 0 is those of the finest
            resolution.
        pooled_skips: A residual block takes the mean of its input where its resolution changes, and
            a convolution only where its features do, as in nnU-Net v2.
    """

    norm: str = "instance"
    activation: str = "leaky_relu"
    negative_slope: float = 0.01
    norm_last: bool = False
    own_kernels: bool = False
    conv_bias: bool = True
    upsampling_bias: bool = False
    head_bias: bool = False
    features: tuple[int, ...] = ()
    convs: tuple[int, ...] = ()
    decoder_convs: tuple[int, ...] = ()
    residual_blocks: tuple[int, ...] = ()
    stem_features: int = 0
    pooled_skips: bool = False
