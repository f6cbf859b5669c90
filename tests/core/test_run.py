"""The main path: everything is made once, reused while its inputs are equal, and survives being
stopped.
"""

import json
import resource
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import small_training as small
from commands import nnunet
from listening import Listener

from nnunet_builtin.formats.simpleitk import SimpleItkFormat
from nnunet_core.contracts.trainer import Runtime
from nnunet_core.data.splits import Splits, equal_folds
from nnunet_core.errors import UsageError
from nnunet_core.prediction.model import ModelOptions, stage_options
from nnunet_core.prediction.predict import PredictionOptions, predict_folder
from nnunet_core.registry.discovery import Registry
from nnunet_core.registry.records import FILE as RUN_FILE
from nnunet_core.registry.records import FoldRecord
from nnunet_core.run import Request, run
from nnunet_core.store.models import (
    WEIGHTS,
    Model,
    ModelDocument,
    weights_digests,
    weights_record,
)
from nnunet_core.store.postprocessing import postprocessing_state
from nnunet_core.store.workspace import Workspace

RUNTIME = Runtime("cpu", "float32", 0, 1)
NO_MIRRORING = {"mirroring": False}
BRIEF = {
    "trainer": {"epochs": 2, "iterations_per_epoch": 2, "validation_iterations": 1},
    "planner": {"max_batch_size": 2, "base_features": 4},
}


def request(tiny, **changes):
    return Request(
        **{
            "dataset": str(tiny),
            "settings": BRIEF,
            "folds": ("0",),
            "runtime": RUNTIME,
            "processes": 1,
            **changes,
        }
    )


def run_tiny(tiny, **changes):
    return run(request(tiny, **changes), Registry.discover(), Workspace.find(tiny.parent.parent))


def written(folder, pattern):
    return {path: path.stat().st_mtime_ns for path in folder.rglob(pattern)}


@pytest.mark.pictures
def test_a_run_makes_a_model_predictions_and_pictures_once(tiny, tmp_path):
    output = tmp_path / "out"
    result = run_tiny(tiny, predict=tiny / "imagesTr", output=output)
    fold = result.best.folder / "fold_0"
    for name in (
        "weights.safetensors",
        "progress.png",
        "network.txt",
        "network.png",
        "run.json",
        "validation/summary.json",
        "validation/overlay_worst.png",
    ):
        assert (fold / name).stat().st_size > 0
    lines = [json.loads(line) for line in (fold / "metrics.jsonl").read_text().splitlines()]
    assert [line["epoch"] for line in lines] == [1, 2]
    record = json.loads((fold / "run.json").read_text())
    assert (record["status"], record["device"], record["precision"]) == (
        "finished",
        "cpu",
        "float32",
    )
    assert np.isfinite(lines[-1]["train_loss"])
    assert len(result.predictions) == 6
    assert set(result.prediction_dice) == {"cube"}
    geometry = SimpleItkFormat().read(tiny / "labelsTr" / "case_0.nii.gz").geometry
    assert SimpleItkFormat().read(output / "case_0.nii.gz").geometry == geometry

    before = {
        **written(tiny.parent.parent, "*.b2nd"),
        **written(fold, "*"),
        **written(output, "*.nii.gz"),
    }
    again = run_tiny(tiny, predict=tiny / "imagesTr", output=output)
    assert before == {path: path.stat().st_mtime_ns for path in before}
    assert again.best.mean_dice == pytest.approx(result.best.mean_dice, nan_ok=True)


def test_a_changed_setting_retrains_but_shares_prepared_cases(tiny):
    first = run_tiny(tiny)
    prepared = written(tiny.parent.parent, "*.b2nd")
    changed = {**BRIEF, "trainer": {**BRIEF["trainer"], "learning_rate": 0.02}}
    second = run_tiny(tiny, settings=changed)
    assert second.best.folder != first.best.folder
    assert written(tiny.parent.parent, "*.b2nd") == prepared
    weights = written(first.best.folder, "weights.safetensors")
    assert run_tiny(tiny, choices={"postprocessor": "none"}).best.folder == first.best.folder
    assert written(first.best.folder, "weights.safetensors") == weights


