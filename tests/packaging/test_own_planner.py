"""The page on changing the planning: its planners, written down as a user would, plan and train by
reference.
"""

import json
import re
import sys
from pathlib import Path

import pytest
from described_datasets import described
from strangers import nnunet

from nnunet_builtin.planning.steps import PlanningSteps
from nnunet_core.registry.discovery import Registry
from nnunet_core.registry.settings import build

pytestmark = pytest.mark.slow

PAGE = (Path(__file__).parents[2] / "docs/how-to/change-planning.md").read_text()
TRAINER = ("epochs=1", "iterations_per_epoch=2", "validation_iterations=1")


def blocks(title):
    return re.findall(rf'```python title="{title}"\n(.*?)```', PAGE, re.DOTALL)


@pytest.fixture
def code(tmp_path, monkeypatch):
    """The folder with the modules of the page."""
    for title in ("my_planners.py", "my_networks.py"):
        (tmp_path / title).write_text("\n\n".join(blocks(title)))
    monkeypatch.syspath_prepend(str(tmp_path))
    yield tmp_path
    for name in ("my_planners", "my_networks"):
        sys.modules.pop(name, None)


def planned(planner, network="plain_unet", **settings):
    """Return the configurations of a dataset like `tiny`."""
    registry = Registry.discover()
    dataset, fingerprint = described([(16, 20, 18)] * 6, [(1.5, 1.0, 1.0)] * 6, ["MRI"], 1)
    chosen = build(registry.resolve("planner", planner).with_settings(settings))
    builder = build(registry.resolve("network", network))
    return chosen.plan(dataset, fingerprint, builder).configurations


def test_the_examples_are_as_short_as_promised():
    bodies = [
        len(re.findall(r"^    .*\S", block, re.MULTILINE)) for block in blocks("my_planners.py")
    ]
    assert len(bodies) == 4
    assert max(bodies) <= 12


def test_the_page_lists_every_step():
    section = PAGE.partition("## The steps")[2].partition("## ")[0]
    public = {name for name in vars(PlanningSteps) if callable(getattr(PlanningSteps, name))}
    listed = set(re.findall(r"^\| `(\w+)\(", section, re.MULTILINE))
    assert listed == {name for name in public if not name.startswith("_")}


def test_planners_of_the_page_plan(code):
    cubes = planned("my_planners:Cubes")
    assert cubes["3d_fullres"].patch_size == (16, 16, 16)
    assert cubes["2d"].patch_size == (20, 20)
    assert "a cube of 16 voxels or a little more" in cubes["3d_fullres"].notes

    same = planned("my_planners:SameMillimetres")["3d_fullres"]
    assert same.patch_size == (12, 20, 20)

    fixed = planned("my_planners:FixedPatch", patch=[8, 16, 32])
    assert fixed["3d_fullres"].patch_size == (8, 16, 32)
    assert fixed["2d"].patch_size == (16, 32)

    finer = planned("my_planners:Finer", percentile=10.0)["3d_fullres"]
    assert finer.spacing == (1.5, 1.0, 1.0)
    assert "the target spacing is percentile 10 of each axis" in finer.notes


def test_patches_fit_the_network_of_the_page(code):
    tokens = planned("v21", network="my_networks:Tokens")
    assert tokens["3d_fullres"].patch_size == (16, 32, 32)
    assert tokens["2d"].patch_size == (32, 32)


def test_a_planner_of_the_page_plans_and_trains_by_command(code, tiny):
    workspace = ("--workspace", tiny.parents[1])
    chosen = ("--planner", "my_planners:FixedPatch")
    settings = ["planner.patch=[8,16,16]", "planner.max_batch_size=2"]
    pairs = [part for setting in settings for part in ("--set", setting)]
    said = nnunet(code, "plan", tiny, *workspace, *chosen, *pairs).stdout
    assert "the patch is planner.patch" in said

    brief = [part for setting in TRAINER for part in ("--set", f"trainer.{setting}")]
    where = ("--configuration", "3d_fullres", "--folds", "0", "--workers", "0")
    nnunet(code, "train", tiny, *workspace, *chosen, *pairs, *brief, *where)
    (plans,) = tiny.parents[1].rglob("plans/*.json")
    patch = json.loads(plans.read_text())["configurations"]["3d_fullres"]["patch_size"]
    assert patch == [8, 16, 16]
    (record,) = tiny.parents[1].glob("results/**/run.json")
    content = json.loads(record.read_text())
    assert content["status"] == "finished"
    assert content["components"]["planner"]["reference"] == "my_planners:FixedPatch"
