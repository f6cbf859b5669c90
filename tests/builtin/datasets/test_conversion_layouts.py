"""Conversion between the layouts of v1 and v2: identical voxels, what v1 cannot say, ambiguous
folders.
"""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk

from nnunet_builtin.datasets.conversion import convert, find_source
from nnunet_builtin.datasets.verification import verify
from nnunet_builtin.formats.simpleitk import SimpleItkFormat
from nnunet_core.data.images import Geometry
from nnunet_core.errors import DatasetError
from nnunet_core.registry.discovery import Registry
from nnunet_core.stages.dataset import open_dataset

REGISTRY = Registry.discover()
GEOMETRY = Geometry(
    (3, 4, 5), (3.0, 1.25, 0.5), (4.0, -5.0, 6.5), (-1.0, 0, 0, 0, 0, 1.0, 0, 1.0, 0)
)


def _change(folder: Path, **fields: object) -> None:
    document = {**json.loads((folder / "dataset.json").read_text()), **fields}
    (folder / "dataset.json").write_text(
        json.dumps({k: v for k, v in document.items() if v is not None})
    )


def _voxels(folder: Path) -> dict[str, tuple[bytes, tuple[float, ...]]]:
    images = {p: sitk.ReadImage(str(p)) for p in sorted(folder.rglob("*.nii.gz"))}
    return {
        str(path.relative_to(folder)): (
            sitk.GetArrayFromImage(image).tobytes(),
            (
                *image.GetSize(),
                *image.GetSpacing(),
                *image.GetOrigin(),
                *image.GetDirection(),
                image.GetPixelID(),
            ),
        )
        for path, image in images.items()
    }


def _dataset(folder: Path, ending: str) -> Path:
    """Two training cases and one labelled test case, two channels, v2."""
    rng = np.random.default_rng(1)
    image_format = SimpleItkFormat((ending,))
    for name, part in (("a", "Tr"), ("b", "Tr"), ("c", "Ts")):
        for channel in range(2):
            values = rng.normal(0, 100, GEOMETRY.shape).astype(np.float32)
            image_format.write(
                folder / f"images{part}" / f"{name}_{channel:04d}{ending}", values, GEOMETRY
            )
        label = rng.integers(0, 3, GEOMETRY.shape).astype(np.uint8)
        image_format.write(folder / f"labels{part}" / f"{name}{ending}", label, GEOMETRY)
    document = {
        "description": "kept",
        "channel_names": {"0": "CT", "1": "PET"},
        "labels": {"background": 0, "tumour": 2, "liver": 1},
        "file_ending": ending,
    }
    (folder / "dataset.json").write_text(json.dumps(document))
    return folder


@pytest.mark.shared
def test_v1_to_v2_and_back_has_identical_voxels_and_geometry(data: Path, tmp_path: Path) -> None:
    source = data / "Task104_HippocampusThick"
    v2 = convert(find_source(source, REGISTRY), tmp_path / "Dataset104_H")
    v1 = convert(find_source(v2, REGISTRY), tmp_path / "Task104_H", "v1")
    expected = _voxels(source)
    assert any(name.startswith("labelsTs") for name in expected)
    assert _voxels(v2) == _voxels(v1) == expected
    assert set(json.loads((v2 / "dataset.json").read_text())["labels"].items()) == {
        ("background", 0),
        ("Anterior", 1),
        ("Posterior", 2),
    }
    before, after = (json.loads((f / "dataset.json").read_text()) for f in (source, v1))
    for key in ("modality", "labels", "numTraining", "numTest", "name", "licence"):
        assert after[key] == before[key], key
    for key in ("training", "test"):
        assert sorted(after[key], key=str) == sorted(before[key], key=str)


@pytest.mark.parametrize("ending", [".nrrd", ".mha", ".nii.gz"])
def test_any_ending_becomes_nii_gz_of_v1_with_voxels_type_and_geometry(
    tmp_path: Path, ending: str
) -> None:
    source = _dataset(tmp_path / "Dataset001_A", ending)
    result = convert(find_source(source, REGISTRY), tmp_path / "Task001_A", "v1")
    document = json.loads((result / "dataset.json").read_text())
    assert document["modality"] == {"0": "CT", "1": "PET"}
    assert list(document["labels"].items()) == [
        ("0", "background"),
        ("2", "tumour"),
        ("1", "liver"),
    ]
    assert document["training"][0] == {
        "image": "./imagesTr/a.nii.gz",
        "label": "./labelsTr/a.nii.gz",
    }
    assert (document["test"], document["description"]) == (["./imagesTs/c.nii.gz"], "kept")
    assert "file_ending" not in document
    before = open_dataset(str(source), tmp_path, REGISTRY)
    after = open_dataset(str(result), tmp_path, REGISTRY)
    assert after.labels == before.labels
    for one, other in zip(before.training, after.training, strict=True):
        first, second = before.load(one), after.load(other)
        np.testing.assert_array_equal(first.images, second.images)
        np.testing.assert_array_equal(first.label, second.label)
        assert first.geometry.differences(second.geometry) == []
    assert (result / "labelsTs" / "c.nii.gz").is_file()
    assert SimpleItkFormat().read(result / "labelsTr" / "a.nii.gz").array.dtype == np.uint8
    assert verify(after).ok


