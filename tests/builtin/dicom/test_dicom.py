"""DICOM series as images, and DICOM SEG as labels on their grid: order, rescaling, faults,
placement.
"""

import os
import sys
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk

from nnunet_builtin.dicom.segmentation import read_segmentation, referenced_series, segment_names
from nnunet_builtin.dicom.series import DicomSeriesFormat, read_header
from nnunet_core.data.images import Geometry
from nnunet_core.errors import ImageError, UsageError

dicom_files = pytest.importorskip("dicom_files", reason="needs highdicom and pydicom")
write_series, write_seg = dicom_files.write_series, dicom_files.write_seg
SHAPE, SPACING, ORIGIN = dicom_files.SHAPE, dicom_files.SPACING, dicom_files.ORIGIN


@pytest.fixture
def volume() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 2000, SHAPE).astype(np.uint16)


@pytest.fixture
def series(tmp_path: Path, volume: np.ndarray) -> Path:
    write_series(tmp_path / "case", volume)
    return tmp_path / "case"


GEOMETRY = Geometry(SHAPE, SPACING, ORIGIN)


def test_slices_are_sorted_by_position_and_rescaled(series: Path, volume: np.ndarray) -> None:
    image = DicomSeriesFormat().read(series)
    np.testing.assert_array_equal(image.array, volume[None].astype(int) * 2 - 1024)
    assert image.array.dtype == np.int16
    assert image.geometry.differences(GEOMETRY) == []
    header = DicomSeriesFormat().header(series)
    assert header.shape == SHAPE
    assert header.spacing == pytest.approx(SPACING)
    assert header.channels == 1
    assert read_header(series).modality == "CT"


@pytest.mark.shared
def test_a_real_series_has_hounsfield_units_and_the_geometry_of_its_mask(data: Path) -> None:
    image = DicomSeriesFormat().read(data / "formats" / "ct_3slice_dicom")
    mask = sitk.ReadImage(str(data / "formats" / "liver_seg.nrrd"))
    assert image.array.shape == (1, 3, 512, 512)
    np.testing.assert_allclose(image.geometry.spacing[::-1], mask.GetSpacing(), rtol=1e-5)
    np.testing.assert_allclose(image.geometry.origin, mask.GetOrigin(), atol=1e-4)
    assert 0 < image.array[0][sitk.GetArrayFromImage(mask) == 1].mean() < 200


def test_one_file_is_an_image_of_one_slice(series: Path, volume: np.ndarray) -> None:
    image = DicomSeriesFormat().read(series / "3.img")
    np.testing.assert_array_equal(image.array[0, 0], volume[1].astype(int) * 2 - 1024)


def test_one_file_with_several_frames_is_a_volume(tmp_path: Path, volume: np.ndarray) -> None:
    sitk.WriteImage(sitk.GetImageFromArray(volume), str(tmp_path / "frames.dcm"))
    np.testing.assert_array_equal(
        DicomSeriesFormat().read(tmp_path / "frames.dcm").array[0], volume
    )
    assert DicomSeriesFormat().header(tmp_path / "frames.dcm").shape == SHAPE


def test_two_series_in_one_folder_are_listed(series: Path, volume: np.ndarray) -> None:
    for path in series.iterdir():
        path.rename(path.with_suffix(".dcm"))
    other = write_series(series, volume)
    with pytest.raises(
        ImageError,
        match=rf"holds 2 series: .*{other} 'stack {other[-3:]}' \(5 files\).* Split them",
    ):
        DicomSeriesFormat().read(series)


@pytest.mark.parametrize(
    ("positions", "message"),
    [
        ([0, 2.5, 7.5, 10, 12.5], r"2\.5 \(3 times\), 5 \(once\) mm"),
        ([0, 2.5, 5, 7.5, 10.05], r"2\.55 \(once\)"),
        ([0, 2.5, 2.5, 5, 7.5], r"0 \(once\), 2\.5 \(3 times\)"),
        ([0, 0, 0, 0, 0], r"0 \(4 times\)"),
    ],
)
def test_missing_doubled_and_uneven_slices_are_errors_that_name_the_distances(
    tmp_path: Path, volume: np.ndarray, positions: list[float], message: str
) -> None:
    write_series(tmp_path / "case", volume, positions)
    with pytest.raises(ImageError, match=message):
        DicomSeriesFormat().read(tmp_path / "case")


def test_a_gap_within_one_percent_is_accepted(tmp_path: Path, volume: np.ndarray) -> None:
    write_series(tmp_path / "case", volume, [0, 2.5, 5.01, 7.5, 10.0])
    assert DicomSeriesFormat().read(tmp_path / "case").array.shape == (1, *SHAPE)


