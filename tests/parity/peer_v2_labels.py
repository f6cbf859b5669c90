"""Label maps as nnU-Net v2 resamples them, of random maps and of blocks; needs its environment.

    V2/bin/python tests/parity/peer_v2_labels.py

prints {name: digest} for tests/builtin/preprocessing/test_resampling.py.
"""

import hashlib

import numpy as np

#: (old shape, new shape, axis along which the nearest sample is taken)
CASES = (
    ((9, 12, 10), (13, 9, 17), None),
    ((5, 14, 11), (9, 21, 16), 0),
    ((8, 8, 8), (16, 16, 16), None),
    ((12, 10, 9), (6, 5, 5), None),
    ((11, 6, 13), (11, 12, 26), 1),
    ((7, 9, 8), (7, 18, 4), 2),
)


def inputs():
    """Yield (name, label map int8, new shape, axis)."""
    rng = np.random.default_rng(0)
    for number, (old, new, axis) in enumerate(CASES):
        coarse = [-(-size // 3) for size in old]
        blocks = lambda: np.kron(rng.integers(0, 4, coarse), np.ones((3, 3, 3), int))  # noqa: B023, E731
        yield f"{number} random", rng.integers(0, 4, old).astype(np.int8), new, axis
        part = tuple(slice(size) for size in old)
        yield f"{number} blocks", np.ascontiguousarray(blocks()[part], np.int8), new, axis


def digest(label):
    """Return what identifies a label map."""
    return hashlib.sha256(np.ascontiguousarray(label, np.int8).tobytes()).hexdigest()[:16]


if __name__ == "__main__":
    from nnunetv2.preprocessing.resampling.default_resampling import resample_data_or_seg

    for name, label, new, axis in inputs():
        made = resample_data_or_seg(label[None], new, True, axis, 1, axis is not None, 0)[0]
        print(f'    "{name}": "{digest(made)}",')
