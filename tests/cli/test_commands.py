"""Every command as it is typed: what it prints and where, its exit code, the files it leaves."""

import contextlib
import csv
import importlib
import io
import json
import platform
import re
import shutil
import sys
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

import numpy as np
import pytest
from tiny_dataset import make_tiny

from nnunet_builtin.formats.simpleitk import SimpleItkFormat
from nnunet_cli.commands.models import best_model
from nnunet_cli.describing import settings_of
from nnunet_cli.main import main
from nnunet_core import read_probabilities
from nnunet_core.data.images import Geometry
from nnunet_core.errors import UsageError
from nnunet_core.registry.components import RUN_KINDS
from nnunet_core.registry.discovery import Registry

FORMAT = SimpleItkFormat()
VERSION = metadata.version("nnunet-core")
CASES = [f"case_{number}.nii.gz" for number in range(6)]
#: Voxels of a cube of `make_tiny`, and of everything.
CUBE, GRID = 6 * 7 * 7, 16 * 20 * 18
#: Another grid than that of the training cases: flipped, shifted, coarser in x and y.
FLIPPED = (-1.0, 0.0, 0.0, 0.0, -1.0, 0.0, 0.0, 0.0, 1.0)
ELSEWHERE = Geometry((14, 18, 22), (1.5, 1.2, 1.2), (7.5, -3.0, 12.0), FLIPPED)

ALONE = ("--processes", 1)
ON_CPU = ("--device", "cpu", "--precision", "float32", "--threads", 1)
SMALL = ("--set", "planner.max_batch_size=2", "--set", "planner.base_features=4")
BRIEF = (
    *("--workers", 0, "--set", "trainer.epochs=1", "--set", "trainer.iterations_per_epoch=4"),
    *("--set", "trainer.validation_iterations=1", *SMALL, *ALONE, *ON_CPU),
)


@dataclass(frozen=True)
class Outcome:
    """What a user sees of a command."""

    code: int
    out: str
    err: str

    @property
    def rows(self):
        """The rows of printed tables, as lists of cells; the first is the head."""
        lines = [line for line in self.out.splitlines() if line[:1] in set("┃│")]
        return [[cell.strip() for cell in re.split("[┃│]", line)[1:-1]] for line in lines]


def nnunet(*arguments):
    """Run a command in this process."""
    out, err = io.StringIO(), io.StringIO()
    streams = contextlib.redirect_stdout(out), contextlib.redirect_stderr(err)
    with streams[0], streams[1], pytest.raises(SystemExit) as stop:
        main([str(argument) for argument in arguments])
    return Outcome(stop.value.code or 0, out.getvalue(), err.getvalue())


def done(*arguments):
    """Run a command that must succeed."""
    outcome = nnunet(*arguments)
    assert outcome.code == 0, outcome.err
    return outcome


def refused(code, *arguments):
    """Run a command that must fail with one message and nothing on stdout; return the message."""
    outcome = nnunet(*arguments)
    assert (outcome.code, outcome.out) == (code, ""), outcome
    assert outcome.err.lower().count("error:") == 1, outcome.err
    assert "Traceback" not in outcome.err
    return outcome.err


def names_in(folder):
    return sorted(path.name for path in folder.iterdir())


def times(folder, pattern="*"):
    return {path: path.stat().st_mtime_ns for path in folder.rglob(pattern) if path.is_file()}


@dataclass(frozen=True)
class Trained:
    """A model that `nnunet train` made, shared by the tests: they write elsewhere.

    Attributes:
        workspace, dataset: Folders.
        outcome: Of the command.
        fold: Folder of the trained fold.
    """

    workspace: Path
    dataset: Path
    outcome: Outcome
    fold: Path

    @property
    def name(self):
        """The model as commands name it."""
        return str(self.fold.parent.relative_to(self.workspace / "results"))

    def train(self):
        """Run the command that made the model."""
        return done("train", "Tiny", "--workspace", self.workspace, *BRIEF)

    def predict(self, images, output, *options):
        """Predict a folder."""
        there = (self.name, images, output, "--workspace", self.workspace)
        return nnunet("predict", *there, *ON_CPU, *options)

    def evaluate(self, predictions, references, *options):
        """Compare two folders."""
        declared = ("--dataset", "Tiny", "--workspace", self.workspace)
        more = (*ALONE, "--no-pictures", *options)
        return nnunet("evaluate", predictions, references, *declared, *more)


@pytest.fixture(scope="session")
def trained(tmp_path_factory):
    workspace = tmp_path_factory.mktemp("trained")
    dataset = make_tiny(workspace / "raw" / "Dataset001_Tiny")
    outcome = done("train", "Tiny", "--workspace", workspace, *BRIEF)
    (fold,) = (workspace / "results").glob("*/*/*/fold_*")
    return Trained(workspace, dataset, outcome, fold)


@pytest.fixture
def images(tmp_path):
    """Two images on a grid of their own."""
    folder = tmp_path / "images"
    for number in range(2):
        image = np.random.default_rng(number).normal(100, 20, ELSEWHERE.shape).astype(np.float32)
        FORMAT.write(folder / f"new_{number}_0000.nii.gz", image, ELSEWHERE)
    return folder


@pytest.fixture
def labels(trained, tmp_path):
    """A copy of the reference labels."""
    return Path(shutil.copytree(trained.dataset / "labelsTr", tmp_path / "labels"))


