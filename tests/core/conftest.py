"""Fixtures of the tests of the core: five small cases, and a place for what is prepared of them."""

import pytest
from plain_cases import make_dataset

from nnunet_core.store.prepared import PreparedStore


@pytest.fixture
def dataset(tmp_path):
    """A dataset of five labelled cases, a to e."""
    return make_dataset(tmp_path)


@pytest.fixture
def store(tmp_path) -> PreparedStore:
    """A store that holds no case yet."""
    return PreparedStore(tmp_path / "prepared")
