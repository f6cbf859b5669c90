"""Checks of preprocessors: the way to the network's grid, and back."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from nnunet_core.contracts.abilities import PreparesLabels, ability, restores_slabs
from nnunet_core.contracts.predictor import Slabs
from nnunet_core.data.cases import Case, PreparedCase
from nnunet_core.data.labels import Labels
from nnunet_core.data.plans import Configuration
from nnunet_core.stages.case import to_segmentation
from nnunet_core.store.prepared import PreparedStore
from nnunet_core.testing.check import Subject, check, require, skip

_TOYS = ("3d", "anisotropic", "2d", "one_slice", "two_channels")
#: Axes in another order, as planners choose it, and another grid than that of the file.
_TURNED = {"transpose_forward": (2, 0, 1)}
_AGREE = 0.8  # Dice of a label map that went there and back


@dataclass(frozen=True)
class _Prepared:
    preprocessor: Any
    case: Case
    configuration: Configuration
    labels: Labels
    result: PreparedCase

    @property
    def where(self) -> str:
        return f"case of shape {self.case.images.shape[1:]}"


@check("preprocessor")
def preprocessor_prepares_what_a_network_reads(subject: Subject) -> None:
    """Images are finite float32 of every channel, the label is an integer map on the same grid, and
    all of it can be stored.
    """
    for number, done in enumerate(_prepared(subject)):
        images, label = done.result.images, done.result.label
        shape = done.result.geometry.prepared_shape
        channels = len(done.case.images)
        require(
            images.dtype == np.float32 and images.shape == (channels, *shape),
            f"{done.where}: images are {images.dtype} {images.shape}; they must be float32 "
            f"{(channels, *shape)}, with the prepared_shape of the geometry.",
        )
        require(np.isfinite(images).all(), f"{done.where}: images are not finite.")
        require(
            label.shape == tuple(shape) and label.dtype in (np.int8, np.int16),
            f"{done.where}: the label is {label.dtype} {label.shape}; it must be int8 or int16 "
            f"{tuple(shape)}.",
        )
        unknown = set(np.unique(label).tolist()) - {-1, *done.labels.values}
        require(not unknown, f"{done.where}: the label has new values {sorted(unknown)}.")
        store = PreparedStore(subject.folder / str(number))
        store.write(done.result, "key", done.configuration.patch_size)
        again = store.open(done.case.name).geometry
        require(again == done.result.geometry, f"{done.where}: another geometry once stored.")


@check("preprocessor")
def preprocessor_locates_foreground(subject: Subject) -> None:
    """Locations of a class lie where the label has its value, of every class that is there; a case
    without a label has none.
    """
    for done in _prepared(subject):
        label, found = done.result.label, done.result.class_locations
        for value in done.labels.foreground:
            there, located = (label == value).any(), np.asarray(found.get(value, ()))
            require(
                bool(there) == bool(len(located)),
                f"{done.where}: {len(located)} locations of class {value}, which is "
                f"{'there' if there else 'not there'}.",
            )
            require(
                not len(located) or (label[tuple(located.T)] == value).all(),
                f"{done.where}: a location of class {value} has another label.",
            )
        without = replace(done.case, label=None)
        result = done.preprocessor.prepare(without, done.configuration, done.labels.foreground)
        require(not result.class_locations, f"{done.where}: locations without a label.")
        require(
            set(np.unique(result.label).tolist()) <= {-1, 0},
            f"{done.where}: without a label file, the label must be 0, and -1 outside.",
        )


@check("preprocessor")
def preprocessor_leaves_its_input_untouched(subject: Subject) -> None:
    """The arrays of a case are the same after `prepare`."""
    for case, configuration, labels in _cases(subject):
        images, label = case.images.copy(), _label(case).copy()
        prepared = subject.build().prepare(case, configuration, labels.foreground)
        prepared.images[...], prepared.label[...] = 0, 0  # a view would change the case, too
        same = np.array_equal(case.images, images) and np.array_equal(_label(case), label)
        require(same, f"case of shape {label.shape}: its arrays are other ones than before.")


@check("preprocessor")
def preprocessor_is_deterministic(subject: Subject) -> None:
    """The same case gives the same arrays, of another object too."""
    for first, second in zip(_prepared(subject), _prepared(subject), strict=True):
        one, other = first.result, second.result
        same = np.array_equal(one.images, other.images) and np.array_equal(one.label, other.label)
        same = same and one.geometry == other.geometry
        same = same and all(
            np.array_equal(places, other.class_locations.get(value, ()))
            for value, places in one.class_locations.items()
        )
        require(same, f"{first.where}: other arrays the second time.")


@check("preprocessor")
def preprocessor_restores_shape_and_geometry(subject: Subject) -> None:
    """`restore` gives float32 probabilities on the grid of the file, whose geometry is kept."""
    for done in _prepared(subject):
        geometry = done.result.geometry
        require(
            geometry.original == done.case.geometry,
            f"{done.where}: geometry.original is {geometry.original}, not that of the case.",
        )
        back = done.preprocessor.restore(_probabilities(done), geometry)
        wanted = (done.labels.outputs, *done.case.images.shape[1:])
        require(
            back.dtype == np.float32 and back.shape == wanted,
            f"{done.where}: restored {back.dtype} {back.shape}; it must be float32 {wanted}.",
        )
        require(np.isfinite(back).all(), f"{done.where}: restored values are not finite.")


@check("preprocessor")
def preprocessor_keeps_orientation(subject: Subject) -> None:
    """What is labelled in a prepared case is restored to where it was labelled in the file, and to
    no mirrored or turned place.
    """
    for done in _prepared(subject):
        back = done.preprocessor.restore(_one_hot(done), done.result.geometry)
        found, truth = to_segmentation(back, done.labels), _label(done.case)
        for value in done.labels.foreground:
            dice = _dice(found == value, truth == value)
            require(
                dice > _AGREE,
                f"{done.where}: class {value} comes back with a Dice of {dice:.2f} with what was "
                f"labelled; mirrored along axes {_best_mirror(found == value, truth == value)} it "
                "fits best.",
            )


@check("preprocessor")
def preprocessor_slabs_agree_with_the_whole(subject: Subject) -> None:
    """What is restored slab by slab is what `restore` gives (abilities.RestoresSlabs)."""
    for done in _prepared(subject):
        able = restores_slabs(done.preprocessor)
        if able is None:
            skip("It restores the whole at once.")
        values, geometry = _probabilities(done), done.result.geometry
        whole = done.preprocessor.restore(values.copy(), geometry)
        halves = np.array_split(values, 2 if values.shape[1] > 1 else 1, axis=1)
        labels = able.restore_labels(Slabs(values.shape, halves), geometry, done.labels)
        require(
            np.array_equal(labels, to_segmentation(whole, done.labels)),
            f"{done.where}: restore_labels is not the label map of restore.",
        )
        joined = np.full_like(whole, np.nan)
        for start, part in able.restore_slabs(Slabs(values.shape, halves), geometry):
            joined[:, start : start + part.shape[1]] = part
        require(
            np.allclose(joined, whole, atol=1e-5), f"{done.where}: restore_slabs is not restore."
        )


@check("preprocessor")
def preprocessor_prepares_labels_as_those_of_cases(subject: Subject) -> None:
    """A label map of the file lies on a prepared case as its own label does
    (abilities.PreparesLabels).
    """
    for done in _prepared(subject):
        able = ability(done.preprocessor, PreparesLabels)
        if able is None:
            skip("It cannot be used in a cascade.")
        label = done.result.label
        found = able.prepare_label(_label(done.case), done.result.geometry)
        require(
            found.shape == label.shape and found.dtype.kind in "iu",
            f"{done.where}: prepare_label gives {found.dtype} {found.shape}; the label of the case "
            f"is {label.dtype} {label.shape}.",
        )
        dice = _dice(found > 0, label > 0)
        require(dice > _AGREE, f"{done.where}: prepare_label has a Dice of {dice:.2f} with it.")


def _cases(subject: Subject) -> Iterator[tuple[Case, Configuration, Labels]]:
    for name in _TOYS:
        dataset = subject.toys.dataset(name)
        case, plain = subject.toys.cases(name)[0], subject.toys.configuration(name)
        yield case, plain, dataset.labels
        if plain.dimensions == 3:
            finer = tuple(0.75 * plain.spacing[axis] for axis in _TURNED["transpose_forward"])
            turned = subject.toys.configuration(name, spacing=finer, **_TURNED)
            yield case, turned, dataset.labels


def _prepared(subject: Subject) -> Iterator[_Prepared]:
    for case, configuration, labels in _cases(subject):
        preprocessor = subject.build()
        result = preprocessor.prepare(case, configuration, labels.foreground)
        yield _Prepared(preprocessor, case, configuration, labels, result)


def _label(case: Case) -> np.ndarray:
    return np.zeros(0) if case.label is None else case.label


def _probabilities(done: _Prepared) -> np.ndarray:
    shape = (done.labels.outputs, *done.result.geometry.prepared_shape)
    values = np.random.default_rng(0).random(shape).astype(np.float32)
    return values / values.sum(axis=0)


def _one_hot(done: _Prepared) -> np.ndarray:
    label = np.maximum(done.result.label, 0)
    values = np.arange(done.labels.outputs).reshape(-1, *(1,) * label.ndim)
    return (label == values).astype(np.float32)


def _dice(found: np.ndarray, truth: np.ndarray) -> float:
    return float(2 * (found & truth).sum() / max(1, found.sum() + truth.sum()))


def _best_mirror(found: np.ndarray, truth: np.ndarray) -> tuple[int, ...]:
    """Return the axes along which a mirrored map fits best."""
    choices = [axes for n in range(4) for axes in itertools.combinations(range(3), n)]
    return max(choices, key=lambda axes: _dice(np.flip(found, axes), truth))