@pytest.fixture
def install(tmp_path, monkeypatch):
    """Return a function that puts a distribution `NAME 2.5` with a plugin NAME on sys.path."""

    def put(name, code):
        folder, module = tmp_path / name, f"{name}_hooks"
        info = folder / f"{name}-2.5.dist-info"
        info.mkdir(parents=True)
        (folder / f"{module}.py").write_text(code)
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 2.5\n")
        (info / "entry_points.txt").write_text(f"[nnunet_plugins]\n{name} = {module}\n")
        monkeypatch.syspath_prepend(str(folder))
        importlib.invalidate_caches()
        monkeypatch.delitem(sys.modules, module, raising=False)

    return put


SHAKY = "import no_such_module_anywhere"
SOUND = '''
from dataclasses import dataclass, field
from nnunet_core import Component, hookimpl

@hookimpl
def nnunet_losses():
    return [Component("mine", "sound_hooks:Mine", "a loss of mine", {"weight": 3.0})]

@dataclass
class Mine:
    """Says what it is.

    Args:
        weight: Of
            everything.
    """

    weight: float = 1.0
    name: str = "plain"
    parts: list[int] = field(default_factory=list)
'''


# ---------------------------------------------------------------------------------- nnunet run


@pytest.mark.slow
@pytest.mark.pictures
def test_run_demo_makes_a_dataset_a_model_and_predictions_once(tmp_path):
    command = ("run", "demo", "--workspace", tmp_path, *BRIEF)
    outcome = done(*command)
    results = tmp_path / "results" / "Dataset999_Phantom"
    (fold,) = results.glob("*/3d_fullres/fold_*")
    assert fold.name == "fold_0"
    raw = tmp_path / "raw" / "Dataset999_Phantom"
    folders = ("imagesTr", "labelsTr", "imagesTs", "labelsTs")
    assert [len(names_in(raw / folder)) for folder in folders] == [12, 12, 3, 3]

    said = outcome.err.splitlines()
    assert said[0] == f"making a phantom dataset: {raw}"
    assert said[1].startswith(f"log: {tmp_path / 'results' / raw.name / 'logs'}")
    assert re.fullmatch(rf"plugins: nnunet-core {re.escape(VERSION)}(, \S+ \(.+\))*", said[2])
    assert f"method: {fold.parents[1].name}" in said
    for ended in ("fingerprint: 12/12", "train fold_0: 5/5", "validate: 3/3", "predict: 3/3"):
        assert f"{ended}  done" in said
    head, validated, predicted = outcome.rows
    assert head == ["configuration", "organ", "vessel", "lesion", "mean", "cases"]
    assert (validated[0], validated[-1]) == ("3d_fullres", "3")
    assert (predicted[0], predicted[-1]) == ("predicted folder", "3")
    told = outcome.out.splitlines()
    assert f"model        {fold.parent}" in told
    assert f"  fold_0     {fold / 'progress.png'}" in told
    assert f"predictions  {results / 'predictions'} (3 cases)" in told
    for name in ("progress.png", "weights.safetensors", "validation/overlay_worst.png"):
        assert (fold / name).stat().st_size > 0

    kept = {**times(fold), **times(results / "predictions", "*.nii.gz")}
    again = done(*command, "--json")
    assert {path: path.stat().st_mtime_ns for path in kept} == kept
    assert again.err == ""
    document = json.loads(again.out)
    assert set(document) == {
        *("dataset", "variant", "plans", "best", "configurations", "predictions"),
        "prediction_dice",
    }
    assert (document["dataset"], document["best"]) == ("Dataset999_Phantom", "3d_fullres")
    assert f"plans        {document['plans']}" in told
    assert document["predictions"] == [
        str(results / "predictions" / f"phantom_{number:03d}.nii.gz") for number in (12, 13, 14)
    ]
    (row,) = document["configurations"]
    assert (row["name"], row["folder"], row["cases"]) == ("3d_fullres", str(fold.parent), 3)
    assert list(row["dice"]) == head[1:4]
    shown = [*row["dice"].values(), row["mean_dice"]]
    assert validated[1:-1] == [f"{value:.4f}" for value in shown]
    assert predicted[1:4] == [f"{value:.4f}" for value in document["prediction_dice"].values()]


# ------------------------------------------------------------------ nnunet plan and preprocess


def test_plan_shows_what_its_file_holds(tiny):
    command = ("plan", tiny, "--workspace", tiny.parents[1], *SMALL, *ALONE)
    outcome = done(*command)
    assert "fingerprint: 6/6  done" in outcome.err.splitlines()
    rows = {row[0]: row[1:] for row in outcome.rows}
    assert rows["median shape"] == ["16 x 20 x 18", "16 x 20 x 18"]
    assert rows["batch size"] == ["2", "2"]
    assert rows["features"] == ["4, 8, 16", "4, 8, 16"]
    assert "no 3d_cascade_fullres: there is no 3d_lowres" in outcome.out.splitlines()
    (path,) = (tiny.parents[1] / "preprocessed" / tiny.name / "plans").iterdir()
    assert outcome.out.splitlines()[-1] == f"plans file: {path}"
    again = done(*command, "--json")
    assert json.loads(again.out) == json.loads(path.read_text())
    assert list(json.loads(again.out)["configurations"]) == ["2d", "3d_fullres"]
    assert again.err == ""


