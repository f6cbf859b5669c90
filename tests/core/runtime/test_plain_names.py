"""Names and endings of files that come from somewhere else."""

import pytest
from pydantic import TypeAdapter, ValidationError

from nnunet_core.errors import DatasetError, StorageError
from nnunet_core.runtime.names import Ending, PlainName, below, checked_ending

PLAIN = ("case_0.nii.gz", "..x", ".hidden", "a b", "Ärzte", "日本", "a\u3000b", "-", "x:y")
ODD = ("", ".", "..", "a/b", "/etc", "../x", "a\\b", "x\n", "a\0b", "\x1b[2J", "a\x85b", "\udcff")


@pytest.mark.parametrize("name", PLAIN)
def test_plain_names_lie_below_their_folder(tmp_path, name):
    assert below(tmp_path, "folder", name) == tmp_path / "folder" / name
    assert TypeAdapter(PlainName).validate_python(name) == name


@pytest.mark.parametrize("name", ODD)
def test_other_names_are_refused(tmp_path, name):
    with pytest.raises(StorageError, match=r"cannot be the name .* Allowed is a plain"):
        below(tmp_path, name)
    with pytest.raises(StorageError):
        below(tmp_path, name, "x")
    with pytest.raises(ValidationError):
        TypeAdapter(PlainName).validate_python(name)


@pytest.mark.parametrize("ending", [".nii.gz", ".seg.nrrd", ".NII.GZ", ".dcm", ".b2nd"])
def test_endings(ending):
    assert checked_ending(ending, "dataset.json") == ending
    assert TypeAdapter(Ending).validate_python(ending) == ending


@pytest.mark.parametrize(
    "ending", ["", "nii", "/../x.nii", ".nii\n", ".n ii", ".\\x", ".ñ", 3, None]
)
def test_other_endings_are_refused(ending):
    with pytest.raises(DatasetError, match=r"dataset.json has .* Allowed is a dot"):
        checked_ending(ending, "dataset.json")
    with pytest.raises(ValidationError):
        TypeAdapter(Ending).validate_python(ending)
