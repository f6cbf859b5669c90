"""Fixtures of all tests: golden numbers, real data, models; skipped with a reason where a folder is absent."""

import json
import os
from pathlib import Path

import numpy as np
import pytest

from nnunet_core.data.images import Geometry

REPOSITORY = Path(__file__).parent.parent


def _shared(variable: str, name: str) -> Path:
    folder = Path(os.environ.get(variable, REPOSITORY.parent / "shared" / name))
    if not folder.is_dir():
        pytest.skip(f"{variable} is not set and {folder} does not exist")
    return folder.resolve()


@pytest.fixture(scope="session")
def golden() -> Path:
    """The folder of expected numbers."""
    return _shared("NNUNET_GOLDEN", "golden")


@pytest.fixture(scope="session")
def data() -> Path:
    """The folder of real datasets."""
    return _shared("NNUNET_DATA", "data")


@pytest.fixture(scope="session")
def models() -> Path:
    """The folder of models trained by earlier nnU-Nets."""
    return _shared("NNUNET_MODELS", "models")


@pytest.fixture
def tiny(tmp_path):
    """A dataset of six labelled cases of 16x20x18 voxels, in a workspace's raw folder."""
    return make_tiny(tmp_path / "ws" / "raw" / "Dataset001_Tiny")


@pytest.fixture
def many(tmp_path):
    """A dataset like `tiny` of forty cases: work that can be interrupted."""
    return make_tiny(tmp_path / "ws" / "raw" / "Dataset001_Tiny", cases=40)


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