def test_preprocess_prepares_every_case_once(tiny):
    command = ("preprocess", tiny, "--workspace", tiny.parents[1], *SMALL, *ALONE)
    command = (*command, "-c", "2d", "-c", "3d_fullres")
    outcome = done(*command)
    prepared = tiny.parents[1] / "preprocessed" / tiny.name / "prepared"
    (planes,) = prepared.glob("planes-*")
    (volumes,) = prepared.glob("default-*")
    assert outcome.out.splitlines() == [
        f"2d: 6 cases in {planes}",
        f"3d_fullres: 6 cases in {volumes}",
    ]
    assert "preprocess (planes): 6/6  done" in outcome.err.splitlines()
    assert "preprocess (default): 6/6  done" in outcome.err.splitlines()
    for folder in (planes, volumes):
        assert len(list(folder.glob("case_*.images.b2nd"))) == 6
        assert len(list(folder.glob("case_*.json"))) == 6
    kept = times(prepared)
    again = done(*command)
    assert (again.out, times(prepared)) == (outcome.out, kept)
    assert "preprocess" not in again.err


# ------------------------------------------------------------------------------- nnunet train


def test_train_says_how_good_the_fold_is_and_where_it_lies(trained):
    said = trained.outcome.err.splitlines()
    assert f"method: {trained.fold.parents[1].name}" in said
    assert "train fold_0: 5/5  done" in said
    assert any(re.match(r"train fold_0: 5/5  epoch 1/1  loss ", line) for line in said)
    summary = json.loads((trained.fold / "validation" / "summary.json").read_text())
    dice = summary["results"]["mean"]["1"]["Dice"]
    line = f"3d_fullres fold 0: validation Dice cube {dice:.4f}; {trained.fold}\n"
    assert trained.outcome.out == line
    assert json.loads((trained.fold / "run.json").read_text())["status"] == "finished"
    assert len((trained.fold / "metrics.jsonl").read_text().splitlines()) == 1
    splits = trained.workspace / "preprocessed" / trained.dataset.name / "splits.json"
    validated = json.loads(splits.read_text())["folds"][0]["val"]
    maps = sorted(path.name for path in (trained.fold / "validation").glob("*.nii.gz"))
    assert maps == [f"{name}.nii.gz" for name in validated]


def test_train_leaves_a_trained_fold_as_it_is(trained):
    kept = times(trained.fold.parent)
    again = trained.train()
    assert again.out == trained.outcome.out
    assert "train fold_0" not in again.err
    assert times(trained.fold.parent) == kept


# ----------------------------------------------------------------------------- nnunet predict


def test_predict_writes_label_maps_on_the_grid_of_the_images(trained, images, tmp_path):
    output = tmp_path / "out"
    outcome = trained.predict(images, output, "--save-probabilities")
    assert (outcome.code, outcome.out) == (0, f"2 cases in {output}\n"), outcome.err
    assert outcome.err.splitlines()[-1] == "predict: 2/2  done"
    assert "'nnunet run' with these folds" in outcome.err, "train fits no postprocessing"
    maps = ["new_0.b2nd", "new_0.nii.gz", "new_1.b2nd", "new_1.nii.gz", "predictions.json"]
    assert names_in(output) == maps
    for name in ("new_0", "new_1"):
        written = FORMAT.read(output / f"{name}.nii.gz")
        label = written.array[0]
        assert written.geometry.differences(ELSEWHERE) == []
        assert label.dtype == np.uint8
        assert set(np.unique(label)) <= {0, 1}
        probabilities = read_probabilities(output / f"{name}.b2nd")
        assert probabilities.dtype == np.float16
        assert probabilities.shape == (2, *ELSEWHERE.shape)
        background, cube = probabilities.astype(np.float32)
        assert np.allclose(background + cube, 1, atol=2e-3)
        sure = abs(cube - background) > 0.01
        assert sure.any()
        assert np.array_equal(label[sure], (cube > background)[sure])
    record = json.loads((output / "predictions.json").read_text())
    assert (record["model"], record["folds"]) == (str(trained.fold.parent), ["fold_0"])


def test_predict_makes_only_what_is_missing(trained, images, tmp_path):
    output = tmp_path / "out"
    assert trained.predict(images, output).code == 0
    first, second = times(output, "*.nii.gz")
    content, kept = second.read_bytes(), times(output)
    second.unlink()
    again = trained.predict(images, output)
    assert again.out == f"2 cases in {output}\n"
    assert "predict: 1/2" in again.err.splitlines()
    assert second.read_bytes() == content
    assert first.stat().st_mtime_ns == kept[first]
    kept = times(output, "*.nii.gz")
    nothing = trained.predict(images, output)
    assert (nothing.code, nothing.out, nothing.err) == (0, f"2 cases in {output}\n", "")
    assert times(output, "*.nii.gz") == kept


def test_predict_replaces_other_predictions_only_when_asked(trained, images, tmp_path):
    output = tmp_path / "out"
    assert trained.predict(images, output).code == 0
    kept = times(output)
    changed = trained.predict(images, output, "--no-mirroring")
    assert (changed.code, changed.out) == (2, "")
    assert f"error: {output} holds predictions of another model" in changed.err
    assert "--overwrite" in changed.err
    assert times(output) == kept
    replaced = trained.predict(images, output, "--no-mirroring", "--overwrite")
    assert (replaced.code, replaced.out) == (0, f"2 cases in {output}\n")
    predictor = json.loads((output / "predictions.json").read_text())["predictor"]
    settings = {"step_size": 0.5, "mirroring": False, "average": "probabilities"}
    assert predictor["settings"] == settings
    assert all(path.stat().st_mtime_ns > kept[path] for path in kept)
    assert trained.predict(images, output, "--set", "predictor.mirroring=false").err == ""


