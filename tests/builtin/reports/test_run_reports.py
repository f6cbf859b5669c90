"""The report of a run: numbers are those of the files, damage is said, and it never fails a run."""

import json
import re
import shutil

import numpy as np
import pytest
from commands import nnunet
from finished_run import one_error
from instant_models import Space, make_space

from nnunet_builtin.pages import bundling
from nnunet_builtin.pages.elements import Table
from nnunet_builtin.reports import making
from nnunet_builtin.reports.finding import find, run_of
from nnunet_builtin.reports.gathering import gather
from nnunet_builtin.reports.overlays import worst_first
from nnunet_builtin.reports.run_page import run_page
from nnunet_builtin.statistics.intervals import mean_interval
from nnunet_core.errors import StorageError
from nnunet_core.registry.discovery import Registry
from nnunet_core.store.workspace import Workspace

TWO = ("-c", "2d", "-c", "3d_fullres")
LINE = {"train_loss": 0.5, "validation_loss": 0.6, "mean_dice": 0.7, "learning_rate": 0.01}
pytestmark = pytest.mark.skipif(
    not bundling.are_current(), reason=f"no bundles: {bundling.COMMAND}"
)


@pytest.fixture(scope="module")
def ran(tmp_path_factory):
    """A run of two configurations and two folds, and what it printed."""
    space = make_space(tmp_path_factory.mktemp("reports") / "ws")
    done = space.go("run", *TWO)
    assert done.returncode == 0, done.stderr
    for fold in space.results.glob("*/*/fold_*"):
        lines = [{"epoch": 1 + n, "seconds": 2.0, "data_wait": 0.25, **LINE} for n in range(3)]
        (fold / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    return space, done


@pytest.fixture
def space(ran, tmp_path):
    """A copy of the finished run that a test may change."""
    shutil.copytree(ran[0].folder, tmp_path / "ws")
    return Space(tmp_path / "ws")


def run_folder(space):
    return space.model("2d").parent


def content(space):
    workspace = Workspace.find(space.folder)
    return gather(run_of(run_folder(space)), workspace, Registry.discover())


def sections(run):
    page = run_page(run, {})
    return {section.title: section.elements for section in page.sections}


def rows_of(elements, caption):
    (table,) = [e for e in elements if isinstance(e, Table) and e.caption.startswith(caption)]
    return [[cell.text for cell in row] for row in table.cells]


def summaries(space, configuration):
    paths = sorted(space.model(configuration).glob("fold_*/validation/summary.json"))
    return [json.loads(path.read_text()) for path in paths]


# ---- nnunet run writes it


def test_a_run_writes_its_report_and_prints_its_path(ran):
    space, done = ran
    path = run_folder(space) / "report.html"
    assert done.stderr.count(f"report: {path}") == 1
    text = path.read_text()
    assert text.startswith("<!doctype html>")
    assert 'http-equiv="Content-Security-Policy"' in text


def test_a_report_that_fails_is_one_warning_of_the_run(space, monkeypatch):
    def broken(*_, **__):
        raise StorageError("The disk is full.")

    monkeypatch.setattr(making, "run_page", broken)
    done = space.go("run", *TWO)
    assert done.returncode == 0
    assert done.stderr.count("warning:") == 1
    assert "plugin 'reports' failed: StorageError: The disk is full." in done.stderr


def test_a_run_without_the_plugin_writes_none(space):
    (run_folder(space) / "report.html").unlink()
    done = space.go("run", *TWO, "--no-plugin", "reports")
    assert done.returncode == 0
    assert not (run_folder(space) / "report.html").exists()


# ---- its numbers


def test_scores_are_those_of_the_summaries(ran):
    space, _ = ran
    for model in content(space).models:
        found = summaries(space, model.name)
        dice = [case["1"]["Dice"] for each in found for case in each["results"]["all"]]
        cube, mean = model.labels
        assert (cube.label, cube.cases, mean.label) == ("cube", 6, "mean")
        assert cube.mean == pytest.approx(np.mean(dice))
        assert (cube.median, cube.lowest) == (np.median(dice), min(dice))
        means = [each["results"]["mean"]["1"]["Dice"] for each in found]
        assert list(cube.folds.values()) == pytest.approx(means)


def test_the_interval_of_a_mean_is_that_of_the_statistics(space):
    values = [0.1, 0.5, 0.6, 0.7, 0.8, 0.9]
    cases = iter(values)
    for fold in ("fold_0", "fold_1"):
        path = space.model("2d") / fold / "validation" / "summary.json"
        document = json.loads(path.read_text())
        for case in document["results"]["all"]:
            case["1"]["Dice"] = next(cases)
        path.write_text(json.dumps(document))
    cube, _ = content(space).models[0].labels
    assert cube.interval == mean_interval(np.array(values))[0]
    shown = rows_of(sections(content(space))["Results: 2d"], "Dice per label")[0]
    assert shown[1:3] == ["0.6000", "{:.4f} – {:.4f}".format(*cube.interval)]


def test_cases_are_sorted_from_the_worst_to_the_undefined(ran):
    model = content(ran[0]).models[0]
    ranked = worst_first(model.cases)
    assert [case.mean for case in ranked] == sorted(case.mean for case in model.cases)
    shown = rows_of(sections(content(ran[0]))["Results: 2d"], "Dice of every")
    assert [row[0] for row in shown] == [case.case for case in ranked]


def test_missed_and_invented_structures_are_counted(space):
    path = space.model("2d") / "fold_0" / "validation" / "summary.json"
    document = json.loads(path.read_text())
    missed, invented, _ = (case["1"] for case in document["results"]["all"])
    missed |= {"Dice": 0.0, "Total Positives Test": 0}
    invented |= {"Dice": 0.0, "Total Positives Reference": 0}
    path.write_text(json.dumps(document))
    cube, mean = content(space).models[0].labels
    assert (cube.missed, cube.invented, cube.lowest) == (1, 1, 0.0)
    assert (mean.missed, mean.invented) == (1, 1)


def test_plans_have_reasons_and_their_numbers(ran):
    flat, full = content(ran[0]).models
    assert "The median of 6 cases is 1.5 × 1 × 1 mm" in full.planned.reasons["target spacing"]
    assert "the median case of 16 × 20 × 18 voxels" in full.planned.reasons["patch size"]
    assert "The plans have another one" not in str(flat.planned.reasons | full.planned.reasons)
    assert set(full.planned.skipped) == {"3d_lowres", "3d_cascade_fullres"}


def test_without_the_fingerprint_the_notes_are_left(space):
    shutil.rmtree(space.folder / "preprocessed" / "Dataset001_Tiny" / "fingerprints")
    model = content(space).models[0]
    assert model.planned.reasons == {}
    assert "fingerprint" in model.planned.missing
    assert model.planned.notes


def test_code_that_no_plugin_registers_is_named_and_not_imported(space):
    path = space.model("2d") / "model.json"
    path.write_text(path.read_text().replace("instant_models:Instant", "no_such_module:Instant"))
    trainer = {part.kind: part for part in content(space).models[0].parts}["trainer"]
    assert trainer.record.reference == "no_such_module:InstantTrainer"
    assert "no defaults are known" in trainer.remark


def test_selection_names_what_predicts_and_does_not_call_it_better(ran):
    run = content(ran[0])
    elements = sections(run)["Selection and postprocessing"]
    best, *others = rows_of(elements, "Before postprocessing")
    assert best[0] == " + ".join(run.inference.scores[0].models)
    assert len(others) == 2
    assert "does not show which one is better" in str(elements)


def test_the_dataset_of_a_run_has_the_voxels_of_its_references(ran):
    space, _ = ran
    found = [case for each in summaries(space, "2d") for case in each["results"]["all"]]
    voxels = sum(case["1"]["Total Positives Reference"] for case in found)
    rows = rows_of(sections(content(space))["Dataset"], "Shapes after cropping")
    assert rows[1][:3] == ["cube", "6 of 6", str(int(voxels))]
    assert float(rows[1][3].rstrip("%")) == pytest.approx(100 * voxels / (6 * 16 * 20 * 18), 0.02)


def test_cost_and_curves_are_those_of_the_epochs(ran):
    run = content(ran[0])
    first = rows_of(sections(run)["Cost"], "Training: hours")[0]
    assert first[:3] == ["2d", "0", f"{6 / 3600:.4f}"]
    assert "25%" in first
    (trained, *_) = rows_of(sections(run)["Training: 2d"], "Losses")
    assert trained[:5] == ["fold 0", "finished", "3", "0.5000", "0.6000"]


# ---- what is not complete, or damaged


def write(name, text):
    return lambda fold: (fold / name).write_text(text)


def status(value):
    def change(fold):
        record = json.loads((fold / "run.json").read_text())
        (fold / "run.json").write_text(json.dumps(record | {"status": value}))

    return change


INCOMPLETE = {
    "half trained": (status("running"), "fold 1: in training, 3 epochs done"),
    "not validated": (status("trained"), "fold 1: not validated"),
    "damaged record": (write("run.json", "{"), "run.json"),
    "damaged summary": (write("validation/summary.json", "[]"), "summary.json does not hold"),
    "damaged curve": (write("metrics.jsonl", "{]"), "metrics.jsonl is damaged after 0 epochs"),
    "no weights": (lambda fold: (fold / "weights.safetensors").unlink(), "weights"),
}


@pytest.mark.parametrize("kind", INCOMPLETE)
def test_what_is_not_complete_is_said_and_the_rest_is_reported(space, kind):
    change, said = INCOMPLETE[kind]
    change(space.model("2d") / "fold_1")
    run = content(space)
    (problem,) = run.problems
    assert problem.startswith("2d, fold 1: ")
    assert said in problem
    assert problem in str(sections(run)["Summary"])
    assert run.models[0].cases
    assert len(run.models[1].cases) == 6


def test_a_model_that_cannot_be_read_does_not_hide_the_other(space):
    (space.model("2d") / "model.json").write_text("{}")
    run = content(space)
    assert [model.name for model in run.models] == ["3d_fullres"]
    assert "2d/model.json" in run.problems[0]


def test_a_run_of_which_nothing_can_be_read_is_an_error(space):
    for configuration in ("2d", "3d_fullres"):
        (space.model(configuration) / "model.json").write_text("{}")
    folder = next(space.results.glob("instant*"), None) or next(space.results.glob("default*"))
    done = nnunet("report", folder)
    assert "model.json does not hold" in one_error(done)
    assert "2d" in done.stderr


# ---- nnunet report


def test_the_command_writes_where_it_is_told(space, tmp_path):
    name = str(run_folder(space).relative_to(space.folder / "results"))
    path, without = tmp_path / "page.html", ("--pictures", "0", "--workspace", space.folder)
    done = nnunet("report", name, "--output", path, *without)
    assert (done.returncode, done.stdout.strip()) == (0, str(path)), done.stderr
    model = nnunet("report", f"{name}/2d", *without)
    assert model.stdout.strip() == str(space.model("2d") / "report.html")


@pytest.mark.pictures
def test_worst_cases_are_drawn_on_request(space):
    done = nnunet("report", space.model("2d"), "--pictures", "2", "--workspace", space.folder)
    assert done.returncode == 0, done.stderr
    text = (space.model("2d") / "report.html").read_text()
    worst = worst_first(content(space).models[0].cases)[:2]
    captions = re.findall(r"<figcaption>(case_\d) \(fold \d\): mean Dice", text)
    assert captions == [case.case for case in worst]
    names = re.findall(r'<option value="\d">(2d: case_\d)', text)  # and can be looked through
    assert names == [f"2d: {case.case}" for case in worst]
    assert text.count('class="viewer"') == 1


def test_an_inference_json_is_its_run_or_its_members(space):
    workspace, registry = Workspace.find(space.folder), Registry.discover()
    beside = find(str(run_folder(space) / "inference.json"), workspace, registry)
    assert beside.folder == run_folder(space)
    done = space.find_best()
    assert done.returncode == 0, done.stderr
    found = find(str(space.results / "inference.json"), workspace, registry)
    run = gather(found, workspace, registry)
    assert {model.name for model in run.models} <= {"2d", "3d_fullres"}
    assert run.inference is not None
