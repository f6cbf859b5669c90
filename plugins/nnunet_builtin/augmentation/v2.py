"""Random transforms of training patches on NumPy arrays: the V2 trainer's, and none (spec: training, sections 4 to 6).

What happens to a sample is drawn first, as a `Draw`; `apply` then does it, and has no randomness of its own.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, TypeVar

import numpy as np

from nnunet_builtin.augmentation.cascade import (
    append_previous,
    change_previous,
    foreground_classes,
    one_hot,
)
from nnunet_builtin.augmentation.decisions import Draw
from nnunet_builtin.augmentation.draw import AugmentationSettings
from nnunet_builtin.augmentation.geometry import spatial_axes
from nnunet_builtin.augmentation.intensity import change_intensities, mask_outside
from nnunet_builtin.augmentation.spatial import move

if TYPE_CHECKING:
    from nnunet_core.data.plans import Configuration

AnyDraw = TypeVar("AnyDraw", bound=Draw)


class AugmentationV2(AugmentationSettings):
    """The augmentation of nnU-Net v1's V2 trainer, and by its settings of the variants of that trainer.

    Every step has a probability per sample; some have a second one per channel. A range around 1 is drawn from below
    and above 1 equally often, except by brightness.

    Args:
        rotation_probability: Of rotating.
        rotation_degrees: Largest angle; None is 30 in volumes, 180 in planes, `elongated_degrees` in elongated planes.
        scaling_probability, scale_range: Of coordinates; above 1 it shrinks what is seen.
        generator_scale: Patches are cut this much larger (divided by it), so that shrinking finds image there.
        noise_probability, noise_range: Gaussian noise of this standard deviation, the same for all channels.
        blur_probability, blur_channel_probability, blur_range: Gaussian blur, standard deviation in voxels.
        brightness_probability, brightness_range: Factor of the intensity.
        contrast_probability, contrast_range: Factor of the distance to the mean, clipped to the values before.
        low_resolution_probability, low_resolution_channel_probability, low_resolution_range: Down and up again; the
            resolution as a fraction.
        inverted_gamma_probability, gamma_probability, gamma_range: Exponent, mean and standard deviation are kept.
        mirror_probability, mirror_axes: Per axis; None mirrors all axes.
        rotation_axis_probability: Of rotating about each axis when rotating.
        elongated_degrees: Largest angle in planes with one side more than 1.5 times the other.
        independent_scale_probability: Of one factor per axis when scaling, instead of one for all.
        elastic_probability, elastic_range: Elastic deformation: noise smoothed by a Gaussian of this fraction of the
            patch, that moves voxels by up to an eighth to a half of it.
        elastic_alpha, elastic_sigma: Elastic deformation in voxels instead: noise from -1 to 1 smoothed by a Gaussian of
            this standard deviation, times alpha; null follows elastic_range.
        additive_brightness_probability, additive_brightness_channel_probability, additive_brightness_deviation: Added
            to the intensity, normally distributed.
        contrast_channel_probability: Of a change of contrast in each channel.
        cascade_operator_probability, cascade_operator_label_probability, cascade_operator_radius: Per sample and per
            class: dilation, erosion, closing or opening of the previous stage with a ball of this radius, voxels.
        cascade_removal_probability, cascade_removal_size, cascade_removal_fill_probability: Per sample: removal of one
            component of each class of the previous stage, if smaller than this share of the patch; filled with another
            class by the last. In v1 none is ever small enough; 0.15 is what it meant.
    """

    def augment(
        self, batch: dict[str, np.ndarray], configuration: Configuration, seed: int
    ) -> dict[str, np.ndarray]:
        """Return the augmented batch of the network's patch size (contracts.Augmentation); `batch` is not changed.

        In a cascade `batch` holds `previous`, which becomes further channels of `images`.

        Raises:
            UsageError: `mirror_axes` names an axis that the patch does not have, or the network has no channels for the
                previous stage.
        """
        return augmented(batch, configuration, seed, self.draw, apply)


class NoAugmentation:
    """Patches as they were cut."""

    def generator_patch_size(self, configuration: Configuration) -> tuple[int, ...]:
        """Return the network's patch."""
        return configuration.patch_size

    def mirrored_axes(self, configuration: Configuration) -> tuple[int, ...]:  # noqa: ARG002
        """Return no axis: prediction does not mirror either."""
        return ()

    def augment(
        self,
        batch: dict[str, np.ndarray],
        configuration: Configuration,
        seed: int,  # noqa: ARG002
    ) -> dict[str, np.ndarray]:
        """Return the batch with label -1, outside the non-zero region, as background; append the previous stage."""
        return append_previous({**batch, "label": np.maximum(batch["label"], 0)}, configuration)