def test_predict_deletes_nothing_for_a_request_that_cannot_be_right(trained, images, tmp_path):
    output = tmp_path / "out"
    assert trained.predict(images, output).code == 0
    kept = times(output)
    wrong = ("--no-mirroring", "--overwrite", "--device", "cuda:99")
    assert trained.predict(images, output, *wrong).code == 2
    assert times(output) == kept


def test_predict_takes_no_case_of_another_model_for_its_own(trained, images, tmp_path):
    output, one = tmp_path / "out", tmp_path / "one"
    one.mkdir()
    shutil.copy(images / "new_0_0000.nii.gz", one)
    assert trained.predict(images, output).code == 0
    other = "--no-mirroring"
    assert trained.predict(one, output, other, "--overwrite").code == 0
    assert trained.predict(images, output, other).code == 0
    assert trained.predict(images, tmp_path / "fresh", other).code == 0
    for path in (tmp_path / "fresh").glob("*.nii.gz"):
        expected = FORMAT.read(path).array
        assert np.array_equal(FORMAT.read(output / path.name).array, expected), path.name


def test_predict_goes_on_after_a_case_that_cannot_be_read(trained, images, tmp_path):
    (images / "new_0_0000.nii.gz").write_bytes(b"no image")
    outcome = trained.predict(images, tmp_path / "out")
    assert (outcome.code, outcome.out) == (1, "")
    assert "error: 1 of 2 cases failed:\nnew_0: " in outcome.err
    assert names_in(tmp_path / "out") == ["new_1.nii.gz", "predictions.json"]


@pytest.mark.parametrize(
    ("change", "options", "code", "parts"),
    [
        (("3d_fullres", "3d_fulres"), (), 2, ["3d_fulres", "Did you mean 'Dataset001_Tiny/"]),
        (("/3d_fullres", ""), (), 2, ["no such DATASET/VARIANT/CONFIGURATION"]),
        (("", ""), ("--folds", "3"), 2, ["Fold 3 of", "Trained: 0.", "--folds 3"]),
        (("", ""), ("--folds", "0-4"), 2, ["--folds", "0-4"]),
        (("", ""), ("--step-size", 0), 2, ["step size is 0.0", "0.01 to 1"]),
        (("", ""), ("--set", "trainer.epochs=3"), 2, ["the trainer", "predictor.FIELD=VALUE"]),
        (("", ""), ("--predictor", "sliding_windo"), 2, ["Did you mean 'sliding_window'"]),
    ],
)
def test_predict_with_wrong_words(trained, images, tmp_path, change, options, code, parts):
    output = tmp_path / "out"
    there = (images, output, "--workspace", trained.workspace)
    message = refused(code, "predict", trained.name.replace(*change), *there, *options)
    for part in parts:
        assert part in message
    assert not output.exists()


def test_predict_names_the_files_that_it_leaves_out_and_refuses_its_own_images(
    trained, images, tmp_path
):
    (images / "new_0_0001.nii.gz").write_bytes(b"")
    (images / "new_2.nii").write_bytes(b"")
    outcome = trained.predict(images, tmp_path / "out")
    assert outcome.code == 0
    assert "2 files that belong to no case: new_0_0001.nii.gz, new_2.nii" in outcome.err
    message = refused(2, "predict", trained.name, images, images, "--workspace", trained.workspace)
    assert "folder of their own images" in message


def test_predict_restores_no_values_where_none_were_renumbered(trained, images, tmp_path):
    there = (images, tmp_path / "out", "--workspace", trained.workspace)
    message = refused(2, "predict", trained.name, *there, "--restore-values")
    assert "were not renumbered" in message
    path = trained.fold.parent / "model.json"
    before = path.read_text()
    path.write_text(json.dumps({**json.loads(before), "original_values": {"0": 0, "1": 300}}))
    try:
        assert trained.predict(images, tmp_path / "out", "--restore-values").code == 0
    finally:
        path.write_text(before)
    array = FORMAT.read(tmp_path / "out" / "new_0.nii.gz").array
    assert set(np.unique(array)) <= {0, 300}
    assert array.dtype == np.uint16


# ---------------------------------------------------------------------------- nnunet evaluate

METRICS = {
    *("Accuracy", "Dice", "False Discovery Rate", "False Negative Rate", "False Omission Rate"),
    *("False Positive Rate", "Jaccard", "Negative Predictive Value", "Precision", "Recall"),
    *("Total Positives Reference", "Total Positives Test", "True Negative Rate"),
}


def test_evaluate_of_a_folder_against_itself(trained, labels):
    outcome = trained.evaluate(labels, labels)
    assert outcome.code == 0, outcome.err
    assert outcome.out.startswith("6 cases\n")
    same = "equal in all cases"
    assert outcome.rows == [
        ["label", "metric", "mean", "95% interval", "median", "n", "missed", "false"],
        ["cube", "Dice", "1.0000", same, "1.0000", "6", "0", "0"],
        ["", "Surface Dice at 1 mm", "1.0000", same, "1.0000", "6", "", ""],
        ["", "HD95 (mm)", "0.00", same, "0.00", "6", "", ""],
        ["", "ASSD (mm)", "0.00", same, "0.00", "6", "", ""],
        ["", "volume error (%)", "0.0", same, "0.0", "6", "", ""],
        ["", "Lesion F1", "1.0000", same, "1.0000", "6", "", ""],
    ]
    there = f"{labels / 'summary.json'}, {labels / 'evaluation'}"
    last = f"mean foreground Dice 1.0000; every metric: {there}"
    assert outcome.out.splitlines()[-1] == last
    results = json.loads((labels / "summary.json").read_text())["results"]
    assert [case["test"] for case in results["all"]] == [str(labels / name) for name in CASES]
    assert [case["1"]["Dice"] for case in results["all"]] == [1.0] * 6
    assert set(results["mean"]["1"]) == METRICS


