"""Verification: every defect gives one message that names the file (spec: dataset, section 4)."""

import contextlib
import gzip
import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from nnunet_builtin.datasets.verification import verify
from nnunet_builtin.formats.simpleitk import SimpleItkFormat
from nnunet_core.data.images import Geometry
from nnunet_core.errors import DatasetError
from nnunet_core.registry.discovery import Registry
from nnunet_core.runtime.reporting import Silence
from nnunet_core.runtime.workers import Workers
from nnunet_core.stages.dataset import open_dataset
from nnunet_core.store.verification import Verification

SHAPE = (3, 4, 5)
GRID = Geometry(SHAPE, (2.0, 1.0, 1.0), (1.0, 2.0, 3.0))
FLIPPED = (-1.0, 0.0, 0.0, 0.0, -1.0, 0.0, 0.0, 0.0, 1.0)


def _write(path: Path, array: np.ndarray, grid: Geometry = GRID) -> None:
    SimpleItkFormat((".nii.gz", ".nrrd")).write(path, array, grid)


def _image(seed: int, shape: tuple[int, int, int] = SHAPE) -> np.ndarray:
    return np.random.default_rng(seed).normal(100, 10, shape).astype(np.float32)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A v1 dataset: three training cases and two test cases of two channels, two labels."""
    root = tmp_path / "Task001_Small"
    for number, case in enumerate("abcde"):
        part = "Tr" if case in "abc" else "Ts"
        for channel in (0, 1):
            _write(
                root / f"images{part}" / f"{case}_{channel:04d}.nii.gz",
                _image(10 * number + channel),
            )
        if part == "Tr":
            label = np.zeros(SHAPE, np.uint8)
            label[1, 1:3, 1:3], label[2, 2, 2] = 1, 2
            _write(root / "labelsTr" / f"{case}.nii.gz", label)
    document = {
        "modality": {"0": "T1", "1": "T2"},
        "labels": {"0": "background", "1": "organ", "2": "lesion"},
        "numTraining": 3,
        "training": [
            {"image": f"./imagesTr/{c}.nii.gz", "label": f"./labelsTr/{c}.nii.gz"} for c in "abc"
        ],
        "test": [f"./imagesTs/{c}.nii.gz" for c in "de"],
    }
    (root / "dataset.json").write_text(json.dumps(document))
    return root


def _verify(folder: Path, workers: int = 1) -> Verification:
    with Workers(workers) as processes:
        return verify(open_dataset(str(folder), folder.parent, Registry.discover()), processes)


def _change_json(folder: Path, **changes: object) -> None:
    path = folder / "dataset.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


def _plant_nan(path: Path) -> None:
    """Put a NaN into a NIfTI file of float32, past its writer."""
    content = bytearray(gzip.decompress(path.read_bytes()))
    content[-8:-4] = np.float32(np.nan).tobytes()
    path.write_bytes(gzip.compress(bytes(content)))


def _label_of(value: float, dtype: type = np.uint8) -> np.ndarray:
    label = np.ones(SHAPE, dtype)
    label[0, 0, 0] = value
    return label


class Progress(Silence):
    def __init__(self) -> None:
        self.total, self.names = 0, []

    @contextlib.contextmanager
    def track(self, title, total, done=0):
        self.total = total
        yield self

    def advance(self, steps=1, detail=None):
        self.names.append(detail)


def test_a_good_dataset_has_no_messages_and_its_facts_are_right(folder: Path) -> None:
    seen = Progress()
    report = verify(open_dataset(str(folder), folder.parent, Registry.discover()), report=seen)
    assert (report.ok, report.errors, report.warnings) == (True, (), ())
    assert seen.total == 5
    assert seen.names == ["a", "b", "c", "d", "e"]
    assert [case.name for case in report.cases] == ["a", "b", "c"]
    assert [case.name for case in report.test_cases] == ["d", "e"]
    assert report.voxels == {0: 3 * 55, 1: 3 * 4, 2: 3}
    assert report.shape_range == (SHAPE, SHAPE)
    assert report.spacing_range == ((2.0, 1.0, 1.0), (2.0, 1.0, 1.0))
    assert report.cases[1].minimum == pytest.approx(
        [_image(10 + channel).min() for channel in (0, 1)]
    )
    assert report.intensity_range[1][0] == pytest.approx(
        max(_image(10 * n).max() for n in range(3))
    )
    assert report.cases[0].orientation == "LPS"


def test_reports_are_json_and_equal_for_any_number_of_processes(
    folder: Path, tmp_path: Path
) -> None:
    (folder / "imagesTr" / "b_0001.nii.gz").write_bytes(b"nothing")
    report = _verify(folder)
    report.write(tmp_path / "report.json")
    assert Verification.read(tmp_path / "report.json") == report == _verify(folder, workers=2)


def _other(**changes: object) -> Geometry:
    return Geometry(**{"shape": SHAPE, "spacing": GRID.spacing, "origin": GRID.origin, **changes})


ERRORS: dict[str, tuple[Callable[[Path], object], str]] = {
    "spacing of the label": (
        lambda f: _write(f / "labelsTr/b.nii.gz", _label_of(2), _other(spacing=(2.0, 1.0, 1.1))),
        r"b_0000\.nii\.gz and its label .*b\.nii\.gz .*different grids: spacing",
    ),
    "origin of the label": (
        lambda f: _write(f / "labelsTr/b.nii.gz", _label_of(2), _other(origin=(1.0, 2.0, 4.0))),
        r"label .*b\.nii\.gz .*different grids: origin",
    ),
    "direction of the label": (
        lambda f: _write(f / "labelsTr/b.nii.gz", _label_of(2), _other(direction=FLIPPED)),
        r"label .*b\.nii\.gz .*different grids: direction",
    ),
    "shape of the label": (
        lambda f: _write(
            f / "labelsTr/b.nii.gz", np.ones((3, 4, 6), np.uint8), _other(shape=(3, 4, 6))
        ),
        r"label .*b\.nii\.gz .*different grids: shape",
    ),
    "grid of a channel": (
        lambda f: _write(f / "imagesTr/b_0001.nii.gz", _image(5), _other(spacing=(2.5, 1.0, 1.0))),
        r"b_0001\.nii\.gz and .*b_0000\.nii\.gz differ in spacing",
    ),
    "unknown label value": (
        lambda f: _write(f / "labelsTr/c.nii.gz", _label_of(7)),
        r"label .*c\.nii\.gz holds the values \[7\]",
    ),
    "fractional label value": (
        lambda f: _write(f / "labelsTr/c.nii.gz", _label_of(0.5, np.float32)),
        r"label .*c\.nii\.gz holds the values \[0\.5\]",
    ),
    "NaN in an image": (
        lambda f: _plant_nan(f / "imagesTr/a_0001.nii.gz"),
        r"a_0001\.nii\.gz holds 1 voxels that are NaN",
    ),
    "NaN in a label": (
        lambda f: (
            _write(f / "labelsTr/a.nii.gz", _label_of(2, np.float32)),
            _plant_nan(f / "labelsTr/a.nii.gz"),
        ),
        r"labelsTr/a\.nii\.gz holds 1 voxels that are NaN",
    ),
    "truncated image": (
        lambda f: (f / "imagesTr/b_0000.nii.gz").write_bytes(
            (f / "imagesTr/b_0000.nii.gz").read_bytes()[:90]
        ),
        r"b_0000\.nii\.gz cannot be read",
    ),
    "image of zeros": (
        lambda f: [
            _write(f / f"imagesTr/b_000{c}.nii.gz", np.zeros(SHAPE, np.int16)) for c in (0, 1)
        ],
        r"Case b is 0 everywhere \(.*b_0000\.nii\.gz\)",
    ),
    "image that is not listed": (
        lambda f: [_write(f / f"imagesTr/x_000{c}.nii.gz", _image(90 + c)) for c in (0, 1)],
        r"imagesTr holds 2 files that belong to no case: x_0000\.nii\.gz, x_0001\.nii\.gz",
    ),
    "channel that is not declared": (
        lambda f: _write(f / "imagesTr/a_0002.nii.gz", _image(90)),
        r"imagesTr holds 1 file that belongs to no case: a_0002\.nii\.gz",
    ),
    "label that is not listed": (
        lambda f: _write(f / "labelsTr/x.nii.gz", _label_of(2)),
        r"labelsTr holds 1 file that belongs to no case: x\.nii\.gz",
    ),
    "missing channel of a test case": (
        lambda f: (f / "imagesTs/d_0001.nii.gz").unlink(),
        r"imagesTs lacks 1 channel file .*d_0001\.nii\.gz",
    ),
    "missing test case": (
        lambda f: [(f / f"imagesTs/e_000{c}.nii.gz").unlink() for c in (0, 1)],
        r"lists 1 test case without images in .*imagesTs: e\.",
    ),
    "missing test folder": (
        lambda f: shutil.rmtree(f / "imagesTs"),
        r"image folder .*imagesTs does not exist",
    ),
    "test case that is not listed": (
        lambda f: _change_json(f, test=["./imagesTs/d.nii.gz"]),
        r"imagesTs holds 1 case that 'test' of dataset\.json does not list: e",
    ),
    "grid of a test channel": (
        lambda f: _write(f / "imagesTs/d_0001.nii.gz", _image(5), _other(origin=(0.0, 0.0, 0.0))),
        r"imagesTs/d_0001\.nii\.gz and .*d_0000\.nii\.gz differ in origin",
    ),
    "test file of no case": (
        lambda f: _write(f / "imagesTs/d.nii.gz", _image(5)),
        r"imagesTs holds 1 file that belongs to no case: d\.nii\.gz",
    ),
}


@pytest.mark.parametrize("defect", ERRORS)
def test_a_defect_gives_its_one_error(folder: Path, defect: str) -> None:
    plant, message = ERRORS[defect]
    plant(folder)
    report = _verify(folder)
    assert len(report.errors) == 1, report.errors
    assert re.search(message, report.errors[0])
    assert report.errors[0].rstrip().endswith((".", "?"))
    assert not report.ok


UNREADABLE: dict[str, tuple[Callable[[Path], object], str]] = {
    "no dataset.json": (
        lambda f: (f / "dataset.json").unlink(),
        r"No dataset reader fits .*looks for dataset\.json",
    ),
    "no imagesTr": (lambda f: shutil.rmtree(f / "imagesTr"), "imagesTr does not exist"),
    "no labelsTr": (
        lambda f: shutil.rmtree(f / "labelsTr"),
        "labelsTr lacks the labels of 3 cases: a, b, c",
    ),
    "missing label": (
        lambda f: (f / "labelsTr/b.nii.gz").unlink(),
        "lacks the labels of 1 case: b",
    ),
    "missing channel": (
        lambda f: (f / "imagesTr/b_0001.nii.gz").unlink(),
        r"lacks 1 channel file .*b_0001",
    ),
    "case listed twice": (
        lambda f: _change_json(f, training=[{"image": "./imagesTr/a.nii.gz"}] * 2),
        "more than once: a",
    ),
    "no background": (
        lambda f: _change_json(f, labels={"1": "organ", "2": "lesion"}),
        r"consecutive from 0",
    ),
    "gap in the labels": (
        lambda f: _change_json(f, labels={"0": "background", "2": "lesion"}),
        r"consecutive from 0",
    ),
}


@pytest.mark.parametrize("defect", UNREADABLE)
def test_what_hides_the_cases_is_told_on_opening(folder: Path, defect: str) -> None:
    plant, message = UNREADABLE[defect]
    plant(folder)
    with pytest.raises(DatasetError, match=message):
        _verify(folder)


WARNINGS: dict[str, tuple[Callable[[Path], object], str]] = {
    "orientation": (
        lambda f: [
            _write(f / f"imagesTs/d_000{c}.nii.gz", _image(30 + c), _other(direction=FLIPPED))
            for c in (0, 1)
        ],
        r"1 case is oriented otherwise than the usual LPS: d \(RAS\)",
    ),
    "same image twice": (
        lambda f: [_write(f / f"imagesTs/e_000{c}.nii.gz", _image(10 + c)) for c in (0, 1)],
        "same image: b, e",
    ),
    "constant channel": (
        lambda f: _write(f / "imagesTr/c_0001.nii.gz", np.full(SHAPE, 3, np.int16)),
        r"Channel 1 \(T2\) is constant in 1 case: c",
    ),
    "no foreground": (
        lambda f: _write(f / "labelsTr/c.nii.gz", np.zeros(SHAPE, np.uint8)),
        "1 case has no foreground .*: c",
    ),
    "label nowhere": (
        lambda f: [
            _write(f / f"labelsTr/{case}.nii.gz", np.ones(SHAPE, np.uint8)) for case in "abc"
        ],
        r"occur in no case: 2 \(lesion\)",
    ),
    "count": (lambda f: _change_json(f, numTraining=5), "declares 5 training cases, there are 3"),
}


@pytest.mark.parametrize("defect", WARNINGS)
def test_what_looks_doubtful_gives_its_one_warning(folder: Path, defect: str) -> None:
    plant, message = WARNINGS[defect]
    plant(folder)
    report = _verify(folder)
    assert report.ok, report.errors
    assert len(report.warnings) == 1, report.warnings
    assert re.search(message, report.warnings[0])


def test_all_problems_are_collected(folder: Path) -> None:
    for defect in (
        "NaN in an image",
        "truncated image",
        "unknown label value",
        "label that is not listed",
    ):
        ERRORS[defect][0](folder)
    report = _verify(folder)
    assert len(report.errors) == 4
    assert (report.cases, report.shape_range) == ((), ((), ()))


def test_nan_in_formats_that_keep_it_is_found_by_loading(folder: Path) -> None:
    for path in [*folder.glob("images*/*"), *folder.glob("labelsTr/*")]:
        image = SimpleItkFormat().read(path)
        path.unlink()
        _write(
            path.with_name(path.name.replace(".nii.gz", ".nrrd")), image.array[0], image.geometry
        )
    _change_json(folder, file_ending=".nrrd", training=[], test=[])
    assert _verify(folder).ok
    broken = _image(0)
    broken[0, 0, 0] = np.inf
    _write(folder / "imagesTr" / "a_0000.nrrd", broken)
    (error,) = _verify(folder).errors
    assert "a_0000.nrrd holds 1 voxels that are NaN or infinite" in error


def test_hidden_files_are_not_looked_at(folder: Path) -> None:
    for name in ("imagesTr", "labelsTr", "imagesTs"):
        (folder / name / "._a.nii.gz").write_bytes(b"hidden")
    assert _verify(folder).ok


@pytest.mark.shared
@pytest.mark.parametrize(
    "name", ["Task004_Hippocampus", "Task104_HippocampusThick", "Dataset120_Nuclei"]
)
def test_real_datasets_are_fine(data: Path, name: str) -> None:
    report = verify(open_dataset(name, data, Registry.discover()))
    assert (report.errors, report.warnings) == ((), ())
