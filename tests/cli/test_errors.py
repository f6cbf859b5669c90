"""Wrong input: one clear message on stderr, no traceback, exit code 1 or 2."""

import json
import traceback
from dataclasses import dataclass

import numpy as np
import pytest

from nnunet_builtin.formats.simpleitk import SimpleItkFormat
from nnunet_cli.blame import place_of
from nnunet_cli.main import main
from nnunet_core.data.images import Geometry
from nnunet_core.errors import TrainingError
from nnunet_core.registry.discovery import Registry

GEOMETRY = Geometry((16, 20, 18), (1.5, 1.0, 1.0))
FORMAT = SimpleItkFormat()


class FromScratch:
    """A trainer that starts from random weights."""

    def train(self, task): ...

    def predictor(self, model): ...


def fails(capsys, arguments, code, *parts):
    """Run the command line; check exit code, that there is one message, and that it holds every
    part.
    """
    with pytest.raises(SystemExit) as stop:
        main([str(argument) for argument in arguments])
    error = capsys.readouterr().err
    assert stop.value.code == code, error
    assert error.count("error:") == 1
    assert "Traceback" not in error
    for part in parts:
        assert part in error, error


def plan(tiny):
    return ["plan", tiny, "--workspace", tiny.parent.parent]


@dataclass
class BrokenLoss:
    """A loss with a defect."""

    def build(self, *, batch_dice, ignore_label, regions):
        return {}["nothing"]


@dataclass
class BrokenPlanner:
    """A planner whose defect is found while it is built."""

    def __post_init__(self):
        raise ZeroDivisionError("a defect")

    def fingerprint(self, dataset, workers, progress=None): ...

    def plan(self, dataset, fingerprint, network): ...


@pytest.mark.parametrize(
    ("option", "code", "parts"),
    [
        (["--planner", f"{__name__}:BrokenPlanner"], 1, ["ZeroDivisionError: a defect"]),
        (["--planner", f"{__name__}:Nothing"], 1, ["cannot be loaded"]),
    ],
)
def test_a_defect_in_a_component_names_file_and_line(tiny, capsys, option, code, parts):
    fails(capsys, [*plan(tiny), *option], code, *parts)


def test_the_innermost_line_of_a_strangers_code_is_named():
    registry, line = Registry.discover(), BrokenLoss.build.__code__.co_firstlineno + 1
    with pytest.raises(KeyError) as caught:
        BrokenLoss().build(batch_dice=True, ignore_label=None, regions=False)
    error = caught.value
    assert place_of(error, registry) == f"{__file__}, line {line}, of code outside any package"
    wrapped = TrainingError("A batch cannot be made.")
    wrapped.__cause__ = RuntimeError("".join(traceback.format_exception(error)))
    assert f"{__file__}, line {line}" in place_of(wrapped, registry)  # of another process
    assert place_of(TrainingError("A message of its own."), registry) == ""


@pytest.mark.parametrize(
    ("setting", "names", "left_out"),
    [
        ("trainer.epoch=3", ["'epochs'"], "momentum"),
        ("trainer.lr=1", ["plugins show builtin/v2 --kind trainer"], "PositiveFloat"),
        ("trainer.epochs=many", ["'many'", "Default: 1000", "valid integer"], "momentum"),
        ("planner.gpu_memory=3", ["'gpu_memory_gb'"], "NonNegative"),
    ],
)
def test_a_wrong_setting_names_the_nearest_and_no_types_of_ours(
    tiny, capsys, setting, names, left_out
):
    with pytest.raises(SystemExit):
        main(["train", str(tiny), "--set", setting, "--workspace", str(tiny.parent.parent)])
    error = capsys.readouterr().err
    assert all(name in error for name in names), error
    assert left_out not in error
    assert len(error) < 500


@pytest.mark.parametrize("command", ["run", "plan", "preprocess", "train"])
def test_a_dataset_that_a_plugin_makes_is_suggested(tmp_path, capsys, command):
    fails(capsys, [command, "dem", "--workspace", tmp_path], 2, "Did you mean 'demo'?")


@pytest.mark.parametrize(
    "command",
    [
        "dataset verify {0}",
        "dataset convert {0} --output out",
        "plan {0}",
        "preprocess {0}",
        "train {0}",
        "run {0}",
        "splits {0}",
        "evaluate {0} labels --dataset {1}",
        "predict {0} images out",
    ],
)
def test_a_missing_folder_has_one_exit_code(tiny, monkeypatch, capsys, command):
    monkeypatch.chdir(tiny)
    fails(capsys, command.format("no_such_folder", tiny).split(), 2, "no_such_folder")


def test_unknown_dataset_suggests_the_nearest(tiny, capsys):
    fails(
        capsys, ["plan", "Dataset001_Tini", "--workspace", tiny.parent.parent], 2, "Dataset001_Tiny"
    )


@pytest.mark.parametrize(
    ("options", "parts"),
    [
        (["--planner", "v21_32gb"], ["There is no planner", "v21_32GB"]),
        (["--planner", "nowhere.module:Planner"], ["nowhere"]),
        (["--variant", "defalt"], ["default"]),
        (["--set", "planner.gpu_memory=24"], ["gpu_memory_gb", "plugins show builtin/v21"]),
        (["--set", "planner.max_batch_size=many"], ["max_batch_size", "many"]),
        (["--set", "planner.max_batch_size=0"], ["max_batch_size"]),
        (["--set", "planer.max_batch_size=2"], ["planner"]),
        (["--set", "planner"], ["KIND.FIELD=VALUE"]),
    ],
)
def test_wrong_names_and_settings(tiny, capsys, options, parts):
    code = 1 if "nowhere.module:Planner" in options else 2
    fails(capsys, [*plan(tiny), *options], code, *parts)


