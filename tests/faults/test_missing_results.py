"""Results of which a file is missing or damaged: made again, or a message that says what to do."""

import itertools
import json
import shutil

import numpy as np
import pytest
import small_training as small
import torch
from commands import nnunet
from finished_run import Finished, finish, one_error
from safetensors.torch import load_file, save_file

from nnunet_builtin.computing.devices import ResolvedRuntime
from nnunet_builtin.inference.networks import probabilities_of
from nnunet_builtin.networks.weights import load_weights, read_weights
from nnunet_builtin.preprocessing.preprocessor import DefaultPreprocessor
from nnunet_core.data.cases import PreparedGeometry
from nnunet_core.data.images import Geometry
from nnunet_core.errors import NnunetError, StorageError
from nnunet_core.registry.records import FoldRecord
from nnunet_core.stages.case import CasePredictor
from nnunet_core.store.models import weights_record

pytestmark = pytest.mark.slow
WEIGHTS = "weights.safetensors"


@pytest.fixture(scope="module")
def finished_once(tmp_path_factory):
    return finish(tmp_path_factory.mktemp("finished"))


@pytest.fixture
def finished(finished_once, tmp_path):
    return Finished(shutil.copytree(finished_once.workspace, tmp_path / "ws"))


def truncated(path):
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def emptied(path):
    path.write_bytes(b"")


def flipped(path):
    content = bytearray(path.read_bytes())
    content[-100] ^= 1
    path.write_bytes(content)


def of_something_else(path):
    save_file({"other": torch.ones(3)}, path)


def not_finite(path):
    save_file({name: value * torch.nan for name, value in load_file(path).items()}, path)


def a_folder(path):
    path.unlink()
    path.mkdir()


DAMAGES = [truncated, emptied, flipped, of_something_else, not_finite]


@pytest.mark.parametrize(
    ("command", "damage"),
    [("run", truncated), *itertools.product(["train", "predict", "--pretrained"], DAMAGES)],
    ids=lambda value: getattr(value, "__name__", value),
)
def test_damaged_weights_of_a_finished_fold_are_one_message(finished, tmp_path, command, damage):
    damage(finished.fold / WEIGHTS)
    if command == "predict":
        done = finished.predict(tmp_path / "out")
        assert not (tmp_path / "out" / "new_0.nii.gz").exists()
    elif command == "--pretrained":
        done = finished.again("train", "--pretrained", finished.fold)
    else:
        done = finished.again(command)
    message = one_error(done)
    assert WEIGHTS in message
    assert "intact copy" in message
    assert "train" in message


@pytest.mark.parametrize("damage", [*DAMAGES, a_folder], ids=lambda damage: damage.__name__)
def test_the_loader_refuses_weights_that_are_none(finished, damage):
    network = torch.nn.Conv2d(1, 1, 1)
    damage(finished.fold / WEIGHTS)
    with pytest.raises(StorageError, match=WEIGHTS):
        load_weights(network, finished.fold / WEIGHTS)


def test_weights_with_one_infinite_value_are_named(tmp_path):
    save_file({"a": torch.ones(3), "b": torch.tensor([1, torch.inf])}, tmp_path / WEIGHTS)
    with pytest.raises(StorageError, match=r"in 1 of 2 tensors: b\."):
        read_weights(tmp_path / WEIGHTS)


def test_weights_that_are_wrong_from_the_start_are_refused_in_prediction(finished, tmp_path):
    not_finite(finished.fold / WEIGHTS)
    record = FoldRecord.read(finished.fold / "run.json")
    record = record.model_copy(update={"weights": weights_record(finished.fold)})
    record.write(finished.fold / "run.json")
    assert "not finite" in one_error(finished.predict(tmp_path / "out"))


@pytest.mark.parametrize("regions", [False, True])
@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_logits_that_are_not_finite_are_an_error(regions, value):
    class Network(torch.nn.Module):
        def forward(self, tiles):
            logits = torch.zeros(len(tiles), 2, *tiles.shape[2:])
            logits[:, 1, 0, 0, 0] = value
            return (logits,)

    runtime = ResolvedRuntime(torch.device("cpu"), torch.float32, 1, 0)
    forward = probabilities_of(Network(), runtime, regions)

    def apply(images):
        return forward(torch.from_numpy(images)[None])[0].numpy()

    labels = small.labels_of(small.REGIONS if regions else {"background": 0, "a": 1})
    images = np.zeros((1, 4, 4, 4), np.float32)
    place = PreparedGeometry(Geometry((4, 4, 4)), ((0, 4),) * 3, (0, 1, 2), (4, 4, 4), (1, 1, 1))
    with pytest.raises(NnunetError, match="not finite"):
        CasePredictor(apply, DefaultPreprocessor(), labels).segment(images, place)


