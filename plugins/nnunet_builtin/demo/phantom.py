"""A small synthetic dataset: MR-like volumes with an organ, a vessel and a lesion, for
demonstrations and tests.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import SimpleITK as sitk
from scipy import ndimage

from nnunet_core.data.images import Geometry
from nnunet_core.runtime import files

if TYPE_CHECKING:
    from pathlib import Path

ORGAN, VESSEL, LESION = 1, 2, 3

#: Mean signal of each tissue before bias field and noise. Cyst and lesion look alike, and so do
#: vessel and fat: a network has to learn where things are, a threshold is not enough.
_SIGNAL = {"air": 0.02, "muscle": 0.45, "fat": 1.0, "organ": 0.72, "vessel": 1.0, "lesion": 0.38}


def make_phantom(folder: Path, cases: int = 12, seed: int = 0, test_cases: int = 3) -> Path:
    """Write a dataset of v2 layout: dataset.json, imagesTr, labelsTr, imagesTs and labelsTs with
    NIfTI files.

    Volumes have about 24 x 48 x 44 voxels of 2.5 x 1.2 x 1.2 mm, slightly different in every case.
    Equal arguments give equal files.

    Args:
        folder: The dataset's folder, for example `raw/Dataset999_Phantom`.
        cases: Training cases.
        seed: Of everything random.
        test_cases: Cases in imagesTs and labelsTs.

    Returns:
        The folder.

    Raises:
        StorageError: The folder exists already or cannot be written.
    """
    with files.atomic_folder(folder) as temporary:
        for number in range(cases + test_cases):
            image, label, geometry = make_case(np.random.default_rng([seed, number]))
            name, part = f"phantom_{number:03d}", "Tr" if number < cases else "Ts"
            _write(temporary / f"images{part}" / f"{name}_0000.nii.gz", image, geometry)
            _write(temporary / f"labels{part}" / f"{name}.nii.gz", label, geometry)
        files.write_json(temporary / "dataset.json", _document(cases, seed))
    return folder


def make_case(random: np.random.Generator) -> tuple[np.ndarray, np.ndarray, Geometry]:
    """Draw one case: image int16 (Z, Y, X), label uint8 (Z, Y, X), geometry."""
    anatomy = _draw(random)
    tissue, label = _shapes(anatomy)
    signal = ndimage.gaussian_filter(tissue, 0.5)  # partial volume
    signal = signal * _bias_field(anatomy, random)
    noise = random.normal(0, 0.06, (2, *anatomy.shape))
    magnitude = np.hypot(signal + noise[0], noise[1])  # Rician, as in magnitude images
    image = np.round(magnitude * random.uniform(350, 900)).astype(np.int16)
    origin = tuple(float(v) for v in np.round(random.uniform(-60, 60, 3), 1))
    return image, label, Geometry(anatomy.shape, anatomy.spacing, (origin[0], origin[1], origin[2]))


@dataclass(frozen=True)
class _Anatomy:
    """What is drawn for one case; lengths in mm, points (z, y, x) from the centre of the volume."""

    shape: tuple[int, int, int]
    spacing: tuple[float, float, float]
    organ: np.ndarray
    organ_radii: np.ndarray
    lesion: np.ndarray
    lesion_radius: float
    vessel: np.ndarray
    vessel_bend: np.ndarray
    vessel_radius: float
    fat: np.ndarray
    cyst: np.ndarray

    def points(self) -> np.ndarray:
        """Return (3, Z, Y, X): the position of every voxel."""
        axes = [
            (np.arange(n) - (n - 1) / 2) * s for n, s in zip(self.shape, self.spacing, strict=True)
        ]
        return np.stack(np.meshgrid(*axes, indexing="ij"))


def _draw(random: np.random.Generator) -> _Anatomy:
    z, y, x = (
        int(n + random.integers(-spread, spread + 1)) for n, spread in ((24, 2), (48, 4), (44, 4))
    )
    across, along = (float(v) for v in np.round(random.uniform((1.12, 2.3), (1.28, 2.7)), 2))
    organ = np.array([0.0, -3.0, -6.0]) + random.uniform(-3, 3, 3)
    organ_radii = np.array([18.0, 13.0, 10.0]) * random.uniform(0.88, 1.12, 3)
    towards = random.normal(size=3)
    return _Anatomy(
        shape=(z, y, x),
        spacing=(along, across, across),
        organ=organ,
        organ_radii=organ_radii,
        lesion=organ + 0.32 * organ_radii * towards / np.linalg.norm(towards),
        lesion_radius=float(random.uniform(5.4, 7.2)),
        vessel=np.array([0.0, 5.0, 12.0]) + random.uniform(-2, 2, 3),
        vessel_bend=random.uniform((2.0, 2.0, 0.0), (5.0, 4.0, 6.28)),
        vessel_radius=float(random.uniform(3.2, 4.2)),
        fat=np.array([random.uniform(-14, 14), 17.0, -4.0]) + random.uniform(-2, 2, 3),
        cyst=np.array([random.uniform(-14, 14), -14.0, 13.0]) + random.uniform(-2, 2, 3),
    )


def _shapes(anatomy: _Anatomy) -> tuple[np.ndarray, np.ndarray]:
    """Return the noiseless signal and the label, both (Z, Y, X)."""
    points = anatomy.points()
    across = _distance(points[1:], (0, 0))
    edge = 0.47 * min(n * s for n, s in zip(anatomy.shape[1:], anatomy.spacing[1:], strict=True))
    radii = anatomy.organ_radii
    organ = _distance(points / radii[:, None, None, None], anatomy.organ / radii)
    wave = anatomy.vessel_bend[2] + points[0] / 11
    course = (
        anatomy.vessel[1] + anatomy.vessel_bend[0] * np.sin(wave),
        anatomy.vessel[2] + anatomy.vessel_bend[1] * np.cos(wave),
    )
    parts = [  # later ones lie over earlier ones
        ("muscle", 0, across < edge),
        ("fat", 0, (across < edge) & (across > edge - 2.2)),
        ("fat", 0, _distance(points, anatomy.fat) < 3.8),
        ("lesion", 0, _distance(points, anatomy.cyst) < 4.5),
        ("organ", ORGAN, organ < 1),
        (
            "lesion",
            LESION,
            (_distance(points, anatomy.lesion) < anatomy.lesion_radius) & (organ < 1),
        ),
        ("vessel", VESSEL, _distance(points[1:], course) < anatomy.vessel_radius),
    ]
    signal, label = np.full(anatomy.shape, _SIGNAL["air"]), np.zeros(anatomy.shape, np.uint8)
    for tissue, value, mask in parts:
        signal[mask], label[mask] = _SIGNAL[tissue], value
    return signal, label


def _distance(points: np.ndarray, centre: Any) -> np.ndarray:
    return np.sqrt(sum((p - c) ** 2 for p, c in zip(points, centre, strict=True)))


def _bias_field(anatomy: _Anatomy, random: np.random.Generator) -> np.ndarray:
    """Return a smooth factor (Z, Y, X), as the coils of a scanner make it."""
    points = anatomy.points() / 30
    field = sum(random.normal(0, 0.12) * p for p in points) + sum(
        random.normal(0, 0.06) * p * p for p in points
    )
    return np.exp(field)


def _document(cases: int, seed: int) -> dict[str, Any]:
    return {
        "name": "Phantom",
        "description": "Synthetic MR-like volumes with an organ, a vessel and a lesion (seed "
        f"{seed})",
        "licence": "CC0",
        "channel_names": {"0": "MR"},
        "labels": {"background": 0, "organ": ORGAN, "vessel": VESSEL, "lesion": LESION},
        "numTraining": cases,
        "file_ending": ".nii.gz",
    }


def _write(path: Path, array: np.ndarray, geometry: Geometry) -> None:
    image = sitk.GetImageFromArray(array)
    image.SetSpacing(geometry.spacing[::-1])
    image.SetOrigin(geometry.origin)
    path.parent.mkdir(exist_ok=True)
    sitk.WriteImage(image, str(path), useCompression=True)
