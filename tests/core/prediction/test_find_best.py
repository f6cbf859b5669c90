"""Selection: which models and ensembles are compared, which one wins, and how it predicts."""

import json
import math
import shlex
import shutil
from pathlib import Path

import numpy as np
import pytest
from commands import nnunet
from finished_run import one_error
from instant_models import Space, make_space

import nnunet_core
from nnunet_builtin.formats.simpleitk import SimpleItkFormat
from nnunet_cli.commands.predict import _selection
from nnunet_core.errors import StorageError
from nnunet_core.prediction.find_best import Selection
from nnunet_core.prediction.infer import predict_inference
from nnunet_core.registry.discovery import Registry
from nnunet_core.registry.records import FoldRecord
from nnunet_core.stages.select import Candidate
from nnunet_core.store.inference import InferenceDocument
from nnunet_core.store.models import weights_record
from nnunet_core.store.probabilities import open_probabilities

TWO = ("-c", "2d", "-c", "3d_fullres")


@pytest.fixture(scope="module")
def ran(tmp_path_factory):
    """A run with two configurations and two folds, and what it printed."""
    space = make_space(tmp_path_factory.mktemp("selection") / "ws")
    done = space.go("run", *TWO, "--json")
    assert done.returncode == 0, done.stderr
    return space, json.loads(done.stdout)


@pytest.fixture
def space(ran, tmp_path):
    """A copy of the finished run that a test may change."""
    folder = tmp_path / "ws"
    shutil.copytree(ran[0].folder, folder)
    return Space(folder)


def label(path):
    return SimpleItkFormat().read(path).array[0]


def written(folder, pattern="*"):
    return {p: p.stat().st_mtime_ns for p in Path(folder).rglob(pattern) if p.is_file()}


# ---- what wins


def candidate(score, members=1):
    return Candidate((None,) * members, Path(), {}, score, (), None)


@pytest.mark.parametrize(
    ("models", "ensembles", "best"),
    [
        ([0.8, 0.9], [0.85], 1),  # the largest mean
        ([0.8, 0.9], [0.91], 2),  # an ensemble that is better
        ([0.8, 0.9], [0.9], 1),  # one that is as good is not
        ([0.9, 0.9], [], 0),  # of equal ones, the first
        ([math.nan, 0.0], [math.nan], 1),  # nothing defined comes last
        ([math.nan, math.nan], [math.nan], 0),
    ],
)
def test_the_largest_mean_dice_wins_and_the_first_of_equal_ones(models, ensembles, best):
    """v1's rule, but for its crash on NaN and for printing all of equal ones."""
    found = (*map(candidate, models), *(candidate(score, 2) for score in ensembles))
    assert Selection(found).best is found[best]


def test_a_run_with_several_configurations_ends_with_the_selection(ran):
    _, printed = ran
    assert printed["best"] == "2d + 3d_fullres"
    dice = {row["name"]: row["mean_dice"] for row in printed["configurations"]}
    assert list(dice) == ["2d", "3d_fullres", "2d + 3d_fullres"]
    assert dice["2d + 3d_fullres"] > 0.99
    assert max(dice["2d"], dice["3d_fullres"]) < 0.8
    inference = InferenceDocument.read(Path(printed["inference"]))
    assert [member.model for member in inference.members] == ["2d", "3d_fullres"]
    assert [member.folds for member in inference.members] == [("0", "1")] * 2
    assert [score.mean_dice for score in inference.scores] == sorted(dice.values(), reverse=True)


def test_the_ensemble_of_a_validation_case_is_the_arg_max_of_the_mean(ran):
    space, _ = ran
    (folder,) = space.results.glob("ensembles/*/validation")
    for fold, case in (("fold_0", "case_5"), ("fold_1", "case_0")):
        paths = [space.model(c) / fold / "validation" for c in ("2d", "3d_fullres")]
        stored = [open_probabilities(path / f"{case}.b2nd")[:] for path in paths]
        expected = np.mean([found.astype(np.float64) for found in stored], axis=0).argmax(0)
        np.testing.assert_array_equal(label(folder / f"{case}.nii.gz"), expected)
    assert len(list(folder.glob("*.nii.gz"))) == 6


