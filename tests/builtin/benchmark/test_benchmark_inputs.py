"""Wrong bench.toml files: one clear message before any job starts."""

import json
import re
from pathlib import Path

import pytest
from commands import nnunet
from tiny_dataset import make_tiny

from nnunet_builtin.benchmark.plugin import nnunet_commands

GOOD = """
name = "b"
datasets = ["data"]
baseline = "default"
folds = [0]
variants.default = {{}}
{}
"""
WRONG = {
    "unknown variant": ('variants.x = {variant = "defualt"}', 2, r"defualt.*default"),
    "unknown loss": ('variants.x = {loss = "dice_cee"}', 2, r"dice_cee.*dice_ce"),
    "unknown setting": ("variants.x = {settings = {trainer = {epoch = 2}}}", 2, r"epoch.*epochs"),
    "wrong type": ('variants.x = {settings = {trainer = {epochs = "two"}}}', 2, r"epochs"),
    "unknown kind": ("variants.x = {settings = {trainr = {epochs = 2}}}", 2, r"trainr.*trainer"),
    "unknown entry": ("seed = [1]", 2, r"'seed'"),
    "wrong name": ('variants."a/b" = {}', 2, r"a/b"),
    "no TOML": ("x = = 1", 2, r"no TOML"),
    "unknown executor": ('executor = {name = "locall"}', 2, r"locall.*local"),
    "wrong executor setting": ("executor = {settings = {gpu = 1}}", 2, r"gpu.*gpus"),
    "seeds twice": ("seeds = [1, 1]", 2, r"seeds holds 1 twice"),
    "a circle": ('previous = {a = "b", b = "a"}', 2, r"circle: \w -> \w"),
    "unknown stage": ("resources = {trian = {cpus = 1}}", 2, r"trian.*train"),
    "unknown test dataset": ('test = {dat = {images = "imagesTs"}}', 2, r"test\.dat"),
    "no test images": ('test = {data = {images = "imagesTs"}}', 2, r"imagesTs does not exist"),
    "unknown configuration": ('configurations = ["3d_fulres"]', 2, r"'3d_fulres'.*'3d_fullres'\?"),
    "unknown stage before": (
        'configurations = ["3d_cascade_fullres"]\nprevious = {3d_cascade_fullres = "3d_lowress"}',
        2,
        r"'3d_lowress'.*variant default.*builtin/v21.*'3d_lowres'\?",
    ),
    "not of this planner": (
        'configurations = ["2d"]\nsettings.planner.configurations = ["3d_fullres"]',
        2,
        r"'2d'.*plans 3d_fullres\.",
    ),
    "too many cores": ("resources.train = {cpus = 1000}", 2, r"1000 cores"),
    "too many cards": ("resources.train = {gpus = 60}", 2, r"60 GPUs"),
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("bench")
    make_tiny(folder / "data")
    return folder


def run(folder, text, *options):
    (folder / "bench.toml").write_text(text)
    return nnunet("benchmark", "run", folder / "bench.toml", "--workspace", folder / "ws", *options)


def refused(done, code, pattern, folder):
    assert done.returncode == code, done.stderr
    assert re.search(pattern, " ".join(done.stderr.split()), re.DOTALL), done.stderr
    assert done.stderr.count("error:") == 1
    assert "Traceback" not in done.stderr
    assert not list((folder / "ws").rglob("job.json"))


@pytest.mark.parametrize("name", WRONG)
def test_a_wrong_file_is_refused(folder, name):
    line, code, pattern = WRONG[name]
    refused(run(folder, GOOD.format(line)), code, pattern, folder)


def test_a_wrong_matrix_is_refused(folder):
    wrong = GOOD.format("").replace('baseline = "default"', 'baseline = "defualt"')
    refused(run(folder, wrong), 2, "baseline 'defualt' is none of the variants", folder)
    refused(run(folder, GOOD.format("").replace("[0]", '["all"]')), 2, "no case is left", folder)


def test_a_configuration_that_the_plans_lack_is_refused_once_they_are_there(tmp_path):
    make_tiny((folder := tmp_path) / "data")
    text = GOOD.format('configurations = ["3d_lowres"]')
    assert run(folder, text, "--dry-run").returncode == 0  # only plans can tell
    done = nnunet("plan", folder / "data", "--workspace", folder / "ws")
    assert done.returncode == 0, done.stderr
    refused(run(folder, text), 2, r"'3d_lowres' in the plans.*left it out: .*Available: 2d", folder)
    assert run(folder, GOOD.format(""), "--dry-run").returncode == 0


def without_labels(data):
    for path in (data / "labelsTr").iterdir():
        path.unlink()


def without_one_label(data):
    next(iter(sorted((data / "labelsTr").iterdir()))).unlink()


def of_three_cases(data):
    document = json.loads((data / "dataset.json").read_text())
    for path in sorted((data / "labelsTr").iterdir())[3:]:
        path.unlink()
        name = path.name.replace(".nii.gz", "")
        for image in (data / "imagesTr").glob(f"{name}_*"):
            image.unlink()
    if "training" in document:
        document["training"] = document["training"][:3]
    document["numTraining"] = 3
    (data / "dataset.json").write_text(json.dumps(document))


@pytest.mark.parametrize(
    ("change", "pattern"),
    [
        (without_labels, "label"),
        (without_one_label, "case_0"),
        (of_three_cases, "at least five cases, this dataset has 3"),
    ],
)
def test_a_dataset_that_cannot_be_trained_is_refused(tmp_path, change, pattern):
    change(make_tiny(tmp_path / "data"))
    done = run(tmp_path, GOOD.format(""))
    refused(done, done.returncode or 1, pattern, tmp_path)


def test_a_dataset_that_is_not_there_or_there_twice_is_refused(tmp_path):
    make_tiny(tmp_path / "data")
    missing = GOOD.format("").replace('["data"]', '["data", "Task077_No", "Task078_Neither"]')
    done = run(tmp_path, missing)
    refused(done, 2, "Task077_No", tmp_path)
    assert "Task078_Neither" in done.stderr  # all of them at once
    make_tiny(tmp_path / "other" / "data")
    twice = GOOD.format("").replace('["data"]', '["data", "other/data"]')
    refused(run(tmp_path, twice), 2, "named data", tmp_path)


def test_a_dry_run_shows_every_job_and_starts_none(folder):
    text = GOOD.format("variants.topk = {loss = 'dice_topk'}\nseeds = [1, 2]")
    done = run(folder, text, "--dry-run")
    assert done.returncode == 0, done.stderr
    assert "data/train/topk/3d_fullres" in done.stdout
    assert "unknown until the first of its kind is done: 1 plan" in " ".join(done.stdout.split())
    jobs = json.loads(run(folder, text, "--dry-run", "--json").stdout)["jobs"]
    assert len(jobs) == 1 + 1 + 4  # plans and prepared cases are shared
    train = next(job for job in jobs if job["stage"] == "train")
    assert train["state"] == "waiting"
    assert train["needs"] == [job["name"] for job in jobs if job["stage"] in ("plan", "preprocess")]
    assert not list((folder / "ws").rglob("job.json"))


@pytest.mark.parametrize("options", [(), ("--json",)])
def test_a_dry_run_shows_its_jobs_and_says_that_they_cannot_run(folder, options):
    text = GOOD.format("executor = {settings = {gpus = []}}\nresources.train = {gpus = 1}")
    done = run(folder, text, "--dry-run", *options)
    assert "data/train/default/3d_fullres" in done.stdout
    refused(done, 2, "A job needs 1 GPU; this machine has 0", folder)


def test_variants_of_other_plans_have_plans_of_their_own_and_cascades_need_every_fold(folder):
    lines = "variants.big = {settings.planner.base_features = 8}\n"
    lines += 'configurations = ["3d_cascade_fullres"]'
    jobs = json.loads(run(folder, GOOD.format(lines), "--dry-run", "--json").stdout)["jobs"]
    stages = [job["stage"] for job in jobs]
    assert stages.count("plan") == 2
    assert stages.count("preprocess") == 4
    assert stages.count("train") == 2 * (5 + 1)
    cascade = next(job for job in jobs if "train/big/3d_cascade_fullres" in job["name"])
    lowres = [need for need in cascade["needs"] if "train/big/3d_lowres" in need]
    assert len(lowres) == 5


@pytest.mark.parametrize(
    "change",
    ["variants.default = {loss = 'dice_topk'}", "variants.default = {settings.trainer.epochs = 3}"],
)
def test_what_a_job_makes_decides_its_identity(folder, change):
    from nnunet_builtin.benchmark.opening import opened
    from nnunet_core.registry.discovery import Registry
    from nnunet_core.runtime.reporting import Silence
    from nnunet_core.store.workspace import Workspace

    def identities(text):
        (folder / "bench.toml").write_text(text)
        space = Workspace.find(folder / "ws")
        graph = opened(folder / "bench.toml", Registry.discover(), space, Silence()).graph
        return {job.stage: job.identity for job in graph.jobs.values()}

    plain = identities(GOOD.format(""))
    assert identities(GOOD.format("resources.train = {memory_gb = 2.0}")) == plain
    changed = identities(GOOD.format("").replace("variants.default = {}", change))
    assert changed["plan"] == plain["plan"]
    assert changed["train"] != plain["train"]
    label = folder / "data" / "labelsTr" / "case_0.nii.gz"
    before = label.read_bytes()
    label.write_bytes((folder / "data" / "labelsTr" / "case_1.nii.gz").read_bytes())
    other = identities(GOOD.format(""))
    label.write_bytes(before)
    assert all(other[stage] != plain[stage] for stage in plain)


def test_what_the_statistics_need_is_asked_for_before_any_job():
    text = (Path(__file__).parents[3] / "pyproject.toml").read_text()
    extra = json.loads(re.search(r"^benchmark = (\[.+\])$", text, re.MULTILINE)[1])
    needs = {each.name: sorted(each.requires) for each in nnunet_commands()}
    assert needs["benchmark run"] == needs["benchmark report"] == sorted(extra)
