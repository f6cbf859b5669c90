"""Models of nnU-Net v1 that ask for too much, are damaged, or hold a payload: each is refused with
one message, nothing is written, and nothing of them runs.
"""

import json
import pickle
import struct
import zipfile

import commands
import numpy as np
import pytest
import torch
from tiny_model import make_tiny_model
from v1_models import v1_plans, write_v1_model

FOLD = "fold_0/model_final_checkpoint.model"
EVIL = b"\x80\x02cos\nsystem\n(X\x0c\x00\x00\x00touch canarytR."


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A model of v1 in an otherwise empty folder, which is the current one."""
    monkeypatch.chdir(tmp_path)
    place = tmp_path / "3d_fullres" / "Task001_X" / "nnUNetTrainerV2__nnUNetPlansv2.1"
    write_v1_model(place, folds=("fold_0", "fold_1"))
    return place


def refused(source, tmp_path, code=1):
    """Import a model; return the message that refuses it."""
    before = sorted(tmp_path.rglob("*"))
    done = commands.nnunet("models", "import", source, "--workspace", tmp_path / "ws")
    assert done.returncode == code, done.stderr
    assert "Traceback" not in done.stderr
    left = set(tmp_path.rglob("*")) - set(before)
    assert left <= {tmp_path / "ws", tmp_path / "ws" / "results"}
    return done.stderr


def change_plans(folder, change):
    """Change the plans in every file that holds them."""
    path = folder / "plans.pkl"
    plans = pickle.loads(path.read_bytes())
    change(plans)
    path.write_bytes(pickle.dumps(plans))
    for beside in folder.glob("fold_*/*.pkl"):
        info = pickle.loads(beside.read_bytes())
        beside.write_bytes(pickle.dumps({**info, "plans": plans}))


def change_weights(folder, change, fold=FOLD):
    """Change the state dict of a fold."""
    path = folder / fold
    content = torch.load(path, weights_only=False)
    change(content["state_dict"])
    torch.save(content, path)


def set_stage(name, value):
    return lambda plans: plans["plans_per_stage"][0].update({name: value})


FIRST = "conv_blocks_context.0.blocks.0.conv.weight"
PLANS = {
    "a patch of 100 TB": (set_stage("patch_size", np.array([30_000] * 3)), "patch_size"),
    "a patch without end": (set_stage("patch_size", np.array([2**62] * 3)), "patch_size"),
    "a patch of NaN": (set_stage("patch_size", np.array([np.nan] * 3)), "patch_size"),
    "no patch": (lambda plans: plans["plans_per_stage"][0].pop("patch_size"), "patch_size"),
    "another number of axes": (set_stage("patch_size", np.array([8, 8])), "patch of 2 axes"),
    "a patch that cannot be halved": (set_stage("patch_size", np.array([9, 8, 8])), "multiple of"),
    "a spacing of 0": (set_stage("current_spacing", np.zeros(3)), "current_spacing"),
    "an endless spacing": (set_stage("current_spacing", np.array([np.inf] * 3)), "spacing"),
    "no stage": (lambda plans: plans.update(plans_per_stage={}), "plans_per_stage"),
    "a million channels": (lambda plans: plans.update(num_modalities=10**6), "num_modalities"),
    "a channel that clears the screen": (
        lambda plans: plans.update(modalities={0: "\x1b[2J"}),
        "printable",
    ),
    "two channels": (lambda plans: plans.update(num_modalities=2), "2 channels"),
    "classes that are not counted": (lambda p: p.update(all_classes=[1, 3]), "all_classes"),
    "axes that do not exist": (lambda p: p.update(transpose_forward=[0, 0, 7]), "axes"),
    "axes that do not fit": (lambda p: p.update(transpose_forward=[1, 2, 0]), "undo"),
    "a preprocessor of their own": (
        lambda plans: plans.update(preprocessor_name="os.system"),
        "preprocessor",
    ),
    "a normalisation of their own": (
        lambda plans: plans.update(normalization_schemes={0: "eval('1')"}),
        "normalisation",
    ),
    "CT without statistics": (lambda plans: plans.update(dataset_properties={}), "mean"),
    "plans that are a list": (lambda plans: plans.clear(), "num_modalities"),
}


@pytest.mark.parametrize("name", PLANS)
def test_plans_that_ask_for_too_much_are_refused(folder, tmp_path, name):
    change, named = PLANS[name]
    change_plans(folder, change)
    message = refused(folder, tmp_path)
    assert named in message
    assert "plans of nnU-Net v1" in message


def test_an_array_of_100_tb_in_plans_is_never_made(folder, tmp_path):
    content = pickle.dumps(v1_plans(), 4)
    sizes = pickle.dumps(np.zeros(3), 4)
    claimed = sizes.replace(b"K\x03\x85", b"\x8a\x07" + struct.pack("<q", 10**14)[:7] + b"\x85")
    assert claimed != sizes
    (folder / "plans.pkl").write_bytes(claimed)
    assert "shape" in refused(folder, tmp_path)
    (folder / "plans.pkl").write_bytes(content)
    (folder / "fold_0" / "model_final_checkpoint.model.pkl").write_bytes(claimed)
    assert "shape" in refused(folder, tmp_path)


WEIGHTS = {
    "NaN": (lambda state: state[FIRST].view(-1)[3:4].fill_(np.nan), "not finite"),
    "infinity": (lambda state: state["tu.0.weight"].fill_(np.inf), "not finite"),
    "a wrong shape": (
        lambda state: state.update({"tu.0.weight": torch.zeros(3, 3, 2, 2, 2)}),
        "another network than its plans",
    ),
    "one value more": (
        lambda state: state.update({FIRST.replace("weight", "bias"): torch.zeros(3)}),
        "another network than its plans",
    ),
    "a layer less": (lambda state: state.pop("tu.0.weight"), "missing"),
    "a norm less": (
        lambda state: state.pop("conv_blocks_context.0.blocks.0.instnorm.bias"),
        "Missing: encoder.0.0.norm.bias",
    ),
    "a layer more": (lambda state: state.update({"attention.weight": torch.zeros(1)}), "attention"),
    "other channels": (
        lambda state: state.update({FIRST: torch.zeros(2, 5, 3, 3, 3)}),
        "5 input channels",
    ),
    "no weights": (lambda state: state.clear(), "no weights"),
    "text": (lambda state: state.update({FIRST: "weights"}), "other things than tensors"),
    "a million layers of a name": (
        lambda state: state.update({f"tu.{i}.weight": torch.zeros(1) for i in range(1000)}),
        "nnU-Net v1",
    ),
}


@pytest.mark.parametrize("fold", ["fold_0", "fold_1"])
@pytest.mark.parametrize("name", WEIGHTS)
def test_weights_that_are_none_are_refused(folder, tmp_path, name, fold):
    change, named = WEIGHTS[name]
    change_weights(folder, change, FOLD.replace("fold_0", fold))
    message = refused(folder, tmp_path)
    assert named in message or (fold == "fold_1" and "another network than its plans" in message)


@pytest.mark.parametrize("length", [0, 10, 1000, -1, -100])
def test_truncated_weights_are_refused(folder, tmp_path, length):
    path = folder / FOLD.replace("fold_0", "fold_1")
    path.write_bytes(path.read_bytes()[:length])
    assert path.name in refused(folder, tmp_path)


@pytest.mark.parametrize("name", ["plans.pkl", f"{FOLD}.pkl", FOLD])
@pytest.mark.parametrize("packed", [False, True], ids=["folder", "zip"])
def test_a_payload_is_refused(folder, tmp_path, name, packed):
    (folder / name).write_bytes(EVIL)
    source = folder
    if packed:
        source = tmp_path / "model.zip"
        with zipfile.ZipFile(source, "w") as archive:
            for path in sorted(folder.rglob("*")):
                archive.write(path, path.relative_to(tmp_path))
    message = refused(source, tmp_path)
    if name != FOLD:  # there it is no file of torch.save to begin with
        assert "'os.system', which is not read, and nothing of it was run" in message
    assert str(source) in message
    assert ".tmp" not in message
    assert not (tmp_path / "canary").exists()


def test_one_bad_model_leaves_the_others_unwritten(folder, tmp_path):
    write_v1_model(
        tmp_path / "2d" / "Task001_X" / folder.name,
        spec={"dimensions": 2},
    )
    change_weights(folder, WEIGHTS["NaN"][0])
    assert "not finite" in refused(tmp_path, tmp_path)


@pytest.mark.parametrize(
    ("content", "named"),
    [
        ('{"for_which_classes": "os.system"}', "for_which_classes"),
        ('{"for_which_classes": [[1, 2], -5]}', "for_which_classes"),
        ('{"for_which_classes": [1], "min_valid_object_sizes": "f()"}', "malformed"),
        ("{", "readable JSON"),
    ],
)
def test_another_postprocessing_is_refused(folder, tmp_path, content, named):
    (folder / "postprocessing.json").write_text(content)
    assert named in refused(folder, tmp_path)


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (("--name", "../evil"), "name of a file"),
        (("--name", "/evil"), "name of a file"),
        (("--mirror-axes", "5"), "axes from 0 to 2"),
        (("--mirror-axes", "x"), "axes from 0 to 2"),
        (("--set", "trainer.epochs=5"), "only what predicts"),
        (("--set", "network.colour=5"), "no setting 'colour'"),
        (("-c", "3d_lowres"), "It holds: 3d_fullres"),
    ],
)
def test_options_that_cannot_be_meant(folder, tmp_path, arguments, named):
    done = commands.nnunet("models", "import", folder, "--workspace", tmp_path / "ws", *arguments)
    assert done.returncode in (1, 2)
    assert named in done.stderr
    assert not list((tmp_path / "ws").rglob("*.json"))
    assert not (tmp_path / "evil").exists()


def test_a_folder_without_models_and_a_missing_one(tmp_path):
    (tmp_path / "empty").mkdir()
    assert "holds no model" in refused(tmp_path / "empty", tmp_path, code=2)
    assert "There is no file or folder" in refused(tmp_path / "gone", tmp_path, code=2)


def test_a_network_of_impossible_size_is_never_built(tmp_path):
    place = tmp_path / "3d_fullres" / "Task001_X" / "nnUNetTrainerV2__plans"
    write_v1_model(place)
    change_weights(
        place,
        lambda state: state.update({FIRST: torch.zeros(1).expand(9_000, 1, 3, 3, 3)}),
    )
    refused(place, tmp_path)


def test_what_only_the_file_says_of_a_component_is_marked(tmp_path):
    folder = make_tiny_model(tmp_path / "results" / "Dataset001_X" / "v" / "3d_fullres")
    shown = commands.nnunet("models", "show", folder).stdout
    assert "only model.json says so" not in shown
    path = folder / "model.json"
    document = json.loads(path.read_text())
    record = document["components"]["network"]
    document["components"]["network"] = {**record, "reference": "evil:Network"}
    document["components"]["loss"]["distribution"] = "trusted-by-all"
    path.write_text(json.dumps(document))
    lines = commands.nnunet("models", "show", folder).stdout.splitlines()
    marked = [line.split()[0] for line in lines if "only model.json says so" in line]
    assert sorted(marked) == ["loss", "network"]
    found = json.loads(commands.nnunet("models", "show", folder, "--json").stdout)
    assert sorted(found["unregistered"]) == ["loss", "network"]
