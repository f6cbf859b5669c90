"""Exported models from strangers: each kind of harm is one message, with nothing installed, nothing
written elsewhere and nothing run.
"""

import contextlib
import json
import pickle
import stat
import zipfile
from pathlib import Path

import pytest
import torch
from commands import nnunet
from finished_run import one_error
from safetensors.torch import load, save
from trained_model import DATASET, VARIANT, make_trained, repacked, with_digest

from nnunet_builtin.sharing.export import export
from nnunet_builtin.sharing.install import install
from nnunet_cli.main import main
from nnunet_core.errors import StorageError, UsageError
from nnunet_core.registry.discovery import Registry
from nnunet_core.runtime.files import file_digest
from nnunet_core.store.models import FILE

NAME = f"{DATASET}/{VARIANT}/3d_fullres"
WEIGHTS = f"{NAME}/fold_0/weights.safetensors"
RUN = f"{NAME}/fold_0/run.json"
MODEL = f"{NAME}/model.json"


@pytest.fixture(scope="module")
def archive(tmp_path_factory):
    folder = tmp_path_factory.mktemp("honest")
    export(make_trained(folder / "results", folds=("0",)), folder / "model.zip")
    return folder / "model.zip"


def with_record(content, tmp_path):
    """Let run.json say what the weights are now: only their content is hostile."""
    path = tmp_path / "weights"
    path.write_bytes(content[WEIGHTS])
    record = json.loads(content[RUN])
    record["weights"] = [len(content[WEIGHTS]), file_digest(path)]
    content[RUN] = json.dumps(record).encode()
    path.unlink()


