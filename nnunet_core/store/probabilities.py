"""Files of probabilities, `CASE.b2nd` beside a label map: blosc2, half precision, read in parts."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np

from nnunet_core.errors import StorageError
from nnunet_core.runtime import files
from nnunet_core.store.arrays import StoredArray, damaged, library, open_array

ENDING = ".b2nd"
_CHUNK_BYTES = 1 << 21
_BLOCK_ROWS = 64
_ADVICE = "Get an intact copy, or predict again with --save-probabilities."


def probabilities_file(label: Path) -> Path:
    """Return where the probabilities of a label file lie: `CASE.b2nd` beside `CASE.nii.gz`."""
    return label.with_name(f"{label.name.removesuffix('.gz').rpartition('.')[0]}{ENDING}")


def read_probabilities(path: Path | str) -> np.ndarray:
    """Read a file of probabilities.

    Args:
        path: `CASE.b2nd`.

    Returns:
        float16 (K, Z, Y, X) on the grid of the image: K classes that add up to 1, background first,
        or K regions.

    Raises:
        StorageError: There is no such file, it is damaged, or it holds something else.
    """
    return open_probabilities(path)[:]


def open_probabilities(path: Path | str) -> StoredArray:
    """Open a file of probabilities; slicing it (`[:, 10:20]`) reads that part.

    Raises:
        StorageError: See `read_probabilities`.
    """
    path = Path(path)
    if not path.is_file():
        raise StorageError(
            f"{path} does not exist. 'nnunet predict --save-probabilities' writes such files."
        )
    found = open_array(path, _ADVICE)
    if len(found.shape) != 4 or found.dtype != np.float16 or 0 in found.shape:
        raise damaged(
            path,
            f"it holds {found.dtype} values of shape {found.shape}; probabilities are float16 "
            "(K, Z, Y, X)",
            _ADVICE,
        )
    return found


def is_whole(path: Path) -> bool:
    """Return whether a file of probabilities is there, and neither cut off nor something else; its
    values are not read.
    """
    try:
        open_probabilities(path)
    except StorageError:
        return False
    return True


def write_probabilities(path: Path, probabilities: np.ndarray) -> None:
    """Write probabilities (K, Z, Y, X) atomically, in half precision.

    Raises:
        StorageError: The disk is full, or the folder cannot be written.
    """
    with probabilities_writer(path, probabilities.shape) as write:
        write(0, probabilities)


@contextlib.contextmanager
def probabilities_writer(
    path: Path, shape: tuple[int, ...]
) -> Iterator[Callable[[int, np.ndarray], None]]:
    """Write a file of probabilities slab by slab; it is there when the block ends well.

    Args:
        path: `CASE.b2nd`.
        shape: Of the whole, (K, Z, Y, X).

    Yields:
        Function of the first slice and a slab (K, slices, Y, X). Slabs that nobody writes are 0.

    Raises:
        StorageError: The disk is full, or the folder cannot be written.
    """
    blosc2, (_, _, rows, columns) = library(), shape
    slices = max(1, min(shape[1], _CHUNK_BYTES // (2 * rows * columns)))
    blosc2 = library()
    with files.atomic_path(path) as temporary:
        array = blosc2.zeros(
            shape,
            np.float16,
            chunks=(1, slices, rows, columns),
            blocks=(1, 1, min(rows, _BLOCK_ROWS), columns),
            cparams=blosc2.CParams(
                codec=blosc2.Codec.ZSTD,
                clevel=1,
                filters=[blosc2.Filter.SHUFFLE],
                filters_meta=[0],
                typesize=2,
                nthreads=1,
            ),
            urlpath=str(temporary),
            mode="w",
        )

        def write(start: int, slab: np.ndarray) -> None:
            array[:, start : start + slab.shape[1]] = np.ascontiguousarray(slab, np.float16)

        yield write
