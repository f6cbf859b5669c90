"""What a folder holds is used, or named: files of dataset.json, endings, channels, transparency."""

import json
import re
import shutil
from dataclasses import replace

import numpy as np
import pytest
import SimpleITK as sitk

from nnunet_core.data.dataset import CaseFiles
from nnunet_core.data.images import Geometry
from nnunet_core.data.unused import left_out
from nnunet_core.errors import DatasetError, ImageError
from nnunet_core.registry.discovery import Registry
from nnunet_core.stages.dataset import find_cases, open_dataset, remarks

GEOMETRY = Geometry((2, 3, 4))
CASES = [f"case_{number}" for number in (1, 2, 10)]


@pytest.fixture(scope="module")
def registry():
    return Registry.discover()


@pytest.fixture
def folder(tmp_path):
    """Three cases of one channel; the files are never read."""
    root = tmp_path / "Dataset001_Odd"
    for name in CASES:
        _touch(root / "imagesTr" / f"{name}_0000.nii.gz", root / "labelsTr" / f"{name}.nii.gz")
    _describe(root, channel_names={"0": "MRI"}, labels={"background": 0, "cube": 1})
    return root


def _touch(*paths):
    for path in paths:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()


def _describe(root, **changes):
    path = root / "dataset.json"
    known = json.loads(path.read_text()) if path.exists() else {}
    content = {key: value for key, value in {**known, **changes}.items() if value is not None}
    path.write_text(json.dumps(content))


def _open(folder, registry):
    return open_dataset(str(folder), folder.parent, registry)


def _entries(image="./imagesTr/{}.nii.gz", label="./labelsTr/{}.nii.gz"):
    def filled(value, name):
        return [v.format(name) for v in value] if isinstance(value, list) else value.format(name)

    return [{"image": filled(image, name), "label": filled(label, name)} for name in CASES]


CLEAR = {
    "as v1 writes it": {"training": _entries()},
    "a list of images": {"training": _entries(["./imagesTr/{}_0000.nii.gz"])},
    "an image with its channel": {"training": _entries("imagesTr/{}_0000.nii.gz")},
    "paths of Windows": {"training": _entries(".\\imagesTr\\{}.nii.gz", ".\\labelsTr\\{}.nii.gz")},
    "paths alone": {"training": [f"./imagesTr/{name}.nii.gz" for name in CASES]},
    "channels as a list": {"channel_names": ["MRI"]},
    "both names of channels alike": {"modality": {"0": "MRI"}},
    "an ending without a dot": {"file_ending": "nii.gz"},
    "an ending in capitals": {"file_ending": ".NII.GZ"},
}


@pytest.mark.parametrize("kind", CLEAR)
def test_a_clear_meaning_is_read(folder, registry, kind):
    _describe(folder, **CLEAR[kind])
    dataset = _open(folder, registry)
    assert sorted(dataset.names) == sorted(CASES)
    assert (dataset.channels, dataset.ending) == (("MRI",), ".nii.gz")
    assert remarks(dataset, dataset.training) == []


UNCLEAR = {
    "labels of another folder": ({"training": _entries(label="labelsTr2/{}.nii.gz")}, "labelsTr2"),
    "images of another folder": ({"training": _entries("./imagesAll/{}.nii.gz")}, "imagesAll"),
    "images of more channels": (
        {"training": _entries(["imagesTr/{}_0000.nii.gz", "imagesTr/{}_0001.nii.gz"])},
        "_0001",
    ),
    "two names of channels": ({"modality": {"0": "CT"}}, "'modality' is {'0': 'CT'}"),
    "two lists": ({"training": _entries(), "dataset": {}}, "lists cases twice"),
    "another form": ({"dataset": {"a": {"images": "x", "label": "y"}}}, "a.images: .*list"),
    "a name with a folder": ({"dataset": {"../a": {"images": ["x"], "label": "y"}}}, "without '/'"),
    "files that are not there": ({"dataset": {"a": {"images": ["x"], "label": "y"}}}, "2 files"),
    "values of no label": ({"renumbered": {"0": 0, "255": 7}}, "'renumbered' must map"),
}


@pytest.mark.parametrize("kind", UNCLEAR)
def test_an_unclear_meaning_is_one_message_that_names_it(folder, registry, kind):
    changes, named = UNCLEAR[kind]
    _describe(folder, **changes)
    with pytest.raises(DatasetError, match=rf"dataset\.json.*{named}"):
        _open(folder, registry)


def test_files_that_the_field_dataset_names_are_used(folder, registry):
    shutil.move(folder / "labelsTr", folder / "labelsTr2")
    elsewhere = folder.parent / "elsewhere.nii.gz"
    shutil.move(folder / "imagesTr" / "case_1_0000.nii.gz", elsewhere)
    rows = {
        name: {
            "images": [f"imagesTr/{name}_0000.nii.gz"],
            "label": f"labelsTr2/{name}.nii.gz",
        }
        for name in CASES
    }
    rows["case_1"]["images"] = [str(elsewhere)]
    _describe(folder, dataset=rows)
    dataset = _open(folder, registry)
    assert dataset.case("case_1").paths == (elsewhere, folder / "labelsTr2" / "case_1.nii.gz")
    assert sorted(dataset.names) == sorted(CASES)
    assert dataset.digest
    rows["case_2"]["images"] *= 2
    _describe(folder, dataset=rows)
    with pytest.raises(DatasetError, match="names 2 images of case case_2; 1 channel"):
        _open(folder, registry)


