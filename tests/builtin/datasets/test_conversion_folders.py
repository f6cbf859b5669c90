"""Conversion of plain folders and of DICOM series: which files belong together, channels, label
values, endings.
"""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk
from hypothesis import given
from hypothesis import strategies as st

from nnunet_builtin.datasets.conversion import Source, convert, find_folders, parse_labels
from nnunet_builtin.datasets.conversion.values import name_values
from nnunet_builtin.datasets.verification import verify
from nnunet_builtin.formats.simpleitk import SimpleItkFormat
from nnunet_core.data.images import Geometry
from nnunet_core.errors import DatasetError, ImageError, UsageError
from nnunet_core.registry.discovery import Registry
from nnunet_core.stages.dataset import open_dataset

REGISTRY = Registry.discover()
GEOMETRY = Geometry((3, 4, 5), (3.0, 1.25, 0.5), (4.0, -5.0, 6.5))
CT = ("CT",)


def _image(path: Path, seed: int = 0) -> None:
    values = np.random.default_rng(seed).integers(-200, 200, GEOMETRY.shape).astype(np.int16)
    SimpleItkFormat((path.suffix,)).write(path, values, GEOMETRY)


def _label(path: Path, *values: int) -> None:
    array = np.resize(np.array(values, np.uint16), GEOMETRY.shape)
    SimpleItkFormat((path.suffix,)).write(path, array, GEOMETRY)


def _picture(path: Path, colours: int, seed: int = 0) -> np.ndarray:
    shape = (6, 5, 3) if colours == 3 else (6, 5)
    array = np.random.default_rng(seed).integers(0, 256, shape).astype(np.uint8)
    path.parent.mkdir(parents=True, exist_ok=True)
    sitk.WriteImage(sitk.GetImageFromArray(array, isVector=colours == 3), str(path))
    return array


def _find(folder: Path, **options: object) -> Source:
    return find_folders(folder / "images", folder / "labels", REGISTRY, **options)  # type: ignore[arg-type]


def _result(folder: Path, layout: str = "v2", **options: object) -> Path:
    return convert(_find(folder, **options), folder / "Dataset001_X", layout)


def _checked(result: Path) -> dict[str, object]:
    report = verify(open_dataset(str(result), result.parent, REGISTRY))
    assert report.ok, report.errors
    return json.loads((result / "dataset.json").read_text())


def test_one_format_for_images_and_labels_stays_byte_for_byte(tmp_path: Path) -> None:
    for name in "ab":
        _image(tmp_path / "images" / f"{name}.mha")
        _label(tmp_path / "labels" / f"{name}.mha", 0, 1, 2)
    (tmp_path / "images" / "notes.txt").write_text("not an image")
    result = _result(tmp_path, channels=CT, names={"liver": 1, "tumour": 2})
    document = _checked(result)
    assert document["labels"] == {"background": 0, "liver": 1, "tumour": 2}
    assert (document["channel_names"], document["file_ending"]) == ({"0": "CT"}, ".mha")
    assert (result / "imagesTr" / "a_0000.mha").read_bytes() == (
        tmp_path / "images" / "a.mha"
    ).read_bytes()
    assert (result / "labelsTr" / "a.mha").read_bytes() == (
        tmp_path / "labels" / "a.mha"
    ).read_bytes()


def test_different_formats_become_nii_gz(tmp_path: Path) -> None:
    for channel in range(2):
        _image(tmp_path / "images" / f"a_{channel:04d}.mha", channel)
    _label(tmp_path / "labels" / "a.nrrd", 0, 1)
    result = _result(tmp_path, channels=("T1", "T2"))
    assert _checked(result)["file_ending"] == ".nii.gz"
    assert _checked(result)["labels"] == {"background": 0, "label 1": 1}
    for channel in range(2):
        before = SimpleItkFormat().read(tmp_path / "images" / f"a_{channel:04d}.mha")
        after = SimpleItkFormat().read(result / "imagesTr" / f"a_{channel:04d}.nii.gz")
        np.testing.assert_array_equal(after.array, before.array)
        assert after.array.dtype == np.int16
        assert after.geometry.differences(before.geometry) == []


