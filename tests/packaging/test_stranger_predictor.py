"""A stranger's package with the predictors of the documentation validates and predicts; without it,
models say so.
"""

import json
import re
from pathlib import Path

import pytest
from strangers import install, nnunet

pytestmark = pytest.mark.slow

PAGE = Path(__file__).parents[2] / "docs/how-to/change-prediction.md"
CODE = re.findall(r'```python title="my_predictors\.py"\n(.*?)```', PAGE.read_text(), re.DOTALL)
PLUGIN = """
from nnunet_core import Component, hookimpl


@hookimpl
def nnunet_predictors():
    return [
        Component("mirrored_once", "medpkg.my_predictors:MirroredOnce", "mirrored along one axis"),
        Component("median", "medpkg.my_predictors:MedianOfFolds", "median of the folds"),
    ]
"""
BRIEF = [
    *("--workers", 0, "--threads", 1, "--processes", 1, "--device", "cpu"),
    *("--set", "trainer.epochs=1", "--set", "trainer.iterations_per_epoch=2"),
    *("--set", "trainer.validation_iterations=1", "--set", "planner.max_batch_size=2"),
]


@pytest.fixture
def path(tmp_path):
    """The folder that pip installed the package into."""
    modules = {"__init__": "", "plugin": PLUGIN, "my_predictors": "\n\n".join(CODE)}
    return install(tmp_path, "medpkg", "0.3", modules, "medpkg.plugin")


def test_a_predictor_by_name_validates_trained_folds_and_predicts(path, tiny, tmp_path):
    workspace, images, output = tiny.parents[1], tiny / "imagesTr", tmp_path / "out"
    run = ("run", tiny, "--workspace", workspace, "--folds", 0, *BRIEF)
    nnunet(path, *run)
    (weights,) = workspace.rglob("weights.safetensors")
    trained = weights.stat().st_mtime_ns
    one = ("--predictor", "mirrored_once", "--set", "predictor.axis=1")
    assert (
        "validated anew, with the predictor 'medpkg/mirrored_once'"
        in nnunet(path, *run, *one).stderr
    )
    assert list(workspace.rglob("weights.safetensors")) == [weights]
    assert weights.stat().st_mtime_ns == trained
    component = json.loads((weights.parent / "run.json").read_text())["components"]["predictor"]
    assert (component["distribution"], component["version"]) == ("medpkg", "0.3")
    assert component["settings"] == {"axis": 1, "step_size": 0.5}

    predict = ("predict", weights.parents[1], images, output, "--device", "cpu", "--threads", 1)
    nnunet(path, *predict)
    record = json.loads((output / "predictions.json").read_text())
    assert record["predictor"]["reference"] == "medpkg/mirrored_once"
    nnunet(path, *predict, "--predictor", "median", "--overwrite")

    missing = nnunet(None, *predict, code=1).stderr
    assert "pip install 'medpkg==0.3'" in missing
    assert "--predictor" in missing
    nnunet(None, *predict, "--predictor", "sliding_window", "--overwrite")
    record = json.loads((output / "predictions.json").read_text())
    assert record["predictor"]["reference"] == "builtin/sliding_window"
