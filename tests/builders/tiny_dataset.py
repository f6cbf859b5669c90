"""A dataset that a network learns in a few steps: a bright cube in noise."""

import json
from pathlib import Path

import numpy as np

from nnunet_core.data.images import Geometry


def make_tiny(folder: Path, cases: int = 6) -> Path:
    """Write a dataset whose label is where the image is bright; return its folder."""
    from nnunet_builtin.formats.simpleitk import SimpleItkFormat  # it may be missing beside a card

    rng = np.random.default_rng(0)
    geometry = Geometry((16, 20, 18), (1.5, 1.0, 1.0))
    image_format = SimpleItkFormat()
    for index in range(cases):
        label = np.zeros(geometry.shape, np.uint8)
        z, y, x = rng.integers(2, 6, 3)
        label[z : z + 6, y : y + 7, x : x + 7] = 1
        image = (100 + 80 * label + rng.normal(0, 10, label.shape)).astype(np.float32)
        image_format.write(folder / "imagesTr" / f"case_{index}_0000.nii.gz", image, geometry)
        image_format.write(folder / "labelsTr" / f"case_{index}.nii.gz", label, geometry)
    document = {
        "channel_names": {"0": "MRI"},
        "labels": {"background": 0, "cube": 1},
        "file_ending": ".nii.gz",
    }
    (folder / "dataset.json").write_text(json.dumps(document))
    return folder
