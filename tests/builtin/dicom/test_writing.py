"""DICOM SEG that predictions are written as: read back with highdicom, in world space."""

import json

import highdicom
import numpy as np
import pydicom
import pytest
from commands import nnunet
from dicom_files import SHAPE, write_series
from finished_run import QUICK, one_error
from tiny_model import make_tiny_model

from nnunet_builtin.dicom.segmentation import read_segmentation
from nnunet_builtin.dicom.series import DicomSeriesFormat
from nnunet_builtin.formats.simpleitk import SimpleItkFormat
from nnunet_core.data.labels import Labels
from nnunet_core.data.meaning import SegmentationMeaning, read_codes
from nnunet_core.errors import DatasetError, ImageError

FORMAT = DicomSeriesFormat()
LABELS = Labels.from_names({"background": 0, "liver": 1, "tumour": 2})
LIVER = {
    "category": {"value": "123037004", "scheme": "SCT", "meaning": "Anatomical Structure"},
    "type": {"value": "10200004", "scheme": "SCT", "meaning": "Liver"},
    "modifier": {"value": "24028007", "scheme": "SCT", "meaning": "Right"},
}
CODES = read_codes({"codes": {"liver": LIVER}}, LABELS, "test")
#: Directions of rows and columns, with signs and axes of every kind.
ORIENTATIONS = {
    "axial": [1, 0, 0, 0, 1, 0],
    "both negated": [-1, 0, 0, 0, -1, 0],
    "columns negated": [1, 0, 0, 0, -1, 0],
    "rows negated": [-1, 0, 0, 0, 1, 0],
    "sagittal": [0, 1, 0, 0, 0, -1],
    "oblique": [0.8, 0.6, 0, 0.6, -0.8, 0],
}


def series_of(folder, orientation, descending=False):
    """Write a series whose slices follow the normal of the orientation, or run against it."""
    normal = np.cross(orientation[:3], orientation[3:])
    step = -2.5 if descending else 2.5
    array = np.random.default_rng(0).integers(500, 900, SHAPE)
    write_series(
        folder,
        array,
        ImageOrientationPatient=orientation,
        ImagePositionPatient=lambda index: [float(v) for v in (3, -7, 11) + normal * step * index],
    )
    return FORMAT.read(folder)


def asymmetric(shape=SHAPE):
    label = np.zeros(shape, np.uint8)
    label[0, 1, 2:5], label[1, 1:4, 1], label[3, 4, 6], label[4, 0, 0] = 1, 2, 1, 2
    return label


def places(values, affine):
    """Return {label value: set of rounded positions in mm} of an array and its matrix."""
    found = {}
    for value in np.unique(values[values > 0]):
        index = np.argwhere(values == value)
        world = index @ affine[:3, :3].T + affine[:3, 3]
        found[int(value)] = {tuple(row) for row in np.round(world, 2) + 0.0}
    return found


def affine_of(geometry):
    """Return the matrix of indices (z, y, x) to mm."""
    matrix = np.eye(4)
    steps = np.reshape(geometry.direction, (3, 3)) * np.array(geometry.spacing[::-1])
    matrix[:3, :3], matrix[:3, 3] = steps[:, ::-1], geometry.origin
    return matrix


@pytest.mark.parametrize("descending", [False, True], ids=["ascending", "descending"])
@pytest.mark.parametrize("orientation", ORIENTATIONS.values(), ids=ORIENTATIONS)
def test_what_highdicom_reads_lies_where_the_label_map_does(tmp_path, orientation, descending):
    image = series_of(tmp_path / "series", orientation, descending)
    label = asymmetric()
    meaning = SegmentationMeaning((tmp_path / "series",), {1: "liver", 2: "tumour"}, CODES, "a b")
    FORMAT.write_segmentation(tmp_path / "out.dcm", label, image.geometry, meaning)
    found = highdicom.seg.segread(tmp_path / "out.dcm")
    volume = found.get_volume(combine_segments=True)
    assert places(volume.array, volume.affine) == places(label, affine_of(image.geometry))
    back = read_segmentation(tmp_path / "out.dcm", image.geometry)
    np.testing.assert_array_equal(back, label)


def test_segments_have_names_codes_and_who_made_them(tmp_path):
    image = series_of(tmp_path / "series", ORIENTATIONS["axial"])
    names = {1: "liver", 2: "tu\\mour " + "x" * 100}
    meaning = SegmentationMeaning((tmp_path / "series",), names, CODES, "Dataset017_Liver")
    FORMAT.write_segmentation(tmp_path / "out.dcm", asymmetric(), image.geometry, meaning)
    liver, tumour = pydicom.dcmread(tmp_path / "out.dcm").SegmentSequence
    (kind,) = liver.SegmentedPropertyTypeCodeSequence
    assert (liver.SegmentLabel, kind.CodeValue, kind.CodeMeaning) == ("liver", "10200004", "Liver")
    (modifier,) = kind.SegmentedPropertyTypeModifierCodeSequence
    assert modifier.CodeMeaning == "Right"
    assert liver.SegmentedPropertyCategoryCodeSequence[0].CodeValue == "123037004"
    assert tumour.SegmentLabel.startswith("tu_mour x")
    assert tumour.SegmentedPropertyTypeCodeSequence[0].CodeMeaning == "Tissue"
    assert liver.SegmentAlgorithmType == "AUTOMATIC"
    source = pydicom.dcmread(next((tmp_path / "series").iterdir()))
    made = pydicom.dcmread(tmp_path / "out.dcm")
    for tag in ("StudyInstanceUID", "PatientID", "FrameOfReferenceUID"):
        assert made[tag].value == source[tag].value
    (series,) = made.ReferencedSeriesSequence
    assert series.SeriesInstanceUID == source.SeriesInstanceUID
    assert len(series.ReferencedInstanceSequence) == SHAPE[0]