def test_a_header_with_its_voxels_in_another_file_becomes_one_file(tmp_path: Path) -> None:
    for part in ("images", "labels"):
        _label(tmp_path / part / "a.mhd", 0, 1)
        whole = sitk.ReadImage(str(tmp_path / part / "a.mhd"))
        sitk.WriteImage(whole, str(tmp_path / part / "a.mhd"))
        assert len(list((tmp_path / part).iterdir())) == 2
    _checked(_result(tmp_path, channels=CT))


def test_4d_files_in_plain_folders_are_split(tmp_path: Path) -> None:
    array = np.arange(120, dtype=np.int16).reshape(2, 3, 4, 5)
    (tmp_path / "images").mkdir()
    sitk.WriteImage(
        sitk.GetImageFromArray(array, isVector=False), str(tmp_path / "images" / "a.nii.gz")
    )
    (tmp_path / "labels").mkdir()
    sitk.WriteImage(
        sitk.GetImageFromArray((array[0] > 30).astype(np.uint8)),
        str(tmp_path / "labels" / "a.nii.gz"),
    )
    result = _result(tmp_path, channels=("T1", "T2"))
    _checked(result)
    np.testing.assert_array_equal(
        SimpleItkFormat().read(result / "imagesTr" / "a_0001.nii.gz").array[0], array[1]
    )


@pytest.mark.shared
def test_the_values_of_the_phantom_need_renumbering_which_is_recorded(
    data: Path, tmp_path: Path
) -> None:
    for part, name in (
        ("images", "prostate_phantom_subvolume"),
        ("labels", "prostate_phantom_subvolume-label"),
    ):
        (tmp_path / part).mkdir()
        shutil.copy(data / "formats" / f"{name}.nrrd", tmp_path / part / "phantom.nrrd")
    with pytest.raises(DatasetError, match=r"0, 1, 7, 8, 9 .*--renumber maps them to 0\.\.4"):
        _find(tmp_path, channels=("MRI",))
    result = _result(tmp_path, channels=("MRI",), renumber=True)
    document = _checked(result)
    assert document["renumbered"] == {"0": 0, "1": 1, "7": 2, "8": 3, "9": 4}
    assert list(document["labels"]) == ["background", "label 1", "label 7", "label 8", "label 9"]
    before = SimpleItkFormat().read(tmp_path / "labels" / "phantom.nrrd").array
    after = SimpleItkFormat().read(result / "labelsTr" / "phantom.nrrd").array
    for old, new in document["renumbered"].items():
        np.testing.assert_array_equal(before == int(old), after == new)


@given(st.sets(st.integers(0, 65535), max_size=12), st.booleans())
def test_renumbered_values_are_consecutive_and_keep_their_order(
    values: set[int], renumber: bool
) -> None:
    found = {value: Path("a.nrrd") for value in values}
    ordered = sorted(values | {0})
    if not renumber and ordered != list(range(len(ordered))):
        with pytest.raises(DatasetError, match="--renumber"):
            name_values(found, {}, renumber)
        return
    labels, mapping = name_values(found, {}, renumber)
    assert sorted(labels.values()) == list(range(len(ordered)))  # type: ignore[type-var]
    assert [mapping.get(value, value) for value in ordered] == list(range(len(ordered)))


def test_names_are_given_for_the_values_in_the_files(tmp_path: Path) -> None:
    _image(tmp_path / "images" / "a.nrrd")
    _label(tmp_path / "labels" / "a.nrrd", 0, 5, 9)
    source = _find(tmp_path, channels=CT, names={"liver": 9, "spleen": 5}, renumber=True)
    assert source.labels == {"background": 0, "spleen": 1, "liver": 2}
    with pytest.raises(DatasetError, match=r"holds the value 9; --label declares {'spleen': 5}"):
        _find(tmp_path, channels=CT, names={"spleen": 5}, renumber=True)


