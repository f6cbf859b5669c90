"""Files of probabilities: what is read is what was written, whole or in parts."""

import subprocess
import sys

import blosc2
import numpy as np
import pytest

import nnunet_core
from nnunet_core.errors import StorageError
from nnunet_core.store.probabilities import (
    open_probabilities,
    probabilities_file,
    probabilities_writer,
    write_probabilities,
)


@pytest.fixture
def probabilities():
    found = np.random.default_rng(0).dirichlet((1, 1, 1), (9, 70, 11)).astype(np.float32)
    return np.moveaxis(found, -1, 0)


@pytest.mark.parametrize(
    ("label", "expected"),
    [("a.nii.gz", "a.b2nd"), ("a.b.nrrd", "a.b.b2nd"), ("a.png", "a.b2nd")],
)
def test_probabilities_lie_beside_their_label_file(tmp_path, label, expected):
    assert probabilities_file(tmp_path / label) == tmp_path / expected


def test_what_is_read_is_what_was_written_in_half_precision(tmp_path, probabilities):
    write_probabilities(tmp_path / "a.b2nd", probabilities)
    found = nnunet_core.read_probabilities(tmp_path / "a.b2nd")
    assert found.dtype == np.float16
    np.testing.assert_array_equal(found, probabilities.astype(np.float16))
    assert [path.name for path in tmp_path.iterdir()] == ["a.b2nd"]


def test_blosc2_alone_reads_it(tmp_path, probabilities):
    write_probabilities(tmp_path / "a.b2nd", probabilities)
    found = blosc2.open(str(tmp_path / "a.b2nd"))[:]
    np.testing.assert_array_equal(found, probabilities.astype(np.float16))


@pytest.mark.parametrize("slices", [1, 2, 5, 9])
def test_slabs_of_any_size_make_the_same_file(tmp_path, probabilities, slices):
    with probabilities_writer(tmp_path / "a.b2nd", probabilities.shape) as write:
        for start in range(0, 9, slices):
            write(start, probabilities[:, start : start + slices])
    stored = open_probabilities(tmp_path / "a.b2nd")
    np.testing.assert_array_equal(stored[:], probabilities.astype(np.float16))
    np.testing.assert_array_equal(stored[:, 2:4], probabilities[:, 2:4].astype(np.float16))


def stop_in_between(path, probabilities):
    with probabilities_writer(path, probabilities.shape) as write:
        write(0, probabilities[:, :2])
        raise KeyboardInterrupt


def test_a_writer_that_fails_leaves_nothing(tmp_path, probabilities):
    with pytest.raises(KeyboardInterrupt):
        stop_in_between(tmp_path / "a.b2nd", probabilities)
    assert not list(tmp_path.iterdir())


def _truncated(path, probabilities):
    write_probabilities(path, probabilities)
    path.write_bytes(path.read_bytes()[:-2000])


def _expression(path, _):
    array = blosc2.asarray(np.ones(4), urlpath=str(path.with_name("operand.b2nd")), mode="w")
    (array + 1).save(str(path))


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda path, _: None, "does not exist"),
        (lambda path, _: path.write_bytes(b"no array"), "is damaged"),
        (_truncated, "is damaged"),
        (lambda path, p: blosc2.asarray(p, urlpath=str(path)), "float32 values of shape"),
        (lambda path, p: blosc2.asarray(p[0].astype("f2"), urlpath=str(path)), "float16 (K"),
        (_expression, "is damaged"),
    ],
    ids=["none", "other", "truncated", "float32", "three axes", "expression"],
)
def test_what_is_no_such_file_is_one_clear_error(tmp_path, probabilities, make, words):
    make(tmp_path / "a.b2nd", probabilities)
    with pytest.raises(StorageError) as error:
        nnunet_core.read_probabilities(tmp_path / "a.b2nd")
    assert words in str(error.value)
    assert "--save-probabilities" in str(error.value)


def test_importing_the_core_imports_nothing_heavy():
    code = (
        "import sys, nnunet_core; "
        "print([m for m in ('torch', 'numpy', 'blosc2', 'pydantic') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"
