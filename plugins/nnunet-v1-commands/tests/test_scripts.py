"""The two examples of v1's documentation, as shell scripts in its words, with the package installed
as anybody installs it.
"""

import json
import os
import shutil
import subprocess
import zipfile
from pathlib import Path

import decathlon
import numpy as np
import pytest
import SimpleITK as sitk
from strangers import install_source

PACKAGE = Path(__file__).parents[1]
BRIEF = "trainer.epochs=1 trainer.iterations_per_epoch=2 trainer.validation_iterations=1"
ENSEMBLE = "ensemble_2d__{0}--3d_fullres__{0}".format("nnUNetTrainerV2__nnUNetPlansv2.1")

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def installed(tmp_path_factory):
    """Return the folder that the package is installed into."""
    source = tmp_path_factory.mktemp("package") / "source"  # pip writes into it
    shutil.copytree(PACKAGE, source, ignore=shutil.ignore_patterns("build", "*.egg-info"))
    return install_source(source, tmp_path_factory.mktemp("installed"))


@pytest.fixture
def models():
    """Return the folder of models trained by v1, as NNUNET_MODELS says for all tests."""
    beside = PACKAGE.parents[2] / "shared" / "models"
    found = Path(os.environ.get("NNUNET_MODELS", beside))
    if not found.is_dir():
        pytest.skip(f"NNUNET_MODELS is not set and {beside} does not exist")
    return found.resolve()


@pytest.fixture
def folder(tmp_path):
    decathlon.make_tasks(tmp_path / "tasks")
    return tmp_path


def run_script(name, folder, installed, *arguments):
    variables = {
        **{key: value for key, value in os.environ.items() if not key.startswith("NNUNET_")},
        "PATH": f"{installed / 'bin'}{os.pathsep}{os.environ['PATH']}",
        "PYTHONPATH": str(installed),
        "nnUNet_raw_data_base": str(folder / "raw"),
        "nnUNet_preprocessed": str(folder / "preprocessed"),
        "RESULTS_FOLDER": str(folder / "results"),
        "nnUNet_def_n_proc": "1",
        "nnUNet_n_proc_DA": "0",
        "NNUNET_V1_SETTINGS": f"{BRIEF} planner.max_batch_size=2 planner.base_features=4",
        "NNUNET_DISABLE_PLUGINS": "pictures",  # more than half of a small training
        "TASKS": str(folder / "tasks"),
        "OUT": str(folder / "out"),
    }
    script = Path(__file__).with_name(name)
    words = ["sh", str(script), *map(str, arguments)]
    done = subprocess.run(
        words, env=variables, cwd=folder, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-4000:]
    return done.stdout


def check_summary(path, cases):
    summary = json.loads(path.read_text())
    assert set(summary["results"]["mean"]) == {"1", "2"}
    assert len(summary["results"]["all"]) == cases


def test_the_hippocampus_example(folder, installed):
    run_script("hippocampus.sh", folder, installed)
    check_summary(folder / "out" / "Task004" / "summary.json", 2)
    results = folder / "results" / "nnUNet" / "3d_fullres" / "Task004_Hippocampus"
    fold = results / "nnUNetTrainerV2__nnUNetPlansv2.1" / "fold_0"
    for name in ("model_final_checkpoint.model", "progress.png", "validation_raw/summary.json"):
        assert (fold / name).is_file()


def test_the_prostate_example(folder, installed):
    printed = run_script("prostate.sh", folder, installed)
    check_summary(folder / "out" / "Task005" / "summary.json", 2)
    assert "nnUNet_predict -i FOLDER_WITH_TEST_CASES -o OUTPUT_FOLDER_MODEL1" in printed
    task = folder / "results" / "nnUNet" / "ensembles" / "Task005_Prostate"
    lines = (task / "summary.csv").read_text().splitlines()
    assert lines[0] == "model,Anterior,Posterior,average"
    assert [line.split(",")[0] for line in lines[1:]][-1] == ENSEMBLE
    decided = json.loads((task / ENSEMBLE / "postprocessing.json").read_text())
    assert decided["min_valid_object_sizes"] == "None"


@pytest.mark.shared
def test_a_model_that_v1_trained_predicts_as_in_v1(folder, installed, models):
    v1 = models / "v1"
    run_script(
        "pretrained.sh", folder, installed, v1 / "Task004_Hippocampus_v1.zip", models / "inputs"
    )
    found = sorted((folder / "out").glob("*.nii.gz"))
    assert len(found) == 3
    for path in found:
        label, reference = (read(p) for p in (path, v1 / "predictions_3d_fullres" / path.name))
        assert np.mean(label == reference) >= 0.999


@pytest.mark.shared
def test_the_inference_example_with_an_ensemble(folder, installed, models):
    archive = folder / "ensemble.zip"
    shutil.copy(models / "v1" / "Task004_Hippocampus_v1.zip", archive)
    with zipfile.ZipFile(archive, "a") as opened:
        name = f"ensembles/Task004_Hippocampus/{ENSEMBLE}/postprocessing.json"
        opened.writestr(name, json.dumps({"for_which_classes": [1, 2]}))
    image = min((models / "inputs").glob("*.nii.gz"))
    (folder / "images").mkdir()
    shutil.copy(image, folder / "images")
    run_script("inference_prostate.sh", folder, installed, archive, folder / "images")
    assert len(sorted((folder / "out" / "ensemble").glob("*.nii.gz"))) == 1
    said = json.loads((folder / "out" / "ensemble" / "predictions.json").read_text())
    assert said["postprocess"]


def read(path):
    return sitk.GetArrayFromImage(sitk.ReadImage(str(path)))
