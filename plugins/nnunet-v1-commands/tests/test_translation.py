"""Each command of v1 with v1's flags: which commands of `nnunet` it runs."""

import json
import os
import pickle
import shlex
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import decathlon
import pytest
import tomllib
from v1_models import v1_plans

from nnunet_builtin.models.copied.reading import read_source
from nnunet_v1_commands import (
    methods,
    predicting,
    preparing,
    running,
    selecting,
    sharing,
    training,
)

PACKAGE = Path(__file__).parents[1]
ROOT = PACKAGE.parents[1]
TASK, VARIANT = "Task004_Hippocampus", "nnUNetTrainerV2__nnUNetPlansv2.1"


@pytest.fixture
def places(tmp_path, monkeypatch):
    """Return RESULTS_FOLDER of a workspace in v1's layout, with a task and a model."""
    (tmp_path / "raw" / "nnUNet_raw_data" / TASK).mkdir(parents=True)
    monkeypatch.setenv(running.RAW, str(tmp_path / "raw"))
    monkeypatch.setenv(running.PREPROCESSED, str(tmp_path / "preprocessed"))
    monkeypatch.setenv(running.RESULTS, str(tmp_path / "results"))
    monkeypatch.setenv("NNUNET_WORKSPACE", "of nobody")  # v1's variables win
    for name in (running.SETTINGS, running.PROCESSES, running.WORKERS, "WORLD_SIZE"):
        monkeypatch.delenv(name, raising=False)
    for name in running.CONFIGURATIONS:
        add_model(tmp_path / "results", VARIANT, name)
    monkeypatch.setattr(methods.V1Method, "name", lambda *_: "of these settings")
    return tmp_path / "results"


def add_model(results, variant, configuration):
    folder = results / TASK / variant / configuration
    folder.mkdir(parents=True)
    (folder / "model.json").touch()
    return folder


@pytest.fixture
def ran(monkeypatch):
    """Return the lines that commands ran, which are not carried out."""
    lines = []
    for module in (methods, predicting, preparing, sharing, training):
        monkeypatch.setattr(
            module, "nnunet", lambda *words: lines.append(shlex.join(map(str, words)))
        )
    monkeypatch.setattr(training, "show_model", lambda *_: None)
    monkeypatch.setattr(training, "_latest", lambda *_: None)
    monkeypatch.setattr(preparing, "_planned", lambda *_: ["2d", "3d_fullres"])
    monkeypatch.setattr(training, "plans_of", lambda *_: Plans)
    return lines


class Plans:
    batch_size = 9

    @classmethod
    def configuration(cls, _):
        return cls