def test_evaluate_of_half_the_cube(trained, labels, tmp_path):
    for path in labels.iterdir():
        label = FORMAT.read(path)
        half = label.array[0].copy()
        half[: np.argwhere(half)[:, 0].min() + 3] = 0
        FORMAT.write(path, half, label.geometry)
    target = tmp_path / "elsewhere.json"
    options = ("--json", "--output", target)
    outcome = trained.evaluate(labels, trained.dataset / "labelsTr", *options)
    assert (outcome.code, outcome.err) == (0, "")
    mean = json.loads(target.read_text())["results"]["mean"]
    assert set(mean) == {"0", "1"}
    assert set(mean["1"]) == METRICS
    cube = [mean["1"][name] for name in ("Dice", "Jaccard", "Precision", "Recall")]
    assert cube == pytest.approx([2 / 3, 1 / 2, 1, 1 / 2])
    totals = (mean["1"]["Total Positives Reference"], mean["1"]["Total Positives Test"])
    assert totals == (CUBE, CUBE / 2)
    label = json.loads(outcome.out)["labels"]["1"]
    assert label["metrics"]["Dice"]["mean"] == mean["1"]["Dice"]
    assert label["metrics"]["Relative Volume Error"]["mean"] == -1 / 2
    assert label["worst"][0] == "case_0"
    folder = tmp_path / "elsewhere_evaluation"
    rows = list(csv.DictReader((folder / "metrics.csv").open()))
    assert [(row["case"], row["status"]) for row in rows] == [
        (f"case_{i}", "found") for i in range(6)
    ]
    assert not (labels / "summary.json").exists()


def test_evaluate_of_predictions_agrees_with_the_validation(trained, tmp_path):
    validated = trained.fold / "validation"
    for path in validated.glob("*.nii.gz"):
        name = path.name.replace(".nii.gz", "_0000.nii.gz")
        (tmp_path / "images").mkdir(exist_ok=True)
        (tmp_path / "labels").mkdir(exist_ok=True)
        shutil.copy(trained.dataset / "imagesTr" / name, tmp_path / "images")
        shutil.copy(trained.dataset / "labelsTr" / path.name, tmp_path / "labels")
    assert trained.predict(tmp_path / "images", tmp_path / "out").code == 0
    outcome = trained.evaluate(tmp_path / "out", tmp_path / "labels")
    dice = re.search(r"validation Dice cube (\d\.\d{4});", trained.outcome.out)[1]
    assert outcome.out.startswith("2 cases\n")
    assert outcome.rows[1][:3] == ["cube", "Dice", dice]


def test_evaluate_of_folders_with_other_cases_says_which(trained, labels):
    for number in (0, 3):
        (labels / f"case_{number}.nii.gz").unlink()
    shutil.copy(labels / "case_1.nii.gz", labels / "case_9.nii.gz")
    references = trained.dataset / "labelsTr"
    outcome = trained.evaluate(labels, references)
    assert (outcome.code, outcome.out) == (1, "")
    assert f"{labels} lacks 2 cases: case_0.nii.gz, case_3.nii.gz" in outcome.err
    assert f"{references} lacks 1 case: case_9.nii.gz" in outcome.err
    assert not (labels / "summary.json").exists()


def test_evaluate_of_another_grid_names_both_files(trained, labels):
    small = Geometry((4, 5, 6), (1.5, 1.0, 1.0))
    FORMAT.write(labels / "case_2.nii.gz", np.zeros(small.shape, np.uint8), small)
    references = trained.dataset / "labelsTr"
    outcome = trained.evaluate(labels, references)
    assert (outcome.code, outcome.out) == (1, "")
    assert f"{labels / 'case_2.nii.gz'} cannot be compared with" in outcome.err
    assert "(4, 5, 6)" in outcome.err
    assert "(16, 20, 18)" in outcome.err


def test_evaluate_with_an_unknown_dataset_suggests_the_nearest(tiny):
    folders = (tiny / "labelsTr", tiny / "labelsTr", "--workspace", tiny.parents[1])
    message = refused(2, "evaluate", *folders, "--dataset", "Dataset001_Tini")
    assert "Did you mean 'Dataset001_Tiny'?" in message
    assert "--dataset" in refused(2, "evaluate", *folders)


# ------------------------------------------------------------------------------ nnunet models


def test_models_list_shows_status_folds_dice_and_date(trained):
    command = ("models", "list", "--workspace", trained.workspace)
    (row,) = json.loads(done(*command, "--json").out)
    summary = json.loads((trained.fold / "validation" / "summary.json").read_text())
    record = json.loads((trained.fold / "run.json").read_text())
    assert row == {
        "model": trained.name,
        "variant": trained.fold.parents[1].name,
        "status": "finished",
        "folds": ["0"],
        "dice": pytest.approx(summary["results"]["mean"]["1"]["Dice"]),
        "date": record["finished"][:10],
        "broken": {},
    }
    line = done(*command).out.splitlines()[0]
    assert line == (
        f"{trained.name}  finished       folds 0  Dice {row['dice']:.4f}  {row['date']}"
    )