def test_changed_data_sets_the_old_fold_aside(tiny):
    first = run_tiny(tiny)
    path = tiny / "imagesTr" / "case_2_0000.nii.gz"
    image = SimpleItkFormat().read(path)
    SimpleItkFormat().write(path, image.array[0] * 2, image.geometry)
    second = run_tiny(tiny)
    assert second.best.folder == first.best.folder
    assert (first.best.folder / "stale_fold_0_1" / "weights.safetensors").is_file()
    assert (first.best.folder / "fold_0" / "weights.safetensors").is_file()


@pytest.mark.slow
def test_a_run_trains_every_own_fold_and_observers_get_their_folders(tiny, monkeypatch):
    pytest.importorskip("tensorboard")
    monkeypatch.setenv("NNUNET_LOG", "tensorboard")
    path = tiny.parents[1] / "preprocessed" / tiny.name / "splits.json"
    path.parent.mkdir(parents=True)
    Splits(folds=equal_folds([f"case_{i}" for i in range(6)], 2)).write(path)
    result = run_tiny(tiny, folds=())
    assert sorted(fold.name for fold in result.best.folder.glob("fold_*")) == ["fold_0", "fold_1"]
    assert result.best.cases == 6
    assert [
        len(list((fold / "tensorboard").iterdir())) for fold in result.best.folder.glob("fold_*")
    ] == [1, 1]


