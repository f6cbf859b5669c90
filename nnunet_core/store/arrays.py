"""Arrays on disk: blosc2 files, chunked for reading patches."""

from __future__ import annotations

import functools
import math
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from nnunet_core.errors import StorageError

_BLOCK = {3: (20, 32, 64), 2: (1, 128, 128)}  # voxels, by the number of axes of a patch
_BLOCKS_PER_CHUNK = 2  # per axis
#: What to do about a damaged prepared case.
_ANEW = (
    "Delete what is left of the case there and run the same command again, which prepares it anew. "
    "'nnunet preprocess --verify' finds and mends every damaged case."
)


@functools.cache
def library() -> Any:
    """Return the module blosc2, whose import takes a quarter of a second: predictions, and reruns
    that have nothing to do, do without it.
    """
    # numexpr, which blosc2 imports and nothing here uses, fails at values like OMP_NUM_THREADS=4,2
    os.environ.setdefault("NUMEXPR_NUM_THREADS", "1")
    import blosc2

    return blosc2


class StoredArray:
    """An array on disk: slicing it reads that part, in one thread.

    Attributes:
        shape, dtype: Of the array.
    """

    def __init__(self, array: Any, path: Path, advice: str = _ANEW) -> None:
        self._array = array
        self._path = path
        self._advice = advice
        self.shape: tuple[int, ...] = tuple(array.shape)
        self.dtype: np.dtype = array.dtype

    def __getitem__(self, index: Any) -> np.ndarray:
        """Read a part, with NumPy's basic slices.

        Raises:
            StorageError: The file is damaged.
        """
        try:
            return self._array[index]
        except (RuntimeError, MemoryError) as error:
            raise damaged(self._path, str(error), self._advice) from error


def open_array(path: Path, advice: str = _ANEW) -> StoredArray:
    """Open a stored array for reading.

    Args:
        path: A b2nd file.
        advice: What to do when it is damaged, sentences for people.

    Raises:
        StorageError: It is damaged, or holds something else than an array.
    """
    blosc2 = library()
    try:
        array = blosc2.open(str(path), mode="r", mmap_mode="r", dparams={"nthreads": 1})
    except Exception as error:
        raise damaged(path, str(error), advice) from error
    if type(array) is not blosc2.NDArray:  # blosc2 keeps expressions and tables in such files, too
        raise damaged(path, f"it holds a {type(array).__name__}, no array", advice)
    return StoredArray(array, path, advice)


def chunking(
    shape: Sequence[int], patch_size: Sequence[int]
) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Return the chunk and block shape of an array whose last three axes are read in patches.

    A block is decompressed as a whole: about 20 x 32 x 64 voxels for a 3D patch, 128 x 128 for a 2D
    patch, within the patch. Axes are cut evenly, since blosc2 pads the last block. A chunk has up
    to 2 blocks per axis.
    """
    patch = (1,) * (3 - len(patch_size)) + tuple(patch_size)
    lead = (1,) * (len(shape) - 3)
    chunks, blocks = [], []
    for size, edge, target in zip(shape[-3:], patch, _BLOCK[len(patch_size)], strict=True):
        count = max(1, round(size / min(target, edge)))
        block = math.ceil(size / count)
        count = math.ceil(size / block)
        per_chunk = math.ceil(count / math.ceil(count / _BLOCKS_PER_CHUNK))
        blocks.append(block)
        chunks.append(min(size, block * per_chunk))
    return (*lead, *chunks), (*lead, *blocks)


def compress(array: np.ndarray, patch_size: Sequence[int]) -> bytes:
    """Return the content of a b2nd file; `patch_size` has two entries when single slices are
    read.
    """
    blosc2 = library()
    # LZ4HC is read twice as fast as ZSTD, which makes small files of label maps
    codec = blosc2.Codec.LZ4HC if array.dtype.kind == "f" else blosc2.Codec.ZSTD
    chunks, blocks = chunking(array.shape, patch_size)
    parameters = blosc2.CParams(
        codec=codec,
        clevel=1,
        filters=[blosc2.Filter.SHUFFLE if array.dtype.itemsize > 1 else blosc2.Filter.NOFILTER],
        filters_meta=[0],
        typesize=array.dtype.itemsize,
        nthreads=1,
    )
    compressed = blosc2.asarray(
        np.ascontiguousarray(array), chunks=chunks, blocks=blocks, cparams=parameters
    )
    return bytes(compressed.to_cframe())


def damaged(path: Path, problem: str, advice: str = _ANEW) -> StorageError:
    """Return the error of a file that does not hold what was written."""
    return StorageError(f"{path} is damaged: {problem}. {advice}")
