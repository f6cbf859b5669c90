"""Largest-component cleaning: v1's decisions and maps, and what it must never do."""

import json
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from nnunet_builtin.postprocessing.components import components_of, keep_largest
from nnunet_builtin.postprocessing.fill_holes import FillHoles
from nnunet_builtin.postprocessing.largest_component import LargestComponent
from nnunet_builtin.postprocessing.minimum_size import MinimumSize
from nnunet_builtin.postprocessing.nothing import NoPostprocessing
from nnunet_builtin.postprocessing.scoring import Counts, MeanDice, objects_of
from nnunet_core.data.images import Geometry
from nnunet_core.data.labels import Labels
from nnunet_core.errors import ImageError, StorageError, UsageError
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


# ---- minimum_size


def _best_by_trying(pairs, labels, component):
    """Apply every size that makes a difference; return the mean Dice of the best one, per class."""
    raw = _mean_dice(pairs, labels, lambda prediction, geometry: prediction)
    best = dict(raw)
    sizes = {0.5}
    for prediction, _, _ in pairs():
        for value in labels.foreground:
            _, _, found = components_of(prediction, [value])
            sizes |= {float(size) + 0.5 for size in found}
    for size in sorted(sizes)[:-1]:
        state = {
            "unit": "voxels",
            "minimum_sizes": [{"labels": [v], "size": size} for v in labels.foreground],
        }
        after = _mean_dice(pairs, labels, lambda p, g, s=state: component.apply(p, g, s))
        best = {
            k: after[k] if not np.isnan(after[k]) and after[k] > best[k] else best[k] for k in raw
        }
    return raw, best


def _mean_dice(pairs, labels, clean):
    mean = MeanDice()
    objects = objects_of(labels)
    for prediction, reference, geometry in pairs():
        mean.add(Counts.of(clean(prediction, geometry), reference, labels, objects))
    return mean.scores(objects)


@given(
    arrays(np.int16, (3, 2, 4, 5), elements=st.integers(0, 2)),
    arrays(np.int16, (3, 2, 4, 5), elements=st.integers(0, 2)),
)
def test_the_size_is_the_best_of_all_and_no_class_loses(predictions, references):
    pairs, component = _pairs(predictions, references), MinimumSize(unit="voxels")
    state = component.fit(pairs, TWO)
    assert json.loads(json.dumps(state, allow_nan=False)) == state
    raw, best = _best_by_trying(pairs, TWO, component)
    after = _mean_dice(pairs, TWO, lambda p, g: component.apply(p, g, state))
    for key in raw:
        assert state["dice_before"][key] == (
            None if np.isnan(raw[key]) else pytest.approx(raw[key])
        )
        if not np.isnan(after[key]):
            assert after[key] == pytest.approx(max(best[key], raw[key]), abs=1e-12)
            assert state["dice_after"][key] == pytest.approx(after[key])


def test_a_size_is_chosen_only_where_it_helps():
    prediction = _row(1, 1, 1, 0, 1, 0, 2, 0, 2, 2)
    reference = _row(1, 1, 1, 0, 0, 0, 2, 0, 2, 2)
    geometry = Geometry((1, 1, 10), (1, 1, 4))
    state = MinimumSize().fit(lambda: iter([(prediction[0], reference[0], geometry)]), TWO)
    (entry,) = state["minimum_sizes"]
    assert entry["labels"] == [1]
    assert 4 < entry["size"] < 12  # mm3, between one and three voxels
    assert state["dice_before"]["2"] == state["dice_after"]["2"] == 1
    cleaned = MinimumSize().apply(prediction[0], geometry, state)
    np.testing.assert_array_equal(cleaned, reference[0])


@pytest.mark.parametrize(
    ("chosen", "expected"),
    [
        ({"size": 2}, [1, 1, 0, 2, 2, 2, 0, 0]),
        ({"size": 4, "together": True}, [0, 0, 0, 2, 2, 2, 1, 0]),
        ({"size": {1: 3}}, [0, 0, 0, 2, 2, 2, 0, 0]),
        ({"size": 3, "unit": "mm3"}, [1, 1, 0, 2, 2, 2, 0, 0]),
    ],
)
def test_a_size_that_is_set_applies_without_references(chosen, expected):
    segmentation = np.array([[[1, 1, 0, 2, 2, 2, 1, 0]]])
    component = MinimumSize(**{"unit": "voxels", **chosen})
    state = component.fit(_never, TWO)
    cleaned = component.apply(segmentation, Geometry((1, 1, 8), (1, 1, 2)), state)
    assert cleaned.ravel().tolist() == expected


def _never() -> Iterator:
    raise AssertionError("read")


# ---- fill_holes


def test_holes_are_filled_with_the_label_around_them():
    ring = np.zeros((5, 7, 7), int)
    ring[1:4, 1:6, 1:6] = 1
    ring[2, 2:5, 2:5] = 2
    ring[2, 3, 3] = 0  # four faces touch 2, two touch 1
    ring[2, 1, 1] = 0  # at the rim: open
    component, geometry = FillHoles(labels=[1, 2]), Geometry((5, 7, 7))
    filled = component.apply(ring, geometry, component.fit(_never, TWO))
    assert filled[2, 3, 3] == 2
    assert (filled != ring).sum() == 1
    only_one = component.apply(ring, geometry, {"labels": [1], "dimensions": 3})
    np.testing.assert_array_equal(only_one, ring)


