"""Overlap metrics: v1's numbers, undefined values, ignore label, regions, folders."""

import json
import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from nnunet_builtin.formats.simpleitk import SimpleItkFormat
from nnunet_core.data.folders import match_folders
from nnunet_core.data.images import Geometry
from nnunet_core.data.labels import Labels
from nnunet_core.errors import DatasetError, ImageError
from nnunet_core.runtime import files
from nnunet_core.runtime.reporting import Silence
from nnunet_core.runtime.workers import Workers
from nnunet_core.stages.evaluate import (
    evaluate_case,
    evaluate_files,
    mean_foreground_dice,
    read_label_map,
    summarise,
)
from nnunet_core.stages.formats import OriginalValues


class Heard(Silence):
    def __init__(self) -> None:
        self.warnings: list[str] = []

    def warning(self, text: str) -> None:
        self.warnings.append(text)


THREE = Labels(names={0: "background", 1: "liver", 2: "tumour"}, foreground=(1, 2))
REGIONS = Labels(
    names={0: "background", 1: "edema", 2: "core", 3: "enhancing"},
    foreground=(1, 2, 3),
    regions=((1, 2, 3), (2, 3), (3,)),
    region_names=("whole", "core", "enhancing"),
    region_order=(1, 2, 3),
)
LABEL_MAPS = arrays(np.uint8, (2, 3, 4), elements=st.integers(0, 3))


def _assert_equal(mine: dict, expected: dict) -> None:
    assert set(mine) == set(expected)
    for metric, value in expected.items():
        if isinstance(value, float) and math.isnan(value):
            assert mine[metric] is None, metric
        else:
            assert mine[metric] == pytest.approx(value, abs=1e-9, rel=0), metric


@pytest.mark.shared
def test_metrics_and_means_are_those_of_v1(golden: Path) -> None:
    arrays_ = np.load(golden / "postprocessing.npz", allow_pickle=False)
    for entry in files.read_json(golden / "postprocessing.json"):
        predictions, references = (
            arrays_[f"{entry['name']}__{what}"] for what in ("prediction", "reference")
        )
        cases = [evaluate_case(p, r, THREE) for p, r in zip(predictions, references, strict=True)]
        for mine, expected in zip(cases, entry["scores"]["all"], strict=True):
            for label, metrics in expected.items():
                _assert_equal(mine[label], metrics)
        for label, metrics in entry["scores"]["mean"].items():
            _assert_equal(summarise(cases)["results"]["mean"][label], metrics)


@pytest.mark.parametrize(
    ("predicted", "true", "undefined"),
    [
        (
            [0, 0],
            [0, 0],
            {
                "Dice",
                "Jaccard",
                "Precision",
                "False Discovery Rate",
                "Recall",
                "False Negative Rate",
            },
        ),
        ([0, 0], [1, 0], {"Precision", "False Discovery Rate"}),
        ([1, 0], [0, 0], {"Recall", "False Negative Rate"}),
        ([1, 1], [1, 0], {"False Omission Rate", "Negative Predictive Value"}),
        ([1, 0], [1, 1], {"True Negative Rate", "False Positive Rate"}),
    ],
)
def test_exactly_the_ratios_without_denominator_are_undefined(
    predicted: list, true: list, undefined: set
) -> None:
    metrics = evaluate_case(np.array([[predicted]]), np.array([[true]]), THREE)["1"]
    assert {name for name, value in metrics.items() if value is None} == undefined
    assert len(metrics) == 13


@given(LABEL_MAPS, LABEL_MAPS)
def test_regions_are_scored_like_binary_maps_of_their_values(
    prediction: np.ndarray, reference: np.ndarray
) -> None:
    binary = Labels(names={0: "background", 1: "object"}, foreground=(1,))
    scores = evaluate_case(prediction, reference, REGIONS)
    assert list(scores) == ["whole", "core", "enhancing"]
    for name, values in zip(REGIONS.region_names, REGIONS.regions, strict=True):
        maps = [np.isin(array, values).astype(np.uint8) for array in (prediction, reference)]
        assert scores[name] == evaluate_case(*maps, binary)["1"]


@given(LABEL_MAPS, LABEL_MAPS)
def test_ignored_voxels_do_not_count(prediction: np.ndarray, reference: np.ndarray) -> None:
    labels = Labels(names=THREE.names, foreground=(1, 2), ignore=3)
    seen = reference != 3
    kept = evaluate_case(prediction[seen][None, None], reference[seen][None, None], THREE)
    assert evaluate_case(prediction, reference, labels) == kept


def test_values_outside_the_labels_belong_to_no_target() -> None:
    prediction, reference = np.array([[[7, 1, -1, 0]]]), np.array([[[1, 1, 0, 0]]])
    scores = evaluate_case(prediction, reference, THREE)
    assert scores["1"]["Dice"] == pytest.approx(2 / 3)
    assert scores["0"]["Total Positives Test"] == 1


