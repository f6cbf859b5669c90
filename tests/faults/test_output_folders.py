"""Folders that predictions are written to: one prediction at a time, nothing foreign is lost."""

import json
import shutil
import subprocess
import sys
import threading

import pytest
from commands import nnunet
from finished_run import QUICK, finish, one_error
from listening import Listener

from nnunet_builtin.inference.sliding_window import SlidingWindow
from nnunet_core.contracts.trainer import Runtime
from nnunet_core.errors import ImageError, NnunetError, StorageError
from nnunet_core.prediction import predict as prediction
from nnunet_core.prediction.predict import PredictionOptions, predict_folder
from nnunet_core.registry.discovery import Registry
from nnunet_core.runtime import locks
from nnunet_core.runtime.reporting import Silence
from nnunet_core.store.models import Model
from nnunet_core.store.predictions import PredictionRecord

pytestmark = pytest.mark.slow
FOREIGN = b"drawn by hand in many hours"
OVERWRITE = PredictionOptions(runtime=Runtime("cpu", "float32", 0, 1), overwrite=True)


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    return finish(tmp_path_factory.mktemp("finished"))


@pytest.fixture
def output(tmp_path):
    (tmp_path / "out").mkdir()
    return tmp_path / "out"


def predict(finished, output, options=OVERWRITE, report=None):
    model, images = Model.open(finished.model), finished.dataset / "imagesTs"
    return predict_folder(model, images, output, Registry.discover(), options, report)


def record(output):
    return json.loads((output / "predictions.json").read_text())


def test_two_predictions_into_one_folder_are_one_after_another(finished, output):
    with locks.held(output / locks.NAME, "predictions", Silence()):
        message = one_error(finished.predict(output))
    assert "busy with predictions" in message
    assert str(output) in message
    assert not list(output.glob("*.nii.gz"))
    assert finished.predict(output).returncode == 0
    assert sorted(p.name for p in output.iterdir()) == [
        "new_0.nii.gz",
        "new_1.nii.gz",
        "predictions.json",
    ]


