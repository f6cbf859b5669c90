"""The command line trains on a card: alone, and as the only process of torchrun."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from small_on_card import lines_of

from nnunet_builtin.computing.devices import resolve
from nnunet_core.contracts.trainer import Runtime

pytestmark = pytest.mark.gpu

REPOSITORY = Path(__file__).parents[2]
SETTINGS = (
    *("planner.max_batch_size=2", "planner.base_features=4"),
    *("trainer.epochs=2", "trainer.iterations_per_epoch=4", "trainer.validation_iterations=1"),
)
#: One process needs no group; the training must not wait for anybody.
ALONE = """
from torch import distributed

def refuse(*_, **__):
    raise AssertionError("a group of one process")

distributed.init_process_group = refuse
from nnunet_cli.main import main
main()
"""


@pytest.fixture(scope="module")
def environment(tmp_path_factory):
    """Variables of a process that finds our own plugins though nothing may be installed."""
    tomllib = pytest.importorskip("tomllib")
    project = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["project"]
    folder = tmp_path_factory.mktemp("declared")
    information = folder / f"nnunet_core-{project['version']}.dist-info"
    information.mkdir()
    metadata = ["Metadata-Version: 2.1", "Name: nnunet-core", f"Version: {project['version']}"]
    (information / "METADATA").write_text("\n".join(metadata) + "\n")
    plugins = project["entry-points"]["nnunet_plugins"]
    lines = ["[nnunet_plugins]", *(f"{name} = {target}" for name, target in plugins.items())]
    (information / "entry_points.txt").write_text("\n".join(lines) + "\n")
    paths = [folder, REPOSITORY, REPOSITORY / "plugins", os.environ.get("PYTHONPATH", "")]
    return {**os.environ, "PYTHONPATH": os.pathsep.join(map(str, paths))}


def train(dataset, launcher, device, environment, *options):
    """Train; return the fold's folder and what was printed."""
    workspace = dataset.parents[1]
    command = [sys.executable, *launcher, "train", str(dataset), "--workspace", str(workspace)]
    command += ["--folds", "0", "--workers", "0", "--precision", "float32", *options]
    command += [part for setting in SETTINGS for part in ("--set", setting)]
    command += ["--device", device.type]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
    assert done.returncode == 0, done.stderr
    (fold,) = workspace.glob("results/*/*/*/fold_0")
    return fold, done.stderr


def test_one_gpu_and_one_process_of_torchrun_train_alike(tmp_path, card, environment, request):
    for needed in ("SimpleITK", "matplotlib"):
        pytest.importorskip(needed)
    dataset = request.getfixturevalue("tiny")
    fold, _ = train(dataset, ["-m", "nnunet_cli"], card, environment, "--gpus", "1")
    record, lines = json.loads((fold / "run.json").read_text()), lines_of(fold)
    assert record["status"] == "finished"
    assert record["device"] == str(resolve(Runtime(card.type)).device)
    assert len(list((fold / "validation").glob("case_*.nii.gz"))) == 2
    fold.rename(tmp_path / "alone")

    script = tmp_path / "alone.py"
    script.write_text(ALONE)
    torchrun = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node=1", str(script)]
    again, _ = train(dataset, torchrun, card, {**environment, "OMP_NUM_THREADS": "1"})
    assert again == fold
    assert json.loads((fold / "run.json").read_text())["device"] == record["device"]
    for mine, theirs in zip(lines_of(fold), lines, strict=True):
        assert mine["train_loss"] == pytest.approx(theirs["train_loss"], abs=0.01)
        assert mine["validation_loss"] == pytest.approx(theirs["validation_loss"], abs=0.01)


def test_a_range_test_of_the_rate_runs_on_the_card(tmp_path, card, environment, request):
    for needed in ("SimpleITK", "matplotlib"):
        pytest.importorskip(needed)
    dataset, output = request.getfixturevalue("tiny"), tmp_path / "range"
    command = [sys.executable, "-m", "nnunet_cli", "find-lr", str(dataset), "--iterations", "40"]
    command += ["--workspace", str(dataset.parents[1]), "--output", str(output)]
    command += ["--workers", "0", "--device", card.type]
    command += [part for setting in SETTINGS for part in ("--set", setting)]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
    assert done.returncode == 0, done.stderr
    facts = json.loads((output / "find_lr.json").read_text())
    assert facts["lowest_smoothed_loss"] < 1
