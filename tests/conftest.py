"""Fixtures of all tests: golden numbers, real data, models; skipped with a reason where a folder is
absent.
"""

import contextlib
import os
from pathlib import Path
from unittest import mock

import hypothesis
import pytest
from tiny_dataset import make_tiny

REPOSITORY = Path(__file__).parent.parent
#: What trainings of this process draw.
_DRAWINGS = (
    "nnunet_builtin.training.loop.progress_picture",
    "nnunet_builtin.networks.summary.network_picture",
    "nnunet_builtin.pictures.overlays.overlay_picture",
)


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_protocol(item):
    """Leave pictures out of trainings, of which they take two thirds of the time, but for tests
    that are marked `pictures`; fixtures of a module are made as its first test is marked.
    """
    with contextlib.ExitStack() as stack:
        if item.get_closest_marker("pictures") is None:
            for name in _DRAWINGS:
                stack.enter_context(mock.patch(name))
        yield


# no limit of time for an example: the first number that is drawn in a process parses every module
# of this repository for constants, which on a busy machine takes more than the second that is
# allowed beside the default limit
hypothesis.settings.register_profile("repository", deadline=None)
hypothesis.settings.load_profile("repository")


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
