"""Which executor runs a benchmark does not show in its tables."""

import shutil
from pathlib import Path

import pytest
from commands import nnunet
from tiny_dataset import make_tiny

BENCH = """
name = "tables"
datasets = ["Dataset001_Tiny"]
baseline = "default"
folds = [0]
seeds = [1]
variants.default = {}
variants.topk = {loss = "dice_topk"}

[settings]
planner = {max_batch_size = 2, base_features = 4}
trainer = {epochs = 1, iterations_per_epoch = 2, validation_iterations = 1}
predictor = {mirroring = false}

[resources.train]
memory_gb = 1.5

[executor]
"""


@pytest.mark.slow
def test_local_and_ray_give_the_same_tables(tmp_path, ray_cluster):
    make_tiny(tmp_path / "Dataset001_Tiny")
    found = []
    for executor in ('name = "local"', f'name = "ray"\nsettings.address = "{ray_cluster.address}"'):
        (tmp_path / "bench.toml").write_text(BENCH + executor)
        done = nnunet("benchmark", "run", tmp_path / "bench.toml", "--workspace", tmp_path / "ws")
        assert done.returncode == 0, done.stderr
        root = tmp_path / "ws" / "benchmarks" / "tables"
        tables = [root / "scores.csv", *sorted((root / "tables").glob("*.csv"))]
        found.append({p.relative_to(root): p.read_bytes() for p in tables if p.stem != "costs"})
        logs = "".join(path.read_text() for path in root.rglob("log.txt"))
        assert logs.count("--- try 1 of ") == 4  # no executor found what the other one had made
        shutil.rmtree(tmp_path / "ws")
    local, ray = found
    assert {Path("scores.csv"), Path("tables/comparisons.csv")} <= local.keys()
    # two variants and cases; the label and the mean
    assert local[Path("scores.csv")].count(b"validated") == 8
    assert local == ray