def without(name):
    def missing(finished):
        shutil.rmtree(finished / name) if (finished / name).is_dir() else (finished / name).unlink()

    missing.__name__ = name
    return missing


def without_a_case(finished):
    sorted((finished / "fold_0/validation").glob("*.nii.gz"))[0].unlink()


def cut(name):
    def damaged(finished):
        (finished / name).write_bytes((finished / name).read_bytes()[:50])

    damaged.__name__ = f"half of {name}"
    return damaged


def summary_without(key):
    def changed(finished):
        path = finished / "fold_0/validation/summary.json"
        content = json.loads(path.read_text())
        content["results"].pop(key)
        path.write_text(json.dumps(content))

    changed.__name__ = f"summary without {key}"
    return changed


def summary_of_fewer(finished):
    path = finished / "fold_0/validation/summary.json"
    content = json.loads(path.read_text())
    content["results"]["all"].pop()
    path.write_text(json.dumps(content))


def names_of_validation(model):
    return sorted(path.name for path in (model / "fold_0/validation").iterdir())


@pytest.mark.parametrize(
    ("command", "damage"),
    [
        ("run", without("fold_0/validation")),
        ("run", without("fold_0/validation/summary.json")),
        ("run", without_a_case),
        ("train", without_a_case),
        ("train", cut("fold_0/validation/summary.json")),
        ("train", summary_without("all")),
        ("train", summary_without("mean")),
        ("run", summary_of_fewer),
        ("train", without("model.json")),
        ("run", cut("model.json")),
    ],
    ids=lambda value: getattr(value, "__name__", value),
)
def test_what_is_missing_is_made_again_without_training(finished, command, damage):
    weights, names = (finished.fold / WEIGHTS).read_bytes(), names_of_validation(finished.model)
    model = (finished.model / "model.json").read_text()
    folder = finished.model
    damage(folder)
    done = finished.again(command)
    assert done.returncode == 0, done.stderr
    assert names_of_validation(folder) == names
    assert (folder / "model.json").read_text() == model
    assert (folder / "fold_0" / WEIGHTS).read_bytes() == weights
    assert "trained and validated already" in finished.again(command).stderr


def test_missing_weights_are_trained_anew_and_the_rest_is_kept(finished):
    (finished.fold / WEIGHTS).unlink()
    done = finished.again()
    assert done.returncode == 0, done.stderr
    assert f"its {WEIGHTS} is missing" in done.stderr
    assert (finished.fold / WEIGHTS).is_file()
    assert (finished.model / "stale_fold_0_1" / "run.json").is_file()


@pytest.mark.parametrize("name", ["crossval_summary.json", "postprocessing"])
def test_what_joins_the_folds_is_made_again(finished, name):
    without(name)(finished.model)
    assert finished.again().returncode == 0
    assert (finished.model / name).exists()


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (without(f"fold_0/{WEIGHTS}"), f"{WEIGHTS} is missing"),
        (without("fold_0/run.json"), "run.json is missing"),
        (cut("fold_0/run.json"), "run.json"),
        (cut(f"fold_0/{WEIGHTS}"), "50 bytes instead of"),
        (without("fold_0/validation/summary.json"), "summary.json"),
        (cut("model.json"), "model.json"),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_a_list_of_models_shows_what_is_broken_and_goes_on(finished, tmp_path, damage, said):
    other = finished.model.with_name("2d")
    shutil.copytree(finished.model, other)
    damage(other)
    done = nnunet("models", "list", "--workspace", finished.workspace)
    assert done.returncode == 0, done.stderr
    (broken,) = [line for line in done.stdout.splitlines() if "broken:" in line]
    assert said in broken
    assert "3d_fullres  finished       folds 0" in done.stdout
    rows = json.loads(nnunet("models", "list", "--workspace", finished.workspace, "--json").stdout)
    assert [bool(row["broken"]) for row in rows] == [True, False]


def test_a_broken_fold_is_never_left_out_of_a_prediction_without_a_word(finished, tmp_path):
    shutil.copytree(finished.fold, finished.model / "fold_1")
    (finished.model / "fold_1" / WEIGHTS).unlink()
    message = one_error(finished.predict(tmp_path / "out"))
    assert "Fold 1" in message
    assert "--folds 0" in message
    assert "nnunet train" in message
    assert finished.predict(tmp_path / "out", "--folds", "0").returncode == 0
