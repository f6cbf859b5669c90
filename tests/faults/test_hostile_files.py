"""Models, datasets and plans of strangers: what they name is not imported unless a plugin registers
it, and nothing is written outside the folder that was asked for.
"""

import contextlib
import importlib
import json
import os
import subprocess
import sys
from unittest import mock

import commands
import pytest
import small_training as small
from strangers import on_path
from tiny_dataset import make_tiny

from nnunet_builtin.planning.planner import PlannerV21
from nnunet_core.registry.components import RUN_KINDS
from nnunet_core.registry.discovery import Registry
from nnunet_core.registry.provenance import component_record
from nnunet_core.store.models import ModelDocument

LOCAL = "import pathlib\npathlib.Path(__file__).with_name('ran').touch()\nclass Evil: ...\n"
#: What a file may say in the place of a name; the modules would do something when they are imported
#: or built.
REFERENCES = {
    "runs its setting": "timeit:Timer",
    "prints on import": "this:c",
    "opens a browser on import": "antigravity:fly",
    "connects": "smtplib:SMTP",
    "makes a folder": "tempfile:TemporaryDirectory",
    "a function": "os:system",
    "starts a program": "subprocess:Popen",
    "reads pickles": "pickle:Unpickler",
    "of the interpreter": "builtins:exec",
    "a file of its folder": "local_evil:Evil",
    "through another module": "os:path.os.system",
    "a second colon": "local_evil:Evil:Evil",
    "two dots": "local_evil..x:Evil",
    "no attribute": "local_evil:",
    "no module": ":Evil",
    "an installed class of another kind": "nnunet_builtin.losses.dice_ce:DiceCE",
    "a space": "local_evil :Evil",
    "a new line": "local_evil:Evil\n",
    "carriage return": "pass\rimport local_evil:Evil",
    "a null byte": "\0local_evil:Evil",
    "an escape sequence": "\x1b[2Jlocal_evil:Evil",
    "letters that look alike": "ｌocal_evil:Evil",
    "a path": "../local_evil:Evil",
    "an absolute path": "/tmp/local_evil:Evil",
    "dotted, without a colon": "local_evil.Evil",
    "a name of another kind": "builtin/dice_ce",
    "a command": "commands/run",
    "no name": "",
    "a plugin that is not installed": "local_evil/Evil",
}
PREDICTING = ("preprocessor", "network", "predictor", "postprocessor")
ENDINGS = ("/../../outside/x.nii.gz", "/x.nii.gz", "..\\x.nii.gz", ".nii.gz\n", "nii", "", ".n\0i")


@pytest.fixture(scope="module", autouse=True)
def registry():
    """The plugins that are installed, looked for once for all tests."""
    found = Registry.discover()
    with mock.patch.object(Registry, "discover", return_value=found):
        yield found


@pytest.fixture(scope="module")
def document(registry):
    """A model.json of the default method."""
    _, variant = registry.variant("default")
    chosen = {"preprocessor": "default", **variant.choices()}
    records = {kind: component_record(registry.resolve(kind, chosen[kind])) for kind in RUN_KINDS}
    return ModelDocument(
        dataset="Dataset001_Tiny",
        variant="default",
        configuration_name="3d_fullres",
        channels=("MRI",),
        labels=small.labels_of(small.CLASSES),
        file_ending=".nii.gz",
        label_ending=".nii.gz",
        mirror_axes=(0, 1, 2),
        configuration=small.CONFIGURATION,
        components=records,
    ).model_dump(mode="json")


