"""Ensembles of folders: the mean of what is there, and what does not fit together."""

import json
from dataclasses import dataclass, field

import numpy as np
import pytest
from commands import nnunet
from finished_run import one_error
from hypothesis import given, settings
from hypothesis import strategies as st

from nnunet_builtin.formats.simpleitk import SimpleItkFormat
from nnunet_core.data.images import Geometry
from nnunet_core.data.labels import Labels
from nnunet_core.errors import StorageError, UnknownComponentError
from nnunet_core.prediction import averaging
from nnunet_core.prediction import ensemble as stage
from nnunet_core.prediction.ensemble import ensemble_folders
from nnunet_core.registry.discovery import Registry
from nnunet_core.registry.records import ComponentRecord
from nnunet_core.stages.case import to_segmentation
from nnunet_core.store.npz import NpzProbabilities
from nnunet_core.store.postprocessing import Decision, read_decision
from nnunet_core.store.predictions import PredictionRecord
from nnunet_core.store.probabilities import read_probabilities, write_probabilities

TWO = Labels(names={0: "background", 1: "liver", 2: "tumour"}, foreground=(1, 2))
REGIONS = Labels(
    names={0: "background", 1: "edema", 2: "core"},
    foreground=(1, 2),
    regions=((1, 2), (2,)),
    region_names=("whole", "core"),
    region_order=(1, 2),
)
GRID = Geometry((5, 6, 7), (3.0, 1.0, 1.5), (4.0, 5.0, 6.0))
PREDICTOR = ComponentRecord(
    reference="a", target="a:A", distribution=None, version=None, settings={}
)


@dataclass
class Folder:
    """Writes a folder as `nnunet predict --save-probabilities` does."""

    path: object
    labels: Labels = TWO
    geometry: Geometry = GRID
    cases: tuple[str, ...] = ("a", "b")
    seed: int = 0
    without: tuple[str, ...] = ()
    classes: int = 0
    found: dict = field(default_factory=dict)

    def write(self, record=True):
        rng = np.random.default_rng(self.seed)
        for case in self.cases:
            shape = (self.classes or self.labels.outputs, *self.geometry.shape)
            values = rng.random(shape, np.float32)
            values = values if self.labels.regions else values / values.sum(0)
            self.found[case] = values.astype(np.float16)
            path = self.path / f"{case}.nii.gz"
            label = to_segmentation(values, self.labels)
            SimpleItkFormat().write(path, label, self.geometry)
            if case not in self.without:
                write_probabilities(self.path / f"{case}.b2nd", values)
        if record:
            names = tuple(f"{case}.nii.gz" for case in self.cases)
            self.record(names).write(self.path / "predictions.json")
        return self

    def record(self, names):
        return PredictionRecord(
            model="somewhere",
            folds=("0",),
            identity=f"digest {self.seed}",
            predictor=PREDICTOR,
            postprocess=False,
            labels=self.labels,
            label_ending=".nii.gz",
            outputs=names,
        )


def label(path):
    return SimpleItkFormat().read(path)


def mean(*folders, case="a"):
    return np.mean([folder.found[case].astype(np.float32) for folder in folders], axis=0)


@pytest.mark.parametrize("labels", [TWO, REGIONS], ids=["classes", "regions"])
@pytest.mark.parametrize("slab", [1, 200, 10**9])
def test_label_maps_are_those_of_the_mean_whatever_the_slabs(tmp_path, monkeypatch, labels, slab):
    monkeypatch.setattr(averaging, "_SLAB_VALUES", slab)
    folders = [Folder(tmp_path / str(seed), labels, seed=seed).write() for seed in range(3)]
    out = tmp_path / "out"
    registry, paths = Registry.discover(), [folder.path for folder in folders]
    written = ensemble_folders(paths, out, registry, save_probabilities=True)
    assert [path.name for path in written] == ["a.nii.gz", "b.nii.gz"]
    for case, path in zip("ab", written, strict=True):
        expected = mean(*folders, case=case)
        np.testing.assert_array_equal(label(path).array[0], to_segmentation(expected, labels))
        assert label(path).geometry == GRID
        found = read_probabilities(out / f"{case}.b2nd")
        np.testing.assert_allclose(found, expected, atol=5e-4)
    # its output is a folder of predictions: it can be averaged again
    ensemble_folders([out, paths[0]], tmp_path / "again", registry)


@given(st.integers(2, 5), st.integers(0, 2**32 - 1))
@settings(max_examples=25)
def test_equal_members_change_nothing(count, seed):
    """The mean of half-precision values of one kind is that value: no label moves."""
    values = np.random.default_rng(seed).random((3, 4, 3, 2)).astype(np.float16)
    found = averaging._mean([values] * count, slice(0, 4))
    np.testing.assert_array_equal(found.argmax(0), values.argmax(0))
    assert found.dtype == np.float32