def test_the_score_of_a_model_is_that_of_v1_over_the_joined_folds(ran):
    """Mean over labels of the mean over cases of the raw Dice, from the label maps themselves."""
    space, printed = ran
    dice = []
    for path in sorted(space.model("2d").glob("fold_*/validation/*.nii.gz")):
        found, true = label(path) == 1, label(space.dataset / "labelsTr" / path.name) == 1
        dice.append(2 * (found & true).sum() / (found.sum() + true.sum()))
    assert len(dice) == 6
    assert printed["configurations"][0]["mean_dice"] == pytest.approx(np.mean(dice), abs=1e-12)


# ---- inference.json


def test_predict_carries_out_what_was_found_as_the_printed_commands_do(ran, tmp_path, monkeypatch):
    space, printed = ran
    done = space.predict(printed["inference"], tmp_path / "out")
    assert done.returncode == 0, done.stderr
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == [
        *(f"case_{i}.nii.gz" for i in range(6)),
        "predictions.json",
    ]
    for case in range(6):
        found = label(tmp_path / "out" / f"case_{case}.nii.gz")
        true = label(space.dataset / "labelsTr" / f"case_{case}.nii.gz")
        assert (found == true).mean() > 0.999
    before = written(tmp_path / "out")
    assert space.predict(printed["inference"], tmp_path / "out").returncode == 0
    assert written(tmp_path / "out") == before

    monkeypatch.chdir(tmp_path)
    for line in printed["commands"]:
        words = line.replace("IMAGES", str(space.dataset / "imagesTr")).split()[1:]
        trust = ["--trust", "--device", "cpu"] if words[0] == "predict" else []
        done = nnunet(*words, *trust)
        assert done.returncode == 0, done.stderr
    for case in range(6):
        np.testing.assert_array_equal(
            label(tmp_path / "OUTPUT" / f"case_{case}.nii.gz"),
            label(tmp_path / "out" / f"case_{case}.nii.gz"),
        )


def test_a_dataset_predicts_with_its_selection_and_says_so(ran, tmp_path):
    space, printed = ran
    images, quick = space.dataset / "imagesTr", ("--trust", "--device", "cpu")
    here, workspace = Path(printed["inference"]).parent, ("--workspace", space.folder)
    done = nnunet(
        "predict", "-d", space.results.name, images, tmp_path / "named", *quick, *workspace
    )
    assert done.returncode == 0, done.stderr
    told = " ".join(done.stderr.split())
    assert "/2d + " in told
    assert f"selected in {here / 'inference.json'}" in told.replace(" inference", "inference")
    assert nnunet("predict", here, images, tmp_path / "folder", *quick).returncode == 0
    records = [(tmp_path / n / "predictions.json").read_text() for n in ("named", "folder")]
    assert records[0] == records[1]
    assert len(json.loads(records[0])["model"].split(" + ")) == 2


def test_one_case_goes_into_one_file(ran, tmp_path):
    space, printed = ran
    image, output = space.dataset / "imagesTr" / "case_1_0000.nii.gz", tmp_path / "one.nii.gz"
    arguments = (printed["inference"], image, output, "--trust", "--device", "cpu")
    done = nnunet("predict", *arguments)
    assert done.returncode == 0, done.stderr
    assert label(output).any()
    assert sorted(path.name for path in tmp_path.iterdir()) == [".one.nii.gz.json", "one.nii.gz"]
    again = nnunet("predict", *arguments)
    assert again.returncode == 0
    assert "is there already" in again.stderr
    assert "exists already" in one_error(nnunet("predict", *arguments, "--step-size", "1"), 2)
    with nnunet_core.load_model(printed["inference"], "cpu", trust=True) as model:
        found = model.predict(image)
    np.testing.assert_array_equal(SimpleItkFormat().from_object(found, "").array[0], label(output))


@pytest.mark.slow
def test_a_prediction_that_was_interrupted_goes_on(ran, tmp_path):
    space, printed = ran
    output = tmp_path / "out"
    assert space.predict(printed["inference"], output).returncode == 0
    whole = {p.name: label(p) for p in output.glob("*.nii.gz")}
    kept = written(output, "case_[0-3].nii.gz")
    for case in (4, 5):
        (output / f"case_{case}.nii.gz").unlink()
    assert space.predict(printed["inference"], output).returncode == 0
    assert written(output, "case_[0-3].nii.gz") == kept
    for name, expected in whole.items():
        np.testing.assert_array_equal(label(output / name), expected)


