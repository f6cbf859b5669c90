"""A prepared case of noise whose image was cut, turned and resampled."""

import numpy as np

from nnunet_core.data.cases import PreparedCase, PreparedGeometry
from nnunet_core.data.images import Geometry

SHAPE = (37, 52, 41)
PATCH = (24, 32, 24)
GEOMETRY = PreparedGeometry(
    Geometry(
        (40, 60, 50),
        (1.5, 0.7, 0.7),
        (1.0, -2.0, 3.5),
        (0.0, 1.0, 0.0, -1.0, 0.0, 0.0, 0.0, 0.0, 1.0),
    ),
    ((1, 40), (2, 58), (0, 49)),
    (2, 0, 1),
    SHAPE,
    (0.9, 1.1, 1.0 / 3.0),
)


def make_case(name="case.1 [a]", seed=0, dtype=np.int8) -> PreparedCase:
    """Return the case; voxels of its label are 2, 1, 0 or outside, and none is 7."""
    random = np.random.default_rng(seed)
    images = random.normal(size=(2, *SHAPE)).astype(np.float32)
    label = random.integers(-1, 3, SHAPE).astype(dtype)
    locations = {
        2: np.argwhere(label == 2)[:50],
        1: np.argwhere(label == 1),
        7: np.empty((0, 3), np.int64),
    }
    return PreparedCase(name, images, label, GEOMETRY, locations)
