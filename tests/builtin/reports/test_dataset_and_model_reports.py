"""Reports of datasets and of models from elsewhere; what is none of these is named."""

import json

import numpy as np
import pytest
from commands import nnunet
from finished_run import one_error
from tiny_dataset import make_tiny
from trained_model import PATIENTS, make_trained

from nnunet_builtin.formats.simpleitk import SimpleItkFormat
from nnunet_builtin.pages import bundling
from nnunet_builtin.reports.dataset_page import dataset_page
from nnunet_builtin.reports.finding import run_of
from nnunet_builtin.reports.gathering import gather
from nnunet_builtin.reports.run_page import run_page
from nnunet_builtin.reports.sheets import read_sheet, shares
from nnunet_core.data.images import Geometry
from nnunet_core.registry.discovery import Registry
from nnunet_core.runtime.reporting import Silence
from nnunet_core.runtime.workers import Workers
from nnunet_core.stages.dataset import open_dataset
from nnunet_core.store.workspace import Workspace

needs_bundles = pytest.mark.skipif(
    not bundling.are_current(), reason=f"no bundles: {bundling.COMMAND}"
)


@pytest.fixture
def workspace(tmp_path):
    return Workspace.find(tmp_path / "ws")


def sheet_of(folder, workspace):
    dataset = open_dataset(str(folder), workspace.raw, Registry.discover())
    return read_sheet(dataset, workspace.preprocessed, Workers(), Silence())


def labels_of(folder):
    files = sorted((folder / "labelsTr").glob("*.nii.gz"))
    return [SimpleItkFormat().read(path).array[0] for path in files]


# ---- datasets


def test_a_sheet_counts_every_voxel(tiny, workspace):
    sheet, problems = sheet_of(tiny, workspace)
    background, cube = shares(sheet)
    voxels = [int((label == 1).sum()) for label in labels_of(tiny)]
    assert problems == []
    assert (cube.name, cube.cases, cube.known, cube.voxels) == ("cube", 6, 6, sum(voxels))
    assert cube.share + background.share == pytest.approx(1)
    assert (cube.of_foreground, background.of_foreground) == (1, None)
    assert cube.volume == pytest.approx(np.median(voxels) * 1.5 / 1000)
    image = SimpleItkFormat().read(tiny / "imagesTr" / "case_0_0000.nii.gz").array
    assert sheet.cases[0].intensities[0] == pytest.approx((image.min(), image.mean(), image.max()))
    assert sheet.errors is None  # nobody verified it


def test_regions_are_sums_of_values(tiny, workspace):
    document = json.loads((tiny / "dataset.json").read_text())
    labels = {"background": 0, "whole": [1, 2], "core": [2]}
    changed = {"labels": labels, "regions_class_order": [1, 2]}
    (tiny / "dataset.json").write_text(json.dumps(document | changed))
    path = tiny / "labelsTr" / "case_0.nii.gz"
    image = SimpleItkFormat().read(path)
    image.array[0][image.array[0] == 1] = 2
    SimpleItkFormat().write(path, image.array[0], image.geometry)
    whole, core = shares(sheet_of(tiny, workspace)[0])[1:]
    voxels = [int((label > 0).sum()) for label in labels_of(tiny)]
    assert (whole.voxels, whole.cases) == (sum(voxels), 6)
    assert (core.voxels, core.cases) == (voxels[0], 1)


def test_what_verify_found_is_used_while_the_content_is_the_same(tiny, workspace):
    assert nnunet("dataset", "verify", tiny, "--workspace", workspace.raw.parent).returncode == 0
    assert sheet_of(tiny, workspace)[0].errors == ()
    label = SimpleItkFormat().read(tiny / "labelsTr" / "case_0.nii.gz")
    path = tiny / "labelsTr" / "case_0.nii.gz"
    SimpleItkFormat().write(path, np.zeros_like(label.array[0]), label.geometry)
    assert sheet_of(tiny, workspace)[0].errors is None


def test_verify_says_so_when_its_findings_cannot_be_kept(tiny, workspace):
    workspace.preprocessed.parent.mkdir(exist_ok=True)
    workspace.preprocessed.write_text("a file in the place of the folder")
    done = nnunet("dataset", "verify", tiny, "--workspace", workspace.raw.parent)
    assert done.returncode == 0
    assert done.stderr.count("warning: what was found is not kept for reports") == 1


def test_a_case_that_cannot_be_used_is_named_and_the_others_are_reported(tiny, workspace):
    wrong = np.full((16, 20, 18), 9, np.uint8)
    geometry = Geometry((16, 20, 18), (1.5, 1.0, 1.0))
    SimpleItkFormat().write(tiny / "labelsTr" / "case_3.nii.gz", wrong, geometry)
    sheet, problems = sheet_of(tiny, workspace)
    assert [case.name for case in sheet.cases] == [f"case_{n}" for n in (0, 1, 2, 4, 5)]
    assert (sheet.total, len(problems)) == (6, 1)
    assert "case_3" in problems[0]
    page = dataset_page(sheet, [], problems)
    assert problems[0] in str(page.sections[0].elements)


