"""Read one case of a dataset, and say what it is like."""

from __future__ import annotations

import functools
import hashlib
from typing import TYPE_CHECKING

import numpy as np

from nnunet_core.errors import DatasetError
from nnunet_core.store.verification import CaseFacts

if TYPE_CHECKING:
    from nnunet_core.data.dataset import CaseFiles, Dataset


def inspect_case(dataset: Dataset, files: CaseFiles) -> CaseFacts | str:
    """Return the facts of a case, or its first problem."""
    try:
        case = dataset.load(files)
    except DatasetError as error:
        return str(error)
    if not case.images.any():
        return (
            f"Case {case.name} is 0 everywhere ({files.images[0]}). Replace its images or remove "
            "the case."
        )
    label = np.empty(0, np.int16) if case.label is None else case.label
    values, counts = np.unique(label, return_counts=True)
    channels = case.images.reshape(len(case.images), -1)
    return CaseFacts(
        name=case.name,
        shape=case.geometry.shape,
        spacing=case.geometry.spacing,
        orientation=orientation_letters(case.geometry.direction),
        minimum=tuple(channels.min(axis=1).tolist()),
        mean=tuple(channels.mean(axis=1, dtype=np.float64).tolist()),
        maximum=tuple(channels.max(axis=1).tolist()),
        voxels={int(value): int(count) for value, count in zip(values, counts, strict=True)},
        content=hashlib.blake2b(
            repr(case.images.shape).encode() + case.images.tobytes(), digest_size=8
        ).hexdigest(),
        notes=case.geometry.notes,
    )


@functools.lru_cache(maxsize=16)
def orientation_letters(direction: tuple[float, ...]) -> str:
    """Return the anatomical letters of a direction matrix, row-major 3x3 in SimpleITK order: `LPS`
    for the identity. Of oblique axes, the nearest ones.
    """
    matrix = np.reshape(direction, (3, 3))
    left, letters = np.abs(matrix), [""] * 3
    for _ in range(3):
        world, axis = np.unravel_index(left.argmax(), left.shape)
        letters[axis] = ("LPS" if matrix[world, axis] > 0 else "RAI")[world]
        left[world], left[:, axis] = -1, -1
    return "".join(letters)