class Canary:
    """Leaves a trace wherever it is unpickled."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return (Path.touch, (self.path,))


def pickle_instead_of_weights(content, tmp_path):
    content[WEIGHTS] = pickle.dumps(Canary(tmp_path / "canary"))


def torch_file_instead_of_weights(content, tmp_path):
    torch.save({"x": Canary(tmp_path / "canary")}, tmp_path / "x")
    content[WEIGHTS] = (tmp_path / "x").read_bytes()
    (tmp_path / "x").unlink()


def pickle_beside(content, tmp_path):
    content[f"{NAME}/fold_0/plans.pkl"] = pickle.dumps(Canary(tmp_path / "canary"))


def code_beside(content, tmp_path):
    content[f"{NAME}/sitecustomize.py"] = b"raise SystemExit"


def truncated_weights(content, _):
    content[WEIGHTS] = content[WEIGHTS][:-1000]


def changed_tensors(content, change):
    tensors = load(content[WEIGHTS])
    change(tensors)
    content[WEIGHTS] = save(tensors)


def nan_weights(content, _):
    changed_tensors(content, lambda t: next(iter(t.values())).fill_(float("nan")))


def infinite_weights(content, _):
    changed_tensors(content, lambda t: next(iter(t.values())).fill_(float("inf")))


def missing_tensor(content, _):
    changed_tensors(content, lambda t: t.pop(next(iter(t))))


def further_tensor(content, _):
    changed_tensors(content, lambda t: t.update(more=torch.zeros(3)))


def header_of_terabytes(content, _):
    content[WEIGHTS] = (10**14).to_bytes(8, "little") + content[WEIGHTS][8:]


def tensor_of_terabytes(content, _):
    header = {"x": {"dtype": "F32", "shape": [10**7, 10**7], "data_offsets": [0, 4 * 10**14]}}
    text = json.dumps(header).encode()
    content[WEIGHTS] = len(text).to_bytes(8, "little") + text


WEIGHT_KINDS = (
    *(pickle_instead_of_weights, torch_file_instead_of_weights, truncated_weights, nan_weights),
    *(infinite_weights, missing_tensor, further_tensor, header_of_terabytes, tensor_of_terabytes),
)


@pytest.mark.parametrize("harm", WEIGHT_KINDS, ids=lambda harm: harm.__name__)
def test_weights_that_are_none_are_refused(archive, tmp_path, harm):
    def change(content):
        harm(content, tmp_path)
        with_record(content, tmp_path)

    message = refused(repacked(archive, tmp_path / "a.zip", change), tmp_path)
    assert "weights" in message


def plans(**changes):
    def change(content, _):
        document = json.loads(content[MODEL])
        for path, value in changes.items():
            place = document["configuration"]
            *folders, last = path.split("__")
            for folder in folders:
                place = place[folder]
            place[last] = value
        content[MODEL] = json.dumps(document).encode()
        with_digest(content)

    return change


#: Each would be an array of at least 100 TB: within the limits of its number, or beyond.
LARGE = {
    "features": plans(network__base_features=8192, network__max_features=8192),
    "kernels": plans(network__conv_kernels=[[1024] * 3] * 3),
    "layers": plans(network__convs_per_stage=100),
    "channels": plans(network__input_channels=65536),
    "classes": plans(network__output_channels=65536),
    "resolutions": plans(
        network__pool_kernels=[[2] * 3] * 31, network__conv_kernels=[[3] * 3] * 32
    ),
}
BEYOND = {
    "patch": plans(patch_size=[10**6, 10**6, 10**6]),
    "features": plans(network__base_features=10**14),
    "median": plans(median_shape=[10**9] * 3),
    "kernel": plans(network__conv_kernels=[[10**9] * 3] * 3),
    "spacing": plans(spacing=[1e-12, 1, 1]),
}


@pytest.mark.parametrize("kind", LARGE)
def test_networks_of_terabytes_are_never_built(archive, tmp_path, kind):
    target = repacked(archive, tmp_path / "a.zip", lambda content: LARGE[kind](content, tmp_path))
    assert "another network" in refused(target, tmp_path)


@pytest.mark.parametrize("kind", BEYOND)
def test_plans_beyond_the_limits_are_refused(archive, tmp_path, kind):
    def change(content):
        with contextlib.suppress(ValueError):  # it has no digest: the file is refused before
            BEYOND[kind](content, tmp_path)

    message = refused(repacked(archive, tmp_path / "a.zip", change), tmp_path)
    assert "model.json does not hold what" in message


def manifest(**changes):
    def change(content, _):
        document = json.loads(content["manifest.json"])
        for path, value in changes.items():
            place = document if path in document else document["models"][0]
            place[path] = value
        content["manifest.json"] = json.dumps(document).encode()

    return change


def another_model_json(content, _):
    content[MODEL] = content[MODEL].replace(b'"3d_fullres"', b'"2d"', 1)
    with_digest(content)


def selecting(*models, place="inference.json"):
    """Add an inference.json."""

    def change(content, _):
        members = [{"model": model, "folds": ["0"], "weights": {"0": ""}} for model in models]
        document = {"dataset": DATASET, "members": members, "postprocessing": None}
        content[f"{DATASET}/{place}"] = json.dumps(document).encode()

    return change


CONTENT = {
    "pickle": (pickle_beside, "no part of a model"),
    "code": (code_beside, "no part of a model"),
    "dataset ..": (manifest(dataset=".."), r"manifest.json does not hold what"),
    "configuration /": (manifest(configuration="a/../../b"), r"manifest.json does not hold what"),
    "fold ..": (manifest(folds=["../0"]), r"manifest.json does not hold what"),
    "another format": (manifest(schema_version=99), "has format 99"),
    "channels of another": (manifest(channels=["CT\x1b[2J"]), "says otherwise"),
    "spacing of none": (manifest(spacing=[float("nan")] * 3), "says otherwise"),
    "packages of another": (manifest(packages={"evil": "1"}), "says otherwise"),
    "no models": (manifest(models=[]), r"manifest.json does not hold what"),
    "another place": (another_model_json, "is said to be"),
    "no model.json": (lambda content, _: content.pop(MODEL), "not whole"),
    "no run.json": (lambda content, _: content.pop(RUN), "not whole"),
    "no weights": (lambda content, _: content.pop(WEIGHTS), "not whole"),
    "leads back": (plans(previous="3d_fullres"), "never ends"),
    "stage of others": (plans(previous="3d_lowres"), "needs the stage before"),
    "selects what is not there": (selecting("../../other/3d_fullres"), "which is not in"),
    "ensemble of others": (
        selecting("../../../other/a", place="ensembles/A--B/inference.json"),
        "which is not in",
    ),
    "too deep": (
        selecting(f"../../{VARIANT}/3d_fullres", place="ensembles/A/B/inference.json"),
        "no part of a model",
    ),
    "selects nothing": (selecting(), "inference.json does not hold what"),
    "no JSON": (lambda content, _: content.update({MODEL: b"\x00"}), "not readable JSON"),
}


@pytest.mark.parametrize("kind", CONTENT)
def test_content_that_is_no_model_is_refused(archive, tmp_path, kind):
    harm, reason = CONTENT[kind]

    def change(content):
        harm(content, tmp_path)

    assert reason in refused(repacked(archive, tmp_path / "a.zip", change), tmp_path)


def test_files_that_are_not_as_the_manifest_says_are_refused(archive, tmp_path):
    def packed(change):
        with zipfile.ZipFile(archive) as file:
            content = {name: file.read(name) for name in file.namelist()}
        change(content)
        with zipfile.ZipFile(tmp_path / "a.zip", "w") as file:
            for name, part in content.items():
                file.writestr(name, part)
        return tmp_path / "a.zip"

    flipped = packed(lambda c: c.update({WEIGHTS: c[WEIGHTS][:-1] + bytes([c[WEIGHTS][-1] ^ 1])}))
    assert "sha256:" in refused(flipped, tmp_path)
    assert "not in its manifest" in refused(packed(lambda c: c.update(more=b"")), tmp_path)
    assert "not whole" in refused(packed(lambda c: c.pop(WEIGHTS)), tmp_path)
    assert "no manifest.json" in refused(
        packed(lambda c: c.pop("manifest.json")), tmp_path, UsageError
    )


def entry_of_zip(name, mode=0):
    info = zipfile.ZipInfo(name)
    info.create_system, info.external_attr = 3, mode << 16
    return info


ENTRIES = {
    "../evil": entry_of_zip("../evil"),
    "absolute": entry_of_zip("/tmp/evil"),
    "symlink": entry_of_zip(f"{NAME}/link", stat.S_IFLNK | 0o777),
}


@pytest.mark.parametrize("kind", ENTRIES)
def test_an_archive_that_reaches_outside_is_refused(archive, tmp_path, kind):
    target = tmp_path / "a.zip"
    target.write_bytes(archive.read_bytes())
    with zipfile.ZipFile(target, "a") as file:
        file.writestr(ENTRIES[kind], b"/etc")
    assert "is refused" in refused(target, tmp_path)


def refused(target, tmp_path, kind=StorageError):
    """Return the message of an archive that cannot be installed; nothing else has happened."""
    results = tmp_path / "ws" / "results"
    before = {path for path in tmp_path.rglob("*") if path != target}
    with pytest.raises(kind) as caught:
        install(target, results, Registry.discover())
    message = str(caught.value)
    assert str(target) in message
    assert ".tmp" not in message
    after = {path for path in tmp_path.rglob("*") if path not in {target, results, results.parent}}
    assert after == before - {results, results.parent}
    return message


def test_the_command_says_it_in_one_message(archive, tmp_path):
    target = repacked(archive, tmp_path / "a.zip", lambda content: nan_weights(content, tmp_path))
    done = nnunet("models", "install", target, "--workspace", tmp_path / "ws")
    assert str(target) in one_error(done)


def test_the_canary_would_be_heard(tmp_path):
    pickle.loads(pickle.dumps(Canary(tmp_path / "canary")))
    assert (tmp_path / "canary").exists()


def test_nothing_of_a_model_controls_the_terminal(tmp_path, capsys):
    model = make_trained(tmp_path / "ws" / "results")
    path = model.folder / FILE
    document = json.loads(path.read_text())
    document["channels"] = ["MR\x1b[2J\x9b1m\u202e"]
    path.write_text(json.dumps(document))
    for command in (["models", "show", str(model.folder)], ["models", "show", "a\x1b[2Jb"]):
        with pytest.raises(SystemExit):
            main(command)
        seen = capsys.readouterr()
        assert "\\x1b[2J" in seen.out + seen.err
        assert not {"\x1b", "\x9b", "\u202e"} & set(seen.out + seen.err)
