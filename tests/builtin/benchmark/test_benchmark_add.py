"""`nnunet benchmark add`: results of others go into the tables; wrong ones are refused at once."""

import json
import re

import pytest
from commands import nnunet
from tiny_dataset import make_tiny

from nnunet_builtin.benchmark.foreign import kept

BENCH = """
name = "b"
datasets = ["Dataset001_Tiny", "Dataset002_Tiny"]
baseline = "default"
folds = [0]
variants.default = {}
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("bench")
    for number in (1, 2):
        make_tiny(folder / "ws" / "raw" / f"Dataset00{number}_Tiny")
    (folder / "bench.toml").write_text(BENCH)
    return folder


@pytest.fixture
def add(folder, tmp_path):
    """Return a function that adds what a file holds."""

    def added(content, *options, name="summary.json"):
        path = tmp_path / name
        path.write_text(content if isinstance(content, str) else json.dumps(content))
        bench = (folder / "bench.toml", path, "--workspace", folder / "ws")
        return nnunet("benchmark", "add", *bench, *options)

    return added


def rows(folder, variant):
    return [row for row in kept(folder / "ws/benchmarks/b") if row.variant == variant]


def v1_case(number, **changed):
    """What nnU-Net v1 writes of a case; with its metrics of surfaces."""
    counts = {"Total Positives Reference": 252, "Total Positives Test": 240, "Jaccard": 0.8}
    surfaces = {"Hausdorff Distance 95": 1.5, "Avg. Symmetric Surface Distance": 0.4}
    one = {"Dice": 0.5 + number / 10, **counts, **surfaces, **changed}
    path = f"/home/me/out/case_{number}.nii.gz"
    return {"0": {"Dice": 1.0}, "1": one, "test": path, "reference": f"/ref/case_{number}.nii.gz"}


def v1(*cases):
    results = {"all": list(cases), "mean": {"1": {"Dice": 0.5}}}
    return {"author": "Fabian", "id": "0", "name": "t", "task": "t", "results": results}


def test_a_summary_of_v1(folder, add):
    missed = {"Dice": 0.0, "Total Positives Test": 0, "Hausdorff Distance 95": float("nan")}
    content = v1(v1_case(0), v1_case(1, **missed))
    done = add(content, "--variant", "v1", "--dataset", "1", "--fold", "0", "--seed", "3")
    assert done.returncode == 0, done.stderr
    assert "added 4 scores of 1 run" in done.stdout
    found = [row for row in rows(folder, "v1") if row.label == "cube"]
    assert {(r.dataset, r.configuration, r.seed, r.fold, r.metric) for r in found} == {
        ("Dataset001_Tiny", "3d_fullres", 3, "0", "Dice")
    }
    assert [(r.case, r.value, r.status) for r in found] == [
        ("case_0", 0.5, "found"),
        ("case_1", 0.0, "missed"),
    ]
    # what is not the same is named with the reason; what the benchmark does not judge, too
    said = " ".join(done.stderr.split())
    assert "'Hausdorff Distance 95' is left out, it is a percentile over the voxels" in said
    assert "'Avg. Symmetric Surface Distance' is left out" in said
    assert re.search(r"does not judge it: Jaccard, Total Positives Reference", said)


def test_a_summary_of_v2_for_a_dataset_by_its_folder(folder, add):
    metrics = {"Dice": 0.75, "IoU": 0.6, "FN": 1, "FP": 1, "TN": 9, "TP": 9, "n_pred": 9}
    case = {
        "metrics": {"1": {**metrics, "n_ref": 10}},
        "prediction_file": "/out/case_2.nii.gz",
        "reference_file": "/ref/case_2.nii.gz",
    }
    content = {"foreground_mean": metrics, "mean": {"1": metrics}, "metric_per_case": [case]}
    place = folder / "ws" / "raw" / "Dataset002_Tiny"
    done = add(content, "--variant", "v2", "--dataset", place)
    assert done.returncode == 0, done.stderr
    assert "warning" not in done.stderr
    assert [(r.dataset, r.case, r.label, r.value, r.status) for r in rows(folder, "v2")] == [
        ("Dataset002_Tiny", "case_2", "cube", 0.75, "found"),
        ("Dataset002_Tiny", "case_2", "mean", 0.75, "found"),
    ]


def test_a_table_of_several_datasets_and_seeds_replaces_what_was_there(folder, add):
    lines = ["case,label,dataset,seed,Dice,HD95"]
    lines += [f"case_{n},cube,{d},{s},0.5,2.5" for d in "12" for s in (1, 2) for n in (0, 1)]
    for _ in range(2):
        done = add("\n".join(lines), name="theirs.csv")
        assert done.returncode == 0, done.stderr
        assert "added 32 scores of 4 runs" in done.stdout
    assert len(rows(folder, "theirs")) == 32
    assert {row.metric for row in rows(folder, "theirs")} == {"Dice", "HD95"}


def test_what_nnunet_evaluate_says_of_predictions_goes_in(folder, add, tmp_path):
    labels = folder / "ws" / "raw" / "Dataset001_Tiny" / "labelsTr"
    predictions = tmp_path / "predictions"
    predictions.mkdir()
    for case in ("case_0", "case_1"):
        (predictions / f"{case}.nii.gz").write_bytes((labels / f"{case}.nii.gz").read_bytes())
    words = ("--dataset", labels.parent, "--output", tmp_path / "out" / "summary.json")
    words += ("--allow-missing", "--no-pictures", "--metrics", "surface")
    done = nnunet("evaluate", predictions, labels, *words)
    assert done.returncode == 0, done.stderr
    content = (tmp_path / "out/evaluation/evaluation.json").read_text()
    done = add(content, "--variant", "mine", "--dataset", "001", name="evaluation.json")
    assert done.returncode == 0, done.stderr
    found = {r.metric: (r.value, r.status) for r in rows(folder, "mine") if r.label == "cube"}
    assert found["Dice"] == found["Surface Dice"] == (1.0, "found")
    assert found["HD95"] == found["ASSD"] == (0.0, "found")


GOOD = ("--dataset", "1")
WRONG = {
    "no dataset": (v1(v1_case(0)), (), r"no dataset.*Dataset001_Tiny, Dataset002_Tiny.*--dataset"),
    "unknown dataset": (v1(v1_case(0)), ("--dataset", "7"), r"'7', which is none of those"),
    "two datasets": (v1(v1_case(0)), ("--dataset", "Tiny"), r"'Tiny', which is more than one"),
    "no such configuration": (
        v1(v1_case(0)),
        (*GOOD, "-c", "3d_fulres"),
        r"'3d_fulres'.*Did you mean '3d_fullres'",
    ),
    "own variant": (v1(v1_case(0)), (*GOOD, "--variant", "default"), r"variant of the benchmark"),
    "no case": (v1(v1_case(77)), GOOD, r"no case 'case_77'"),
    "no summary": ({"plans": 1}, GOOD, r"no summary.json of nnU-Net"),
    "broken": ("{", GOOD, r"summary.json.*line 1"),
    "only other metrics": (
        v1({"test": "case_0.nii.gz", "1": {"Jaccard": 0.5}}),
        GOOD,
        r"no score of a label\. Its metrics: Jaccard\. Metrics that are read: Dice",
    ),
}


@pytest.mark.parametrize("name", WRONG)
def test_what_cannot_be_compared_is_refused_and_nothing_kept(folder, add, name):
    before = kept(folder / "ws/benchmarks/b")
    content, options, pattern = WRONG[name]
    done = add(content, *options)
    assert done.returncode in (1, 2)
    assert re.search(pattern, " ".join(done.stderr.split())), done.stderr
    assert done.stderr.count("error:") == 1
    assert "Traceback" not in done.stderr
    assert kept(folder / "ws/benchmarks/b") == before


def test_a_file_that_is_not_there_is_named(folder):
    path = folder / "nothing.json"
    done = nnunet("benchmark", "add", folder / "bench.toml", path, "--workspace", folder / "ws")
    assert (done.returncode, str(path) in done.stderr.replace("\n", "")) in {(1, True), (2, True)}


def test_a_variant_that_is_called_as_added_results_is_refused(folder, add):
    assert add(v1(v1_case(0)), *GOOD, "--variant", "taken").returncode == 0
    (folder / "other.toml").write_text(BENCH + "variants.taken = {}\n")
    bench = ("run", folder / "other.toml", "--dry-run", "--workspace", folder / "ws")
    done = nnunet("benchmark", *bench)
    assert done.returncode == 2
    assert "the name of results that were added" in " ".join(done.stderr.split())
