"""The catalogue of published models, and the command that takes one of them."""

import json

import pytest
from commands import nnunet
from finished_run import one_error
from web_server import serving

from nnunet_builtin.sharing import catalogue as c
from nnunet_builtin.sharing import commands
from nnunet_core.errors import UsageError


def test_all_models_of_v1_and_some_of_v2_are_there():
    models = c.catalogue().models
    first = [model for model in models if model.framework == "nnU-Net v1"]
    assert len(first) == 27
    assert sum(len(model.files) for model in first) == 34
    assert len(models) - len(first) >= 12
    names = [model.name for model in models]
    assert len(set(names)) == len(names)
    addresses = [address for model in models for address in model.files]
    assert len(set(addresses)) == len(addresses)
    assert all(address.startswith("https://") for address in addresses)
    for model in models:
        assert model.licence, model.name
        assert model.channels, model.name
        assert all(model.labels), model.name


def test_a_model_is_found_by_name_and_by_number():
    found = c.catalogue()
    assert found.find("Task004_Hippocampus") is found.find("4") is found.find("Task004")
    assert found.find("291").framework == "nnU-Net v2"
    for name in ("Hippocampus", "Task4711", "", "moose_clin_ct_body"):
        with pytest.raises(UsageError, match="no model"):
            found.find(name)


def test_without_a_name_all_are_listed():
    done = nnunet("models", "download")
    assert done.returncode == 0
    assert all(model.name in done.stdout for model in c.catalogue().models)
    listed = json.loads(nnunet("models", "download", "--json").stdout)
    assert [row["name"] for row in listed] == [model.name for model in c.catalogue().models]


@pytest.fixture
def published(models, monkeypatch):
    """A server of one of the real archives, and a catalogue of it alone."""
    content = (models / "v1" / "Task004_Hippocampus_v1.zip").read_bytes()
    with serving(content) as server:
        entry = c.catalogue().find("4")
        files = (server.url("/files/Task004.zip?download=1"),)
        entry = entry.model_copy(update={"files": files})
        monkeypatch.setattr(commands, "catalogue", lambda: c.Catalogue(models=(entry,)))
        yield server


@pytest.mark.shared
def test_nothing_is_taken_before_its_licence_is_accepted(published, tmp_path):
    done = nnunet("models", "download", "4", "--workspace", tmp_path)
    assert "--accept-licence" in one_error(done, 2)
    assert "CC BY-SA" in done.stdout
    assert published.asked == []


@pytest.mark.shared
def test_a_published_model_is_imported_once(published, tmp_path):
    command = ("models", "download", "4", "--accept-licence", "--workspace", tmp_path)
    done = nnunet(*command)
    assert done.returncode == 0, done.stderr
    made = {p.parent.name for p in (tmp_path / "results").glob("*/*/*/model.json")}
    assert made == {"2d", "3d_fullres"}
    again = nnunet(*command)
    assert again.returncode == 0, again.stderr
    assert "imported before" in again.stdout
    assert len(published.asked) == 1
