"""Probabilities of nnU-Net v1 and v2: `CASE.npz`, read whole."""

from __future__ import annotations

import functools
import zipfile
from pathlib import Path
from typing import Any

import numpy as np

from nnunet_core.errors import StorageError

_KEYS = ("probabilities", "softmax")


class NpzProbabilities:
    """The array of a file of v1 (`softmax`) or v2 (`probabilities`), (K, Z, Y, X).

    Attributes:
        path: The file.
        shape, dtype: Of the array.

    Raises:
        StorageError: The file is damaged, or holds something else.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            with zipfile.ZipFile(path) as archive:
                names = {name.removesuffix(".npy") for name in archive.namelist()}
                self._key = next((key for key in _KEYS if key in names), None)
                if self._key is None:
                    raise ValueError(f"it has none of the arrays {', '.join(_KEYS)}")
                with archive.open(f"{self._key}.npy") as file:
                    self.shape, self.dtype = _header(file)
        except (OSError, ValueError, zipfile.BadZipFile) as error:
            raise _damaged(path, error) from error
        if len(self.shape) != 4 or self.dtype.kind != "f":
            problem = f"it holds {self.dtype} values of shape {self.shape}, not (K, Z, Y, X)"
            raise _damaged(path, ValueError(problem))

    def __getitem__(self, index: Any) -> np.ndarray:
        """Return a part; the first call reads everything. Raises StorageError."""
        return self._whole[index]

    @functools.cached_property
    def _whole(self) -> np.ndarray:
        try:
            with np.load(self.path, allow_pickle=False) as archive:
                return archive[self._key]
        except Exception as error:
            raise _damaged(self.path, error) from error


def _header(file: Any) -> tuple[tuple[int, ...], np.dtype]:
    version = np.lib.format.read_magic(file)
    read = np.lib.format.read_array_header_1_0
    if version != (1, 0):
        read = np.lib.format.read_array_header_2_0
    shape, _, dtype = read(file)
    return shape, dtype


def _damaged(path: Path, error: Exception) -> StorageError:
    return StorageError(
        f"{path} is damaged or holds no probabilities: {error}. Get an intact copy, or predict "
        "again."
    )