def test_shapes_and_types_that_do_not_fit_are_errors() -> None:
    with pytest.raises(ImageError, match=r"\(1, 2, 2\).*\(1, 2, 3\)"):
        evaluate_case(np.zeros((1, 2, 2), int), np.zeros((1, 2, 3), int), THREE)
    with pytest.raises(ImageError, match="prediction holds float64"):
        evaluate_case(np.zeros((1, 2, 2)), np.zeros((1, 2, 2), int), THREE)


def test_foreground_mean_leaves_out_background_and_undefined_labels() -> None:
    prediction, reference = np.array([[[0, 1, 1, 0]]]), np.array([[[0, 1, 0, 0]]])
    case = evaluate_case(prediction, reference, THREE)
    assert case["2"]["Dice"] is None
    assert mean_foreground_dice(
        {"results": {"mean": {**case, "test": "a", "reference": "b"}}}
    ) == pytest.approx(2 / 3)
    assert math.isnan(mean_foreground_dice(summarise([])))
    assert (
        mean_foreground_dice({"results": {"mean": {"1": {"Dice": 0.5}, "2": {"Dice": math.nan}}}})
        == 0.5
    )


@pytest.fixture
def folders(tmp_path: Path) -> tuple[Path, Path]:
    """Two cases: one predicted well, one where label 2 is nowhere."""
    for index, (predicted, true) in enumerate(
        [([0, 1, 2, 2], [0, 1, 2, 1]), ([1, 1, 0, 0], [1, 0, 0, 0])]
    ):
        for folder, values in (("predicted", predicted), ("true", true)):
            array = np.array(values, np.uint8).reshape(1, 2, 2)
            SimpleItkFormat().write(
                tmp_path / folder / f"case{index}.nii.gz", array, Geometry((1, 2, 2))
            )
    return tmp_path / "predicted", tmp_path / "true"


def _evaluate(folders: tuple[Path, Path], **options: object) -> dict:
    pairs = match_folders(*folders, ".nii.gz")
    return evaluate_files(pairs, THREE, SimpleItkFormat(), **options)


def test_summary_of_folders_is_strict_json_and_has_v1s_layout(folders: tuple[Path, Path]) -> None:
    (folders[0] / "predictions.json").write_text("{}")
    (folders[0] / "._case9.nii.gz").touch()
    with Workers(2) as workers:
        summary = _evaluate(folders, workers=workers)
    assert json.loads(json.dumps(summary, allow_nan=False)) == summary
    assert [Path(case["test"]).name for case in summary["results"]["all"]] == [
        "case0.nii.gz",
        "case1.nii.gz",
    ]
    assert summary["results"]["all"][1]["2"]["Dice"] is None
    assert summary["results"]["mean"]["2"]["Dice"] == pytest.approx(2 / 3)
    assert {"name", "task", "author", "description", "timestamp"} <= set(summary)
    assert len(summary["id"]) == 12


def test_folders_with_other_cases_are_listed_from_both_sides(folders: tuple[Path, Path]) -> None:
    (folders[0] / "case1.nii.gz").rename(folders[0] / "other.nii.gz")
    with pytest.raises(DatasetError, match=r"(?s)predicted lacks 1 .*case1.*true lacks 1 .*other"):
        _evaluate(folders)
    with pytest.raises(DatasetError, match="missing does not exist"):
        _evaluate((folders[0].with_name("missing"), folders[1]))
    with pytest.raises(DatasetError, match=r"no file ending in '\.nrrd'"):
        match_folders(*folders, ".nrrd")


def test_files_that_cannot_be_compared_are_named(folders: tuple[Path, Path]) -> None:
    SimpleItkFormat().write(
        folders[0] / "case1.nii.gz", np.zeros((1, 2, 3), np.uint8), Geometry((1, 2, 3))
    )
    with pytest.raises(
        ImageError,
        match=r"predicted/case1\.nii\.gz cannot be compared .*true/case1\.nii\.gz.*shape",
    ):
        _evaluate(folders)
    (folders[0] / "case1.nii.gz").write_bytes(b"nothing")
    with pytest.raises(ImageError, match=r"case1\.nii\.gz cannot be read"):
        _evaluate(folders)


ELSEWHERE: dict[str, tuple[dict, str]] = {
    "moved": ({"origin": (300.0, 0.0, 0.0)}, "origin"),
    "of another spacing": ({"spacing": (3.0, 3.0, 3.0)}, "spacing"),
    "mirrored": ({"direction": (-1.0, 0, 0, 0, 1.0, 0, 0, 0, 1.0)}, "origin"),
    "turned": ({"direction": (0.8, -0.6, 0, 0.6, 0.8, 0, 0, 0, 1.0)}, "direction"),
}