@pytest.fixture
def imported(tmp_path, monkeypatch):
    """Names of modules whose import is asked for; the folder of the test is on the path, and has
    modules that leave a mark.
    """
    asked = []
    (tmp_path / "local_evil.py").write_text(LOCAL)
    real = importlib.import_module

    def import_module(name, package=None):
        asked.append(name)
        return real(name, package)

    monkeypatch.setattr(importlib, "import_module", import_module)
    for name in ("this", "antigravity", "smtplib", "local_evil"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    monkeypatch.chdir(tmp_path)
    with on_path(tmp_path):
        yield asked


def set_in(document, path, value):
    """Return a copy with another value at a path of keys."""
    changed = json.loads(json.dumps(document))
    *way, last = path
    place = changed
    for key in way:
        place = place[key]
    place[last] = value
    return changed


def predict(folder, document, *options):
    model = folder / "model"
    model.mkdir(exist_ok=True)
    (model / "model.json").write_text(json.dumps(document))
    (folder / "images").mkdir(exist_ok=True)
    return commands.nnunet("predict", model, folder / "images", folder / "out", *options)


def assert_refused(done, imported, folder, *parts):
    """Nothing of a stranger was imported, and one message says what is wrong, where and what is
    allowed.
    """
    assert done.returncode in (1, 2), done
    assert done.stderr.startswith("error: ")
    assert "unexpected" not in done.stderr
    assert not [part for part in parts if part not in done.stderr], done.stderr
    assert not {"this", "antigravity", "smtplib", "local_evil"} & set(sys.modules)
    own = ("nnunet_", ".", "pydantic", "importlib", "rich", "typer")
    assert not [name for name in imported if not name.startswith(own)], imported
    assert not (folder / "ran").exists()
    assert not (folder / "out").exists()


@pytest.mark.parametrize("name", REFERENCES)
def test_a_model_runs_no_code_that_no_plugin_registers(tmp_path, imported, document, name):
    kind = PREDICTING[list(REFERENCES).index(name) % len(PREDICTING)]
    hostile = set_in(document, ("components", kind, "reference"), REFERENCES[name])
    done = predict(tmp_path, hostile)
    assert_refused(done, imported, tmp_path, "model.json", f"components.{kind}.reference", "nstall")


@pytest.mark.parametrize("kind", PREDICTING)
def test_no_kind_of_a_model_runs_code(tmp_path, imported, document, kind):
    record = {
        **document["components"][kind],
        "reference": "timeit:Timer",
        "target": "timeit:Timer",
        "distribution": None,
        "version": None,
        "settings": {"setup": f"pass\rimport os\ros.mkdir('{tmp_path / 'ran'}')"},
    }
    done = predict(tmp_path, set_in(document, ("components", kind), record))
    assert_refused(
        done, imported, tmp_path, "model.json", f"components.{kind}", "--trust", "timeit"
    )


@pytest.mark.parametrize(
    ("path", "value"),
    [
        (("components", "network", "settings"), {"activation": "local_evil:Evil"}),
        (("components", "network", "settings"), {"layers": [{"local_evil:Evil": {"a": 1}}]}),
        (("components", "predictor", "settings"), {"activation": " local_evil:Evil\n"}),
        (("configuration", "extra"), {"sampler": "local_evil:Evil"}),
        (("configuration", "network", "extra"), {"block": ["timeit:Timer"]}),
    ],
)
def test_code_in_settings_of_a_model_is_not_run(tmp_path, imported, document, path, value):
    done = predict(tmp_path, set_in(document, path, value))
    assert_refused(done, imported, tmp_path, "model.json", path[-1], "Allowed", "--trust")


@pytest.mark.parametrize("name", ["a function", "a file of its folder", "two dots", "a new line"])
def test_trust_says_what_runs_before_it_does(tmp_path, imported, document, name):
    hostile = set_in(document, ("components", "postprocessor", "reference"), REFERENCES[name])
    done = predict(tmp_path, hostile, "--trust")
    assert done.returncode in (1, 2)
    assert "unexpected" not in done.stderr
    said, _, _ = done.stderr.partition("error: ")
    assert "as --trust allows" in said
    assert f"components.postprocessor.reference: {REFERENCES[name]!r}" in said
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("entry", ["image_format", "label_format"])
@pytest.mark.parametrize("name", ["connects", "a file of its folder", "carriage return", "no name"])
def test_a_model_names_registered_formats_only(tmp_path, imported, document, entry, name):
    done = predict(tmp_path, {**document, entry: REFERENCES[name]})
    parts = ("model.json", entry, "Available" if name == "no name" else "may only name", "nifti")
    assert_refused(done, imported, tmp_path, *parts)


@pytest.fixture(scope="module")
def planned(tmp_path_factory):
    """A workspace with a dataset and its plans; the options that read them."""
    workspace = tmp_path_factory.mktemp("planned")
    dataset = make_tiny(workspace / "raw" / "Dataset001_Tiny")
    options = (dataset, "--workspace", workspace, "--processes", 1)
    assert commands.nnunet("plan", *options).returncode == 0
    (path,) = workspace.glob("preprocessed/*/plans/*.json")
    return path, json.loads(path.read_text()), options


def edited(planned, path, value):
    """Change the plans at a path in 3d_fullres, preprocess, and put them back."""
    file, content, options = planned
    file.write_text(json.dumps(set_in(content, ("configurations", "3d_fullres", *path), value)))
    try:
        return commands.nnunet("preprocess", *options)
    finally:
        file.write_text(json.dumps(content))


@contextlib.contextmanager
def declared(planned, **entries):
    """Change entries of dataset.json, and put them back."""
    path = planned[2][0] / "dataset.json"
    before = path.read_text()
    path.write_text(json.dumps({**json.loads(before), **entries}))
    try:
        yield
    finally:
        path.write_text(before)


@pytest.mark.parametrize("name", REFERENCES)
def test_a_dataset_names_registered_formats_only(planned, tmp_path, imported, name):
    entry = ("image_format", "label_format")[list(REFERENCES).index(name) % 2]
    known = ("dataset.json", entry, "nifti", "nnunet plugins list")
    if name == "a plugin that is not installed":
        known = ("dataset.json", entry, "not installed")
    with declared(planned, **{entry: REFERENCES[name]}):
        done = commands.nnunet("plan", *planned[2])
        listed = commands.nnunet("dataset", "list", *planned[2][1:3], "--json")
    assert_refused(done, imported, tmp_path, *known)
    assert entry in json.loads(listed.stdout)[0]["error"]


@pytest.mark.parametrize("value", [["timeit:Timer"], {"timeit:Timer": {}}, 3, True])
def test_a_format_of_another_type_is_refused(planned, tmp_path, imported, value):
    with declared(planned, image_format=value):
        done = commands.nnunet("plan", *planned[2])
    assert_refused(done, imported, tmp_path, "image_format", "dataset.json", "may only name")


@pytest.mark.parametrize("name", list(REFERENCES)[::3])
def test_plans_name_registered_preprocessors_only(planned, tmp_path, imported, name):
    done = edited(planned, ("preprocessor",), REFERENCES[name])
    parts = ["preprocessor of 3d_fullres", planned[0].name]
    if name != "a plugin that is not installed":
        parts += ["--preprocessor", "no_resampling"]
    assert_refused(done, imported, tmp_path, *parts)


@pytest.mark.parametrize(
    ("path", "value"),
    [
        (("previous",), "/etc"),
        (("previous",), "../3d_lowres"),
        (("previous",), "3d_fullres"),
        (("patch_size",), [10**9, 16, 16]),
        (("patch_size",), [4096, 4096, 4096]),
        (("batch_size",), 10**6),
        (("median_shape",), [10**9, 16, 16]),
        (("spacing",), [1e300, 1, 1]),
        (("spacing",), [float("inf"), 1, 1]),
        (("network", "base_features"), 10**6),
        (("network", "max_features"), 10**9),
        (("network", "convs_per_stage"), 10**9),
        (("network", "input_channels"), 10**9),
        (("network", "output_channels"), 10**9),
        (("network", "pool_kernels"), [[2, 2, 2]] * 1000),
        (("network", "conv_kernels"), [[10**6, 3, 3]]),
    ],
)
def test_plans_hold_no_number_or_name_without_a_limit(planned, path, value):
    done = edited(planned, path, value)
    assert done.returncode == 1
    assert planned[0].name in done.stderr
    assert path[-1].replace("pool_kernels", "kernels") in done.stderr
    assert "unexpected" not in done.stderr


@pytest.mark.parametrize(
    "setting",
    [
        "trainer.epochs=1000000000",
        "trainer.iterations_per_epoch=1000000000",
        "trainer.validation_iterations=1000000000",
        "trainer.batch_size=1000000000",
        "trainer.accumulation=1000000000",
        "trainer.learning_rate=Infinity",
        "planner.base_features=1000000",
        "planner.convs_per_stage=1000000000",
        "planner.max_batch_size=1000000000",
        "planner.gpu_memory_gb=1e300",
        "planner.gpu_memory_gb=NaN",
        "planner.target_spacing=[1e300,1,1]",
        "augmentation.generator_scale=1e-9",
        "predictor.step_size=1e-9",
    ],
)
def test_settings_have_limits(planned, setting):
    done = commands.nnunet(
        "train", *planned[2], "--set", setting, "--device", "cpu", "--folds", "all"
    )
    assert done.returncode == 2, done
    assert setting.partition("=")[0].partition(".")[2].replace("step_size", "step") in done.stderr
    assert "unexpected" not in done.stderr


@pytest.mark.parametrize("step", ["plan", "fingerprint"])
def test_a_planner_that_makes_impossible_plans_is_one_message(planned, monkeypatch, step, tmp_path):
    def impossible(*arguments, **named):
        return small.isotropic(2, base_features=10**6)

    monkeypatch.setattr(PlannerV21, step, impossible)
    tiny, _, _, *processes = planned[2]
    done = commands.nnunet("plan", tiny, "--workspace", tmp_path, *processes)
    assert done.returncode == 1
    assert "'builtin/v21'" in done.stderr
    assert "base_features" in done.stderr
    assert "unexpected" not in done.stderr


@pytest.mark.parametrize("entry", ["file_ending", "label_ending"])
@pytest.mark.parametrize("ending", ENDINGS)
def test_endings_lead_nowhere_else(planned, tmp_path, imported, document, entry, ending):
    done = predict(tmp_path, {**document, entry: ending})
    assert_refused(done, imported, tmp_path, "model.json", entry)
    if ending == "nii":  # of dataset.json it is read as .nii
        return
    with declared(planned, **{entry: ending}):
        done = commands.nnunet("plan", *planned[2])
    assert_refused(done, imported, tmp_path, "dataset.json", "Allowed is a dot", "Correct")


@pytest.mark.parametrize("name", ["/etc", "../x", "..", "", "a/b", "a\\b", "x\n"])
def test_the_stage_before_lies_beside_a_model(tmp_path, imported, document, name):
    done = predict(tmp_path, set_in(document, ("configuration", "previous"), name))
    assert_refused(done, imported, tmp_path, "model.json", "previous", "plain name")


def test_a_cascade_that_never_ends_is_refused(tmp_path, imported, document):
    done = predict(tmp_path, set_in(document, ("configuration", "previous"), "model"))
    assert_refused(done, imported, tmp_path, "model.json", "previous", "never ends")
    other = set_in(document, ("configuration", "previous"), "model")
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "model.json").write_text(json.dumps({**other, "variant": "other"}))
    done = predict(tmp_path, set_in(document, ("configuration", "previous"), "other"))
    assert_refused(done, imported, tmp_path, "model.json", "previous", "never ends")