def test_postprocessing_is_applied_to_the_mean(tmp_path):
    folders = [Folder(tmp_path / str(seed), seed=seed).write() for seed in range(2)]
    state = {"for_which_classes": [[1, 2]], "min_valid_object_sizes": "None"}
    path = tmp_path / "postprocessing.json"
    path.write_text(json.dumps(state))  # as v1 wrote it
    paths, out = [folder.path for folder in folders], tmp_path / "out"
    done = nnunet("ensemble", *paths, out, "--postprocessing", path)
    assert done.returncode == 0, done.stderr
    raw = to_segmentation(mean(*folders), TWO)
    cleaned = label(out / "a.nii.gz").array[0]
    assert (cleaned != raw).any()
    assert ((cleaned == raw) | (cleaned == 0)).all()
    message = one_error(nnunet("ensemble", *paths, out), 2)
    assert "--overwrite" in message


@pytest.mark.parametrize(
    ("other", "messages"),
    [
        ({"labels": REGIONS}, ["labels differ", "regions"]),
        ({"cases": ("a", "c")}, ["lacks b", "lacks c"]),
        ({"without": ("b",)}, ["no probabilities of b", "--save-probabilities"]),
        ({"geometry": Geometry((5, 6, 8))}, ["another grid", "shape (5, 6, 7)", "(5, 6, 8)"]),
        ({"geometry": Geometry((5, 6, 7))}, ["another grid", "spacing (3.0, 1.0, 1.5)"]),
        ({"classes": 4}, ["have shape (4, 5, 6, 7)", "(3, 5, 6, 7)"]),
    ],
    ids=lambda value: next(iter(value)),
)
def test_what_does_not_fit_together_is_one_message(tmp_path, other, messages):
    Folder(tmp_path / "0").write()
    Folder(tmp_path / "1", seed=1, **other).write()
    message = one_error(nnunet("ensemble", tmp_path / "0", tmp_path / "1", tmp_path / "out"))
    for part in messages:
        assert part in message
    assert not list(tmp_path.glob("out/*.nii.gz"))


@pytest.mark.parametrize("names", [["0"], ["0", "0"], ["0", "1", "1"]])
def test_too_few_folders_or_one_of_them_twice_are_refused(tmp_path, names):
    for name in set(names):
        Folder(tmp_path / name).write()
    paths = [tmp_path / name for name in names]
    one_error(nnunet("ensemble", *paths, tmp_path / "out"), 2)
    assert not (tmp_path / "out").exists()