@pytest.mark.parametrize("kind", ELSEWHERE)
def test_equal_voxels_at_other_places_are_refused(folders: tuple[Path, Path], kind: str) -> None:
    changes, named = ELSEWHERE[kind]
    path = folders[0] / "case1.nii.gz"
    array = SimpleItkFormat().read(path).array[0]
    SimpleItkFormat().write(path, array, replace(Geometry((1, 2, 2)), **changes))
    with pytest.raises(ImageError, match=rf"case1.*different grids: {named}.*reference.*Resample"):
        _evaluate(folders)


def test_equal_places_with_other_axes_are_brought_together_with_a_warning(
    folders: tuple[Path, Path],
) -> None:
    expected = _evaluate(folders)["results"]["mean"]
    path = folders[0] / "case0.nii.gz"
    image = SimpleItkFormat().read(path)
    mirrored = Geometry((1, 2, 2), origin=(1.0, 0, 0), direction=(-1.0, 0, 0, 0, 1.0, 0, 0, 0, 1.0))
    SimpleItkFormat().write(path, image.array[0, :, :, ::-1], mirrored)
    heard = Heard()
    assert _evaluate(folders, report=heard)["results"]["mean"] == expected
    assert "1 prediction with other axes" in heard.warnings[0]


def test_values_that_no_label_has_are_an_error_in_references_and_a_warning_in_predictions(
    folders: tuple[Path, Path],
) -> None:
    for folder in folders:
        array = np.array([0, 7, 1, 9], np.uint8).reshape(1, 2, 2)
        SimpleItkFormat().write(folder / "case1.nii.gz", array, Geometry((1, 2, 2)))
        heard = Heard()
        if folder == folders[0]:
            _evaluate(folders, report=heard)
            assert "case1.nii.gz [7, 9]" in heard.warnings[0]
        else:
            with pytest.raises(DatasetError, match=r"true/case1.* the values \[7, 9\]"):
                _evaluate(folders)


def test_an_image_as_reference_is_an_error(folders: tuple[Path, Path]) -> None:
    image = np.array([-1000, 40, 3, 0.5], np.float32).reshape(1, 2, 2)
    for values in (image, image.astype(np.int16)):
        SimpleItkFormat().write(folders[1] / "case1.nii.gz", values, Geometry((1, 2, 2)))
        with pytest.raises(DatasetError, match=r"true/case1\.nii\.gz holds"):
            _evaluate(folders)


def test_missing_cases_are_left_out_only_when_asked(folders: tuple[Path, Path]) -> None:
    (folders[1] / "case1.nii.gz").unlink()
    with pytest.raises(DatasetError, match=r"true lacks 1 .*case1.*--allow-missing .* 1 case of"):
        match_folders(*folders, ".nii.gz")
    heard = Heard()
    (pair,) = match_folders(*folders, ".nii.gz", allow_missing=True, report=heard)
    assert pair[0].name == "case0.nii.gz"
    assert "case1" in heard.warnings[0]
    (folders[1] / "case0.nii.gz").rename(folders[1] / "other.nii.gz")
    with pytest.raises(DatasetError, match="same cases"):
        match_folders(*folders, ".nii.gz", allow_missing=True)


def test_files_that_are_not_compared_are_named_and_capitals_do_not_matter(
    folders: tuple[Path, Path],
) -> None:
    (folders[0] / "case0.nii.gz").rename(folders[0] / "case0.NII.GZ")
    (folders[1] / "case2.nrrd").touch()
    heard = Heard()
    assert len(match_folders(*folders, ".nii.gz", report=heard)) == 2
    (warning,) = heard.warnings
    assert "true holds 1 file that belongs to no case: case2.nrrd" in warning


def test_original_values_are_those_of_the_dataset_in_memory(tmp_path: Path) -> None:
    original = OriginalValues(SimpleItkFormat(), {0: 0, 1: 3, 2: 255})
    path, grid = tmp_path / "case.nii.gz", Geometry((1, 1, 3))
    original.write(path, np.array([[[0, 2, 1]]], np.uint8), grid)
    assert SimpleItkFormat().read(path).array.ravel().tolist() == [0, 255, 3]
    assert original.read(path).array.ravel().tolist() == [0, 2, 1]
    SimpleItkFormat().write(path, np.array([[[0, 1, 3]]], np.uint8), grid)
    with pytest.raises(DatasetError, match=r"values \[1\].*had \[0, 3, 255\]"):
        original.read(path)


def test_label_files_may_hold_whole_floats_but_no_fractions(tmp_path: Path) -> None:
    path = tmp_path / "label.nrrd"
    for values, fits in (([0.0, 2.0], True), ([0.0, 0.5], False), ([0.0, np.nan], False)):
        SimpleItkFormat((".nrrd",)).write(
            path, np.array(values, np.float32).reshape(1, 1, 2), Geometry((1, 1, 2))
        )
        if fits:
            assert read_label_map(path, SimpleItkFormat((".nrrd",))).tolist() == [[[0, 2]]]
        else:
            with pytest.raises(ImageError, match=r"no whole numbers|NaN"):
                read_label_map(path, SimpleItkFormat((".nrrd",)))
