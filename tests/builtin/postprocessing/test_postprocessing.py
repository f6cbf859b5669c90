"""Largest-component cleaning: v1's decisions and maps, and what it must never do."""

import json
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from nnunet_builtin.postprocessing.largest_component import (
    LargestComponent,
    NoPostprocessing,
    keep_largest,
)
from nnunet_core.data.images import Geometry
from nnunet_core.data.labels import Labels
from nnunet_core.errors import ImageError, StorageError
from nnunet_core.runtime import files

TWO = Labels(names={0: "background", 1: "liver", 2: "tumour"}, foreground=(1, 2))
ONE = Labels(names={0: "background", 1: "liver"}, foreground=(1,))
REGIONS = Labels(
    names={0: "background", 1: "edema", 2: "core"},
    foreground=(1, 2),
    regions=((1, 2), (2,)),
    region_names=("whole", "core"),
    region_order=(1, 2),
)
LABEL_MAPS = arrays(np.int16, (3, 5, 6), elements=st.integers(0, 3))


def _pairs(
    predictions: np.ndarray,
    references: np.ndarray,
    spacing: tuple[float, float, float] = (1.0, 1.0, 1.0),
) -> Callable[[], Iterator]:
    geometry = Geometry(tuple(predictions[0].shape), spacing)
    return lambda: ((p, r, geometry) for p, r in zip(predictions, references, strict=True))


def _row(*values: int) -> np.ndarray:
    return np.array(values, np.uint8).reshape(1, 1, 1, -1)


@pytest.mark.shared
@pytest.mark.parametrize(
    "name",
    ["clean", "islands_fg", "islands_class2", "true_second_object", "mixed", "empty_in_one_case"],
)
def test_decisions_scores_and_cleaned_maps_are_those_of_v1(golden: Path, name: str) -> None:
    entry = next(e for e in files.read_json(golden / "postprocessing.json") if e["name"] == name)
    stored = np.load(golden / "postprocessing.npz", allow_pickle=False)
    predictions, references, expected = (
        stored[f"{name}__{w}"] for w in ("prediction", "reference", "postprocessed")
    )
    z, y, x = entry["spacing_xyz"][::-1]
    pairs = _pairs(predictions, references, (z, y, x))
    component = LargestComponent()
    state = component.fit(pairs, TWO)
    assert state["for_which_classes"] == entry["for_which_classes"]
    assert state["num_samples"] == len(predictions)
    for key in ("dc_per_class_raw", "dc_per_class_pp_all", "dc_per_class_pp_per_class"):
        assert state[key] == pytest.approx(entry[key], abs=1e-9, rel=0)
    for (prediction, _, geometry), cleaned in zip(pairs(), expected, strict=True):
        np.testing.assert_array_equal(component.apply(prediction, geometry, state), cleaned)


@given(
    LABEL_MAPS,
    st.lists(st.one_of(st.integers(1, 3), st.lists(st.integers(1, 3), min_size=1)), max_size=3),
)
def test_cleaning_only_removes(segmentation: np.ndarray, entries: list) -> None:
    before = segmentation.copy()
    state = {"for_which_classes": entries, "min_valid_object_sizes": None}
    cleaned = LargestComponent().apply(segmentation, Geometry((3, 5, 6)), state)
    assert ((cleaned == before) | (cleaned == 0)).all()
    assert cleaned.dtype == before.dtype
    np.testing.assert_array_equal(segmentation, before)
    assert not np.shares_memory(cleaned, segmentation)
    untouched = ~np.isin(before, np.hstack([*entries, []]))
    np.testing.assert_array_equal(cleaned[untouched], before[untouched])


@given(
    arrays(np.int16, (2, 2, 3, 4), elements=st.integers(0, 2)),
    arrays(np.int16, (2, 2, 3, 4), elements=st.integers(0, 2)),
)
@pytest.mark.parametrize("labels", [TWO, REGIONS], ids=["classes", "regions"])
def test_the_state_is_json_and_the_first_step_never_costs_dice(
    labels: Labels, predictions: np.ndarray, references: np.ndarray
) -> None:
    component = LargestComponent()
    state = component.fit(_pairs(predictions, references), labels)
    assert json.loads(json.dumps(state, allow_nan=False)) == state
    if [1, 2] in state["for_which_classes"][:1]:
        for key, before in state["dc_per_class_raw"].items():
            after = state["dc_per_class_pp_all"][key]
            if after is None:  # nothing of the class is left, and no reference has it
                assert not before
            else:
                assert before is None or after >= before


def test_components_touch_by_faces_and_equal_ones_all_stay() -> None:
    diagonal = np.array([[[1, 0, 0], [0, 1, 1]]])
    assert keep_largest(diagonal, [1]).tolist() == [[[0, 0, 0], [0, 1, 1]]]
    assert keep_largest(np.array([[[1, 0], [0, 1]]]), [1]).tolist() == [[[1, 0], [0, 1]]]


def test_labels_of_one_entry_form_one_object() -> None:
    segmentation = _row(1, 2, 0, 1)[0]
    assert keep_largest(segmentation, [1, 2]).tolist() == [[[1, 2, 0, 0]]]
    assert keep_largest(segmentation, [1]).tolist() == [[[1, 2, 0, 1]]]