@pytest.mark.slow
def test_a_case_that_fails_does_not_stop_the_others(ran, tmp_path):
    space, printed = ran
    images = tmp_path / "images"
    shutil.copytree(space.dataset / "imagesTr", images)
    (images / "case_2_0000.nii.gz").write_bytes(b"no image")
    output = tmp_path / "out"
    arguments = (images, output, "--trust", "--device", "cpu")
    message = one_error(nnunet("predict", printed["inference"], *arguments))
    assert "case_2" in message
    assert len(list(output.glob("case_*.nii.gz"))) == 5


def test_code_of_models_from_elsewhere_does_not_run_untrusted(ran, tmp_path):
    space, printed = ran
    done = nnunet("predict", printed["inference"], space.dataset / "imagesTr", tmp_path / "out")
    assert "--trust" in one_error(done)
    assert not list(tmp_path.rglob("*.nii.gz"))
    assert not (tmp_path / "out").exists()


def test_models_that_the_selection_did_not_compare_are_named(space):
    (inference,) = space.results.glob("*/inference.json")
    assert "not compared" not in _selection(inference, space.results.parent)
    shutil.copytree(space.model("2d").parent, space.results / "later")
    told = _selection(inference, space.results.parent)
    assert "; not compared: later/2d, later/3d_fullres: run 'nnunet find-best'" in told
    quick = ("--trust", "--device", "cpu", "--workspace", space.folder)
    where = (space.dataset / "imagesTr" / "case_1_0000.nii.gz", space.folder / "out.nii.gz")
    assert space.find_best("--no-ensembles", "-c", "2d").returncode == 0
    done = nnunet("predict", "-d", space.results.name, *where, *quick)
    assert done.returncode == 0, done.stderr
    chosen = " ".join(done.stderr.split())
    assert "2d + " not in chosen, "what find-best selected comes before what a run selected"


def test_a_model_that_was_trained_anew_is_another_one(space, tmp_path):
    path = space.model("2d") / "fold_1"
    (path / "weights.safetensors").write_text("other weights")
    record = FoldRecord.read(path / "run.json")
    record.model_copy(update={"weights": weights_record(path)}).write(path / "run.json")
    (inference,) = space.results.glob("*/inference.json")
    message = one_error(space.predict(inference, tmp_path / "out"))
    assert "Fold 1" in message
    assert "find-best" in message


def test_folds_are_those_of_inference_json(ran, tmp_path):
    space, printed = ran
    done = space.predict(printed["inference"], tmp_path / "out", "--folds", "0")
    assert "Leave out --folds" in one_error(done, 2)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    "change",
    [{"members": []}, {"dataset": "../evil"}, {"schema_version": 2}, {"postprocessing": {}}],
)
def test_a_damaged_inference_json_is_refused(ran, tmp_path, change):
    document = json.loads(Path(ran[1]["inference"]).read_text())
    (tmp_path / "inference.json").write_text(json.dumps({**document, **change}))
    with pytest.raises(StorageError, match=f"{next(iter(change))}|has format 2"):
        predict_inference(
            tmp_path / "inference.json", tmp_path, tmp_path / "out", Registry.discover()
        )
    assert not (tmp_path / "out").exists()


# ---- find-best


def test_find_best_finds_what_the_run_found_and_computes_nothing_again(space):
    before = written(space.results / "ensembles")
    done = space.find_best("--json")
    found = json.loads(done.stdout)
    assert [len(row["models"]) for row in found["candidates"]] == [1, 1, 2]
    assert len(found["best"].split(" + ")) == 2
    # label maps in a folder that was moved are the same; so is the ensemble
    assert written(space.results / "ensembles") == before
    done = space.find_best()
    assert "(best)" in done.stdout
    assert str(space.results / "inference.json") in done.stdout


def test_names_restrict_what_is_compared(space):
    assert json.loads(space.find_best("-c", "2d", "--json").stdout)["best"].endswith("/2d")
    found = json.loads(space.find_best("--no-ensembles", "--json").stdout)
    assert len(found["candidates"]) == 2
    found = json.loads(space.find_best("-c", "3d_fullres,2d", "--folds", "1", "--json").stdout)
    assert [row["folds"] for row in found["candidates"]] == [["1"]] * 3
    assert found["candidates"][0]["models"][0].endswith("3d_fullres")
    message = one_error(space.find_best("-c", "3d_ful"), 2)
    assert "Did you mean '3d_fullres'?" in message


