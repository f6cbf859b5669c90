"""Plugins of different authors in one run, by names alone, beside plugins that are trouble: the
records name all of them, and whoever gets the model is told what to install.
"""

import json
import os
import shlex

import fake_plugins
import pytest
from strangers import nnunet, short_run

PLANNER = """
from nnunet_builtin.planning.planner import PlannerV21

class PlannerA(PlannerV21):
    pass
"""
LOSS = "from nnunet_builtin.losses.dice_ce import DiceCE\n\nclass LossB(DiceCE):\n    pass\n"
TRAINER = """
from nnunet_builtin.training.trainer import TrainerV2

class TrainerC(TrainerV2):
    pass
"""
# says which plugins its process sees, beside the prepared cases
AUGMENTATION = """
import json
import os
from pathlib import Path

from nnunet_builtin.augmentation.v2 import NoAugmentation
from nnunet_core.registry.discovery import Registry

class AugmentationD(NoAugmentation):
    def __init__(self, folder: str = "") -> None:
        self.folder = folder

    def augment(self, batch, configuration, seed):
        path = Path(self.folder) / f"{os.getpid()}.json"
        if not path.exists():
            rows = Registry.discover().plugins()
            path.write_text(json.dumps({info.name: info.status for info in rows}))
        return super().augment(batch, configuration, seed)
"""
HOOKS = """
from nnunet_core import Component, hookimpl

@hookimpl
def nnunet_{kind}s():
    return [Component("{name}", "{package}.code:{target}")]
"""
AUTHORS = {
    "author_a": ("1.2", "planner", "plan_a", "PlannerA", PLANNER),
    "author_b": ("0.3.1", "losse", "loss_b", "LossB", LOSS),
    "author_c": ("2.0", "trainer", "train_c", "TrainerC", TRAINER),
    "author_d": ("5.1", "augmentation", "augment_d", "AugmentationD", AUGMENTATION),
}
CHOSEN = ("--planner", "plan_a", "--loss", "loss_b", "--trainer", "train_c")

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """A folder of the plugins of four authors, and of others."""
    folder = tmp_path_factory.mktemp("site")
    fake_plugins.put_troubled(folder, sleep=0.6)
    for package, (version, kind, name, target, code) in AUTHORS.items():
        hooks = HOOKS.format(kind=kind, name=name, package=package, target=target)
        fake_plugins.put(folder, package, hooks, version=version, modules={"code": code})
    return folder


def test_authors_combined_by_name_are_recorded_and_the_model_says_what_to_install(
    site, tiny, tmp_path, monkeypatch
):
    monkeypatch.setenv("NNUNET_DISABLE_PLUGINS", "rival_a")
    seen = tmp_path / "seen"
    seen.mkdir()
    variant = tmp_path / "ward.toml"
    variant.write_text(f"augmentation = 'augment_d'\nsettings.augmentation.folder = '{seen}'\n")
    words = ("--variant", variant)
    more = ("--no-plugin", "shadow", "--workers", 1)
    record = short_run(site, tiny, *CHOSEN, *words, *more)
    assert record["status"] == "finished"
    for package, (version, kind, name, *_) in AUTHORS.items():
        component = record["components"]["loss" if kind == "losse" else kind]
        assert component["reference"] == f"{package}/{name}"
        assert (component["distribution"], component["version"]) == (package, version)
        assert record["plugins"][package] == f"{package} {version}"
    assert "shadow" not in record["plugins"]

    rows = [json.loads(path.read_text()) for path in seen.iterdir()]
    assert rows
    assert not (seen / f"{os.getpid()}.json").exists(), "a loader process augments"
    for row in rows:
        assert (row["shadow"], row["rival_a"], row["rival_b"]) == ("blocked", "blocked", "active")

    (folder,) = tiny.parents[1].glob("results/*/*/3d_fullres")
    assert folder.parent.name.startswith("ward_plan_a_loss_b_train_c-")
    variant.unlink()
    row = json.loads(nnunet(site, "models", "show", folder, "--json").stdout)
    again = (*shlex.split(row["command"])[1:], "--workspace", tiny.parents[1], "--folds", 0)
    assert "is trained and validated already" in nnunet(site, *again).stderr

    archive = tmp_path / "model.zip"
    nnunet(site, "models", "export", folder, archive, "--licence", "none")
    elsewhere = ("--workspace", tmp_path / "elsewhere")
    told = nnunet(None, "models", "install", archive, *elsewhere)
    for package, (version, *_) in AUTHORS.items():
        assert f"{package} {version}" in told.stdout
    install = "author_a==1.2 author_b==0.3.1 author_d==5.1 author_c==2.0"
    assert f"to train it further, if you know these packages: pip install {install}" in told.stderr
    assert "warning" not in told.stderr, "prediction needs none of them"
    assert (
        "to train it further" not in nnunet(site, "models", "install", archive, *elsewhere).stderr
    )
