"""The augmentation of the V2 trainer on tensors of any device: equal seeds make the decisions that NumPy makes.

Everything random is drawn on the CPU by the settings that both share. Steps are products with SciPy's own matrices
along one axis wherever they are separable, so results agree to float32's precision.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

import numpy as np
import torch
from scipy import ndimage

from nnunet_builtin.augmentation.cascade import (
    FAR,
    ball_size,
    ball_steps,
    foreground_classes,
    remove_component,
)
from nnunet_builtin.augmentation.decisions import Draw
from nnunet_builtin.augmentation.draw import AugmentationSettings
from nnunet_builtin.augmentation.geometry import spatial_axes
from nnunet_builtin.augmentation.intensity import mask_outside, smaller_shape
from nnunet_builtin.augmentation.spatial_torch import move, products
from nnunet_builtin.preprocessing.matrices import nearest_samples, spline_matrix

if TYPE_CHECKING:
    from nnunet_core.data.plans import Configuration


class AugmentationV2Torch(AugmentationSettings):
    """The augmentation `v2`, with its settings, on the device where the patches are.

    Images and labels are what `v2` makes with the same seed, up to rounding; the noise of a draw is made on the CPU.
    """

    def augment_tensors(
        self,
        images: torch.Tensor,
        label: torch.Tensor,
        configuration: Configuration,
        seed: int,
        previous: torch.Tensor | None = None,
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Return augmented images and label of the network's patch size, on the device of the inputs.

        Args:
            images: float32 (B, C, *generator patch).
            label: int16 (B, 1, *generator patch), -1 outside the non-zero region.
            configuration: Of the network.
            seed: Of everything random.
            previous: int16 (B, 1, *generator patch), label map of the previous stage in a cascade.

        Returns:
            float32 (B, C, *patch), with one more channel for each foreground class in a cascade, and int16
            (B, 1, *patch) without -1.

        Raises:
            UsageError: `mirror_axes` names an axis that the patch does not have, or the network has no channels for the
                previous stage.
        """
        rng = np.random.default_rng(seed)
        maps = label if previous is None else torch.cat([label, previous.to(label.dtype)], dim=1)
        results = [
            apply(self.draw(rng, configuration, len(sample)), sample, sample_maps, configuration)
            for sample, sample_maps in zip(images, maps, strict=True)
        ]
        new_images, new_label = zip(*results, strict=True)
        return torch.stack(new_images), torch.stack(new_label)

    def augment(
        self, batch: dict[str, np.ndarray], configuration: Configuration, seed: int
    ) -> dict[str, np.ndarray]:
        """Return the augmented batch of the network's patch size (contracts.Augmentation), computed on the CPU.

        Raises:
            UsageError: See `augment_tensors`.
        """
        tensors = {
            key: torch.from_numpy(batch[key])
            for key in ("images", "label", "previous")
            if key in batch
        }
        images, label = self.augment_tensors(
            tensors["images"], tensors["label"], configuration, seed, tensors.get("previous")
        )
        rest = {key: value for key, value in batch.items() if key != "previous"}
        return {**rest, "images": images.numpy(), "label": label.numpy()}


def apply(
    draw: Draw, images: torch.Tensor, maps: torch.Tensor, configuration: Configuration
) -> tuple[torch.Tensor, torch.Tensor]:
    """Do to one sample what was drawn.

    Args:
        draw: Of as many channels as there are images.
        images: float32 (C, *generator patch).
        maps: Integer (1, *generator patch), the label, or (2, *generator patch) with the previous stage.
        configuration: Of the network.

    Returns:
        New tensors, see `AugmentationV2Torch.augment_tensors`.
    """
    images, maps = move(
        draw, images, maps, configuration.patch_size[-spatial_axes(configuration) :]
    )
    _change_intensities(draw, images, configuration.dummy_2d_augmentation)
    mirrored = [axis + 1 for axis in draw.mirrored]
    images, maps = images.flip(mirrored), maps.flip(mirrored)
    mask_outside(images, maps, configuration)
    maps = maps.clamp(min=0)
    if len(maps) == 1:
        return images, maps
    classes = foreground_classes(len(images), configuration)
    values = torch.arange(1, classes + 1, device=maps.device).reshape(-1, *(1,) * (maps.ndim - 1))
    channels = (maps[1] == values).to(images.dtype)
    change_previous(draw, channels)
    return torch.cat([images, channels]), maps[:1]