def copy_with_begun_fold(trained, folder):
    """Copy the results; return a workspace with a fold that is in training, too."""
    shutil.copytree(trained.workspace / "results", folder / "results")
    begun = folder / "results" / trained.name / "fold_1"
    record = json.loads((trained.fold / "run.json").read_text())
    begun.mkdir()
    (begun / "run.json").write_text(json.dumps({**record, "status": "running"}))
    return folder


def test_models_list_shows_no_fold_that_is_not_trained(trained, tmp_path):
    copy_with_begun_fold(trained, tmp_path)
    shown = done("models", "list", "--workspace", tmp_path)
    assert shown.out.startswith(f"{trained.name}  in training    folds 0  Dice ")


def test_models_show_prints_the_options_that_a_digest_stands_for(trained):
    shown = done("models", "show", trained.name, "--workspace", trained.workspace).out
    (made,) = (line for line in shown.splitlines() if line.startswith("made by "))
    words = made.split()[2:]
    assert words[:3] == ["nnunet", "run", "Dataset001_Tiny"]
    given = {word for word in BRIEF if str(word).startswith(("trainer.", "planner."))}
    assert given == {word for word in words if "=" in word}
    assert words[-2:] == ["--configuration", "3d_fullres"]
    named = refused(2, "models", "show", f"{trained.name}x", "--workspace", trained.workspace)
    assert f"Did you mean '{trained.name}'?" in named


def test_the_command_that_a_message_suggests_trains_the_same_model(trained, images, tmp_path):
    message = refused(
        2,
        "predict",
        trained.name,
        images,
        tmp_path / "out",
        "--folds",
        "3",
        "--workspace",
        trained.workspace,
    )
    suggested = message.partition("Train with: ")[2].split()
    assert "trainer.epochs=1" in suggested
    assert suggested[-2:] == ["--folds", "3"]


def test_predict_finds_the_only_model_of_a_dataset(trained, images, tmp_path):
    there = ("--workspace", trained.workspace, *ON_CPU)
    for name in ("Tiny", "1", "Dataset001_Tiny"):
        told = nnunet("predict", "-d", name, images, tmp_path / "out", *there)
        assert told.code == 0
        assert f"model: {trained.name}" in told.err
    assert "Dataset001_Tiny" in refused(2, "predict", "-d", "Tinny", images, tmp_path / "o", *there)
    assert "--dataset" in refused(2, "predict", images, tmp_path / "out", *there)


def test_predict_with_a_dataset_takes_its_best_model(trained, tmp_path):
    results = tmp_path / "results"
    shutil.copytree(trained.workspace / "results", results)
    better = shutil.copytree(results / trained.name, results / "Dataset001_Tiny/other/3d_fullres")
    path = better / "fold_0" / "validation" / "summary.json"
    summary = json.loads(path.read_text())
    for case in summary["results"]["all"]:
        case["1"]["Dice"] = 0.99
    path.write_text(json.dumps(summary))
    assert best_model("Tiny", results)["model"] == "Dataset001_Tiny/other/3d_fullres"
    path.unlink()  # not validated
    assert best_model("Tiny", results)["model"] == trained.name
    for path in (results / trained.name).rglob("validation/summary.json"):
        path.unlink()  # as of imported models
    with pytest.raises(UsageError, match=r"2 trained models.*other/3d_fullres"):
        best_model("Tiny", results)


def test_predict_takes_a_file_and_names_without_a_channel(trained, images, tmp_path):
    plain = tmp_path / "plain"
    plain.mkdir()
    for path in images.iterdir():
        shutil.copy(path, plain / path.name.replace("_0000", ""))
    outputs = {}
    for name, source in {
        "folder": images,
        "plain": plain,
        "file": plain / "new_1.nii.gz",
        "numbered": images / "new_1_0000.nii.gz",
    }.items():
        output = tmp_path / f"predicted_{name}"
        assert trained.predict(source, output).code == 0
        outputs[name] = {p.name: p.read_bytes() for p in output.glob("*.nii.gz")}
    assert outputs["plain"] == outputs["folder"]
    assert outputs["file"] == outputs["numbered"]
    assert outputs["file"].items() <= outputs["folder"].items()
    before = (plain / "new_1.nii.gz").read_bytes()
    for source, why in ((plain, "folder of their own"), (plain / "new_1.nii.gz", "replace its")):
        told = trained.predict(source, plain, "--overwrite")
        assert told.code == 2
        assert f"{why} image" in told.err
    assert (plain / "new_1.nii.gz").read_bytes() == before
    other = plain / "new_1.xyz"
    other.write_bytes(b"")
    assert "does not end in '.nii.gz'" in trained.predict(other, tmp_path / "other").err


def test_all_that_a_training_prints_is_in_a_log_beside_its_results(trained):
    logs = sorted((trained.workspace / "results" / "Dataset001_Tiny" / "logs").glob("*_train.log"))
    text = logs[0].read_text()
    assert text.startswith("nnunet")
    for line in (*trained.outcome.out.splitlines(), *trained.outcome.err.splitlines()):
        assert line in text


def test_models_list_of_an_empty_workspace(tmp_path):
    command = ("models", "list", "--workspace", tmp_path)
    assert done(*command).out == f"no models in {tmp_path / 'results'}\n"
    assert json.loads(done(*command, "--json").out) == []


# ---------------------------------------------------------------------- nnunet dataset verify