@pytest.mark.slow
def test_missing_probabilities_name_the_command_that_makes_them(space):
    fold = space.model("2d") / "fold_1" / "validation"
    next(iter(fold.glob("*.b2nd"))).unlink()
    message = one_error(space.find_best())
    (line,) = [line for line in message.splitlines() if "nnunet validate" in line]
    assert "--configuration 2d --folds 1 --save-probabilities" in line
    assert "3d_fullres" not in line
    assert space.find_best("--no-ensembles").returncode == 0
    done = nnunet(*shlex.split(line)[1:], "--workspace", space.folder, "--device", "cpu")
    assert done.returncode == 0, done.stderr
    assert space.find_best().returncode == 0


def test_damaged_probabilities_are_one_message_and_the_rest_goes_on_later(space):
    shutil.rmtree(space.results / "ensembles")
    path = space.model("2d") / "fold_0" / "validation" / "case_4.b2nd"
    content = path.read_bytes()
    path.write_bytes(content[:50])
    message = one_error(space.find_best())
    assert "case_4" in message
    (folder,) = space.results.glob("ensembles/*/validation")
    kept = written(folder, "case_*.nii.gz")
    assert len(kept) == 5
    path.write_bytes(content)
    assert space.find_best().returncode == 0
    assert {p: t for p, t in written(folder, "case_*.nii.gz").items() if p in kept} == kept
    assert (folder / "case_4.nii.gz").is_file()


@pytest.mark.slow
def test_an_incomplete_configuration_is_left_out_or_an_error(space):
    shutil.rmtree(space.model("2d") / "fold_0")
    done = space.find_best("--json")
    assert json.loads(done.stdout)["best"].endswith("/3d_fullres")
    (reason,) = json.loads(done.stdout)["left_out"].values()
    assert "fold 0" in reason
    message = one_error(space.find_best("--strict"), 2)
    assert "2d: fold 0 is not trained and validated (done: 1)" in message
    assert space.find_best("--strict", "--folds", "1").returncode == 0
    shutil.rmtree(space.model("3d_fullres") / "fold_1")
    message = one_error(space.find_best("--folds", "0,1"), 2)
    assert "No configuration is complete (folds 0, 1)" in message
    assert "--strict" not in message


def test_imported_models_are_not_asked_to_be_trained(space):
    for name in ("2d", "3d_fullres"):
        file = space.model(name) / "model.json"
        file.write_text(json.dumps({**json.loads(file.read_text()), "origin": "nnU-Net v2"}))
        for run in space.model(name).glob("fold_*/run.json"):
            run.write_text(json.dumps({**json.loads(run.read_text()), "status": "imported"}))
    message = one_error(space.find_best(), 2)
    assert "was imported or installed" in message
    assert "/2d IMAGES OUTPUT" in message
    assert "--strict" not in message
    assert "rain or validate" not in message


def test_models_of_other_folds_are_not_compared(space):
    fold = space.model("2d") / "fold_0" / "validation"
    document = json.loads((fold / "summary.json").read_text())
    document["results"]["all"].pop()
    (fold / "summary.json").write_text(json.dumps(document))
    assert "validated on different cases" in one_error(space.find_best())


@pytest.mark.slow
def test_a_case_of_several_folds_is_in_no_ensemble(space):
    folds = ("--folds", "0,1,7", "--save-probabilities")
    assert space.go("train", *TWO, *folds).returncode == 0
    assert "more than once" in one_error(space.find_best())
    found = json.loads(space.find_best("--no-ensembles", "--json").stdout)
    assert {row["cases"] for row in found["candidates"]} == {6 + 2}


@pytest.mark.slow
def test_variants_are_compared_too(space):
    changed = ("--set", "trainer.kind=b")
    assert space.go("train", "-c", "2d", "--folds", "0,1", *changed).returncode == 0
    found = json.loads(space.find_best("--no-ensembles", "--json").stdout)
    assert len({row["models"][0].split("/")[0] for row in found["candidates"]}) == 2
    assert "--save-probabilities" in one_error(space.find_best())
    variant = found["candidates"][0]["models"][0].split("/")[0]
    found = json.loads(space.find_best("--variants", variant, "--json").stdout)
    assert {m.split("/")[0] for row in found["candidates"] for m in row["models"]} == {variant}


