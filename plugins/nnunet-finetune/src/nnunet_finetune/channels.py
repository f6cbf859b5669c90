"""The first convolution for images with another number of channels."""

from __future__ import annotations

import torch


def match_channels(weight: torch.Tensor, channels: int) -> torch.Tensor:
    """Return a convolution (F, C, *kernel) for another number of channels, (F, channels, *kernel).

    More channels: those there are, again and again, each divided by how often it is there. The
    network sees a mean of the new channels where it saw the old one. Fewer: those that fall on one
    are summed. The network sees the new one where it saw each of these.
    """
    old = weight.shape[1]
    places = torch.arange(max(old, channels)) % min(old, channels)
    if channels >= old:
        often = torch.bincount(places)[places].view(1, -1, *[1] * (weight.ndim - 2))
        return weight[:, places] / often
    smaller = weight.new_zeros(weight.shape[0], channels, *weight.shape[2:])
    return smaller.index_add(1, places, weight)


def match_inputs(weight: torch.Tensor, images: int, inputs: int) -> torch.Tensor:
    """Return a convolution for `images` channels of images and further ones of a previous stage,
    which begin at 0; `inputs` in all.
    """
    matched = match_channels(weight, images)
    rest = weight.new_zeros(weight.shape[0], inputs - images, *weight.shape[2:])
    return torch.cat([matched, rest], dim=1)
