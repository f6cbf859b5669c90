"""What nnunet-core's kit asks of every component, and a training with a variant."""

import json
import subprocess
import sys

import pytest

from nnunet_core.testing import parametrize_with_checks

SMALL = (
    "network.blocks=[1, 1, 1, 1, 1, 1]",
    "predictor.mirroring=false",
    "planner.base_features=4",
    "planner.max_batch_size=2",
    "trainer.epochs=1",
    "trainer.iterations_per_epoch=2",
    "trainer.validation_iterations=1",
)


@parametrize_with_checks(
    [
        ("planner", "resenc/resenc_m"),
        ("preprocessor", "resenc/v2_planes"),
        ("network", "resenc/resenc_unet"),
        ("variant", "resenc/resenc_m"),
    ]
)
def test_contract(component, check):
    check(component)


@pytest.mark.slow
def test_a_variant_trains_and_predicts(toy_datasets, tmp_path):
    settings = [part for setting in SMALL for part in ("--set", setting)]
    where = ("--workspace", tmp_path, "--folds", "all", "--workers", 0, "--processes", 1)
    command = ("-m", "nnunet_cli", "run", toy_datasets.folder("3d"), "--variant", "resenc_m")
    words = [sys.executable, *command, "--configuration", "3d_fullres", *where, *settings]
    done = subprocess.run(list(map(str, words)), capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    (record,) = tmp_path.glob("results/**/run.json")
    content = json.loads(record.read_text())
    assert content["status"] == "finished"
    assert (record.parent / "validation" / "summary.json").is_file()
    components = content["components"]
    owners = {kind: components[kind]["distribution"] for kind in ("planner", "network")}
    assert set(owners.values()) == {"nnunet-resenc"}
    assert components["preprocessor"]["settings"]["steps"] == "v2"