@pytest.mark.parametrize(
    ("texts", "message"),
    [
        (["liver"], "got 'liver'; it takes NAME=VALUE"),
        (["liver=one"], "NAME=VALUE"),
        (["liver=-1"], "NAME=VALUE"),
        (["a=1", "b=1"], "given twice"),
        (["a=1", "a=2"], "given twice"),
        (["background=1"], "background is 0"),
    ],
)
def test_labels_that_cannot_be_right_are_errors(texts: list[str], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        parse_labels(texts)


def test_label_arguments() -> None:
    assert parse_labels(["background=0", "left = kidney=1", "liver=2"]) == {
        "left = kidney": 1,
        "liver": 2,
    }


@pytest.mark.parametrize(
    "array", [np.full(GEOMETRY.shape, 0.5, np.float32), np.full(GEOMETRY.shape, -1, np.int16)]
)
def test_label_values_that_are_no_natural_numbers_are_errors(
    tmp_path: Path, array: np.ndarray
) -> None:
    _image(tmp_path / "images" / "a.nrrd")
    SimpleItkFormat((".nrrd",)).write(tmp_path / "labels" / "a.nrrd", array, GEOMETRY)
    with pytest.raises(DatasetError, match="whole numbers from 0 to 65535"):
        _find(tmp_path, channels=CT)


def test_colour_pictures_with_png_masks_stay(tmp_path: Path) -> None:
    _picture(tmp_path / "images" / "a.png", 3)
    _label_picture(tmp_path / "labels" / "a.png")
    result = _result(tmp_path)
    assert _checked(result)["channel_names"] == {"0": "R", "1": "G", "2": "B"}
    assert (result / "imagesTr" / "a_0000.png").read_bytes() == (
        tmp_path / "images" / "a.png"
    ).read_bytes()


@pytest.mark.parametrize("colours", [1, 3])
def test_lossy_pictures_become_png_with_the_decoded_values(tmp_path: Path, colours: int) -> None:
    _picture(tmp_path / "images" / "a.jpg", colours)
    _label_picture(tmp_path / "labels" / "a.png")
    result = _result(tmp_path)
    assert _checked(result)["file_ending"] == ".png"
    decoded = SimpleItkFormat().read(tmp_path / "images" / "a.jpg").array
    np.testing.assert_array_equal(
        SimpleItkFormat().read(result / "imagesTr" / "a_0000.png").array, decoded
    )


def test_nothing_stays_in_a_lossy_format(tmp_path: Path) -> None:
    for part in ("images", "labels"):
        (tmp_path / part).mkdir()
        sitk.WriteImage(sitk.Image([5, 6], sitk.sitkUInt8), str(tmp_path / part / "a.jpg"))
    result = _result(tmp_path)
    assert [path.name for path in sorted(result.rglob("*.*"))] == [
        "dataset.json",
        "a_0000.png",
        "a.png",
    ]


@pytest.mark.parametrize("alpha", ["constant", "varying"])
def test_an_alpha_channel_is_no_colour(tmp_path: Path, alpha: str) -> None:
    array = np.full((6, 5, 4), 255, np.uint8)
    array[1, 2, : 4 if alpha == "varying" else 3] = 7
    (tmp_path / "images").mkdir()
    sitk.WriteImage(
        sitk.GetImageFromArray(array, isVector=True), str(tmp_path / "images" / "a.png")
    )
    _label_picture(tmp_path / "labels" / "a.png")
    assert len(_find(tmp_path).channels) == 3
    if alpha == "constant":
        assert (_result(tmp_path) / "imagesTr" / "a_0000.png").is_file()
    else:
        with pytest.raises(ImageError, match="alpha channel"):
            _result(tmp_path)


def _label_picture(path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    array = np.zeros((6, 5), np.uint8)
    array[2:4, 2:4] = 1
    sitk.WriteImage(sitk.GetImageFromArray(array), str(path))


def test_volumes_need_channel_names(tmp_path: Path) -> None:
    _image(tmp_path / "images" / "a.nrrd")
    _label(tmp_path / "labels" / "a.nrrd", 0, 1)
    for channels in ((), ("CT", "PET")):
        with pytest.raises(
            UsageError, match=rf"has 1 channels, --channel names {len(channels)}.*CT for computed"
        ):
            _find(tmp_path, channels=channels)


@pytest.mark.parametrize(
    ("images", "labels", "message"),
    [
        (["a.nrrd", "b.nrrd"], ["a.nrrd"], "lacks the labels of 1 image .* b"),
        (["a.nrrd"], ["a.nrrd", "c.nrrd"], "lacks the images of 1 label .* c"),
        (
            ["a_0000.nrrd", "b_0000.nrrd", "b_0001.nrrd"],
            ["a.nrrd", "b.nrrd"],
            r"a, which has \[0\]; .* \[0, 1\]",
        ),
        (["a_0000.nrrd", "b.nrrd"], ["a.nrrd"], r"b\.nrrd without a channel number"),
        (["a_0000.nrrd"], ["a.nrrd", "a_0000.nrrd"], "one file per case or one per channel"),
        (
            ["a.nrrd", "b.mha"],
            ["a.nrrd", "b.nrrd"],
            r"several formats: 1 file ending in \.mha, 1 .*\.nrrd",
        ),
    ],
)
def test_files_that_do_not_belong_together_are_errors(
    tmp_path: Path, images: list[str], labels: list[str], message: str
) -> None:
    for name in images:
        _image(tmp_path / "images" / name)
    for name in labels:
        _label(tmp_path / "labels" / name, 0, 1)
    with pytest.raises(DatasetError, match=message):
        _find(tmp_path, channels=CT)


def test_empty_and_missing_folders_are_errors(tmp_path: Path) -> None:
    (tmp_path / "images").mkdir()
    with pytest.raises(DatasetError, match="labels does not exist"):
        _find(tmp_path)
    (tmp_path / "labels").mkdir()
    with pytest.raises(DatasetError, match=r"holds no image. Known endings: .*\.nrrd"):
        _find(tmp_path)


@pytest.mark.shared
def test_a_dicom_series_with_its_segmentation(data: Path, tmp_path: Path) -> None:
    pytest.importorskip("highdicom")
    source = find_folders(
        data / "formats" / "ct_3slice_dicom", data / "formats" / "liver.dcm", REGISTRY
    )
    assert (source.channels, source.labels) == (("CT",), {"background": 0, "Liver": 1})
    result = convert(source, tmp_path / "Dataset001_Liver")
    _checked(result)
    label = sitk.ReadImage(str(result / "labelsTr" / "ct_3slice_dicom.nii.gz"))
    mask = sitk.ReadImage(str(data / "formats" / "liver_seg.nrrd"))
    np.testing.assert_array_equal(sitk.GetArrayFromImage(label), sitk.GetArrayFromImage(mask))
    assert label.GetOrigin() == pytest.approx(mask.GetOrigin())


@pytest.fixture
def hospital(tmp_path: Path) -> Path:
    """Two series and their DICOM SEG files, in another order, with the segments of both numbered
    from 1.
    """
    dicom = pytest.importorskip("dicom_files", reason="needs highdicom and pydicom")
    for case, segment, name in (("p1", "tumour", "2.dcm"), ("p2", "liver", "1.dcm")):
        dicom.write_series(tmp_path / "images" / case, np.full((4, 6, 7), 10, np.uint16))
        mask = np.zeros((4, 6, 7, 1), np.uint8)
        mask[1, 2:4, 2 : 5 if case == "p1" else 4] = 1
        dicom.write_seg(tmp_path / "labels" / name, tmp_path / "images" / case, mask, [segment])
    return tmp_path


def test_segmentations_find_their_series_and_segments_get_one_numbering(hospital: Path) -> None:
    result = _result(hospital)
    assert _checked(result)["labels"] == {"background": 0, "liver": 1, "tumour": 2}
    counts = {
        name: np.bincount(
            SimpleItkFormat().read(result / "labelsTr" / f"{name}.nii.gz").array.ravel()
        ).tolist()
        for name in ("p1", "p2")
    }
    assert counts == {"p1": [162, 0, 6], "p2": [164, 4]}
    assert _find(hospital, names={"tumour": 1, "liver": 2}).labels == {
        "background": 0,
        "tumour": 1,
        "liver": 2,
    }


def test_segments_are_numbered_in_their_order(hospital: Path) -> None:
    dicom = pytest.importorskip("dicom_files")
    masks = np.zeros((4, 6, 7, 2), np.uint8)
    masks[1, 1, 1, 0] = masks[2, 2, 2, 1] = 1
    dicom.write_seg(
        hospital / "labels" / "1.dcm", hospital / "images" / "p2", masks, ["vessel", "bile duct"]
    )
    assert _find(hospital).labels == {"background": 0, "tumour": 1, "vessel": 2, "bile duct": 3}


def test_segmentations_that_do_not_fit_the_series_are_errors(hospital: Path) -> None:
    with pytest.raises(UsageError, match="also have the segments tumour"):
        _find(hospital, names={"liver": 1})
    shutil.copy(hospital / "labels" / "1.dcm", hospital / "labels" / "3.dcm")
    with pytest.raises(
        DatasetError, match=r"several DICOM SEG for the series of p2: 1\.dcm, 3\.dcm"
    ):
        _find(hospital)
    for name in ("1.dcm", "3.dcm"):
        (hospital / "labels" / name).unlink()
    with pytest.raises(DatasetError, match="no DICOM SEG that references the series of: p2"):
        _find(hospital)
    shutil.copytree(hospital / "images" / "p1", hospital / "images", dirs_exist_ok=True)
    with pytest.raises(
        DatasetError, match="more than one thing: 2 folders with DICOM files, 4 DICOM files"
    ):
        _find(hospital)


def test_series_may_have_labels_of_another_format(hospital: Path) -> None:
    shutil.rmtree(hospital / "labels")
    for name in ("p1", "p2"):
        image = sitk.Image([7, 6, 4], sitk.sitkUInt8)
        image.SetSpacing((0.6, 0.8, 2.5))
        image.SetOrigin((-20.0, 10.0, 3.0))
        image[1, 1, 1] = 1
        (hospital / "labels").mkdir(exist_ok=True)
        sitk.WriteImage(image, str(hospital / "labels" / f"{name}.nrrd"))
    _checked(_result(hospital, names={"liver": 1}))


def test_series_of_several_channels(hospital: Path) -> None:
    for channel, name in enumerate(("p1", "p2")):
        (hospital / "images" / name).rename(hospital / "images" / f"p_{channel:04d}.dcm")
    (hospital / "labels" / "1.dcm").unlink()
    result = _result(hospital, channels=("CT", "late CT"))
    assert _checked(result)["numTraining"] == 1
    assert sorted(p.name for p in (result / "imagesTr").iterdir()) == [
        "p_0000.nii.gz",
        "p_0001.nii.gz",
    ]
    with pytest.raises(DatasetError, match="CASE_0000 to CASE_0002"):
        _find(hospital, channels=("a", "b", "c"))


def test_damaged_files_leave_nothing_behind(hospital: Path) -> None:
    source = _find(hospital)
    path = hospital / "images" / "p2" / "0.img"
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(ImageError, match=r"0\.img"):
        convert(source, hospital / "Dataset001_X")
    assert sorted(p.name for p in hospital.iterdir()) == ["images", "labels"]