@pytest.mark.shared
def test_colour_pictures_become_volumes_of_one_slice_per_channel(
    data: Path, tmp_path: Path
) -> None:
    source = tmp_path / "Dataset120_Nuclei"
    for part in ("imagesTr", "labelsTr"):
        (source / part).mkdir(parents=True)
        for path in sorted((data / "Dataset120_Nuclei" / part).iterdir())[:2]:
            shutil.copy(path, source / part)
    shutil.copy(data / "Dataset120_Nuclei" / "dataset.json", source)
    result = convert(find_source(source, REGISTRY), tmp_path / "Task120_Nuclei", "v1")
    picture = SimpleItkFormat().read(source / "imagesTr" / "nuclei_000_0000.png").array
    for channel in range(3):
        image = sitk.ReadImage(str(result / "imagesTr" / f"nuclei_000_{channel:04d}.nii.gz"))
        assert image.GetDimension() == 3
        assert image.GetSpacing() == (1.0, 1.0, 999.0)
        np.testing.assert_array_equal(sitk.GetArrayFromImage(image), picture[channel])
    assert verify(open_dataset(str(result), tmp_path, REGISTRY)).ok


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        (
            {"labels": {"background": 0, "a": 1, "ignore": 2}},
            "an ignore label, which .* v1 cannot express",
        ),
        (
            {
                "labels": {"background": 0, "whole": [1, 2], "core": [2]},
                "regions_class_order": [1, 2],
            },
            r"regions \(whole, core\), which .* v1 cannot express",
        ),
    ],
)
def test_what_v1_cannot_express_is_an_error(
    tmp_path: Path, fields: dict[str, object], message: str
) -> None:
    source = _dataset(tmp_path / "Dataset001_A", ".nrrd")
    _change(source, **fields)
    with pytest.raises(DatasetError, match=message):
        convert(find_source(source, REGISTRY), tmp_path / "Task001_A", "v1")
    assert not (tmp_path / "Task001_A").exists()


def test_a_dataset_of_the_asked_layout_needs_no_conversion(tmp_path: Path) -> None:
    source = _dataset(tmp_path / "Dataset001_A", ".nii.gz")
    with pytest.raises(DatasetError, match="layout v2 already"):
        convert(find_source(source, REGISTRY), tmp_path / "x")
    _change(source, channel_names=None, modality={"0": "CT", "1": "PET"})
    with pytest.raises(DatasetError, match="layout v1 already"):
        convert(find_source(source, REGISTRY), tmp_path / "x", "v1")


def test_regions_stay_in_v2(tmp_path: Path) -> None:
    """The layout of file names and `modality` is v1's; the labels are regions of v2."""
    source = _dataset(tmp_path / "Task001_A", ".nii.gz")
    labels = {"background": 0, "whole": [1, 2], "core": [2]}
    channels = {"channel_names": None, "modality": {"0": "CT", "1": "PET"}}
    _change(source, labels=labels, regions_class_order=[1, 2], **channels)
    result = convert(find_source(source, REGISTRY), tmp_path / "Dataset001_A")
    assert open_dataset(str(result), tmp_path, REGISTRY).labels.regions == ((1, 2), (2,))


def test_folders_that_could_be_two_things_or_none_are_errors(tmp_path: Path) -> None:
    source = _dataset(tmp_path / "Dataset001_A", ".nii.gz")
    _change(source, modality={"0": "CT", "1": "PET"})
    with pytest.raises(DatasetError, match=r"'modality' \(v1\) and 'channel_names' \(v2\): remove"):
        find_source(source, REGISTRY)
    _change(source, modality=None)
    for name in ("a_0000", "a_0001"):
        shutil.copy(source / "labelsTr" / "a.nii.gz", source / "labelsTr" / f"{name}.nii.gz")
    with pytest.raises(
        DatasetError, match=r"could be of the decathlon layout .* or have one file per channel"
    ):
        find_source(source, REGISTRY)
    shutil.rmtree(source / "labelsTr")
    with pytest.raises(DatasetError, match=r"no known layout.*--images DIR --labels DIR"):
        find_source(source, REGISTRY)
    shutil.rmtree(source / "imagesTr")
    with pytest.raises(
        DatasetError, match=r"no image ending in '\.nii\.gz'.*--images DIR --labels DIR"
    ):
        find_source(source, REGISTRY)
