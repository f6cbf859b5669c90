"""Models and their ensemble: installed, seen where v1 has them, exported and installed again."""

import json
import shutil
import zipfile

import commands
import pytest
import torch
from v1_models import write_v1_model

from nnunet_core.registry.discovery import Registry
from nnunet_v1_commands import methods, running, sharing

TASK, NAME = "Task004_Hippocampus", "nnUNetTrainerV2__nnUNetPlansv2.1"
PLUGIN = "nnunet-v1-commands"
ENSEMBLE = f"ensemble_2d__{NAME}--3d_fullres__{NAME}"


@pytest.fixture(autouse=True)
def _active(tmp_plugin):
    """Register the package, where it is on the path only."""
    if PLUGIN not in {info.name for info in Registry.discover().plugins()}:
        tmp_plugin("nnunet_v1_commands.plugin", name=PLUGIN)


@pytest.fixture
def installed(tmp_path, monkeypatch):
    """Return RESULTS_FOLDER with what a zip of v1 holds, installed."""
    torch.manual_seed(0)
    for name, dimensions in (("2d", 2), ("3d_fullres", 3)):
        folder = tmp_path / "v1" / name / TASK / NAME
        write_v1_model(folder, ("fold_0", "fold_1"), spec={"dimensions": dimensions})
    decided = tmp_path / "v1" / "ensembles" / TASK / ENSEMBLE / "postprocessing.json"
    decided.parent.mkdir(parents=True)
    decided.write_text(json.dumps({"for_which_classes": [[1, 2]]}))
    shutil.make_archive(str(tmp_path / "v1"), "zip", tmp_path / "v1")
    for name in (running.SETTINGS, "NNUNET_WORKSPACE", running.RAW, running.PREPROCESSED):
        monkeypatch.delenv(name, raising=False)
    results = tmp_path / "results"
    monkeypatch.setenv(running.RESULTS, str(results))
    sharing.install([str(tmp_path / "v1.zip")])
    return results


def check_layout(results):
    for name in ("2d", "3d_fullres"):
        for fold in ("fold_0", "fold_1"):
            folder = results / "nnUNet" / name / TASK / NAME / fold
            weights = folder / "model_final_checkpoint.model"
            assert weights.resolve().is_relative_to(results / TASK / NAME / name / fold)
            assert weights.is_file()
        assert (folder.parent / "postprocessing.json").is_file()
    decided = results / "nnUNet" / "ensembles" / TASK / ENSEMBLE / "postprocessing.json"
    assert json.loads(decided.read_text())["for_which_classes"] == [[1, 2]]


def test_what_is_installed_is_where_v1_has_it(installed):
    check_layout(installed)


def test_what_is_downloaded_is_where_v1_has_it(installed, monkeypatch):
    shutil.rmtree(installed / "nnUNet")
    monkeypatch.setattr(sharing, "nnunet", lambda *_: None)  # the models are there
    sharing.download(["4"])
    check_layout(installed)


def test_models_of_v1_in_their_own_places_stay(installed, tmp_path, capsys):
    """As where RESULTS_FOLDER is one that v1 has written to."""
    shutil.rmtree(installed)
    shutil.copytree(tmp_path / "v1", installed / "nnUNet")
    model = installed / "nnUNet" / "2d" / TASK / NAME
    (model / "postprocessing.json").write_text("of v1")
    before = sorted(model.rglob("*"))
    sharing.install([str(tmp_path / "v1.zip")])
    assert sorted(model.rglob("*")) == before
    assert not (model / "fold_0" / "model_final_checkpoint.model").is_symlink()
    assert (model / "postprocessing.json").read_text() == "of v1"
    assert "stays as it is" in capsys.readouterr().err


def test_several_models_and_their_ensemble_become_one_zip(installed, tmp_path, monkeypatch, capsys):
    file = tmp_path / "new" / "exported.zip"
    sharing.export(["-t", "4", "-o", str(file), "-m", "2d", "3d_fullres", "-f", "0", "1"])
    printed = capsys.readouterr().out
    assert f"install it with: nnunet models install {file}" in printed
    assert ENSEMBLE in printed
    # by the command of ours, in a folder of somebody else
    done = commands.nnunet("models", "install", file, "--workspace", tmp_path / "other")
    assert done.returncode == 0, done.stderr
    place = tmp_path / "other" / "results" / TASK / "ensembles" / ENSEMBLE / "inference.json"
    assert f"nnunet predict {place} IMAGES OUTPUT" in done.stdout
    # and by v1's, in an empty one
    monkeypatch.setenv(running.RESULTS, str(tmp_path / "third"))
    sharing.install([str(file)])
    check_layout(tmp_path / "third")


def test_an_ensemble_is_not_exported_without_one_of_its_models(installed, tmp_path):
    models = installed / TASK / NAME
    (models / "3d_fullres").rename(models / "3d_lowres")
    sharing.export(["-t", "4", "-o", str(tmp_path / "a.zip"), "-m", "2d", "3d_lowres", "-f", "0"])
    names = zipfile.ZipFile(tmp_path / "a.zip").namelist()
    assert [name for name in names if name.endswith("model.json")] != []
    assert [name for name in names if name.endswith("inference.json")] == []


def test_a_model_has_the_name_that_finds_it(installed, tmp_path):
    """Of models with other settings, only one that is alone has v1's name."""
    registry, folder = Registry.discover(), installed / TASK / NAME / "2d"
    assert methods.method_of_folder(folder, registry).title == f"2d__{NAME}"
    other = installed / TASK / f"{NAME}-12345678" / "2d"
    shutil.copytree(folder, other)
    assert methods.method_of_folder(other, registry) is None
    shutil.rmtree(folder)
    assert methods.method_of_folder(other, registry).title == f"2d__{NAME}"
    cascade = installed / TASK / NAME / "3d_cascade_fullres"
    shutil.copytree(other, cascade)
    found = methods.method_of_folder(cascade, registry)
    assert found.trainer == "nnUNetTrainerV2CascadeFullRes"
