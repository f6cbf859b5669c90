"""The benchmarks that are shipped as examples can be read, and the demo can be planned."""

import json
from pathlib import Path

import pytest
from commands import nnunet

from nnunet_builtin.benchmark import matrix

SHIPPED = Path(__file__).parents[3] / "benchmarks"


@pytest.mark.parametrize("path", sorted(SHIPPED.glob("*.toml")), ids=lambda path: path.name)
def test_it_can_be_read(path):
    bench = matrix.read(path)
    assert bench.name == path.stem
    assert bench.baseline in bench.variants
    assert f"benchmarks/{path.name}" in path.read_text(encoding="utf-8")


def test_the_demo_is_planned_by_the_command(tmp_path):
    options = ("--dry-run", "--json", "--workspace", tmp_path)
    done = nnunet("benchmark", "run", SHIPPED / "demo.toml", *options)
    assert done.returncode == 0, done.stderr
    jobs = json.loads(done.stdout)["jobs"]
    assert [job["stage"] for job in jobs].count("train") == 3 * 3