def test_a_tunnel_is_a_hole_of_slices_along_the_coarse_axis():
    tunnel = np.ones((4, 4, 4), int)
    tunnel[:, 1, 2] = 0
    tunnel[0], tunnel[-1] = 0, 0
    for spacing, dimensions, filled in (
        ((3, 1, 1), 2, True),
        ((1, 1, 1), 2, True),
        ((1, 3, 1), 2, False),
        ((3, 1, 1), 3, False),
    ):
        state = {"labels": [1], "dimensions": dimensions}
        found = FillHoles().apply(tunnel, Geometry((4, 4, 4), spacing), state)
        assert bool(found[1:-1].all()) == filled


def test_a_single_slice_has_holes_in_3d_too():
    image = np.ones((1, 3, 3), int)
    image[0, 1, 1] = 0
    assert FillHoles().apply(image, Geometry((1, 3, 3)), {"labels": [1], "dimensions": 3}).all()


def test_holes_are_filled_where_that_helped():
    shell = np.zeros((2, 3, 3), int)
    shell[:] = 1
    shell[:, 1, 1] = 0
    shell = shell[:1]
    solid = np.ones_like(shell)
    geometry = Geometry((1, 3, 3))
    for reference, chosen in ((solid, [1]), (shell, [])):
        state = FillHoles().fit(lambda r=reference: iter([(shell, r, geometry)]), TWO)
        assert state["labels"] == chosen
        assert state["num_samples"] == 1
    state = FillHoles().fit(lambda: iter([(shell * 2, solid * 2, geometry)]), REGIONS)
    assert state["labels"] == [2]
    assert state["dice_before"] == pytest.approx({"whole": 16 / 17, "core": 16 / 17})
    assert state["dice_after"] == {"whole": 1, "core": 1}


# ---- what all of them promise

EVERY = [
    LargestComponent(),
    LargestComponent(labels=[[1, 2]]),
    MinimumSize(),
    MinimumSize(together=True),
    MinimumSize(size=3, unit="voxels"),
    FillHoles(),
    FillHoles(dimensions=2, labels=[1, 2]),
    NoPostprocessing(),
]


@pytest.mark.parametrize("component", EVERY, ids=lambda c: f"{type(c).__name__}-{vars(c)}")
@pytest.mark.parametrize("labels", [TWO, REGIONS], ids=["classes", "regions"])
@given(
    arrays(np.int16, (2, 3, 4, 4), elements=st.integers(0, 2)),
    arrays(np.int16, (2, 3, 4, 4), elements=st.integers(0, 2)),
)
@settings(max_examples=15)
def test_no_label_is_invented_and_cleaning_twice_is_cleaning_once(
    component, labels, predictions, references
):
    state = component.fit(_pairs(predictions, references), labels)
    assert json.loads(json.dumps(state, allow_nan=False)) == state
    for prediction in predictions:
        before = prediction.copy()
        cleaned = component.apply(prediction, Geometry((3, 4, 4)), state)
        assert set(np.unique(cleaned)) <= {0, *np.unique(before).tolist()}
        assert cleaned.dtype == before.dtype
        np.testing.assert_array_equal(prediction, before)
        assert not np.shares_memory(cleaned, prediction)
        entries = state.get("for_which_classes", [])
        if len(entries) < 2:  # v1 cleans classes after the foreground: that may split it again
            again = component.apply(cleaned, Geometry((3, 4, 4)), state)
            np.testing.assert_array_equal(again, cleaned)


@pytest.mark.parametrize(
    ("component", "message"),
    [
        (LargestComponent(labels=[1, [2, 3]]), r"labels names the labels \[3\]; .* \[1, 2\]"),
        (MinimumSize(size={4: 1.0}), r"size names the labels \[4\]"),
        (MinimumSize(size={1: 1.0}, together=True), "one object, which has one size"),
        (FillHoles(labels=[0]), r"labels names the labels \[0\]"),
    ],
)
def test_settings_that_name_no_label_are_refused(component, message):
    with pytest.raises(UsageError, match=message):
        component.fit(_never, TWO)


@pytest.mark.parametrize(
    ("component", "state"),
    [
        (MinimumSize(), {}),
        (MinimumSize(), {"unit": "ml", "minimum_sizes": []}),
        (MinimumSize(), {"unit": "mm3", "minimum_sizes": [{"labels": 1, "size": 2}]}),
        (FillHoles(), {}),
        (FillHoles(), {"labels": [1], "dimensions": 4}),
    ],
)
def test_a_state_of_another_postprocessor_is_an_error(component, state):
    with pytest.raises(StorageError, match="Fit the postprocessing again"):
        component.apply(np.ones((1, 2, 2), int), Geometry((1, 2, 2)), state)
