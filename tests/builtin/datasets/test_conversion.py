"""Conversion from the decathlon layout: channels, geometry, voxel types, and what must not be
converted.
"""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk

from nnunet_builtin.datasets.conversion import convert, default_destination, find_source
from nnunet_builtin.datasets.verification import verify
from nnunet_builtin.formats.simpleitk import SimpleItkFormat
from nnunet_core.errors import DatasetError, ImageError, StorageError, UsageError
from nnunet_core.registry.discovery import Registry
from nnunet_core.runtime.workers import Workers
from nnunet_core.stages.dataset import open_dataset

DIRECTION_4D = (-1.0, 0, 0, 0, 0, 0, 1.0, 0, 0, 1.0, 0, 0, 0, 0, 0, 1.0)
REGISTRY = Registry.discover()


def _write(path: Path, array: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    dimensions = array.ndim
    image = sitk.GetImageFromArray(array, isVector=False)
    image.SetSpacing((0.5, 1.25, 3.0, 1.0)[:dimensions])
    image.SetOrigin((4.0, -5.0, 6.5, 0.0)[:dimensions])
    if dimensions > 2:
        image.SetDirection(
            np.reshape(DIRECTION_4D, (4, 4))[:dimensions, :dimensions].ravel().tolist()
        )
    sitk.WriteImage(image, str(path))


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """Two training cases and one test case of two channels, with the hidden files that macOS leaves
    behind.
    """
    folder = tmp_path / "Task07_Small"
    rng = np.random.default_rng(0)
    for case, part in (("a", "Tr"), ("b", "Tr"), ("c", "Ts")):
        _write(
            folder / f"images{part}" / f"{case}.nii.gz",
            rng.integers(-300, 300, (2, 3, 4, 5)).astype(np.int16),
        )
        (folder / f"images{part}" / f"._{case}.nii.gz").write_bytes(b"hidden")
    for case, part in (("a", "Tr"), ("b", "Tr"), ("c", "Ts")):
        _write(
            folder / f"labels{part}" / f"{case}.nii.gz",
            rng.integers(0, 2, (3, 4, 5)).astype(np.uint8),
        )
    document = {
        "name": "Small",
        "tensorImageSize": "4D",
        "modality": {"0": "T1", "1": "T2"},
        "labels": {"0": "background", "1": "lesion"},
        "training": [
            {"image": f"./imagesTr/{c}.nii.gz", "label": f"./labelsTr/{c}.nii.gz"} for c in "ab"
        ],
        "test": ["./imagesTs/c.nii.gz"],
    }
    (folder / "dataset.json").write_text(json.dumps(document))
    return folder


def _snapshot(folder: Path) -> dict[str, bytes]:
    return {
        str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()
    }


def _convert(source: Path, destination: Path, layout: str = "v1", **options: object) -> Path:
    return convert(find_source(source, REGISTRY), destination, layout, **options)  # type: ignore[arg-type]


@pytest.mark.parametrize(("workers", "layout"), [(1, "v1"), (2, "v2")])
def test_channels_become_files_with_the_geometry_and_voxel_type_of_the_4d_image(
    source: Path, tmp_path: Path, workers: int, layout: str
) -> None:
    before = _snapshot(source)
    seen: list[str] = []
    with Workers(workers) as processes:
        result = _convert(
            source, tmp_path / "raw" / "x", layout, workers=processes, progress=seen.append
        )
    assert _snapshot(source) == before
    assert seen == ["a", "b", "c"]
    for part, cases in (("Tr", "ab"), ("Ts", "c")):
        names = [f"{case}_{channel:04d}.nii.gz" for case in cases for channel in (0, 1)]
        assert sorted(p.name for p in (result / f"images{part}").iterdir()) == names
    for case in "ab":
        whole = sitk.ReadImage(str(source / "imagesTr" / f"{case}.nii.gz"))
        for channel in (0, 1):
            part_ = sitk.ReadImage(str(result / "imagesTr" / f"{case}_{channel:04d}.nii.gz"))
            np.testing.assert_array_equal(
                sitk.GetArrayFromImage(part_), sitk.GetArrayFromImage(whole)[channel]
            )
            assert part_.GetPixelID() == whole.GetPixelID() == sitk.sitkInt16
            assert part_.GetSpacing() == pytest.approx((0.5, 1.25, 3.0))
            assert part_.GetOrigin() == pytest.approx((4.0, -5.0, 6.5))
            assert part_.GetDirection() == pytest.approx((-1, 0, 0, 0, 0, 1, 0, 1, 0), abs=1e-6)
    for label in ("labelsTr/a.nii.gz", "labelsTr/b.nii.gz", "labelsTs/c.nii.gz"):
        assert (result / label).read_bytes() == (source / label).read_bytes()


@pytest.mark.parametrize(("layout", "name"), [("v1", "Task007_Small"), ("v2", "Dataset007_Small")])
def test_the_result_is_a_dataset_that_passes_verification(
    source: Path, tmp_path: Path, layout: str, name: str
) -> None:
    result = _convert(source, default_destination(source, tmp_path / "raw", layout=layout), layout)
    assert result.name == name
    dataset = open_dataset("7", tmp_path / "raw", REGISTRY)
    assert dataset.channels == ("T1", "T2")
    assert dataset.document["name"] == "Small"
    report = verify(dataset)
    assert report.ok, report.errors
    assert [case.name for case in report.test_cases] == ["c"]


@pytest.mark.shared
def test_real_data_convert(data: Path, tmp_path: Path) -> None:
    source = data / "Task90_Lesions4D"
    folder = _convert(source, default_destination(source, tmp_path), "v2")
    dataset = open_dataset("Lesions4D", tmp_path, REGISTRY)
    assert folder.name == "Dataset090_Lesions4D"
    assert dataset.channels == ("FLAIR", "T1", "T2", "T1POST")
    assert verify(dataset).ok
    whole = sitk.GetArrayFromImage(sitk.ReadImage(str(source / "imagesTr" / "lesion_19.nii.gz")))
    np.testing.assert_array_equal(dataset.load(dataset.case("lesion_19")).images, whole)


def test_3d_images_are_copied_byte_for_byte(source: Path, tmp_path: Path) -> None:
    document = json.loads((source / "dataset.json").read_text())
    (source / "dataset.json").write_text(json.dumps({**document, "modality": {"0": "CT"}}))
    for path in (
        source / "imagesTr" / "a.nii.gz",
        source / "imagesTr" / "b.nii.gz",
        source / "imagesTs" / "c.nii.gz",
    ):
        _write(path, np.ones((3, 4, 5), np.float32))
    result = _convert(source, tmp_path / "out")
    copy, original = result / "imagesTr" / "a_0000.nii.gz", source / "imagesTr" / "a.nii.gz"
    assert copy.read_bytes() == original.read_bytes()


def test_a_single_channel_in_four_dimensions_becomes_3d(source: Path, tmp_path: Path) -> None:
    document = json.loads((source / "dataset.json").read_text())
    (source / "dataset.json").write_text(json.dumps({**document, "modality": {"0": "CT"}}))
    for path in (
        source / "imagesTr" / "a.nii.gz",
        source / "imagesTr" / "b.nii.gz",
        source / "imagesTs" / "c.nii.gz",
    ):
        _write(path, np.ones((1, 3, 4, 5), np.float32))
    result = _convert(source, tmp_path / "out")
    assert SimpleItkFormat().read(result / "imagesTr" / "a_0000.nii.gz").array.shape == (1, 3, 4, 5)


def test_an_existing_destination_needs_overwrite_and_survives_a_failed_one(
    source: Path, tmp_path: Path
) -> None:
    destination = tmp_path / "out"
    destination.mkdir()
    (destination / "mine.txt").write_text("mine")
    with pytest.raises(StorageError, match="exists already"):
        _convert(source, destination)
    damaged = source / "imagesTr" / "b.nii.gz"
    intact = damaged.read_bytes()
    damaged.write_bytes(intact[:60])
    with pytest.raises(ImageError, match=r"b\.nii\.gz cannot be read"):
        _convert(source, destination, overwrite=True)
    assert _snapshot(destination) == {"mine.txt": b"mine"}
    damaged.write_bytes(intact)
    _convert(source, destination, overwrite=True)
    assert not (destination / "mine.txt").exists()
    assert sorted(p.name for p in tmp_path.iterdir()) == ["Task07_Small", "out"]


def test_a_destination_that_holds_the_source_is_refused(source: Path) -> None:
    before = _snapshot(source)
    for destination in (source, source.parent, source / "inner"):
        with pytest.raises(UsageError, match="lie in one another"):
            _convert(source, destination, overwrite=True)
    assert _snapshot(source) == before


@pytest.mark.parametrize(
    ("array", "message"),
    [
        (np.zeros((4, 5), np.int16), "1 channel, 2 are declared"),
        (np.zeros((3, 3, 4, 5), np.int16), "3 channels, 2 are declared"),
        (np.zeros((3, 4, 5), np.int16), "1 channel, 2 are declared"),
    ],
)
def test_other_dimensions_and_channel_counts_are_errors(
    source: Path, tmp_path: Path, array: np.ndarray, message: str
) -> None:
    _write(source / "imagesTr" / "a.nii.gz", array)
    with pytest.raises(ImageError, match=message):
        _convert(source, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_dataset_of_4d_images_that_names_their_format_is_read_as_it_is(source: Path) -> None:
    document = json.loads((source / "dataset.json").read_text())
    del document["training"]
    (source / "dataset.json").write_text(json.dumps({**document, "image_format": "nifti_4d"}))
    for name in "ab":
        image = source / "imagesTr" / f"{name}.nii.gz"
        image.rename(image.with_name(f"{name}_0000.nii.gz"))
    dataset = open_dataset(str(source), source.parent, REGISTRY)
    case = dataset.load(dataset.case("b"))
    assert case.images.shape == (2, 3, 4, 5)
    expected = sitk.GetArrayFromImage(sitk.ReadImage(str(source / "imagesTr" / "b_0000.nii.gz")))
    np.testing.assert_array_equal(case.images, expected)


def test_what_does_not_fit_together_is_told_before_anything_is_written(source: Path) -> None:
    (source / "labelsTr" / "b.nii.gz").unlink()
    with pytest.raises(DatasetError, match=r"labelsTr lacks the labels of 1 image .* b"):
        find_source(source, REGISTRY)
    (source / "imagesTr" / "b.nii.gz").unlink()
    with pytest.raises(DatasetError, match=r"dataset\.json lists 1 training cases .* b"):
        find_source(source, REGISTRY)
    (source / "dataset.json").write_text("{}")
    with pytest.raises(DatasetError, match="neither 'modality'"):
        find_source(source, REGISTRY)
    (source / "dataset.json").unlink()
    with pytest.raises(
        DatasetError, match=r"dataset\.json does not exist.*--images DIR --labels DIR"
    ):
        find_source(source, REGISTRY)
    shutil.rmtree(source)
    with pytest.raises(DatasetError, match="does not exist"):
        find_source(source, REGISTRY)


def test_images_that_dataset_json_does_not_list_are_left_out(source: Path, tmp_path: Path) -> None:
    _write(source / "imagesTr" / "unlabelled.nii.gz", np.zeros((2, 3, 4, 5), np.int16))
    result = _convert(source, tmp_path / "out")
    assert len(list((result / "imagesTr").iterdir())) == 4


@pytest.mark.parametrize(
    ("name", "number", "new_name", "layout", "expected"),
    [
        ("Task90_Lesions4D", None, None, "v1", "Task090_Lesions4D"),
        ("Task90_Lesions4D", None, None, "v2", "Dataset090_Lesions4D"),
        ("Task05_Two_Words", 612, None, "v1", "Task612_Two_Words"),
        ("Dataset4_Brain", None, "Head", "v2", "Dataset004_Head"),
        ("12_Heart", None, None, "v2", "Dataset012_Heart"),
        ("Heart", 3, None, "v1", "Task003_Heart"),
    ],
)
def test_ids_have_three_digits(
    tmp_path: Path, name: str, number: int | None, new_name: str | None, layout: str, expected: str
) -> None:
    assert (
        default_destination(tmp_path / name, tmp_path, number, new_name, layout)
        == tmp_path / expected
    )


@pytest.mark.parametrize(
    ("source", "number", "name", "message"),
    [
        ("Heart", None, None, "dataset id"),
        ("Task1000_Heart", None, None, "dataset id"),
        ("Task01_Heart", -1, None, "dataset id"),
        ("Task01_Heart", 1, "a/b", "dataset name"),
        (None, 1, None, "dataset name"),
        (None, None, "Heart", "dataset id"),
    ],
)
def test_a_dataset_without_a_usable_id_or_name_is_an_error(
    tmp_path: Path, source: str | None, number: int | None, name: str | None, message: str
) -> None:
    with pytest.raises(UsageError, match=message):
        default_destination(None if source is None else tmp_path / source, tmp_path, number, name)


def test_another_layout_is_an_error(source: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"no layout 'v3' .* v1, v2"):
        default_destination(source, tmp_path, layout="v3")
    with pytest.raises(UsageError, match=r"no layout 'v3' .* v1, v2"):
        _convert(source, tmp_path / "out", "v3")