@pytest.mark.parametrize(
    ("tag", "value", "message"),
    [
        ("ImagePositionPatient", lambda i: [0.0, 0.3 * i, 2.5 * i], "tilted gantry"),
        (
            "ImageOrientationPatient",
            lambda i: [1, 0, 0, 0, 1, 0] if i else [1, 0, 0, 0, 0, 1],
            "different orientations",
        ),
    ],
)
def test_stacks_that_are_no_grid_are_errors(
    tmp_path: Path, volume: np.ndarray, tag: str, value: object, message: str
) -> None:
    write_series(tmp_path / "case", volume, **{tag: value})
    with pytest.raises(ImageError, match=message):
        DicomSeriesFormat().read(tmp_path / "case")


def test_what_is_no_dicom_series_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("no image")
    for path, message in (
        (tmp_path, "no DICOM file"),
        (tmp_path / "notes.txt", "no DICOM file"),
        (tmp_path / "x", "exist"),
    ):
        with pytest.raises(ImageError, match=message):
            DicomSeriesFormat().read(path)
    with pytest.raises(ImageError, match=r"read only.*\.nii\.gz"):
        DicomSeriesFormat().write(tmp_path / "x.dcm", np.zeros(SHAPE), GEOMETRY)
    assert [path.name for path in tmp_path.iterdir()] == ["notes.txt"]


@pytest.fixture
def masks() -> np.ndarray:
    """Two disjoint segments; the first and last slices are empty."""
    masks = np.zeros((*SHAPE, 2), np.uint8)
    masks[1:3, 1:3, 2:6, 0] = 1
    masks[3, 4, 1:3, 1] = 1
    return masks


@pytest.mark.shared
def test_a_real_segmentation_is_the_mask_that_it_was_made_from(data: Path) -> None:
    folder = data / "formats"
    image = DicomSeriesFormat().read(folder / "ct_3slice_dicom")
    label = read_segmentation(folder / "liver.dcm", image.geometry)
    np.testing.assert_array_equal(
        label, sitk.GetArrayFromImage(sitk.ReadImage(str(folder / "liver_seg.nrrd")))
    )
    assert segment_names(folder / "liver.dcm") == {1: "Liver"}
    assert referenced_series(folder / "liver.dcm") == (read_header(folder / "ct_3slice_dicom").uid,)


def test_segments_become_values(tmp_path: Path, series: Path, masks: np.ndarray) -> None:
    write_seg(tmp_path / "seg.dcm", series, masks, ["liver", "tumour"])
    expected = masks[..., 0] + 2 * masks[..., 1]
    np.testing.assert_array_equal(read_segmentation(tmp_path / "seg.dcm", GEOMETRY), expected)
    renamed = read_segmentation(tmp_path / "seg.dcm", GEOMETRY, {1: 300, 2: 1})
    np.testing.assert_array_equal(renamed, 300 * masks[..., 0].astype(int) + masks[..., 1])
    assert segment_names(tmp_path / "seg.dcm") == {1: "liver", 2: "tumour"}


def test_label_maps_are_read(tmp_path: Path, series: Path, masks: np.ndarray) -> None:
    expected = masks[..., 0] + 2 * masks[..., 1]
    write_seg(tmp_path / "seg.dcm", series, expected, ["liver", "tumour"], "LABELMAP")
    np.testing.assert_array_equal(read_segmentation(tmp_path / "seg.dcm", GEOMETRY), expected)


def test_half_a_fraction_belongs_to_the_segment(tmp_path: Path, series: Path) -> None:
    fractions = np.zeros(SHAPE, np.float32)
    fractions[2, 1, :4] = [0.25, 0.49, 0.51, 1.0]
    write_seg(tmp_path / "seg.dcm", series, fractions, ["liver"], "FRACTIONAL")
    label = read_segmentation(tmp_path / "seg.dcm", GEOMETRY)
    assert label[2, 1, :4].tolist() == [0, 0, 1, 1]
    assert label.sum() == 2


def test_overlapping_segments_are_an_error_that_names_them(
    tmp_path: Path, series: Path, masks: np.ndarray
) -> None:
    masks[1, 1, 2, 1] = 1
    write_seg(tmp_path / "seg.dcm", series, masks, ["liver", "tumour"])
    with pytest.raises(ImageError, match="segments 1 'liver' and 2 'tumour' overlap"):
        read_segmentation(tmp_path / "seg.dcm", GEOMETRY)
    together = read_segmentation(tmp_path / "seg.dcm", GEOMETRY, {1: 1, 2: 1})
    np.testing.assert_array_equal(together, masks.max(axis=-1))