@needs_bundles
def test_the_page_of_a_dataset_lies_in_the_workspace_and_shows_cases(tiny, workspace):
    done = nnunet("report", "Tiny", "--workspace", workspace.raw.parent, "--processes", "1")
    path = workspace.preprocessed / tiny.name / "report.html"
    assert (done.returncode, done.stdout.strip()) == (0, str(path)), done.stderr
    text = path.read_text()
    assert "6 of 6 training cases" in text
    assert text.count("data:image/png;base64,") == 1
    assert list(tiny.glob("*.html")) == []


# ---- models


def test_a_model_without_files_of_its_run_is_reported(tmp_path, workspace):
    model = make_trained(workspace.results)
    run = gather(run_of(model.folder), workspace, Registry.discover())
    assert [fold.state for fold in run.models[0].folds] == ["finished"] * 2
    assert {case.case for case in run.models[0].cases} == set(PATIENTS)
    assert "not in the workspace" in run.models[0].planned.missing
    assert sum("metrics.jsonl is damaged" in problem for problem in run.problems) == 2


@needs_bundles
def test_an_exported_model_says_what_its_makers_measured(tmp_path, workspace, monkeypatch):
    monkeypatch.chdir(tmp_path)
    model, archive = make_trained(workspace.results), tmp_path / "ward.zip"
    texts = ("--licence", "CC-BY-4.0", "--citation", "Doe 2026 <b>")
    done = nnunet("models", "export", model.folder, archive, *texts)
    assert done.returncode == 0, done.stderr
    done = nnunet("report", archive, "--workspace", workspace.raw.parent)
    assert done.stdout.strip() == str(tmp_path / "ward_report.html"), done.stderr
    text = (tmp_path / "ward_report.html").read_text()
    assert "over 4 validation cases" in text
    assert "CC-BY-4.0" in text
    assert "Doe 2026 &lt;b&gt;" in text
    assert not any(patient in text for patient in PATIENTS)
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "ward.zip",
        "ward_report.html",
        "ws",
    ]


@pytest.mark.shared
def test_models_of_earlier_frameworks_are_reported(models, workspace):
    archive = models / "v2" / "Dataset004_Hippocampus_plain_3d.zip"
    root = workspace.raw.parent
    assert nnunet("models", "import", archive, "--workspace", root).returncode == 0
    (folder,) = workspace.results.glob("*/*/*/model.json")
    run = gather(run_of(folder.parent), workspace, Registry.discover())
    page = run_page(run, {})
    assert page.subtitle == "Model"
    assert "nnU-Net v2" in str(page.sections[0].elements)
    assert "It was planned elsewhere: nnU-Net v2" in run.models[0].planned.missing
    assert run.models[0].command == ""
    assert all(fold.parameters > 100_000 for fold in run.models[0].folds)


# ---- what is none of these


def results_of_a_dataset(tmp_path):
    return make_trained(tmp_path / "results").folder.parent.parent


def one_fold(tmp_path):
    return make_trained(tmp_path / "results").folder / "fold_0"


def folder_with(*names):
    def make(tmp_path):
        for name in names:
            path = tmp_path / "other" / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text("{}")
        return tmp_path / "other"

    return make


def text_file(tmp_path):
    (tmp_path / "notes.txt").write_text("x")
    return tmp_path / "notes.txt"


def foreign_zip(tmp_path):
    import zipfile

    with zipfile.ZipFile(tmp_path / "foreign.zip", "w") as file:
        file.writestr("nnUNet/plans.pkl", b"x")
    return tmp_path / "foreign.zip"


OTHERS = {
    "results of a dataset": (results_of_a_dataset, "Its runs: nnunet report "),
    "one fold": (one_fold, "is one fold. The report of its model: nnunet report "),
    "predictions": (folder_with("predictions.json"), "holds predictions"),
    "benchmark": (folder_with("jobs/a", "results/b"), "nnunet benchmark report "),
    "v1": (folder_with("plans.pkl", "fold_0/model_final_checkpoint.model"), "nnunet models import"),
    "v2": (folder_with("plans.json", "fold_0/checkpoint_final.pth"), "nnunet models import"),
    "v1 or v2, zipped": (foreign_zip, "nnunet models import"),
    "empty": (folder_with("x"), "holds nothing that a report is made of"),
    "file": (text_file, "is nothing that a report is made of"),
    "nothing": (lambda tmp_path: tmp_path / "Tinny", "There is no dataset"),
}


@pytest.mark.parametrize("kind", OTHERS)
def test_what_no_report_is_made_of_is_named(tmp_path, kind):
    make, said = OTHERS[kind]
    message = one_error(nnunet("report", make(tmp_path), "--workspace", tmp_path / "ws"), code=2)
    assert said in " ".join(message.split())


@pytest.mark.parametrize("name", ["page.pdf", "page", "folder.html"])
def test_what_is_no_name_of_a_page_is_refused(tmp_path, name):
    make_tiny(tmp_path / "ws" / "raw" / "Dataset001_Tiny", cases=1)
    (tmp_path / "folder.html").mkdir()
    done = nnunet("report", "Tiny", "--output", tmp_path / name, "--workspace", tmp_path / "ws")
    assert "is not the name of a page" in " ".join(one_error(done, code=2).split())