def test_code_of_the_stage_before_is_refused_too(tmp_path, imported, document):
    stage = set_in(document, ("components", "network", "reference"), "local_evil:Evil")
    (tmp_path / "stage").mkdir()
    (tmp_path / "stage" / "model.json").write_text(json.dumps(stage))
    done = predict(tmp_path, set_in(document, ("configuration", "previous"), "stage"))
    assert_refused(done, imported, tmp_path, str(tmp_path / "stage" / "model.json"), "--trust")


@pytest.mark.parametrize(
    ("path", "value"),
    [
        (("components", "network", "distribution"), "x'; rm -rf ~; '"),
        (("components", "network", "version"), "1 --index-url http://x"),
        (("components",), {}),
        (("mirror_axes",), [7]),
        (("dataset",), "../x"),
        (("configuration", "patch_size"), [10**9, 8, 8]),
        (("configuration", "network", "max_features"), 10**6),
    ],
)
def test_a_model_that_cannot_be_is_one_message(tmp_path, imported, document, path, value):
    done = predict(tmp_path, set_in(document, path, value))
    assert_refused(done, imported, tmp_path, "model.json", path[-1])


def in_folder(folder, *arguments):
    """Run the command line in a folder, in a process of its own."""
    command = [sys.executable, "-m", "nnunet_cli", *map(str, arguments)]
    clean = {k: v for k, v in os.environ.items() if k not in ("PYTHONPATH", "PYTHONSAFEPATH")}
    return subprocess.run(
        command, cwd=folder, env=clean, capture_output=True, text=True, timeout=120, check=False
    )