def test_a_segmentation_is_placed_on_flipped_permuted_and_larger_grids(
    tmp_path: Path, series: Path, masks: np.ndarray
) -> None:
    write_seg(tmp_path / "seg.dcm", series, masks, ["liver", "tumour"])
    label = sitk.GetImageFromArray(masks[..., 0] + 2 * masks[..., 1])
    label.SetSpacing(SPACING[::-1])
    label.SetOrigin(ORIGIN)
    for changed in (
        sitk.Flip(label, [False, True, True]),
        sitk.PermuteAxes(label, [2, 0, 1]),
        sitk.ConstantPad(label, [3, 0, 1], [0, 2, 4]),
    ):
        z, y, x = changed.GetSize()[::-1]
        geometry = Geometry(
            (z, y, x), changed.GetSpacing()[::-1], changed.GetOrigin(), changed.GetDirection()
        )
        found = read_segmentation(tmp_path / "seg.dcm", geometry)
        np.testing.assert_array_equal(found, sitk.GetArrayFromImage(changed))


@pytest.mark.parametrize(
    ("geometry", "message"),
    [
        (Geometry(SHAPE, SPACING, (-20.3, 10.0, 3.0)), "another grid"),
        (Geometry(SHAPE, (2.5, 0.8, 0.7), ORIGIN), "another grid"),
        (
            Geometry(SHAPE, SPACING, ORIGIN, (0.8, -0.6, 0.0, 0.6, 0.8, 0.0, 0.0, 0.0, 1.0)),
            "another grid",
        ),
        (Geometry((2, 6, 7), SPACING, ORIGIN), "outside its image"),
        (Geometry(SHAPE, SPACING, (-20.0, 10.0, 8.0)), "outside its image"),
    ],
)
def test_other_grids_are_errors(
    tmp_path: Path, series: Path, masks: np.ndarray, geometry: Geometry, message: str
) -> None:
    write_seg(tmp_path / "seg.dcm", series, masks, ["liver", "tumour"])
    with pytest.raises(ImageError, match=message):
        read_segmentation(tmp_path / "seg.dcm", geometry)


def test_other_files_are_no_segmentation(series: Path, tmp_path: Path) -> None:
    (tmp_path / "text.dcm").write_text("text")
    for path in (series / "0.img", tmp_path / "text.dcm", tmp_path / "none.dcm"):
        with pytest.raises(ImageError, match="cannot be read as DICOM SEG"):
            segment_names(path)


def test_a_missing_library_is_named_with_its_extra(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setitem(sys.modules, "highdicom", None)
    with pytest.raises(UsageError, match=r"pip install nnunet-core\[dicom\]"):
        segment_names(tmp_path / "seg.dcm")


def test_a_truncated_slice_is_an_error(series: Path) -> None:
    (series / "0.img").write_bytes((series / "0.img").read_bytes()[:-30])
    with pytest.raises(ImageError, match=r"1 DICOM files cannot be read as slices: 0\.img"):
        DicomSeriesFormat().read(series)
    with pytest.raises(ImageError, match="cannot be read"):
        DicomSeriesFormat().read(series / "0.img")


def changed(series: Path, change) -> Path:
    pydicom = pytest.importorskip("pydicom")
    path = sorted(series.iterdir())[1]
    data = pydicom.dcmread(path)
    change(data)
    data.save_as(path)
    return path


def fewer_pixels(data) -> None:
    data.PixelData = data.PixelData[:40]


def more_rows(data) -> None:
    data.Rows = 60


def more_frames(data) -> None:
    data.NumberOfFrames = 9


def no_spacing(data) -> None:
    del data.PixelSpacing


def spacing_of_0(data) -> None:
    data.PixelSpacing = [0, 0.5]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (fewer_pixels, "fewer than the 84 bytes"),
        (more_rows, "fewer than the 840 bytes"),
        (more_frames, "fewer than the 756 bytes"),
        (no_spacing, "has no PixelSpacing"),
        (spacing_of_0, "PixelSpacing '0.*positive numbers"),
    ],
)
@pytest.mark.parametrize("alone", [False, True])
def test_pixels_and_spacing_are_there_before_a_reader_sees_the_file(series, change, message, alone):
    path = changed(series, change)
    for read in (DicomSeriesFormat().header, DicomSeriesFormat().read):
        with pytest.raises(ImageError, match=rf"{path.name}.*{message}"):
            read(path if alone else series)


@pytest.mark.parametrize("implicit", [False, True])
def test_pixels_are_found_in_both_ways_of_writing_types(series, volume, implicit):
    pydicom = pytest.importorskip("pydicom")
    for path in series.iterdir():
        data = pydicom.dcmread(path)
        if implicit:
            data.file_meta.TransferSyntaxUID = pydicom.uid.ImplicitVRLittleEndian
        data.save_as(path, implicit_vr=implicit, little_endian=True)
    image = DicomSeriesFormat().read(series)
    np.testing.assert_array_equal(image.array, volume[None].astype(int) * 2 - 1024)


def test_a_pipe_among_slices_is_named(series):
    os.mkfifo(series / "pipe")
    with pytest.raises(ImageError, match=r"pipe.*no regular file"):
        DicomSeriesFormat().read(series)