def test_a_label_map_of_background_alone_is_a_file_too(tmp_path):
    image = series_of(tmp_path / "series", ORIENTATIONS["axial"])
    meaning = SegmentationMeaning((tmp_path / "series",), {1: "liver"})
    FORMAT.write_segmentation(tmp_path / "out.dcm", np.zeros(SHAPE, "u1"), image.geometry, meaning)
    assert not read_segmentation(tmp_path / "out.dcm", image.geometry).any()


def test_images_that_are_no_dicom_are_refused(tmp_path):
    (tmp_path / "scan.nii.gz").write_bytes(b"x" * 200)
    meaning = SegmentationMeaning((tmp_path / "scan.nii.gz",), {1: "liver"})
    geometry = series_of(tmp_path / "series", ORIENTATIONS["axial"]).geometry
    with pytest.raises(ImageError, match=r"refers to the DICOM series.*--ending \.nii\.gz"):
        FORMAT.write_segmentation(tmp_path / "out.dcm", asymmetric(), geometry, meaning)
    assert not (tmp_path / "out.dcm").exists()


def test_a_series_without_what_a_segmentation_must_repeat_names_it(tmp_path):
    image = series_of(tmp_path / "series", ORIENTATIONS["axial"])
    for path in (tmp_path / "series").iterdir():
        data = pydicom.dcmread(path)
        del data.StudyID, data.FrameOfReferenceUID
        data.save_as(path)
    meaning = SegmentationMeaning((tmp_path / "series",), {1: "liver", 2: "tumour"})
    # the study's ID may be empty
    with pytest.raises(ImageError, match="Frame Of Reference UID"):
        FORMAT.write_segmentation(tmp_path / "out.dcm", asymmetric(), image.geometry, meaning)


@pytest.mark.parametrize(
    "names", ["", "ISO_IR 100", ["", "ISO 2022 IR 87"]], ids=["empty", "one", "first empty"]
)
def test_character_sets_may_be_empty(tmp_path, names):
    array = np.random.default_rng(0).integers(500, 900, SHAPE)
    write_series(tmp_path / "series", array, SpecificCharacterSet=names, PatientName="Yamada^Tarou")
    meaning = SegmentationMeaning((tmp_path / "series",), {1: "liver", 2: "tumour"})
    geometry = FORMAT.read(tmp_path / "series").geometry
    FORMAT.write_segmentation(tmp_path / "out.dcm", asymmetric(), geometry, meaning)
    back = pydicom.dcmread(tmp_path / "out.dcm")
    assert str(back.PatientName) == "Yamada^Tarou"
    np.testing.assert_array_equal(read_segmentation(tmp_path / "out.dcm", geometry), asymmetric())


@pytest.mark.parametrize(
    ("codes", "words"),
    [
        ({"lver": LIVER}, "names lver; the labels are background, liver, tumour"),
        ({"liver": {"type": LIVER["type"]}}, "category"),
        ({"liver": {**LIVER, "type": {"value": 5}}}, "type"),
        ([1], "'codes' maps names"),
    ],
)
def test_codes_of_another_form_are_refused(codes, words):
    with pytest.raises(DatasetError, match=words):
        read_codes({"codes": codes}, LABELS, "dataset.json")


# --------------------------------------------------------------------------- nnunet predict


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    folder = make_tiny_model(tmp_path_factory.mktemp("m") / "3d_fullres", predictor="bright:Bright")
    path = folder / "model.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "codes": {"edge": LIVER}}))
    return folder


def predict(model, *words):
    return nnunet("predict", model, *words, "--trust", "--no-postprocessing", *QUICK)


@pytest.mark.slow
def test_a_series_in_gives_a_label_map_or_dicom_seg_out(model, tmp_path):
    image = series_of(tmp_path / "cases" / "patient_1", ORIENTATIONS["both negated"])
    series_of(tmp_path / "cases" / "patient_2", ORIENTATIONS["axial"])
    series = tmp_path / "cases" / "patient_1"
    for output in ("out.nii.gz", "out.dcm"):
        done = predict(model, series, tmp_path / output)
        assert done.returncode == 0, done.stderr
        assert done.stdout == f"{tmp_path / output}\n"
    label = SimpleItkFormat().read(tmp_path / "out.nii.gz")
    assert not label.geometry.differences(image.geometry)
    assert set(np.unique(label.array)) == {0, 1}
    back = read_segmentation(tmp_path / "out.dcm", image.geometry)
    np.testing.assert_array_equal(back, label.array[0])
    segment = pydicom.dcmread(tmp_path / "out.dcm").SegmentSequence[0]
    assert segment.SegmentedPropertyTypeCodeSequence[0].CodeMeaning == "Liver"
    done = predict(model, tmp_path / "cases", tmp_path / "out", "--ending", ".dcm")
    assert done.returncode == 0, done.stderr
    names = sorted(path.name for path in (tmp_path / "out").iterdir())
    assert names == ["patient_1.dcm", "patient_2.dcm", "predictions.json"]


def test_a_tilted_gantry_is_refused_by_name(model, tmp_path):
    array = np.random.default_rng(0).integers(500, 900, SHAPE)
    shifted = lambda index: [0.0, 0.6 * index, 2.5 * index]  # noqa: E731
    write_series(tmp_path / "tilted", array, ImagePositionPatient=shifted)
    message = one_error(predict(model, tmp_path / "tilted", tmp_path / "out.dcm"))
    assert "tilted" in message
    assert "gantry" in message
    assert not (tmp_path / "out.dcm").exists()