LEFT_OUT = {
    "another ending": "case_3_0000.nii",
    "a picture in capitals": "case_3_0000.JPG",
    "no channel number": "case_3.nii.gz",
    "another channel": "case_1_0001.nii.gz",
    "a line break": "case\n3_0000.nii.gz",
    "a dot in front": ".case_3_0000.nii.gz",
    "something else": "notes.txt",
}


@pytest.mark.parametrize("kind", LEFT_OUT)
def test_a_file_that_no_case_uses_is_named(folder, registry, kind):
    _touch(folder / "imagesTr" / LEFT_OUT[kind])
    (folder / "imagesTr" / "case_2_0000.nii.gz").rename(folder / "imagesTr/case_2_0000.NII.GZ")
    dataset = _open(folder, registry)
    assert left_out(dataset.training) == {folder / "imagesTr": [LEFT_OUT[kind]]}
    (message,) = remarks(dataset, find_cases(folder / "imagesTr", dataset, registry))
    shown = LEFT_OUT[kind] if LEFT_OUT[kind].isprintable() else repr(LEFT_OUT[kind])
    assert f"holds 1 file that belongs to no case: {shown}" in message


def test_files_of_the_operating_system_and_records_are_not_named(folder, registry):
    for name in ("._case_1_0000.nii.gz", ".DS_Store", "Thumbs.db", "desktop.ini", "x.json"):
        _touch(folder / "imagesTr" / name)
    assert left_out(_open(folder, registry).training) == {}


def test_probabilities_beside_label_maps_are_no_warning(tmp_path):
    for name in ("case.nii.gz", "case.b2nd", "case.npz", "predictions.json"):
        (tmp_path / name).write_bytes(b"x")
    assert not left_out([CaseFiles("case", (tmp_path / "case.nii.gz",))])


def test_voxels_beside_a_header_file_belong_to_its_case(folder):
    images = folder / "imagesTr"
    _touch(*(images / f"a_0000.{ending}" for ending in ("mhd", "zraw", "raw.gz")), images / "b.raw")
    found = left_out([CaseFiles("a", (images / "a_0000.mhd",))])[images]
    assert "b.raw" in found
    assert not any(name.startswith("a_") for name in found)


def test_cases_to_predict_come_in_natural_order(folder, registry):
    found = find_cases(folder / "imagesTr", _open(folder, registry), registry)
    assert [case.name for case in found] == CASES


UNNAMED = {
    "no channel number": ("scan.nii.gz", r"rename scan\.nii\.gz to scan_0000\.nii\.gz"),
    "three digits": ("scan_001.nii.gz", r"rename scan_001\.nii\.gz to scan_0001\.nii\.gz"),
    "another ending": ("scan_0000.nii", r"holds scan_0000\.nii\. Images end in '\.nii\.gz'"),
    "nothing": (None, "It is empty"),
}


@pytest.mark.parametrize("kind", UNNAMED)
def test_a_folder_without_a_case_says_what_is_there_and_the_nearest_right_name(
    folder, registry, kind, tmp_path
):
    name, message = UNNAMED[kind]
    (tmp_path / "images").mkdir()
    if name is not None:
        image = sitk.GetImageFromArray(np.zeros(GEOMETRY.shape, np.uint8))
        sitk.WriteImage(image, str(tmp_path / "images" / name))
    two = replace(_open(folder, registry), channels=("T1", "T2"))  # one channel needs no number
    with pytest.raises(DatasetError, match=message):
        find_cases(tmp_path / "images", two, registry)


def test_two_files_that_differ_in_capitals_of_the_ending_are_an_error(folder, registry):
    _touch(folder / "imagesTr" / "case_1_0000.NII.GZ")
    with pytest.raises(DatasetError, match="two files of one name"):
        _open(folder, registry)


def test_constant_alpha_is_left_out_with_a_word_and_other_alpha_is_an_error(tmp_path, registry):
    folder = tmp_path / "Dataset002_Alpha"
    _touch(folder / "imagesTr/a_0000.png", folder / "labelsTr/a.png")
    pixels = np.random.default_rng(0).integers(0, 255, (6, 5, 4)).astype(np.uint8)
    pixels[..., -1] = 255
    _picture(folder / "imagesTr/a_0000.png", pixels)
    _picture(folder / "labelsTr/a.png", np.zeros((6, 5), np.uint8))
    labels = {"background": 0, "square": 1}
    _describe(folder, channel_names=[*"RGB"], labels=labels, file_ending=".png")
    dataset = _open(folder, registry)
    (message,) = remarks(dataset, dataset.training)
    assert re.search(r"a_0000\.png has an alpha channel .*left out", message)
    images = dataset.load(dataset.case("a")).images
    assert np.array_equal(images[:, 0], np.moveaxis(pixels[..., :-1], -1, 0))
    pixels[0, 0, -1] = 0
    _picture(folder / "imagesTr/a_0000.png", pixels)
    with pytest.raises(ImageError, match="alpha channel"):
        dataset.load(dataset.case("a"))


def _picture(path, pixels):
    sitk.WriteImage(sitk.GetImageFromArray(pixels, isVector=pixels.ndim == 3), str(path))