LINES = [
    (
        preparing.convert,
        "-i Task04_Hippocampus",
        "dataset convert Task04_Hippocampus --to v1 --overwrite",
    ),
    (
        preparing.convert,
        "-i Task04_Hippocampus -p 3 -output_task_id 77",
        "dataset convert Task04_Hippocampus --to v1 --overwrite --processes 3 --id 77",
    ),
    (preparing.plan_and_preprocess, "-t 4", f"preprocess {TASK} -c 2d -c 3d_fullres"),
    (
        preparing.plan_and_preprocess,
        "-t 4 --verify_dataset_integrity -tf 2 -pl2d None",
        f"dataset verify {TASK} --processes 2; preprocess {TASK} -c 3d_fullres --processes 2",
    ),
    (
        preparing.plan_and_preprocess,
        "-t 004 -pl3d ExperimentPlanner3D_v21_16GB -no_pp",
        f"plan {TASK} --planner v21_16GB; plan {TASK}",
    ),
    (
        training.train,
        "3d_fullres nnUNetTrainerV2 4 0",
        f"train {TASK} --variant {VARIANT} -c 3d_fullres --folds 0",
    ),
    (
        training.train,
        "2d nnUNetTrainerV2 4 1 --find_lr --npz",
        f"find-lr {TASK} --variant {VARIANT} -c 2d --fold 1 --output "
        f"{{v1}}/2d/{TASK}/{VARIANT}/find_lr_fold_1 --overwrite",
    ),
    (
        training.train,
        f"2d nnUNetTrainerV2_Loss_Dice {TASK} all --npz --fp32 --deterministic -c",
        f"train {TASK} --variant nnUNetTrainerV2_Loss_Dice__nnUNetPlansv2.1 "
        "--set trainer.deterministic=true --precision float32 -c 2d --folds all "
        "--save-probabilities",
    ),
    (
        training.train,
        "3d_cascade_fullres nnUNetTrainerV2CascadeFullRes 4 1 -val",
        f"validate {TASK} --variant {VARIANT} -c 3d_cascade_fullres --folds 1 --overwrite",
    ),
    (
        training.train,
        "3d_fullres nnUNetTrainerV2_copy2 4 1 -val --val_disable_overwrite",
        f"validate {TASK} --variant nnUNetTrainerV2_copy2__nnUNetPlansv2.1 --seed 2 -c 3d_fullres "
        "--folds 1",
    ),
    (
        training.train,
        "3d_fullres nnUNetTrainerV2 4 0 -p nnUNetPlansv2.1_16GB",
        f"train {TASK} --variant {VARIANT} --planner v21_16GB -c 3d_fullres --folds 0",
    ),
    (
        training.train_dp,
        "3d_fullres nnUNetTrainerV2_DP 4 0 -gpus 2",
        f"train {TASK} --variant nnUNetTrainerV2_DP__nnUNetPlansv2.1 "
        "--set trainer.batch_size=18 --gpus 2 -c 3d_fullres --folds 0",
    ),
    (
        training.train_dp,
        "3d_fullres nnUNetTrainerV2 4 0 -gpus 2 --dbs",
        f"train {TASK} --variant {VARIANT} --gpus 2 -c 3d_fullres --folds 0",
    ),
    (predicting.predict, "-i a -o b -t 4", "predict {results}/3d_fullres a b"),
    (
        predicting.predict,
        f"-i a -o b -t {TASK} -tr nnUNetTrainerV2 -m 2d -p nnUNetPlansv2.1 -f 0 1 -z --disable_tta "
        "--step_size 0.7 --part_id 1 --num_parts 4 --overwrite_existing --disable_mixed_precision "
        "--mode fast --all_in_gpu True -chk model_final_checkpoint",
        "predict {results}/2d a b --save-probabilities --no-mirroring --overwrite --folds 0,1 "
        "--part 2/4 --step-size 0.7 --precision float32",
    ),
    (
        predicting.predict,
        "-i a -o b -t 4 -m 3d_cascade_fullres -ctr nnUNetTrainerV2CascadeFullRes -f all",
        "predict {results}/3d_cascade_fullres a b --folds all",
    ),
    (
        predicting.ensemble,
        "-f a b -o c -pp p.json -t 3 --npz",
        "ensemble a b c --overwrite --postprocessing p.json --save-probabilities",
    ),
    (
        sharing.export,
        "-t 4 -o m.zip -m 2d -f 0 1",
        "models export {results}/2d m.zip --folds 0,1 --overwrite",
    ),
    (sharing.download, "Task004_Hippocampus", "models download Task004_Hippocampus"),
]


@pytest.mark.parametrize(("command", "flags", "expected"), LINES)
def test_a_command_runs_ours(command, flags, expected, places, ran):
    command(flags.split())
    results = places / TASK / VARIANT
    assert ran == expected.format(results=results, v1=places / "nnUNet").split("; ")


def write_plans(path):
    """Write plans of v1 to a file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(pickle.dumps(v1_plans()))
    return path


COPYING_FLAGS = ["-t", "4", "-pl3d", methods.COPYING, "-overwrite_plans_identifier", "Organs"]


def test_plans_of_another_task_are_kept_and_found_by_their_identifier(places, ran, tmp_path):
    """The 2D plans stay those of the task, as in v1; the file may be gone afterwards."""
    file = write_plans(tmp_path / "elsewhere" / "plans.pkl")
    preparing.plan_and_preprocess([*COPYING_FLAGS, "-overwrite_plans", str(file)])
    file.unlink()
    training.train(
        ["3d_fullres", "nnUNetTrainerV2", "4", "0", "-p", "nnUNetPlans_pretrained_Organs"]
    )
    kept = tmp_path / "preprocessed" / TASK / "nnUNetPlans_pretrained_Organs_plans_3D.json"
    options = f"--planner copied --set planner.source={kept}"
    assert ran == [
        f"preprocess {TASK} {options} -c 3d_fullres",
        f"preprocess {TASK} -c 2d",
        f"train {TASK} --variant {VARIANT} {options} -c 3d_fullres --folds 0",
    ]
    assert read_source(kept).configurations["3d_fullres"].patch_size == (8, 8, 8)


def test_a_model_that_was_trained_here_stands_for_the_plans_that_v1_has_beside_it(places):
    """Its folder in v1's layout holds links to the weights, and no plans.pkl."""
    model = places / TASK / VARIANT / "3d_fullres"
    (model / "fold_0").mkdir()
    weights = model / "fold_0" / "weights.safetensors"
    weights.touch()
    linked = places / "nnUNet" / "3d_fullres" / TASK / VARIANT
    (linked / "fold_0").mkdir(parents=True)
    (linked / "fold_0" / "model_final_checkpoint.model").symlink_to(weights)
    assert methods._ours(linked / "plans.pkl") == model.resolve()