def test_a_run_in_several_processes_is_refused(tiny, monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(UsageError, match="nnunet train --gpus N"):
        run_tiny(tiny)


def test_all_cases_and_2d(tiny):
    result = run_tiny(tiny, folds=("all",), configurations=("2d",))
    assert result.best.name == "2d"
    assert result.best.cases == 6


def test_regions_and_an_ignore_label_train_and_predict(tiny, tmp_path):
    document = json.loads((tiny / "dataset.json").read_text())
    document["labels"] = {"background": 0, "whole": [1, 2], "core": [2], "ignore": 3}
    document["regions_class_order"] = [1, 2]
    (tiny / "dataset.json").write_text(json.dumps(document))
    for path in (tiny / "labelsTr").iterdir():
        label = SimpleItkFormat().read(path)
        array = label.array[0].copy()
        array[:, :9][array[:, :9] == 1] = 2
        array[0] = 3
        SimpleItkFormat().write(path, array, label.geometry)
    result = run_tiny(
        tiny, choices={"loss": "dice_bce"}, predict=tiny / "imagesTr", output=tmp_path / "out"
    )
    assert set(result.best.dice) == {"whole", "core"}
    values = set(np.unique(SimpleItkFormat().read(result.predictions[0]).array))
    assert values <= {0, 1, 2}
    with pytest.raises(UsageError, match="dice_bce"):
        run_tiny(tiny)


def test_predictions_of_another_model_are_not_replaced(tiny, tmp_path):
    result = run_tiny(tiny)
    model, registry = Model.open(result.best.folder), Registry.discover()
    plain = PredictionOptions(runtime=RUNTIME, settings=NO_MIRRORING)
    predict_folder(model, tiny / "imagesTr", tmp_path / "out", registry, plain)
    before = written(tmp_path / "out", "*.nii.gz")
    mirrored = PredictionOptions(runtime=RUNTIME)
    with pytest.raises(UsageError, match="--overwrite"):
        predict_folder(model, tiny / "imagesTr", tmp_path / "out", registry, mirrored)
    assert written(tmp_path / "out", "*.nii.gz") == before
    overwriting = PredictionOptions(runtime=RUNTIME, overwrite=True)
    assert (
        len(predict_folder(model, tiny / "imagesTr", tmp_path / "out", registry, overwriting)) == 6
    )


def test_folds_of_other_plans_are_no_part_of_a_model(tiny, tmp_path):
    """Equal shapes would load: the networks of old folds would see images of another spacing."""
    first = run_tiny(tiny, folds=("0", "1"))
    document = json.loads(first.plans_path.read_text())
    document["configurations"]["3d_fullres"]["spacing"] = [1.6, 1.1, 1.1]
    first.plans_path.write_text(json.dumps(document))
    second = run_tiny(tiny, folds=("0",))
    assert second.best.folder == first.best.folder
    model = Model.open(second.best.folder)
    with pytest.raises(
        UsageError,
        match=r"Fold 1 of .* other plans.*--folds.*nnunet train Dataset001_Tiny .*--folds 1",
    ):
        predict_folder(
            model,
            tiny / "imagesTr",
            tmp_path / "out",
            Registry.discover(),
            PredictionOptions(runtime=RUNTIME),
        )
    assert not (tmp_path / "out").exists()
    assert model.folds(("0",)) == (model.folder / "fold_0",)
    run_tiny(tiny, folds=("0", "1"))
    assert len(Model.open(second.best.folder).folds()) == 2


def _take_weights(source, fold):
    """Make a fold one that was trained anew, to the weights of another."""
    (fold / WEIGHTS).write_bytes((source / WEIGHTS).read_bytes())
    record = FoldRecord.read(fold / RUN_FILE)
    record.model_copy(update={"weights": weights_record(fold)}).write(fold / RUN_FILE)


def test_postprocessing_is_that_of_the_folds_that_predict(tiny, tmp_path):
    """A later run of fewer folds, or of all cases, has its own; a fold that is trained anew has
    none until it is fitted.
    """
    both = run_tiny(tiny, folds=("0", "1")).best.folder
    for path in (both / "postprocessing").glob("*.json"):
        document = json.loads(path.read_text())
        path.write_text(json.dumps({**document, "state": {**document["state"], "mark": "both"}}))
    run_tiny(tiny, folds=("all",))
    model = Model.open(both)

    def marked(*folds):
        state = postprocessing_state(model, weights_digests(model.folds(folds)))
        return None if state is None else state.get("mark")

    assert (marked("0"), marked("1", "0"), marked("all")) == ("both", "both", None)
    assert postprocessing_state(model, weights_digests(model.folds(("all",)))) is not None
    _take_weights(both / "fold_0", both / "fold_1")
    assert postprocessing_state(model, weights_digests(model.folds(("0", "1")))) is None
    listener = Listener()
    options = PredictionOptions(runtime=RUNTIME, settings=NO_MIRRORING)
    predict_folder(
        model, tiny / "imagesTr", tmp_path / "out", Registry.discover(), options, listener
    )
    assert any(
        "No postprocessing" in text and "fold_0, fold_1" in text for text in listener.warnings
    )


def test_a_workspace_may_be_moved(tiny, tmp_path):
    run_tiny(tiny)
    moved = tiny.parents[1].rename(tmp_path / "elsewhere")
    again = run_tiny(
        moved / "raw" / tiny.name, choices={"postprocessor": "none"}
    )  # fitted anew, on the moved files
    (case, *_) = json.loads((again.best.folder / "crossval_summary.json").read_text())["results"][
        "all"
    ]
    assert Path(case["test"]).is_file()
    assert Path(case["reference"]).is_file()


def test_outputs_of_another_model_are_never_taken_for_own(tiny, tmp_path):
    """Other cases, or probabilities beside label maps: a rerun would keep them."""
    model = Model.open(run_tiny(tiny).best.folder)
    registry = Registry.discover()
    out = tmp_path / "out"
    for name in ("case_0", "case_1"):
        (tmp_path / name).mkdir()
        (tmp_path / name / f"{name}_0000.nii.gz").write_bytes(
            (tiny / "imagesTr" / f"{name}_0000.nii.gz").read_bytes()
        )
    plain = PredictionOptions(runtime=RUNTIME, settings=NO_MIRRORING, save_probabilities=True)
    predict_folder(model, tmp_path / "case_0", out, registry, plain)
    other = PredictionOptions(runtime=RUNTIME)
    with pytest.raises(UsageError, match=r"predictions of another model.*case_0\.nii\.gz"):
        predict_folder(model, tmp_path / "case_1", out, registry, other)
    predict_folder(model, tmp_path / "case_0", out, registry, replace(other, overwrite=True))
    assert not (out / "case_0.b2nd").exists()


def test_references_of_more_cases_than_were_predicted_do_no_harm(tiny, tmp_path):
    shutil.copytree(tiny / "labelsTr", tiny / "labelsTs")
    (tiny / "imagesTs").mkdir()
    shutil.copy(tiny / "imagesTr" / "case_3_0000.nii.gz", tiny / "imagesTs")
    result = run_tiny(tiny, predict=Path("imagesTs"), output=tmp_path / "out")
    assert len(result.predictions) == 1
    assert set(result.prediction_dice) == {"cube"}


def test_named_formats_are_those_of_predictions_too(tiny, tmp_path):
    path = tiny / "dataset.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "image_format": "formats/nifti"}))
    result = run_tiny(tiny)
    document = ModelDocument.read(result.best.folder / "model.json")
    assert (document.image_format, document.label_format) == ("formats/nifti", None)
    model = Model(
        result.best.folder, document.model_copy(update={"image_format": "formats/niftti"})
    )
    with pytest.raises(UsageError, match="nifti"):
        predict_folder(model, tiny / "imagesTr", tmp_path / "out", Registry.discover())


@pytest.mark.parametrize(("trained", "expected"), [("01", ()), ("015", ("5",))])
def test_the_stage_before_predicts_with_the_same_folds_if_it_has_them(
    monkeypatch, trained, expected
):
    """A cascade of a sixth fold is trained on what the five folds of its stage predict."""
    stage = Model(Path("y"), ModelDocument.model_construct(configuration=small.CONFIGURATION))
    monkeypatch.setattr(Model, "trained", lambda _: dict.fromkeys(trained))
    assert stage_options(stage, ModelOptions(folds=("5",))).folds == expected


def test_a_model_whose_package_is_missing_says_what_to_install(tiny):
    result = run_tiny(tiny)
    path = result.best.folder / "model.json"
    path.write_text(
        path.read_text()
        .replace("builtin/plain_unet", "gonepkg/net")
        .replace('"nnunet-core"', '"gonepkg"')
    )
    fold = path.parent / "fold_0" / "run.json"
    record = {**json.loads(fold.read_text()), "model_digest": ModelDocument.read(path).digest()}
    fold.write_text(json.dumps(record))
    with pytest.raises(Exception, match="pip install 'gonepkg"):
        predict_folder(
            Model.open(result.best.folder), tiny / "imagesTr", tiny / "out", Registry.discover()
        )


def command(tiny, *options):
    settings = (
        "trainer.epochs=3",
        "trainer.iterations_per_epoch=3",
        "trainer.validation_iterations=1",
        "planner.max_batch_size=2",
        "planner.base_features=4",
    )
    return [
        *(
            sys.executable,
            "-m",
            "nnunet_cli",
            "run",
            str(tiny),
            "--workspace",
            str(tiny.parent.parent),
            "--folds",
            "0",
        ),
        *(
            "--device",
            "cpu",
            "--precision",
            "float32",
            "--workers",
            "0",
            "--threads",
            "1",
            "--processes",
            "1",
        ),
        *(part for setting in settings for part in ("--set", setting)),
        *options,
    ]


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_run_that_is_asked_to_stop_leaves_no_lock(tiny, number):
    """A lock of another host is never taken over: a batch system that starts the run elsewhere
    would wait for ever.
    """
    workspace = tiny.parent.parent
    process = subprocess.Popen(
        command(tiny), stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
    )
    while process.poll() is None and not list(workspace.rglob("*.lock")):
        time.sleep(0.005)
    process.send_signal(number)
    _, err = process.communicate(timeout=100)
    assert process.returncode == 128 + number, err
    assert "the same command goes on" in err or "Run the same command again" in err
    assert not list(workspace.rglob("*.lock"))
    assert nnunet(*command(tiny)[3:]).returncode == 0


@pytest.mark.slow
def test_a_killed_training_goes_on_and_ends_with_the_same_weights(tiny):
    process = subprocess.Popen(command(tiny), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    while process.poll() is None and not list(tiny.parent.parent.rglob("checkpoint.pt")):
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert nnunet(*command(tiny)[3:]).returncode == 0
    (interrupted,) = tiny.parent.parent.rglob("fold_0/weights.safetensors")
    content = interrupted.read_bytes()
    interrupted.parent.rename(interrupted.parent.with_name("kept"))
    assert nnunet(*command(tiny)[3:]).returncode == 0
    assert interrupted.read_bytes() == content


@pytest.mark.slow
def test_a_full_disk_while_preprocessing_is_one_message_and_nothing_half_written_is_trusted(tiny):
    def little_space():
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (9000, 9000))

    preprocess = [part if part != "run" else "preprocess" for part in command(tiny)[:7]]
    failed = subprocess.run(
        preprocess, preexec_fn=little_space, capture_output=True, text=True, check=False
    )
    assert failed.returncode == 1, failed.stderr
    assert "No space left" in failed.stderr
    assert "Traceback" not in failed.stderr
    assert not list(tiny.parent.parent.glob("preprocessed/**/*.tmp"))
    assert not list(tiny.parent.parent.glob("preprocessed/**/case_*.json"))
    assert nnunet(*preprocess[3:]).returncode == 0
    assert len(list(tiny.parent.parent.glob("preprocessed/**/case_*.json"))) == 6