def test_dataset_verify_describes_a_dataset_that_can_be_used(tiny):
    command = ("dataset", "verify", "Tiny", "--workspace", tiny.parents[1], *ALONE)
    outcome = done(*command)
    assert outcome.out.startswith("Dataset001_Tiny: 6 readable training cases\n")
    assert ["shape (z, y, x)", "16 x 20 x 18", "16 x 20 x 18"] in outcome.rows
    assert outcome.out.splitlines()[-3:] == [
        f"label 0 (background): {6 * (GRID - CUBE)} voxels in 6 cases",
        f"label 1 (cube): {6 * CUBE} voxels in 6 cases",
        "the dataset can be used",
    ]
    assert outcome.err.splitlines()[-1] == "verify: 6/6  done"
    plain = done(*command, "--json")
    report = json.loads(plain.out)
    assert plain.err == ""
    assert (report["dataset"], report["errors"], report["warnings"]) == ("Dataset001_Tiny", [], [])
    assert [case["name"] for case in report["cases"]] == [f"case_{n}" for n in range(6)]
    assert report["cases"][0]["voxels"] == {"0": GRID - CUBE, "1": CUBE}


def test_dataset_sheet_draws_every_case_in_one_picture(tiny, tmp_path):
    sheet = tmp_path / "sheet.png"
    outcome = done("dataset", "sheet", "Tiny", sheet, "--workspace", tiny.parents[1])
    assert outcome.err == f"contact sheet: {sheet}\n"
    assert sheet.read_bytes().startswith(b"\x89PNG")


def test_dataset_verify_tells_every_error_and_exits_with_1(tiny):
    (tiny / "imagesTr" / "case_1_0000.nii.gz").write_bytes(b"no image")
    wrong = np.full((16, 20, 18), 7, np.uint8)
    FORMAT.write(tiny / "labelsTr" / "case_4.nii.gz", wrong, Geometry(wrong.shape, (1.5, 1.0, 1.0)))
    command = ("dataset", "verify", tiny, "--workspace", tiny.parents[1], *ALONE)
    outcome = nnunet(*command)
    errors = [line for line in outcome.out.splitlines() if line.startswith("error: ")]
    assert outcome.code == 1
    assert [name in line for name, line in zip(("case_1_0000", "case_4"), errors, strict=True)]
    assert outcome.out.splitlines()[-1] == "2 errors to correct"
    plain = nnunet(*command, "--json")
    assert (plain.code, len(json.loads(plain.out)["errors"])) == (1, 2)


# ----------------------------------------------------------------------------- nnunet plugins


def test_plugins_list_has_a_row_per_component_and_a_line_per_plugin(install):
    install("sound", SOUND)
    install("shaky", SHAKY)
    told = done("plugins", "list").out.splitlines()
    assert told[0].split() == ["KIND", "NAME", "PLUGIN", "VERSION", "SUMMARY"]
    rows = [re.split(r"  +", line) for line in told]
    assert ["loss", "mine", "sound", "2.5", "a loss of mine"] in rows
    assert ["loss", "dice_ce", "builtin", VERSION, "soft Dice + cross entropy"] in rows
    assert f"plugin builtin (nnunet-core {VERSION}): active" in told
    assert "plugin sound (sound 2.5): active" in told
    (broken,) = (line for line in told if line.startswith("plugin shaky (shaky 2.5): broken - "))
    assert "no_such_module_anywhere" in broken


def test_plugins_show_prints_origin_and_settings_with_types_values_and_help(install, tmp_path):
    install("sound", SOUND)
    folder = tmp_path / "sound"
    expected = [
        "loss sound/mine",
        "from     sound 2.5  sound_hooks:Mine",
        "summary  a loss of mine",
        f"file     {folder / 'sound_hooks.py'}",
        "contract nnunet_core.contracts.loss.LossBuilder",
        "",
        "Says what it is.",
        "",
        "  --set loss.weight=3.0",
        "      number. Of everything.",
        '  --set loss.name="plain"',
        "      text",
        "  --set loss.parts=[]",
        "      list of whole number",
    ]
    for words in (("mine",), ("sound/mine",), ("mine", "--kind", "loss")):
        assert done("plugins", "show", *words).out.splitlines() == expected
    bare = done("plugins", "show", "sound_hooks:Mine", "--kind", "loss").out.splitlines()
    assert bare[0] == "loss sound_hooks:Mine"
    assert "  --set loss.weight=1.0" in bare


def test_plugins_show_as_json_has_value_and_default_of_each_setting(install):
    install("sound", SOUND)
    shown = json.loads(done("plugins", "show", "mine", "--json").out)
    weight = {"name": "weight", "type": "number", "value": 3.0, "default": 1.0}
    assert shown["settings"][0] == {**weight, "help": "Of everything."}
    assert shown["documentation"] == "Says what it is."
    assert (shown["kind"], shown["target"]) == ("loss", "sound_hooks:Mine")
    variant = json.loads(done("plugins", "show", "demo", "--kind", "variant", "--json").out)
    assert variant["settings"]["trainer"]["epochs"] == 10


def test_every_setting_of_our_components_has_a_type_in_words_and_a_help():
    registry = Registry.discover()
    for resolved in registry.components():
        if resolved.is_own and resolved.kind in RUN_KINDS:
            for setting in settings_of(resolved):
                assert setting.help, (resolved.reference, setting)
                assert not re.search("typing|Annotated|class", setting.type), setting


def test_plugins_show_of_a_name_of_several_kinds_asks_which():
    told = refused(2, "plugins", "show", "v2")
    assert "preprocessor, augmentation, trainer" in told
    assert "--kind" in told