def test_nothing_is_imported_from_the_current_folder(tiny, tmp_path):
    """Not a module that a dataset names, that Python or we import by its name, or that calls itself
    a plugin; not by processes that are started either.
    """
    here = tmp_path / "here"
    here.mkdir()
    for name in ("evil", "rich", "typer", "numpy", "pickletools"):
        (here / f"{name}.py").write_text(LOCAL)
    (here / "evil-1.dist-info").mkdir()
    (here / "evil-1.dist-info" / "METADATA").write_text("Name: evil\nVersion: 1\n")
    entry = here / "evil-1.dist-info" / "entry_points.txt"
    entry.write_text("[nnunet_plugins]\nevil = evil\n")
    if sys.version_info >= (3, 11):  # older ones look for these in the folder first
        (here / "multiprocessing.py").write_text(LOCAL)
    workspace = ("--workspace", tmp_path / "ws")
    labels, output = tiny / "labelsTr", tmp_path / "summary.json"
    options = ("--dataset", tiny, "--output", output, "--processes", 2)
    done = in_folder(here, "evaluate", labels, labels, *options)
    assert done.returncode == 0, done.stderr
    path = tiny / "dataset.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "image_format": "evil:Evil"}))
    done = in_folder(here, "dataset", "list", *workspace, "--json")
    assert "may only name" in json.loads(done.stdout)[0]["error"]
    assert sorted(p.name for p in here.iterdir() if p.name in ("ran", "__pycache__")) == []