# ---- validate


@pytest.mark.slow
def test_validate_trains_nothing_and_makes_what_is_missing(space):
    fold = space.model("2d") / "fold_0"
    weights = written(fold, "weights.safetensors")
    maps = {p.name: label(p) for p in (fold / "validation").glob("*.nii.gz")}
    before = written(fold / "validation", "*.nii.gz")
    done = space.go("validate", "-c", "2d", "--folds", "0")
    assert done.returncode == 0, done.stderr
    assert "validated already" in done.stderr
    assert written(fold / "validation", "*.nii.gz") == before
    (fold / "validation" / "case_3.nii.gz").unlink()
    assert space.go("validate", "-c", "2d", "--folds", "0").returncode == 0
    for name, expected in maps.items():
        np.testing.assert_array_equal(label(fold / "validation" / name), expected)
    assert not list((fold / "validation").glob("*.b2nd"))  # they were not asked for
    assert space.go("validate", "-c", "2d", "--save-probabilities").returncode == 0
    assert len(list((fold / "validation").glob("*.b2nd"))) == 3
    assert written(fold, "weights.safetensors") == weights


def test_another_predictor_validates_beside_the_fold_unless_it_is_to_overwrite(space):
    fold = space.model("2d") / "fold_0"
    before = written(fold / "validation")
    again = ("validate", "-c", "2d", "--folds", "0", "--set", "predictor.certainty=0.2")
    done = space.go(*again, "--json")
    assert done.returncode == 0, done.stderr
    (row,) = json.loads(done.stdout)
    assert Path(row["folder"]).parent == fold
    assert Path(row["folder"]).name.startswith("validation_")
    assert row["mean"]["1"]["Dice"] == 0
    assert written(fold / "validation") == before
    assert FoldRecord.read(fold / "run.json").components["predictor"].settings["certainty"] == 0.9
    done = space.go(*again)
    assert f"goes to {row['folder']}" in " ".join(done.stderr.split())
    assert "validated already" in done.stderr
    assert space.go(*again, "--overwrite").returncode == 0
    assert FoldRecord.read(fold / "run.json").components["predictor"].settings["certainty"] == 0.2
    summary = json.loads((fold / "validation" / "summary.json").read_text())
    assert summary["results"]["mean"]["1"]["Dice"] == 0


def test_untrained_folds_are_refused_by_name_before_anything_is_done(space):
    before = written(space.results, "*.nii.gz")
    shutil.rmtree(space.model("2d") / "fold_1")
    message = one_error(space.go("validate", "-c", "3d_fullres", "-c", "2d", "--overwrite"), 2)
    assert "Fold 1 of" in message
    assert "--configuration 2d --folds 1" in message
    kept = {path: time for path, time in before.items() if path.exists()}
    assert written(space.results, "*.nii.gz") == kept


def test_a_fold_of_other_inputs_is_not_validated_as_this_one(space):
    message = one_error(space.go("validate", "-c", "2d", "--folds", "0", "--seed", "7"), 2)
    assert "with another seed" in message


# ---- run


def test_a_setting_that_cannot_be_trained_leaves_no_model_behind(space):
    before = {path for path in space.results.rglob("*") if "logs" not in path.parts}
    wrong = ("-c", "2d", "--folds", "0", "--set", "trainer.kind=refused")
    assert "cannot be trained" in one_error(space.go("run", *wrong), 2)
    assert {path for path in space.results.rglob("*") if "logs" not in path.parts} == before


def test_tolerances_of_the_dataset_reach_the_model_and_its_predictions(space, tmp_path):
    path = space.dataset / "dataset.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "surface_tolerance_mm": 2.5}))
    assert space.go("train", "-c", "2d", "--folds", "0").returncode == 0
    model = space.model("2d")
    assert json.loads((model / "model.json").read_text())["tolerances"] == {"cube": 2.5}
    source, out = space.dataset / "imagesTr" / "case_0_0000.nii.gz", tmp_path / "out"
    assert nnunet("predict", model, source, out, "--trust", "--device", "cpu").returncode == 0
    assert json.loads((out / "predictions.json").read_text())["tolerances"] == {"cube": 2.5}