def augmented(
    batch: dict[str, np.ndarray],
    configuration: Configuration,
    seed: int,
    draw: Callable[[np.random.Generator, Configuration, int], AnyDraw],
    transform: Callable[
        [AnyDraw, np.ndarray, np.ndarray, Configuration, np.ndarray | None],
        tuple[np.ndarray, np.ndarray],
    ],
) -> dict[str, np.ndarray]:
    """Return the batch with every sample drawn for and transformed, one after the other.

    Args:
        batch: See `contracts.Augmentation.augment`.
        configuration: Of the network.
        seed: Of everything random.
        draw: What happens to a sample of so many image channels.
        transform: Does it, see `apply`.
    """
    rng = np.random.default_rng(seed)
    rest = {key: value for key, value in batch.items() if key not in ("previous", "arrays")}
    images, label = batch["images"], batch["label"]
    previous = batch.get("previous", [None] * len(images))
    results = [
        transform(
            draw(rng, configuration, len(sample)),
            sample,
            sample_label,
            configuration,
            sample_previous,
        )
        for sample, sample_label, sample_previous in zip(images, label, previous, strict=True)
    ]
    new_images, new_label = zip(*results, strict=True)
    return {**rest, "images": np.stack(new_images), "label": np.stack(new_label)}


def apply(
    draw: Draw,
    images: np.ndarray,
    label: np.ndarray,
    configuration: Configuration,
    previous: np.ndarray | None = None,
) -> tuple[np.ndarray, np.ndarray]:
    """Do to one sample what was drawn.

    Args:
        draw: Of as many channels as there are images.
        images: float32 (C, *generator patch).
        label: Integer (1, *generator patch), -1 outside the non-zero region.
        configuration: Patch size, axes, and which channels are 0 outside the non-zero region.
        previous: Integer (1, *generator patch), label map of the previous stage in a cascade.

    Returns:
        New arrays, float32 (C, *patch) and (1, *patch) of the label's type, 0 where it was -1. In a cascade the images
        have one more channel for each foreground class.

    Raises:
        UsageError: The network has no channels for the previous stage.
    """
    maps = label if previous is None else np.concatenate([label, previous])
    images, maps = move(
        draw, images, maps, configuration.patch_size[-spatial_axes(configuration) :]
    )
    change_intensities(draw, images, configuration.dummy_2d_augmentation)
    mirrored = tuple(axis + 1 for axis in draw.mirrored)
    images, maps = finish(draw, np.flip(images, mirrored), np.flip(maps, mirrored), configuration)
    return images, maps.astype(label.dtype, copy=False)


def finish(
    draw: Draw, images: np.ndarray, maps: np.ndarray, configuration: Configuration
) -> tuple[np.ndarray, np.ndarray]:
    """Mask outside the non-zero region, make -1 background, and append the previous stage after its random changes.

    Args:
        draw: What was drawn.
        images: float32 (C, *patch); changed in place.
        maps: Integer (1, *patch), the label, or (2, *patch) with the previous stage.
        configuration: Of the network.

    Returns:
        Images (C, *patch), or with the foreground classes of the previous stage, and label (1, *patch).
    """
    mask_outside(images, maps, configuration)
    maps = np.maximum(maps, 0)
    if len(maps) == 1:
        return images, maps
    channels = one_hot(maps[1], foreground_classes(len(images), configuration))
    change_previous(draw, channels)
    return np.concatenate([images, channels]), maps[:1]