REFUSED = [
    (preparing.plan_and_preprocess, "-t 4 -overwrite_plans x.pkl", "three flags"),
    (preparing.plan_and_preprocess, "-t 4 -pl3d ExperimentPlanner3D_v22", "no counterpart"),
    (preparing.plan_and_preprocess, "-t 9", "Task004_Hippocampus"),
    (training.train, "2d nnUNetTrainerV2 4 0 -p nnUNetPlans_pretrained_X", "-overwrite_plans"),
    (
        preparing.plan_and_preprocess,
        f"-t 4 -pl3d {methods.COPYING} -overwrite_plans no.pkl -overwrite_plans_identifier X",
        "there is no no.pkl",
    ),
    (
        preparing.plan_and_preprocess,
        f"-t 4 -pl3d {methods.COPYING} -overwrite_plans a.pkl -overwrite_plans_identifier ../X",
        "names of files",
    ),
    (training.train, "2d nnUNetTrainerV2 4 0 --val_folder x", "--val_folder"),
    (training.train, "2d nnUNetTrainerV2 4 x", "'all'"),
    (training.train, "2d nnUNetTrainerV3 4 0", "nnUNetTrainerV2"),
    (training.train, "2d nnUNetTrainerV2_fullEvals 4 0", "v1-trainers"),
    (training.train, "2d nnUNetTrainerV2 4 0 -p x", "nnUNetPlansv2.1_16GB"),
    (training.train, "2d nnUNetTrainerV2_allConv3x3 4 0 -p nnUNetPlansv2.1_16GB", "--planner"),
    (training.train, "2d nnUNetTrainerV2 4 0 -pretrained_weights no", "no file"),
    (training.train_ddp, "2d nnUNetTrainerV2 4 0", "torchrun"),
    (predicting.predict, "-i a -o b -t 4 -chk model_latest", "final weights"),
    (predicting.predict, "-i a -o b -t 4 -tr nnUNetTrainerV2_BN", "nnUNetTrainerV2_BN"),
    (sharing.change_trainer, "-i . -tr X", "no folds"),
    (sharing.export, "-t 4 -o model.tar", ".zip"),
]


@pytest.mark.parametrize(("command", "flags", "message"), REFUSED)
def test_what_has_no_counterpart_is_one_message(command, flags, message, places, ran, capsys):
    with pytest.raises(SystemExit) as end:
        command(flags.split())
    assert end.value.code == 2
    assert ran == []
    error = capsys.readouterr().err
    assert message in error.split("error: ")[1]


NOTED = [(training.train, "2d nnUNetTrainerV2 4 0", f"--{flag}") for flag in training._NOTES] + [
    (predicting.predict, "-i a -o b -t 4", flag)
    for flag in ("-l x", "--mode fastest", "--all_in_gpu False", "--num_threads_preprocessing 2")
]


@pytest.mark.parametrize(("command", "flags", "flag"), NOTED)
def test_a_flag_that_changes_no_result_is_a_note(command, flags, flag, places, ran, capsys):
    command([*flags.split(), *flag.split()])
    assert f"note: {flag.split()[0]}" in capsys.readouterr().err
    assert len(ran) == 1


@pytest.mark.parametrize("name", [running.RAW, running.PREPROCESSED, running.RESULTS])
def test_a_variable_that_is_missing_is_named(name, places, monkeypatch, capsys):
    monkeypatch.delenv(name)
    with pytest.raises(SystemExit):
        training.train(["2d", "nnUNetTrainerV2", "4", "0"])
    error = capsys.readouterr().err
    assert f"export {name}=" in error
    assert ("Unlike v1" in error) == (name == running.RAW)


@pytest.mark.parametrize(
    ("command", "flags"),
    [
        (training.train, "2d nnUNetTrainerV2 4 0"),
        (selecting.find_best, "-t 4"),
        (selecting.determine_postprocessing, "-t 4 -m 2d"),
    ],
)
def test_raw_data_that_are_missing_are_asked_for_with_the_reason(
    command, flags, places, ran, capsys
):
    (places.parent / "raw" / "nnUNet_raw_data" / TASK).rmdir()
    with pytest.raises(SystemExit) as end:
        command(flags.split())
    error = capsys.readouterr().err
    assert end.value.code == 2
    assert f"{running.RAW} says. Unlike v1" in error
    assert f"nnUNet_raw_data/{TASK}" in error


