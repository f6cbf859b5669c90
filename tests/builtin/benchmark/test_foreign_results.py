"""Results of other programs: read where they are right, refused with one message where not."""

import json
from dataclasses import replace

import pytest
from tiny_dataset import make_tiny

from nnunet_builtin.benchmark.foreign import keep, kept, lacking, read_results
from nnunet_builtin.benchmark.foreign_files import Source
from nnunet_builtin.judging.rows import MEAN
from nnunet_core.data.labels import Labels
from nnunet_core.errors import NnunetError
from nnunet_core.registry.discovery import Registry
from nnunet_core.stages.dataset import open_dataset

SOURCE = Source(None, "3d_fullres", "theirs")


@pytest.fixture(scope="module")
def datasets(tmp_path_factory):
    folder = make_tiny(tmp_path_factory.mktemp("raw") / "Dataset001_Tiny")
    found = open_dataset(str(folder), folder.parent, Registry.discover())
    return {found.name: found}


def label_of(datasets, value):
    (dataset,) = datasets.values()
    return dataset.labels.names[value]


def read(tmp_path, datasets, content, name="theirs.csv", source=SOURCE):
    path = tmp_path / name
    path.write_text(content if isinstance(content, str) else json.dumps(content))
    return read_results(path, source, datasets).rows


def test_summaries_of_both_nnunets_are_read_with_names_of_labels(tmp_path, datasets):
    one = {"test": r"C:\out\case_0.nii.gz", "reference": "x", "0": {"Dice": 1}, "1": {"Dice": 0.5}}
    v1 = read(tmp_path, datasets, {"results": {"all": [one], "mean": {}}}, "summary.json")
    case = {"prediction_file": "/a/case_0.nii.gz", "metrics": {"1": {"Dice": 0.25, "IoU": 1}}}
    v2 = read(tmp_path, datasets, {"metric_per_case": [case]}, "summary.json")
    label = label_of(datasets, 1)
    assert [(r.case, r.label, r.value) for r in v1] == [
        ("case_0", label, 0.5),
        ("case_0", MEAN, 0.5),
    ]
    assert [r.value for r in v2] == [0.25, 0.25]
    assert all(row.is_foreign and row.origin == "summary.json" for row in (*v1, *v2))


def test_tables_long_and_wide_say_the_same(tmp_path, datasets):
    label = label_of(datasets, 1)
    long = f"case,label,metric,value,seed\ncase_0,{label},Dice,0.25,7\ncase_0,1,HD95,inf,7\n"
    wide = f"case;label;Dice;HD95;seed\ncase_0;{label};0.25;inf;7\n"
    found = [read(tmp_path, datasets, text) for text in (long, wide)]
    assert set(found[0]) == set(found[1])
    assert {(r.metric, r.seed) for r in found[0]} == {("Dice", 7), ("HD95", 7)}
    keep(found[0], tmp_path)
    assert set(kept(tmp_path)) == set(found[0])
    keep(found[1], tmp_path)  # in the place of the first
    assert len(kept(tmp_path)) == len(found[0])


def test_folds_that_are_added_one_by_one_stay_and_a_whole_replaces_them(tmp_path, datasets):
    text = "case,label,Dice\ncase_{},1,{}\n"
    parts = [
        read(tmp_path, datasets, text.format(n, 0.5), source=replace(SOURCE, fold=str(n)))
        for n in (0, 1)
    ]
    for part in (*parts, parts[0]):
        keep(part, tmp_path)
    assert set(kept(tmp_path)) == {*parts[0], *parts[1]}
    whole = read(tmp_path, datasets, text.format(2, 0.4))
    keep(whole, tmp_path)
    assert set(kept(tmp_path)) == set(whole)
    keep(parts[1], tmp_path)
    assert set(kept(tmp_path)) == set(parts[1])