def test_two_predictions_at_once_never_mix(finished, output):
    """With other options each: one is refused, and the record names what the files are of."""
    ended = {}

    def run(step):
        options = PredictionOptions(
            runtime=OVERWRITE.runtime, settings={"step_size": step}, overwrite=True
        )
        try:
            predict(finished, output, options)
            ended[step] = "done"
        except StorageError as error:
            ended[step] = str(error)

    threads = [threading.Thread(target=run, args=[step]) for step in (0.5, 0.9)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    done = [step for step, how in ended.items() if how == "done"]
    assert done
    assert all("busy" in how for how in ended.values() if how != "done")
    assert record(output)["predictor"]["settings"]["step_size"] in done
    assert record(output)["replaced"] == {}


def test_foreign_files_are_named_and_stay_without_overwrite(finished, output):
    (output / "new_1.nii.gz").write_bytes(FOREIGN)
    message = one_error(finished.predict(output), code=2)
    assert "no prediction made (new_1.nii.gz)" in message
    assert [path.name for path in output.iterdir()] == ["new_1.nii.gz"]


def stops_at(monkeypatch, case, error):
    """Let the prediction of one case fail."""
    whole = prediction.ModelPredictor.segment

    def failing(self, prepared, keep=None):
        if prepared.case.name == case:
            raise error
        return whole(self, prepared, keep)

    monkeypatch.setattr(prediction.ModelPredictor, "segment", failing)


@pytest.mark.parametrize(
    ("error", "kept"), [(ImageError("damaged"), "new_0"), (KeyboardInterrupt(), "new_0")], ids=str
)
def test_with_overwrite_each_stays_until_its_own_prediction_is_there(
    finished, output, monkeypatch, error, kept
):
    for name in ("new_0", "new_1", "other"):
        (output / f"{name}.nii.gz").write_bytes(FOREIGN)
        (output / f"{name}.b2nd").write_bytes(FOREIGN)
    listener = Listener()
    stops_at(monkeypatch, kept, error)
    with pytest.raises((NnunetError, KeyboardInterrupt)):
        predict(finished, output, report=listener)
    monkeypatch.undo()
    assert "new_0.nii.gz, new_1.nii.gz" in listener.warnings[0]
    assert (output / f"{kept}.nii.gz").read_bytes() == FOREIGN
    assert (output / f"{kept}.b2nd").read_bytes() == FOREIGN
    assert kept + ".nii.gz" in record(output)["replaced"]
    predict(finished, output)
    assert (output / f"{kept}.nii.gz").read_bytes() != FOREIGN
    assert not (output / f"{kept}.b2nd").exists()
    assert (output / "other.nii.gz").read_bytes() == FOREIGN
    assert record(output)["replaced"] == {}


def test_a_prediction_that_was_stopped_takes_nothing_of_the_last_one_for_its_own(
    finished, output, monkeypatch
):
    """The record never names other options than the files have."""
    predict(finished, output)
    first = {path.name: path.read_bytes() for path in output.glob("*.nii.gz")}
    other = PredictionOptions(
        runtime=OVERWRITE.runtime, settings={"mirroring": True}, overwrite=True
    )
    stops_at(monkeypatch, "new_1", KeyboardInterrupt())
    with pytest.raises(KeyboardInterrupt):
        predict(finished, output, other)
    monkeypatch.undo()
    assert (output / "new_1.nii.gz").read_bytes() == first["new_1.nii.gz"]
    others = PredictionRecord.read(output / "predictions.json").others(output)
    assert output / "new_1.nii.gz" in others
    loaded = []
    whole = SlidingWindow.load
    monkeypatch.setattr(
        SlidingWindow, "load", lambda self, model: loaded.append(1) or whole(self, model)
    )
    predict(finished, output, other)
    assert loaded
    assert record(output)["replaced"] == {}


def test_a_second_prediction_of_fewer_cases_removes_the_others_only_in_the_end(
    finished, output, tmp_path, monkeypatch
):
    predict(finished, output)
    images = shutil.copytree(finished.dataset / "imagesTs", tmp_path / "images")
    (images / "new_1_0000.nii.gz").unlink()
    other = ("--step-size", "0.9", "--overwrite")
    with monkeypatch.context() as patch:
        stops_at(patch, "new_0", ImageError("damaged"))
        one_error(nnunet("predict", finished.model, images, output, *QUICK, *other))
    assert (output / "new_1.nii.gz").is_file()
    assert nnunet("predict", finished.model, images, output, *QUICK, *other).returncode == 0
    assert not (output / "new_1.nii.gz").exists()


def test_a_finished_prediction_is_left_alone(finished, output):
    assert finished.predict(output).returncode == 0
    before = {path.name: path.stat().st_mtime_ns for path in output.iterdir()}
    with locks.held(output / locks.NAME, "something else", Silence()):
        assert finished.predict(output).returncode == 0
    assert {path.name: path.stat().st_mtime_ns for path in output.iterdir()} == before


def test_what_a_killed_prediction_was_writing_is_removed_by_the_next(finished, output):
    killed = f"""
import os
from pathlib import Path
from nnunet_core.runtime import files
with files.atomic_path(Path({str(output / "new_0.nii.gz")!r})) as temporary:
    temporary.write_bytes(b"half")
    os.kill(os.getpid(), 9)
"""
    subprocess.run([sys.executable, "-c", killed], check=False)
    assert list(output.glob(".*.tmp"))
    assert finished.predict(output).returncode == 0
    assert not list(output.glob(".*.tmp"))


def test_label_files_that_say_whose_they_are_need_images_of_their_format(finished, output):
    images = finished.dataset / "imagesTs"
    message = one_error(
        nnunet("predict", finished.model, images, output, "--ending", ".dcm", *QUICK), code=2
    )
    assert "need images of the same format" in message
    assert not list(output.iterdir())


def test_a_selection_that_is_not_there_is_wrong_usage(finished, output):
    missing = finished.model / "inference.json"
    message = one_error(nnunet("predict", missing, finished.dataset / "imagesTs", output), code=2)
    assert "find-best" in message