def test_a_damaged_file_fails_its_case_alone_and_a_rerun_makes_it(tmp_path):
    folders = [Folder(tmp_path / str(seed), seed=seed).write() for seed in range(2)]
    damaged, out = tmp_path / "1" / "a.b2nd", tmp_path / "out"
    content = damaged.read_bytes()
    damaged.write_bytes(content[: len(content) // 2])
    arguments = ("ensemble", tmp_path / "0", tmp_path / "1", out)
    message = one_error(nnunet(*arguments))
    assert "1 of 2 cases failed" in message
    assert str(damaged) in message
    time = (out / "b.nii.gz").stat().st_mtime_ns
    damaged.write_bytes(content)
    assert nnunet(*arguments).returncode == 0
    assert (out / "b.nii.gz").stat().st_mtime_ns == time
    expected = to_segmentation(mean(*folders), TWO)
    np.testing.assert_array_equal(label(out / "a.nii.gz").array[0], expected)
    times = {path: path.stat().st_mtime_ns for path in out.iterdir()}
    assert nnunet(*arguments).returncode == 0
    assert {path: path.stat().st_mtime_ns for path in out.iterdir()} == times


# ---- folders of v1 and v2


def dataset_json(tmp_path):
    labels = {"background": 0, "liver": 1, "tumour": 2}
    document = {"channel_names": {"0": "CT"}, "labels": labels, "file_ending": ".nii.gz"}
    path = tmp_path / "dataset.json"
    path.write_text(json.dumps(document))
    return path


@pytest.mark.parametrize("key", ["softmax", "probabilities"])
def test_npz_files_of_v1_and_v2_take_part(tmp_path, key):
    ours, theirs = (
        Folder(tmp_path / "0").write(),
        Folder(tmp_path / "1", seed=1, without=("a", "b")),
    )
    theirs.write(record=False)
    for case, values in theirs.found.items():
        np.savez_compressed(theirs.path / f"{case}.npz", **{key: values})
    arguments = ("ensemble", ours.path, theirs.path, tmp_path / "out")
    assert "--dataset" in one_error(nnunet(*arguments), 2)
    done = nnunet(*arguments, "--dataset", dataset_json(tmp_path))
    assert done.returncode == 0, done.stderr
    expected = to_segmentation(mean(ours, theirs), TWO)
    np.testing.assert_array_equal(label(tmp_path / "out" / "a.nii.gz").array[0], expected)


def test_probabilities_of_a_cropped_image_are_refused_with_the_reason(tmp_path):
    folders = [Folder(tmp_path / str(i), seed=i, without=("a", "b")) for i in range(2)]
    for folder in folders:
        folder.write(record=False)
        for case, values in folder.found.items():
            np.savez(folder.path / f"{case}.npz", softmax=values[:, 1:-1])
    arguments = (*(folder.path for folder in folders), tmp_path / "out")
    done = nnunet("ensemble", *arguments, "--dataset", dataset_json(tmp_path))
    assert "nnU-Net v1 cuts them" in one_error(done)


@pytest.mark.parametrize("content", ["nothing", "other key", "objects", "text"])
def test_npz_files_that_hold_something_else_are_refused(tmp_path, content):
    path = tmp_path / "a.npz"
    arrays = {
        "nothing": {},
        "other key": {"data": np.zeros((1, 2, 3, 4), np.float16)},
        "objects": {"softmax": np.array([{"a": 1}], dtype=object)},
    }
    if content == "text":
        path.write_text("text")
    else:
        np.savez(path, **arrays[content])
    with pytest.raises(StorageError, match="holds no probabilities"):
        NpzProbabilities(path)


@pytest.mark.shared
def test_real_predictions_of_v1_are_averaged_as_v1_does(models, tmp_path):
    """v1 means in half precision; ours is exact. Labels differ where its rounding makes a tie."""
    folders = [models / "v1" / f"predictions_{name}" for name in ("3d_fullres", "2d")]
    if not all(any(folder.glob("*.npz")) for folder in folders):
        pytest.skip("the predictions have no probabilities")
    labels = {"background": 0, "Anterior": 1, "Posterior": 2}
    document = {"channel_names": {"0": "MRI"}, "labels": labels, "file_ending": ".nii.gz"}
    (tmp_path / "dataset.json").write_text(json.dumps(document))
    arguments = ("--dataset", tmp_path / "dataset.json")
    done = nnunet("ensemble", *folders, tmp_path / "out", *arguments)
    assert done.returncode == 0, done.stderr
    for path in sorted((tmp_path / "out").glob("*.nii.gz")):
        name = f"{path.name.removesuffix('.nii.gz')}.npz"
        stored = [np.load(folder / name)["softmax"] for folder in folders]
        assert {array.dtype for array in stored} == {np.dtype(np.float16)}
        found = label(path).array[0]
        exact = np.mean([array.astype(np.float32) for array in stored], axis=0)
        np.testing.assert_array_equal(found, exact.argmax(0))
        assert (found == np.mean(stored, 0).argmax(0)).mean() >= 0.999


# ---- files of postprocessing


def test_files_of_v2_are_understood_and_its_pickle_is_refused(tmp_path):
    document = {
        "postprocessing_fns": ["remove_all_but_largest_component_from_segmentation"] * 2,
        "postprocessing_kwargs": [{"labels_or_regions": [1, [2, 3]]}, {"labels_or_regions": 2}],
    }
    path = tmp_path / "postprocessing.json"
    path.write_text(json.dumps(document))
    found = read_decision(path)
    assert found.reference == "largest_component"
    assert found.state["for_which_classes"] == [[1, 2, 3], [2]]
    postprocessor, state = stage.opened(found, Registry.discover())
    diagonal = np.zeros((2, 2, 4), np.uint8)
    diagonal[0, 0, 0] = diagonal[1, 1, 1] = 1  # one object where corners connect, as in v2
    diagonal[0, 0, 3] = 1
    cleaned = postprocessor.apply(diagonal, Geometry((2, 2, 4)), state)
    assert cleaned.sum() == 2
    (tmp_path / "postprocessing.pkl").write_bytes(b"cos\nsystem\n(S'touch evil'\ntR.")
    with pytest.raises(StorageError, match=r"postprocessing\.json"):
        read_decision(tmp_path / "postprocessing.pkl")
    document["postprocessing_fns"] = ["os.system"] * 2
    path.write_text(json.dumps(document))
    with pytest.raises(StorageError, match=r"os\.system"):
        read_decision(path)


def test_a_decision_that_names_code_is_refused():
    with pytest.raises(UnknownComponentError, match="nothing was imported"):
        stage.opened(Decision("os:system"), Registry.discover())