def test_who_has_read_enough_ends_a_command_quietly():
    line = "import nnunet_v1_commands.sharing as s; s.print_available([])"
    reading, writing = os.pipe()
    os.close(reading)
    words = [sys.executable, "-c", line]
    environment = {**os.environ, "PYTHONPATH": str(Path(sharing.__file__).parents[1])}
    streams = {"stdout": writing, "stderr": subprocess.PIPE, "env": environment}
    done = subprocess.run(words, text=True, check=False, **streams)
    os.close(writing)
    assert (done.returncode, done.stderr) == (1, "")


def test_settings_and_processes_come_from_the_environment(places, ran, monkeypatch):
    monkeypatch.setenv(running.SETTINGS, "trainer.epochs=2")
    monkeypatch.setenv(running.PROCESSES, "3")
    monkeypatch.setenv(running.WORKERS, "5")
    training.train(["2d", "nnUNetTrainerV2", "4", "0"])
    assert ran == [
        f"train {TASK} --variant {VARIANT} --set trainer.epochs=2 -c 2d --folds 0 --workers 5 "
        "--processes 3"
    ]


def test_ddp_takes_the_planned_batch_for_each_process(places, ran, monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "3")
    training.train_ddp(["2d", "nnUNetTrainerV2_DDP", "4", "0", "--local_rank=1"])
    assert "--set trainer.batch_size=27" in ran[0]


def test_a_model_of_v1_is_imported_when_it_is_asked_for(places, ran):
    folder = places / "nnUNet" / "2d" / TASK / "nnUNetTrainerV2_BN__nnUNetPlansv2.1"
    (folder / "fold_0").mkdir(parents=True)
    for name in ("model_final_checkpoint.model", "model_final_checkpoint.model.pkl"):
        (folder / "fold_0" / name).touch()
    predicting.predict(["-i", "a", "-o", "b", "-t", "4", "-m", "2d", "-tr", "nnUNetTrainerV2_BN"])
    model = places / TASK / folder.name / "2d"
    assert ran == [f"models import {folder} -c 2d", f"predict {model} a b"]


def test_a_model_of_other_settings_is_found_while_it_is_the_only_one(places, ran, capsys):
    name = "nnUNetTrainerV2_BN__nnUNetPlansv2.1"
    model = add_model(places, f"{name}-12345678", "2d")
    flags = ["-i", "a", "-o", "b", "-t", "4", "-m", "2d", "-tr", "nnUNetTrainerV2_BN"]
    predicting.predict(flags)
    assert ran == [f"predict {model} a b"]
    add_model(places, f"{name}-99999999", "2d")
    with pytest.raises(SystemExit):
        predicting.predict(flags)
    assert "12345678" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("name", "verb"),
    [("manifest.json", "install"), ("3d_fullres/Task004_Hippocampus/T__P/plans.pkl", "import")],
)
def test_a_zip_is_installed_by_what_is_in_it(name, verb, places, ran, tmp_path):
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        archive.writestr(name, "")
    sharing.install([str(tmp_path / "a.zip")])
    assert ran == [f"models {verb} {tmp_path / 'a.zip'} --overwrite"]


def test_published_tasks_are_printed_and_exported(tmp_path, capsys):
    sharing.print_available(["--export", str(tmp_path)])
    sharing.print_info(["Task004_Hippocampus"])
    printed = capsys.readouterr().out
    assert "Task005_Prostate: " in printed
    assert "https://zenodo.org" in printed
    exported = json.loads((tmp_path / "available_models.json").read_text())
    assert len(exported) == 27


def test_every_command_of_v1_is_there():
    page = (ROOT / "docs" / "reference" / "method" / "dataset.md").read_text()
    project = tomllib.loads((PACKAGE / "pyproject.toml").read_text())
    scripts = project["project"]["scripts"]
    section = page.partition("## 5. Console commands")[2]
    assert len(scripts) == 18
    assert {name for name in scripts if f"**{name}**" not in section} == set()
    described = {part.split("**")[0] for part in section.split("**nnUNet_")[1:]}
    assert {f"nnUNet_{name}" for name in described} == set(scripts)


def test_an_evaluation_has_the_labels_that_are_asked_for(tmp_path):
    """Others may be in the files."""
    decathlon.make_tasks(tmp_path)
    references = tmp_path / "Task04_Hippocampus" / "labelsTr"
    shutil.copytree(references, tmp_path / "predictions")
    words = ["-ref", str(references), "-pred", str(tmp_path / "predictions"), "-l", "1"]
    predicting.evaluate(words)
    results = json.loads((tmp_path / "predictions" / "summary.json").read_text())["results"]
    assert results["mean"] == {"1": results["mean"]["1"]}
    assert results["mean"]["1"]["Dice"] == 1
    assert len(results["all"]) == 5