def test_plugins_list_of_a_kind_and_with_times(install):
    install("sound", SOUND)
    told = done("plugins", "list", "--kind", "loss", "--timing").out.splitlines()
    kinds = {line.split()[0] for line in told[1 : told.index("")]}
    assert kinds == {"loss"}
    times = [float(line.split()[0]) for line in told[told.index("") + 1 :]]
    assert times == sorted(times, reverse=True)
    assert [line for line in told if re.fullmatch(r" *\d+\.\d ms  sound \(sound 2.5\)", line)]
    rows = json.loads(done("plugins", "list", "--kind", "loss", "--timing", "--json").out)
    assert {row["kind"] for row in rows["components"]} == {"loss"}
    assert all(row["seconds"] > 0 for row in rows["plugins"])
    told = done("plugins", "list", "--kind", "observer").out
    assert "observer  tensorboard  tensorboard  " in told
    assert "'tensorboard' is a plugin" in refused(2, "plugins", "show", "tensorboard")
    assert "Did you mean 'loss'?" in refused(2, "plugins", "list", "--kind", "los")


def test_plugins_show_of_a_variation_has_its_values_over_the_defaults():
    told = done("plugins", "show", "v21_32GB", "--kind", "planner").out.splitlines()
    assert told[:2] == [
        "planner builtin/v21_32GB",
        f"from     nnunet-core {VERSION}  nnunet_builtin.planning.planner:PlannerV21",
    ]
    assert "  --set planner.gpu_memory_gb=32.0" in told
    assert "  --set planner.convs_per_stage=2" in told


def test_plugins_show_of_a_variant_prints_the_options_that_do_the_same():
    told = done("plugins", "show", "demo", "--kind", "variant").out.splitlines()
    assert told[0] == "variant demo/demo"
    assert "  --set trainer.epochs=10" in told
    assert "Did you mean 'demo'?" in refused(2, "plugins", "show", "dmo", "--kind", "variant")


def test_plugins_show_offers_no_set_where_no_command_takes_it():
    told = done("plugins", "show", "nifti", "--kind", "image_format").out
    assert "endings=" in told
    assert "--set" not in told


def test_a_setting_that_plugins_show_prints_can_be_typed(tiny):
    printed = done("plugins", "show", "v21_32GB", "--kind", "planner").out.splitlines()
    settings = [line.partition("--set ")[2] for line in printed if line.startswith("  --set ")]
    assert len(settings) > 5
    options = [part for setting in settings for part in ("--set", setting)]
    command = ("plan", tiny, "--workspace", tiny.parents[1], *ALONE, "--json")
    typed = json.loads(done(*command, *options).out)
    named = json.loads(done(*command, "--planner", "v21_32GB").out)
    assert typed["configurations"] == named["configurations"]


@pytest.mark.parametrize(
    ("words", "suggested"),
    [
        (("plugins", "show", "dice_ce", "--kind", "los"), "loss"),
        (("plugins", "show", "dice_cee", "--kind", "loss"), "dice_ce"),
        (("plugins", "show", "v3", "--kind", "trainer"), "v2"),
        (("traim",), "train"),
        (("modles", "list"), "models"),
        (("plugins", "lst"), "list"),
    ],
)
def test_unknown_words_suggest_the_nearest(words, suggested):
    assert f"Did you mean '{suggested}'?" in refused(2, *words)


# ------------------------------------------------------------------------------ nnunet doctor


def test_doctor_shows_versions_device_folders_and_plugins(tiny):
    told = done("doctor", "--workspace", tiny.parents[1]).out.splitlines()
    words = [re.split(r"\s+", line) for line in told]
    assert told[0].startswith(f"python     {platform.python_version()} on ")
    for name in ("nnunet-core", "torch", "numpy", "SimpleITK"):
        assert [name, metadata.version(name)] in words
    assert "device     cpu: float32, bfloat16" in told
    (default,) = (line for line in told if line.startswith("by default "))
    assert re.fullmatch(r"by default \w+(:\d+)?, \w+, \d+ threads, \d+ loaders", default)
    for name, state in (("raw", ""), ("results", "  (made on first writing)")):
        (line,) = (line for line in told if line.startswith(f"{name} "))
        folder = re.escape(str(tiny.parents[1] / name))
        assert re.fullmatch(rf"{name} +{folder}  \d+\.\d GB free{re.escape(state)}", line)
    active = re.escape(f"plugin     builtin (nnunet-core {VERSION}): active, imported in ")
    assert [line for line in told if re.fullmatch(rf"{active}\d\.\d{{3}} s", line)]
    assert told[-1] == "no problems"
    assert not (tiny.parents[1] / "results").exists(), "looking makes no folders"


def test_doctor_exits_with_1_while_a_plugin_is_broken(install, tmp_path, monkeypatch):
    monkeypatch.setenv("NNUNET_DISABLE_PLUGINS", "")
    install("shaky", SHAKY)
    outcome = nnunet("doctor", "--workspace", tmp_path)
    assert (outcome.code, outcome.err) == (1, "")
    told = outcome.out.splitlines()
    (broken,) = (line for line in told if line.startswith("plugin     shaky (shaky 2.5): "))
    assert re.search(r": broken .*no_such_module_anywhere", broken)
    (problem,) = (line for line in told if line.startswith("PROBLEM: "))
    assert re.search("plugin shaky: .*no_such_module_anywhere", problem)
    blocked = done("doctor", "--workspace", tmp_path, "--no-plugin", "shaky")
    assert "plugin     shaky (shaky 2.5): blocked" in blocked.out.splitlines()