def _change_intensities(draw: Draw, images: torch.Tensor, in_plane: bool) -> None:
    """Do the intensity steps of the V2 trainer to (C, *patch) images, in place."""
    if draw.noise is not None:
        images += torch.from_numpy(draw.noise).to(images.device)
    steps: list[tuple[Mapping[int, float], Callable[[torch.Tensor, float], torch.Tensor]]] = [
        (draw.blur, _blur),
        (draw.brightness, lambda image, factor: image * factor),
        (draw.shift, lambda image, shift: image + shift),
        (draw.contrast, _adjust_contrast),
        (draw.zoom, lambda image, zoom: _lower_resolution(image, zoom, in_plane)),
        (draw.inverted_gamma, lambda image, exponent: -_adjust_gamma(-image, exponent)),
        (draw.gamma, _adjust_gamma),
    ]
    for values, step in steps:
        for channel, value in values.items():
            images[channel] = step(images[channel], value)


def _blur(image: torch.Tensor, deviation: float) -> torch.Tensor:
    return products(
        image[None], [ndimage.gaussian_filter1d(np.eye(n), deviation, axis=1) for n in image.shape]
    )[0]


def _adjust_contrast(image: torch.Tensor, factor: float) -> torch.Tensor:
    mean = image.mean()
    return torch.clamp((image - mean) * factor + mean, image.min(), image.max())


def _adjust_gamma(image: torch.Tensor, exponent: float) -> torch.Tensor:
    low = image.min()
    span = image.max() - low + 1e-7
    powered = ((image - low) / span) ** exponent * span + low
    deviation = powered.std(correction=0) + 1e-8
    return (powered - powered.mean()) / deviation * image.std(correction=0) + image.mean()


def _lower_resolution(image: torch.Tensor, zoom: float, in_plane: bool) -> torch.Tensor:
    small = image
    shape = smaller_shape(image.shape, zoom, in_plane)
    for axis, (old, new) in enumerate(zip(image.shape, shape, strict=True)):
        if new != old:
            small = small.index_select(
                axis, torch.from_numpy(nearest_samples(old, new)).to(image.device)
            )
    if small is image:
        return image
    matrices = [
        np.eye(new) if new == old else spline_matrix(new, old, 3).T
        for old, new in zip(image.shape, shape, strict=True)
    ]
    return torch.clamp(products(small[None], matrices)[0], small.min(), small.max())


def change_previous(draw: Draw, channels: torch.Tensor) -> None:
    """Do the drawn operations and removals to one-hot (classes, *patch) channels, in place.

    See `cascade.change_previous`. Components are searched on the CPU.
    """
    for operator in draw.operators:
        before = channels[operator.channel] > 0
        after = operate(before, operator.operation, operator.radius)
        channels *= ~(after & ~before)
        channels[operator.channel] = after.to(channels.dtype)
    if draw.removals:
        array = channels.cpu().numpy()
        for removal in draw.removals:
            remove_component(array, removal)
        channels.copy_(torch.from_numpy(array))


def operate(mask: torch.Tensor, operation: str, radius: float) -> torch.Tensor:
    """Return a bool (*spatial) mask after a binary operation with a ball: `cascade.operate` on tensors."""
    size = ball_size(radius)
    if operation in ("dilation", "closing"):
        mask = _dilated(mask, size)
    if operation != "dilation":
        mask = ~_dilated(~mask, size, reflected=True)
    return _dilated(mask, size) if operation == "opening" else mask


def _dilated(mask: torch.Tensor, size: int, reflected: bool = False) -> torch.Tensor:
    distance = torch.where(mask, 0, FAR).to(torch.int16)
    for axis in range(mask.ndim):
        result = torch.full_like(distance, FAR)
        voxels = mask.shape[axis]
        for shift, step in ball_steps(size, reflected):
            if abs(shift) < voxels:
                here = result.narrow(axis, max(0, -shift), voxels - abs(shift))
                torch.minimum(
                    here, distance.narrow(axis, max(0, shift), voxels - abs(shift)) + step, out=here
                )
        distance = result
    return distance <= (size - 1) ** 2