NETWORK = """
from pathlib import Path
from nnunet_builtin.networks.plain_unet import PlainUNet

class Mine(PlainUNet):
    pass
"""


def test_own_code_on_the_command_line_trains_goes_on_and_predicts(tiny, tmp_path, monkeypatch):
    """Nothing of it needs --trust but a prediction from the folder of the model."""
    (tmp_path / "local_network.py").write_text(NETWORK)
    settings = ("trainer.epochs=1", "trainer.iterations_per_epoch=1", "planner.base_features=4")
    options = [part for setting in settings for part in ("--set", setting)]
    options += ["--set", "trainer.validation_iterations=1", "--set", "planner.max_batch_size=2"]
    options += ["--set", "predictor.mirroring=false", "--set", "predictor.step_size=1"]
    options += ["--workspace", tmp_path / "ws", "--workers", 0, "--threads", 1, "--folds", 0]
    own = ("--network", "local_network:Mine")
    monkeypatch.setenv("NNUNET_WORKSPACE", str(tmp_path / "ws"))
    with on_path(tmp_path):
        out = tmp_path / "run_out"
        done = commands.nnunet(
            "run", tiny, *own, *options, "--predict", "imagesTr", "--output", out
        )
        assert done.returncode == 0, done.stderr
        assert len(list(out.glob("*.nii.gz"))) == 6
        again = commands.nnunet("train", tiny, *own, *options)
        assert "trained and validated already" in again.stderr
        (model,) = [path.parent for path in (tmp_path / "ws").glob("results/**/model.json")]
        refused = commands.nnunet("predict", model, tiny / "imagesTr", tmp_path / "out")
        assert "local_network.py" in refused.stderr
        assert not (tmp_path / "out").exists()
        trusted = commands.nnunet("predict", model, tiny / "imagesTr", tmp_path / "out", "--trust")
    assert trusted.returncode == 0, trusted.stderr
    for path in out.glob("*.nii.gz"):
        assert (tmp_path / "out" / path.name).read_bytes() == path.read_bytes()