def test_a_class_that_is_nowhere_neither_helps_nor_blocks() -> None:
    state = LargestComponent().fit(_pairs(_row(1, 1, 0, 1), _row(1, 1, 0, 0)), TWO)
    assert state["for_which_classes"] == [[1, 2]]
    assert state["dc_per_class_raw"]["2"] is None


def test_classes_are_judged_on_what_the_first_step_left() -> None:
    prediction = _row(
        1, 1, 1, 1, 2, 2, 1, 2, 0, 2, 2, 2
    )  # the largest part of class 2 is an island
    reference = _row(1, 1, 1, 1, 2, 2, 1, 1, 0, 0, 0, 0)
    assert LargestComponent().fit(_pairs(prediction, reference), TWO)["for_which_classes"] == [
        [1, 2],
        2,
    ]


def test_empty_predictions_are_fine() -> None:
    state = LargestComponent().fit(_pairs(_row(0, 0), _row(0, 1)), TWO)
    assert state["for_which_classes"] == []
    assert state["dc_per_class_raw"] == {"1": 0.0, "2": None}
    assert (
        not LargestComponent()
        .apply(np.zeros((1, 2, 2), int), Geometry((1, 2, 2)), {"for_which_classes": [[1], 1]})
        .any()
    )


def test_one_class_is_judged_once_and_the_gain_must_exceed_the_threshold() -> None:
    pairs = _pairs(_row(1, 1, 0, 1), _row(1, 1, 0, 0))
    state = LargestComponent().fit(pairs, ONE)
    assert state["for_which_classes"] == [[1]]
    assert state["dc_per_class_pp_per_class"] == {}
    assert LargestComponent(threshold=0.5).fit(pairs, ONE)["for_which_classes"] == []


def test_a_region_is_cleaned_only_if_no_other_region_loses() -> None:
    core_island_in_whole = _pairs(_row(2, 2, 1, 2, 1), _row(2, 2, 1, 1, 1))
    assert LargestComponent().fit(core_island_in_whole, REGIONS)["for_which_classes"] == []
    core_island_outside = _pairs(_row(2, 1, 1, 0, 2), _row(2, 1, 1, 0, 0))
    assert LargestComponent().fit(core_island_outside, REGIONS)["for_which_classes"] == [[1, 2]]
    core_island_in_background = _pairs(_row(2, 2, 1, 2, 1), _row(2, 2, 1, 0, 1))
    assert LargestComponent().fit(core_island_in_background, REGIONS)["for_which_classes"] == [2]


def test_ignored_voxels_have_no_say() -> None:
    labels = Labels(names=ONE.names, foreground=(1,), ignore=2)
    assert (
        LargestComponent().fit(_pairs(_row(1, 1, 0, 1), _row(1, 1, 0, 2)), labels)[
            "for_which_classes"
        ]
        == []
    )


@pytest.mark.parametrize("sizes", ["{(1, 2): 5.0}", {(1, 2): 5.0}])
def test_minimum_sizes_of_v1_are_in_mm3(sizes: object) -> None:
    segmentation = _row(1, 1, 1, 0, 1, 2, 0, 1)[0]
    state = {"for_which_classes": [[1, 2]], "min_valid_object_sizes": sizes}
    for spacing, expected in ((2, [1, 1, 1, 0, 0, 0, 0, 0]), (3, [1, 1, 1, 0, 1, 2, 0, 0])):
        cleaned = LargestComponent().apply(
            segmentation, Geometry((1, 1, 8), (1, 1, spacing)), state
        )
        assert cleaned.ravel().tolist() == expected


@pytest.mark.parametrize(
    "state",
    [
        {},
        {"for_which_classes": "1"},
        {"for_which_classes": [1], "min_valid_object_sizes": "x("},
        {"for_which_classes": [1], "min_valid_object_sizes": "{2: 1.0}"},
    ],
)
def test_a_broken_state_is_an_error(state: dict) -> None:
    with pytest.raises(StorageError):
        LargestComponent().apply(_row(1)[0], Geometry((1, 1, 1)), state)


def test_cases_are_streamed_not_collected() -> None:
    alive = []

    def pairs() -> Iterator:
        for _ in range(5):
            prediction = np.array(_row(1, 0, 2)[0])
            alive.append(prediction)
            yield prediction, prediction, Geometry((1, 1, 3))
            assert len(alive) == 1
            alive.clear()

    assert LargestComponent().fit(pairs, TWO)["num_samples"] == 5


def test_shapes_that_differ_are_an_error() -> None:
    with pytest.raises(ImageError):
        LargestComponent().fit(
            lambda: iter([(_row(1)[0], _row(1, 2)[0], Geometry((1, 1, 1)))]), TWO
        )


def test_no_postprocessing_reads_nothing_and_changes_nothing() -> None:
    def never() -> Iterator:
        raise AssertionError("read")

    state = NoPostprocessing().fit(never, TWO)
    segmentation = _row(1, 0, 1)[0]
    cleaned = NoPostprocessing().apply(segmentation, Geometry((1, 1, 3)), state)
    np.testing.assert_array_equal(cleaned, segmentation)
    assert cleaned is not segmentation