def test_a_mean_is_of_every_label_or_there_is_none(tmp_path, datasets):
    ((name, dataset),) = datasets.items()
    two = Labels.from_names({"background": 0, "cube": 1, "other": 2})
    datasets = {name: replace(dataset, labels=two)}
    rows = read(tmp_path, datasets, "case,label,Dice\ncase_0,cube,0.6\n")
    assert [row.label for row in rows] == ["cube"]
    assert lacking(rows, datasets) == {name: {"other"}}
    rows = read(tmp_path, datasets, "case,label,Dice\ncase_0,cube,0.6\ncase_0,other,nan\n")
    assert [row.value for row in rows if row.label == MEAN] == [0.6]
    assert lacking(rows, datasets) == {}


HEAD = "case,label,Dice\n"
WRONG = {
    "empty cell": HEAD + "case_0,1,",
    "undefined although the reference has it": HEAD + "case_0,1,nan",
    "unknown case": HEAD + "case_99,1,0.5",
    "unknown label": HEAD + "case_0,9,0.5",
    "above one": HEAD + "case_0,1,1.5",
    "below zero": HEAD + "case_0,1,-0.1",
    "no number": HEAD + "case_0,1,good",
    "twice": HEAD + "case_0,1,0.5\ncase_0,1,0.6",
    "too many cells": HEAD + "case_0,1,0.5,0.6",
    "unknown column": "case,label,Dice,colour\ncase_0,1,0.5,red",
    "column twice": "case,label,Dice,Dice\ncase_0,1,0.5,0.6",
    "no metric": "case,label\ncase_0,1",
    "both forms": "case,label,metric,value,Dice\ncase_0,1,Dice,0.5,0.5",
    "only other metrics": "case,label,metric,value\ncase_0,1,Accuracy,0.5",
    "unknown dataset": "case,label,Dice,dataset\ncase_0,1,0.5,Task9",
    "wrong seed": "case,label,Dice,seed\ncase_0,1,0.5,-1",
    "empty": "",
    "open quote": HEAD + '"case_0,1,0.5',
    "control characters": HEAD + "case_\x1b[2J,1,0.5",
}
FILE = {"prediction_file": "case_0.nii.gz"}
WRONG_SUMMARIES = {
    "a list": [],
    "another file": {"labels": {}},
    "no case": {"results": {"all": [], "mean": {}}},
    "nameless case": {"results": {"all": [{"1": {"Dice": 1}}], "mean": {}}},
    "metrics of no object": {"results": {"all": [{"test": "case_0.nii.gz", "1": 3}]}},
    "a text": {"metric_per_case": [{**FILE, "metrics": {"1": {"Dice": "x"}}}]},
    "a truth": {"metric_per_case": [{**FILE, "metrics": {"1": {"Dice": True}}}]},
    "no metrics": {"metric_per_case": [FILE]},
}


@pytest.mark.parametrize("name", WRONG)
def test_a_wrong_table_is_refused(tmp_path, datasets, name):
    with pytest.raises(NnunetError) as caught:
        read(tmp_path, datasets, WRONG[name])
    assert "\x1b" not in str(caught.value)


@pytest.mark.parametrize("name", WRONG_SUMMARIES)
def test_a_wrong_summary_is_refused(tmp_path, datasets, name):
    with pytest.raises(NnunetError):
        read(tmp_path, datasets, WRONG_SUMMARIES[name], "summary.json")


@pytest.mark.parametrize("name", ["  ", "a\nb", "\x1b[31mx", "x" * 101])
def test_a_name_that_no_table_can_show_is_refused(tmp_path, datasets, name):
    with pytest.raises(NnunetError, match="is no name of a variant"):
        read(
            tmp_path,
            datasets,
            "case,label,Dice\ncase_0,1,1\n",
            source=replace(SOURCE, variant=name),
        )


def test_a_number_beyond_all_numbers_is_none(tmp_path, datasets):
    case = {"prediction_file": "case_0.nii.gz", "metrics": {"1": {"Dice": 10**400}}}
    with pytest.raises(NnunetError, match="is no number"):
        read(tmp_path, datasets, {"metric_per_case": [case]}, "summary.json")


def test_results_that_are_no_file_are_refused(datasets, tmp_path):
    with pytest.raises(NnunetError, match="is no regular file"):
        read_results(tmp_path, SOURCE, datasets)
