"""What find-best selected, in a program: the labels of `nnunet predict`, an ensemble too."""

import json
import threading

import numpy as np
import pytest
from tiny_model import make_tiny_model

import nnunet_core
from nnunet_builtin.formats.simpleitk import SimpleItkFormat
from nnunet_core import read_probabilities
from nnunet_core.contracts.trainer import Runtime
from nnunet_core.data.images import Geometry
from nnunet_core.errors import StorageError, UsageError
from nnunet_core.prediction.infer import predict_inference
from nnunet_core.prediction.predict import PredictionOptions, predict_folder
from nnunet_core.registry.discovery import Registry
from nnunet_core.store.inference import InferenceDocument, member_record
from nnunet_core.store.models import Model
from nnunet_core.store.postprocessing import PostprocessingRecord

FORMAT = SimpleItkFormat()
GRID = Geometry((9, 12, 10), (1.5, 1.0, 0.8))
RUNTIME = Runtime("cpu", "float32", 0, 1)


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    """Two models; inference.json of both, cleaned, and of one."""
    results = tmp_path_factory.mktemp("results") / "Dataset001_Tiny"
    places = [results / "default" / name for name in ("2d", "3d_fullres")]
    # of the second model another fold: other weights
    models = [Model.open(make_tiny_model(place, settings={"mirroring": False})) for place in places]
    folds = [("0",), ("1",)]
    component = models[0].document.components["postprocessor"]
    decided = PostprocessingRecord(
        component=component, folds=(), weights={}, inputs="", state={"for_which_classes": [1, 2]}
    )
    both = tuple(member_record(m, f, results) for m, f in zip(models, folds, strict=True))
    for name, members, clean in (("inference", both, decided), ("single", both[:1], None)):
        InferenceDocument(dataset=results.name, members=members, postprocessing=clean).write(
            results / f"{name}.json"
        )
    return results


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    place = tmp_path_factory.mktemp("images")
    for seed in range(3):
        array = np.random.default_rng(seed).normal(100, 20, GRID.shape).astype(np.float32)
        FORMAT.write(place / f"{seed}_0000.nii.gz", array, GRID)
    return place


def load(path, **options):
    return nnunet_core.load_model(path, "cpu", precision="float32", threads=1, **options)


def array_of(images, seed):
    return FORMAT.read(images / f"{seed}_0000.nii.gz").array[0]


@pytest.fixture(scope="module")
def commanded(results, images, tmp_path_factory):
    """{name of the file: label maps} of `nnunet predict`."""
    found = {}
    for name in ("inference", "single"):
        out = tmp_path_factory.mktemp(name)
        options = PredictionOptions(runtime=RUNTIME)
        predict_inference(results / f"{name}.json", images, out, Registry.discover(), options)
        found[name] = [FORMAT.read(out / f"{seed}.nii.gz").array[0] for seed in range(3)]
    return found


@pytest.mark.parametrize("name", ["inference", "single"])
def test_labels_are_those_of_the_command(results, images, commanded, name):
    with load(results / f"{name}.json") as model:
        assert model.channels == ("MRI",)
        for seed, expected in enumerate(commanded[name]):
            label = model.predict(array_of(images, seed), GRID.spacing)
            assert label.dtype == np.uint8
            np.testing.assert_array_equal(label, expected)
            assert len(np.unique(label)) > 1
        image = model.predict(images / "0_0000.nii.gz")
    np.testing.assert_array_equal(FORMAT.from_object(image, "image").array[0], commanded[name][0])


def test_probabilities_are_the_mean_of_what_is_stored_of_each_model(results, images, tmp_path):
    stored = []
    for name, fold in (("2d", "0"), ("3d_fullres", "1")):
        options = PredictionOptions(
            folds=(fold,), postprocess=False, save_probabilities=True, runtime=RUNTIME
        )
        model = Model.open(results / "default" / name)
        predict_folder(model, images, tmp_path / name, Registry.discover(), options)
        stored.append(read_probabilities(tmp_path / name / "0.b2nd").astype(np.float32))
    assert not np.array_equal(*stored)
    with load(results) as model:  # the folder holds inference.json
        label, found = model.predict(array_of(images, 0), GRID.spacing, probabilities=True)
        uncleaned = load(results, postprocess=False).predict(array_of(images, 0), GRID.spacing)
    np.testing.assert_array_equal(found, (stored[0] + stored[1]) / np.float32(2))
    np.testing.assert_array_equal(uncleaned, found.argmax(axis=0))
    assert (label != uncleaned).any()


def test_threads_get_the_label_maps_of_their_own_images(results, images, commanded):
    found = [None] * 6
    with load(results) as model:

        def predict(number):
            found[number] = model.predict(array_of(images, number % 3), GRID.spacing)

        threads = [threading.Thread(target=predict, args=[number]) for number in range(6)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    for number, label in enumerate(found):
        np.testing.assert_array_equal(label, commanded["inference"][number % 3])


def test_what_the_file_decides_cannot_be_asked_for(results):
    with pytest.raises(UsageError, match="says which folds predict"):
        load(results, folds="0")
    with pytest.raises(UsageError, match=r"There is no file .*absent.json"):
        load(results / "absent.json")


def test_a_model_that_was_trained_anew_is_refused(results, tmp_path):
    document = json.loads((results / "inference.json").read_text())
    for member in document["members"]:
        member["model"] = str(results / member["model"])
        member["weights"] = dict.fromkeys(member["weights"], "other")
    (tmp_path / "inference.json").write_text(json.dumps(document))
    with pytest.raises(StorageError, match="trained anew"):
        load(tmp_path)