@pytest.mark.parametrize("command", ["run", "train"])
@pytest.mark.parametrize(
    ("options", "parts"),
    [
        (["--precision", "bflot16"], ["bflot16", "bfloat16"]),
        (["--device", "cuda:99"], ["cuda:99", "cpu"]),
        (["--freeze", "encoder"], ["--pretrained"]),
        (["--pretrained", ".", "--trainer", f"{__name__}:FromScratch"], ["FromScratch", "random"]),
    ],
)
def test_what_cannot_be_trained_is_said_before_cases_are_prepared(
    tiny, capsys, command, options, parts
):
    workspace = tiny.parent.parent
    fails(capsys, [command, tiny, *options, "--workspace", workspace], 2, *parts)
    assert not list((workspace / "preprocessed").rglob("fingerprints"))


@pytest.mark.parametrize("command", ["run", "train"])
def test_a_pretrained_model_that_does_not_exist(tiny, capsys, command):
    options = ["--pretrained", tiny / "nothing", "--workspace", tiny.parent.parent]
    fails(
        capsys,
        [command, tiny, *options],
        2,
        "There are no weights",
        "nothing",
        "nnunet models list",
    )


def test_a_pretrained_model_that_is_still_packed(tiny, capsys):
    archive = tiny / "model.zip"
    archive.write_bytes(b"PK")
    options = ["--pretrained", archive, "--workspace", tiny.parent.parent]
    fails(capsys, ["train", tiny, *options], 2, "model.zip", ".safetensors, .pth, .model", "Unpack")


def test_labels_that_are_not_declared(tiny, capsys):
    label = np.zeros(GEOMETRY.shape, np.uint8)
    label[3:5, 3:5, 3:5] = 7
    FORMAT.write(tiny / "labelsTr" / "case_2.nii.gz", label, GEOMETRY)
    fails(capsys, plan(tiny), 1, "case_2.nii.gz", "[7]", "[0, 1]")


def test_image_and_label_on_different_grids(tiny, capsys):
    shifted = Geometry(GEOMETRY.shape, GEOMETRY.spacing, (5.0, 0.0, 0.0))
    FORMAT.write(tiny / "labelsTr" / "case_1.nii.gz", np.zeros(GEOMETRY.shape, np.uint8), shifted)
    fails(capsys, plan(tiny), 1, "case_1", "origin")


def test_missing_channel_file(tiny, capsys):
    document = json.loads((tiny / "dataset.json").read_text())
    document["channel_names"]["1"] = "T2"
    (tiny / "dataset.json").write_text(json.dumps(document))
    for index in range(5):
        source = tiny / "imagesTr" / f"case_{index}_0000.nii.gz"
        source.with_name(f"case_{index}_0001.nii.gz").write_bytes(source.read_bytes())
    fails(capsys, plan(tiny), 1, "case_5_0001.nii.gz")


@pytest.mark.parametrize("content", [b"", b"no image", None])
def test_unreadable_image(tiny, capsys, content):
    path = tiny / "imagesTr" / "case_3_0000.nii.gz"
    path.write_bytes(path.read_bytes()[:500] if content is None else content)
    fails(capsys, plan(tiny), 1, "case_3_0000.nii.gz")


@pytest.mark.parametrize("ending", [".nii.gz", ".nii", ".nrrd"])
def test_nan_in_an_image(tiny, capsys, ending):
    folder = tiny.parent / "Dataset002_NaN"
    document = json.loads((tiny / "dataset.json").read_text()) | {"file_ending": ending}
    image_format = SimpleItkFormat((ending,))
    for index in range(5):
        image = np.ones(GEOMETRY.shape, np.float32)
        image[0, 0, 0] = np.nan if index == 4 else 0
        image_format.write(folder / "imagesTr" / f"c{index}_0000{ending}", image, GEOMETRY)
        image_format.write(
            folder / "labelsTr" / f"c{index}{ending}", np.ones(GEOMETRY.shape, np.uint8), GEOMETRY
        )
    (folder / "dataset.json").write_text(json.dumps(document))
    fails(capsys, plan(folder), 1, "c4", "NaN")


def test_empty_dataset(tiny, capsys):
    for path in (tiny / "imagesTr").iterdir():
        path.unlink()
    fails(capsys, plan(tiny), 1, "imagesTr")


@pytest.mark.parametrize(
    ("options", "part"),
    [
        (["--folds", "0-4"], "--folds"),
        (["--predict", "imagesTr"], "--output"),
        (["--predict", "nowhere", "--output", "out"], "nowhere"),
        (["--configuration", "3d_fulres"], "3d_fullres"),
        (["--configuration", "3d_lowres"], "covers"),
    ],
)
def test_wrong_run_options(tiny, capsys, options, part):
    fails(capsys, ["run", tiny, "--workspace", tiny.parent.parent, *options], 2, part)


def test_a_negative_seed(tiny, capsys):
    with pytest.raises(SystemExit) as stop:
        main(["run", str(tiny), "--seed", "-1"])
    assert stop.value.code == 2
    assert "--seed" in capsys.readouterr().err


def test_five_folds_need_five_cases(tiny, capsys):
    for index in range(2, 6):
        (tiny / "imagesTr" / f"case_{index}_0000.nii.gz").unlink()
    fails(capsys, ["run", tiny, "--workspace", tiny.parent.parent], 2, "has 2", "--folds all")


def test_debug_adds_the_traceback(tiny, capsys):
    with pytest.raises(SystemExit):
        main(["plan", "nowhere", "--debug", "--workspace", str(tiny.parent.parent)])
    assert "Traceback" in capsys.readouterr().err
