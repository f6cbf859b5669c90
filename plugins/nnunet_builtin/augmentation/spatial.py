"""The spatial step: elastic deformation, rotation, scaling, and the crop to the network's patch."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from scipy import linalg, ndimage

from nnunet_builtin.augmentation.chance import (
    Degrees,
    Range,
    Scale,
    Share,
    ZeroRange,
    around_one,
    happens,
)
from nnunet_builtin.augmentation.interpolation import cubic, products, voting
from nnunet_core.contracts.augmentation import Sample, Step
from nnunet_core.errors import UsageError

if TYPE_CHECKING:
    from nnunet_core.data.plans import Configuration

#: A plane with one side more than this many times the other is elongated.
_ELONGATED = 1.5


@dataclass(frozen=True)
class Elastic:
    """A smooth random displacement of the voxels of a patch.

    Attributes:
        noise: float32 (axes, *patch) from -1 to 1, before it is smoothed.
        deviations: Of the smoothing Gaussian along each axis, voxels.
        magnitudes: The largest displacement along each axis, voxels.
        factor: Of the smoothed noise, instead of stretching it to `magnitudes`; None stretches it.
            The Gaussian is then not periodic: noise outside the patch counts as 0.
    """

    noise: np.ndarray
    deviations: tuple[float, ...]
    magnitudes: tuple[float, ...] = ()
    factor: float | None = None


@dataclass(frozen=True)
class Motion:
    """Where the voxels of the patch come from.

    Attributes:
        angles: Radians about each axis of a volume, the one angle of a plane, or None.
        scale: Factor of the coordinates, one for all axes or one for each, or None; above 1 it
            shrinks what is seen.
        elastic: Displacement of voxels before the rotation, or None.
    """

    angles: tuple[float, ...] | None = None
    scale: float | tuple[float, ...] | None = None
    elastic: Elastic | None = None


@dataclass(frozen=True)
class Spatial(Step):
    """Deforms, rotates, scales and crops about the centre (spec: training, section 5). With dummy
    2D, in plane.

    The arguments are the settings of `AugmentationV2` of the same names.
    """

    rotation_probability: Share = 0.2
    rotation_degrees: Degrees | None = None
    rotation_axis_probability: Share = 1.0
    elongated_degrees: Degrees = 15.0
    scaling_probability: Share = 0.2
    scale_range: Range = (0.7, 1.4)
    independent_scale_probability: Share = 0.0
    generator_scale: Scale = 0.85
    elastic_probability: Share = 0.0
    elastic_range: ZeroRange = (0.0, 0.25)
    elastic_alpha: ZeroRange | None = None
    elastic_sigma: Range = (9.0, 13.0)

    def input_size(self, size: tuple[int, ...], configuration: Configuration) -> tuple[int, ...]:
        """Return the patch that still fills the network's after the largest rotation about one axis
        and shrinking.

        The rotation acts on the vector of sizes, by 90 degrees at most; with dummy 2D axis 0 stays.

        Raises:
            UsageError: A later step crops, too.
        """
        if size != configuration.patch_size:
            raise UsageError(
                "augmentation.steps has a step after 'spatial' that takes patches of "
                f"{list(size)}; 'spatial' cuts to the network's {list(configuration.patch_size)}. "
                "Only one step may crop."
            )
        axes = spatial_axes(configuration)
        angle = min(self.largest_angle(configuration), math.pi / 2)
        turned = np.array(size[-axes:], float)
        larger = turned
        for angles in angle * np.eye(3) if axes == 3 else [(angle,)]:
            larger = np.maximum(larger, np.abs(turned @ rotation(angles)))
        return (*size[:-axes], *(int(voxels / self.generator_scale) for voxels in larger))

    def draw(self, rng: np.random.Generator, sample: Sample) -> Motion:
        """Return where voxels come from; always, since the patch is cropped in any case."""
        configuration = sample.configuration
        rotated = happens(rng, self.rotation_probability)
        angles = self._angles(rng, configuration) if rotated else None
        scaled = happens(rng, self.scaling_probability)
        scale = self._scale(rng, configuration) if scaled else None
        deformed = self.elastic_probability > 0 and happens(rng, self.elastic_probability)
        return Motion(angles, scale, self._elastic(rng, configuration) if deformed else None)

    def apply(self, sample: Sample, decision: Motion) -> Sample:
        """Move images by cubic splines, label maps by votes; what comes from outside is 0."""
        patch = sample.configuration.patch_size[-spatial_axes(sample.configuration) :]
        size = sample.images.shape[-len(patch) :]
        if decision == Motion():
            window: tuple[Any, ...] = (..., *_centre(size, patch))
            return sample.moved(lambda array: array[window])
        matrix, offset = placement(decision, size, patch)
        where = _points(decision.elastic, matrix, offset, size, patch, sample.images.device)
        images: Callable[[torch.Tensor], torch.Tensor]
        if decision.angles is None and decision.elastic is None:
            weights = [
                _scaling(*sizes)
                for sizes in zip(size, patch, matrix.diagonal(), offset, strict=True)
            ]
            images = lambda planes: products(planes, weights)  # noqa: E731
        else:
            images = lambda planes: cubic(planes, where)  # noqa: E731
        return sample.moved(_in_planes(images, patch), _in_planes(voting(where, size), patch))

    def largest_angle(self, configuration: Configuration) -> float:
        """Return the largest angle in radians."""
        patch = configuration.patch_size
        if self.rotation_degrees is not None:
            return math.radians(self.rotation_degrees)
        if spatial_axes(configuration) == 3:
            return math.radians(30)
        elongated = len(patch) == 2 and max(patch) / min(patch) > _ELONGATED
        return math.radians(self.elongated_degrees if elongated else 180)

    def _angles(self, rng: np.random.Generator, configuration: Configuration) -> tuple[float, ...]:
        largest = self.largest_angle(configuration)
        angles = rng.uniform(-largest, largest, 3 if spatial_axes(configuration) == 3 else 1)
        if self.rotation_axis_probability < 1:
            angles *= rng.random(len(angles)) < self.rotation_axis_probability
        return tuple(angles)

    def _scale(
        self, rng: np.random.Generator, configuration: Configuration
    ) -> float | tuple[float, ...]:
        share = self.independent_scale_probability
        if share and happens(rng, share):
            axes = range(spatial_axes(configuration))
            return tuple(around_one(rng, self.scale_range) for _ in axes)
        return around_one(rng, self.scale_range)

    def _elastic(self, rng: np.random.Generator, configuration: Configuration) -> Elastic:
        patch = configuration.patch_size[-spatial_axes(configuration) :]
        if self.elastic_alpha is not None:
            factor = rng.uniform(*self.elastic_alpha)
            deviations = (rng.uniform(*self.elastic_sigma),) * len(patch)
            return Elastic(_even_noise(rng, patch), deviations, factor=factor)
        smoothness = rng.uniform(*self.elastic_range)
        deviations = tuple(smoothness * voxels for voxels in patch)
        magnitudes = tuple(rng.uniform(deviation / 8, deviation / 2) for deviation in deviations)
        return Elastic(_even_noise(rng, patch), deviations, magnitudes)


def spatial_axes(configuration: Configuration) -> int:
    """Return how many of the last axes are rotated and scaled; with dummy 2D slices are channels of
    a plane.
    """
    return 2 if configuration.dummy_2d_augmentation else configuration.dimensions


def rotation(angles: Sequence[float]) -> np.ndarray:
    """Return the matrix that row vectors are multiplied with: (3, 3) for three angles, (2, 2) for
    one.

    Args:
        angles: Radians; about axis 0, then 1, then 2 of a volume, or in a plane.
    """
    if len(angles) == 1:
        (cosine,), (sine,) = np.cos(angles), np.sin(angles)
        return np.array([[cosine, -sine], [sine, cosine]])
    (a, b, c), (x, y, z) = np.cos(angles), np.sin(angles)
    about_0 = np.array([[1, 0, 0], [0, a, -x], [0, x, a]])
    about_1 = np.array([[b, 0, y], [0, 1, 0], [-y, 0, b]])
    about_2 = np.array([[c, -z, 0], [z, c, 0], [0, 0, 1]])
    return about_0 @ about_1 @ about_2


def placement(
    motion: Motion, size: Sequence[int], patch: Sequence[int]
) -> tuple[np.ndarray, np.ndarray]:
    """Return `matrix` (axes, axes) and `offset` (axes): voxel k of the patch lies at `matrix @ k +
    offset`.

    Args:
        motion: Angles and scale; elastic deformation is not part of it.
        size: Generator patch, voxels of the spatial axes.
        patch: Patch to fill.
    """
    factors = np.broadcast_to(1.0 if motion.scale is None else motion.scale, len(patch))
    turn = np.eye(len(patch)) if motion.angles is None else rotation(motion.angles).T
    matrix = factors[:, None] * turn
    return matrix, np.array(size) / 2 - 0.5 - matrix @ ((np.array(patch) - 1) / 2)


def _even_noise(rng: np.random.Generator, patch: tuple[int, ...]) -> np.ndarray:
    """Return float32 (axes, *patch) from -1 to 1."""
    return rng.random((len(patch), *patch), np.float32) * 2 - 1


def _centre(size: Sequence[int], patch: Sequence[int]) -> tuple[slice, ...]:
    """Return the slices that cut a patch from the centre of a generator patch."""
    starts = [(old - new) // 2 for old, new in zip(size, patch, strict=True)]
    return tuple(slice(start, start + new) for start, new in zip(starts, patch, strict=True))


def _in_planes(
    move: Callable[[torch.Tensor], torch.Tensor], patch: Sequence[int]
) -> Callable[[torch.Tensor], torch.Tensor]:
    """Let a function of (K, *size) move arrays with more axes before the last ones, such as slices
    of dummy 2D.
    """

    def moved(array: torch.Tensor) -> torch.Tensor:
        others = array.shape[: -len(patch)]
        return move(array.flatten(0, len(others) - 1)).reshape(*others, *patch)

    return moved


def _scaling(old: int, new: int, factor: float, offset: float) -> np.ndarray:
    """Return the float64 (old, new) cubic weights of samples at `factor * k + offset`; 0 outside,
    as SciPy has them.
    """
    return ndimage.affine_transform(
        np.eye(old), np.diag([1, factor]), (0, offset), output_shape=(old, new)
    )


def _points(
    elastic: Elastic | None,
    matrix: np.ndarray,
    offset: np.ndarray,
    size: Sequence[int],
    patch: Sequence[int],
    device: torch.device,
) -> torch.Tensor:
    """Return (axes, *patch): where the voxels of the patch lie in the generator patch.

    float64 on CPUs, so that votes at a tie are SciPy's; float32 elsewhere, where it is faster or
    all that there is.
    """
    kind = torch.float64 if device.type == "cpu" else torch.float32

    def turned(places: Sequence[torch.Tensor], offsets: Sequence[float]) -> torch.Tensor:
        where = torch.empty(len(patch), *patch, dtype=kind, device=device)
        for found, row, shift in zip(where, matrix.tolist(), offsets, strict=True):
            first, *others = (m * place for m, place in zip(row, places, strict=True))
            torch.add(sum(others, shift), first, out=found)
        return where

    # the grid without storing it: each axis is a line that is broadcast
    grid = [
        torch.arange(n, device=device, dtype=kind).reshape(-1, *(1,) * (len(patch) - 1 - axis))
        for axis, n in enumerate(patch)
    ]
    if elastic is None:
        return turned(grid, offset.tolist())
    middle = [n / 2 - 0.5 for n in size]
    field = displacement(elastic, device)
    centred = [g - (n - 1) / 2 + d for g, n, d in zip(grid, patch, field, strict=True)]
    where = turned(centred, middle)
    if elastic.factor is None:  # stretched: as in v1, the mean of all lies in the centre
        for found, centre in zip(where, middle, strict=True):
            found.add_(centre - found.mean())
    return where


def displacement(elastic: Elastic, device: torch.device) -> torch.Tensor:
    """Return float32 (axes, *patch) voxels: smoothed noise, times a factor or stretched to its
    largest displacements.
    """
    field = products(torch.from_numpy(elastic.noise).to(device), _smoothing(elastic))
    if elastic.factor is not None:
        return field * elastic.factor
    axes = list(range(1, field.ndim))
    largest = torch.tensor(elastic.magnitudes, device=device, dtype=torch.float32)
    stretch = largest.reshape(-1, *(1,) * len(axes)) + 1e-8
    return field * (stretch / field.abs().amax(axes, keepdim=True))


def _smoothing(elastic: Elastic) -> list[np.ndarray]:
    """Return the float32 matrix per axis that smooths by a Gaussian, periodic unless the
    displacement has a factor.
    """
    sizes = zip(elastic.noise.shape[1:], elastic.deviations, strict=True)
    if elastic.factor is not None:
        return [
            ndimage.gaussian_filter1d(np.eye(n, dtype=np.float32), s, mode="constant")
            for n, s in sizes
        ]
    matrices = []
    for voxels, deviation in sizes:
        weights = np.exp(-2 * (np.pi * np.fft.fftfreq(voxels) * deviation) ** 2)
        matrices.append(linalg.circulant(np.fft.ifft(weights).real).astype(np.float32))
    return matrices
