"""A benchmark is judged: what is compared, what fails, what is not alike; every number of a
sentence stands in a table.
"""

import csv
import dataclasses
import io
import re
from dataclasses import replace

import numpy as np
import pytest

from nnunet_builtin.judging import tables
from nnunet_builtin.judging.costs import Cost
from nnunet_builtin.judging.deviations import Wanted, deviations
from nnunet_builtin.judging.judgement import judge, summary
from nnunet_builtin.judging.rendering import Column, Table, csv_files, escaped, latex, markdown
from nnunet_builtin.judging.rows import MEAN, Row, collect, compared, crashed
from nnunet_builtin.judging.runs import Place, Run, find
from nnunet_builtin.statistics import ranking
from nnunet_core.data.labels import Labels
from nnunet_core.registry.records import ComponentRecord, FoldRecord
from nnunet_core.runtime import files
from nnunet_core.store.summaries import Results, Summary

#: Constants that sentences name: 95 %, 50 cases, 3 seeds, 6 datasets, p of 0.05.
CONSTANTS = {"95", "50", "3", "6", "0.05"}


@pytest.fixture(autouse=True)
def few_samples(monkeypatch):
    monkeypatch.setattr(ranking, "_BAYES_SAMPLES", 2000)  # all 50,000 take seconds


def rows_of(variants, seeds=3, cases=12, datasets=("Task1",), configuration="3d_fullres"):
    """Scores of variants: {name: how much better than the others}."""
    rows = []
    for number, dataset in enumerate(datasets):
        rng = np.random.default_rng(number)
        hard = rng.normal(0.85, 0.03, cases)
        for variant, shift in variants.items():
            for seed in range(1, seeds + 1):
                values = hard + shift + rng.normal(0, 0.003) + rng.normal(0, 0.005, cases)
                for case, value in enumerate(values):
                    place = (dataset, configuration, variant, seed, str(case % 2))
                    name = f"case_{case}"
                    rows.append(Row(*place, name, "anterior", "Dice", float(value), "found"))
                    rows.append(Row(*place, name, MEAN, "Dice", float(value)))
    return rows


def cell(table, row, column):
    names = [c.name for c in table.columns]
    found = next(r for r in table.rows if row in r)
    return found[names.index(column)]


def of_kind(judgement, kind):
    return [table for table in tables.tables(judgement) if table.kind == kind]


def test_every_number_of_the_summary_stands_in_a_table():
    names = [f"Task{n}" for n in range(1, 8)]
    rows = rows_of({"base": 0, "better": 0.02, "same": 0.0}, datasets=names)
    judgement = judge(rows, "base", 0.01)
    sentences = " ".join(summary(judgement))
    assert "shown to be better on this dataset" in sentences
    shown = set(CONSTANTS) | {f"{100 * judgement.rope:g}"}
    for table in tables.tables(judgement):
        for text in [*(c for row in table.shown() for c in row), table.title]:
            shown.update(numbers(text))
    for name in (*names, "3d_fullres"):
        sentences = sentences.replace(name, "")
    missing = [n for n in numbers(sentences) if n not in shown and n != "0.001"]
    assert not missing, missing
    assert len(numbers(sentences)) > 50


def numbers(text):
    return [number.lstrip("+-") for number in re.findall(r"[+-]?\d+(?:\.\d+)?", text)]


def test_a_variant_against_itself_is_not_better():
    rows = rows_of({"base": 0})
    twin = [dataclasses.replace(row, variant="twin") for row in rows]
    judgement = judge([*rows, *twin], "base", 0.01)
    assert "shown to be better" not in " ".join(summary(judgement))
    (table,) = of_kind(judgement, "comparisons")
    assert cell(table, "twin", "method") == "not shown to be real"
    assert cell(table, "twin", "difference") == 0
    (ranks,) = of_kind(judgement, "ranks_of_2")
    assert {row[1] for row in ranks.rows} == {1.5}


def test_one_seed_says_nothing_about_the_method():
    said = summary(judge(rows_of({"base": 0, "better": 0.1}, seeds=1), "base", 0.01))
    assert "one run each: says nothing about the method" in said[0]
    assert "12 cases, below 50" in said[-1]


def test_failures_are_counted_and_rank_last():
    rows = rows_of({"base": 0, "misses": 0.05})
    for seed in (1, 2, 3):
        for number, row in enumerate(rows):
            if (row.variant, row.seed, row.case) == ("misses", seed, "case_0"):
                status = "missed" if row.label != MEAN else ""
                rows[number] = dataclasses.replace(row, value=0.0, status=status)
    judgement = judge(rows, "base", 0.01)
    (table,) = of_kind(judgement, "scores")
    assert cell(table, "misses", "missed") == 3
    assert table.rows[0][1] == "base"
    mean = next(each for each in judgement.judged if each.label == MEAN)
    assert mean.failures["misses"].missed == 3


def test_crashed_trainings_count_as_the_worst(tmp_path):
    rows = rows_of({"base": 0, "other": 0.01})
    gone = [r for r in rows if (r.variant, r.seed, r.fold) != ("other", 2, "1")]
    lost = Place("Task1", "3d_fullres", "other", 2, "1")
    cases = {r.case for r in rows if r.fold == "1"}
    judgement = judge([*gone, *crashed(lost, cases, ["anterior"], ["Dice"])], "base", 0.01)
    (table,) = of_kind(judgement, "scores")
    assert cell(table, "other", "crashed") == 6
    assert cell(table, "other", "seeds") == 3
    assert table.rows[0][1] == "base"


def test_a_seed_that_is_not_complete_is_left_out_and_named():
    rows = rows_of({"base": 0, "other": 0.01})
    rows = [r for r in rows if (r.variant, r.seed, r.fold) != ("other", 2, "1")]
    wanted = Wanted(("base", "other"), (1, 2, 3), ("Dice",))
    lines = deviations(wanted, [], rows)["Task1", "3d_fullres"]
    assert "other: 1 seed of 3 not complete and left out: 2." in lines
    judgement = judge(rows, "base", 0.01, {("Task1", "3d_fullres"): lines})
    (table,) = of_kind(judgement, "scores")
    assert cell(table, "other", "seeds") == 2
    assert lines[1] in markdown(table)


def test_a_fold_that_is_there_for_nobody_or_failed_for_everybody_is_named():
    rows = rows_of({"base": 0, "other": 0.01})
    half = [r for r in rows if r.fold == "0"]
    wanted = Wanted(("base", "other"), (1, 2, 3), ("Dice",), ("0", "1"))
    head = deviations(wanted, [], half)
    lines = head["Task1", "3d_fullres"]
    assert "Left out, since no training has validated it: fold 1." in lines
    judgement = judge(half, "base", 0.01, head)
    assert lines[1] in tables.document(judgement, tables.tables(judgement))
    cases = {r.case for r in rows if r.fold == "1"}
    places = [Place("Task1", "3d_fullres", v, s, "1") for v in ("base", "other") for s in (1, 2, 3)]
    lost = [row for place in places for row in crashed(place, cases, ["anterior"], ["Dice"])]
    lines = deviations(wanted, [], [*half, *lost])["Task1", "3d_fullres"]
    assert sum("failed, or a job that it needs" in line for line in lines) == 6
    assert not any("Left out" in line for line in lines)


def test_a_metric_that_was_not_measured_everywhere_is_named():
    rows = rows_of({"base": 0, "other": 0.01})
    surfaces = [replace(r, metric="HD95", value=2.0) for r in rows]
    wanted = Wanted(("base", "other"), (1, 2, 3), ("Dice", "HD95"), ("0", "1"))
    some = [r for r in surfaces if (r.variant, r.seed, r.fold) != ("other", 2, "1")]
    lines = deviations(wanted, [], [*rows, *some])["Task1", "3d_fullres"]
    assert "other, HD95: 1 seed of 3 not complete and left out: 2." in lines
    some = [r for r in surfaces if r.fold == "0"]
    lines = deviations(wanted, [], [*rows, *some])["Task1", "3d_fullres"]
    assert any("HD95 is not measured in 6 cases (case_1, case_3" in line for line in lines)
    lines = deviations(wanted, [], [*rows, *surfaces])["Task1", "3d_fullres"]
    assert len(lines) == 2  # how it was measured


def test_a_case_that_several_folds_validate_counts_once_with_the_mean_of_these():
    rows = rows_of({"base": 0, "other": 0.01})  # folds 0 and 1
    again = [replace(r, fold="7", value=r.value - 0.4) for r in rows if r.case == "case_0"]
    again = [replace(r, status="missed") if r.label != MEAN else r for r in again]
    judgement = judge([*rows, *again], "base", 0.01)
    before, found = judge(rows, "base", 0.01).main[0], judgement.main[0]
    for name in ("base", "other"):
        less = before.scores[name].values - found.scores[name].values
        assert less[:, 0] == pytest.approx(0.2)
        assert not less[:, 1:].any()
        assert found.failures[name].missed == 3  # one of each seed
    assert (found.cases, found.folds) == (12, 3)
    wanted = Wanted(("base", "other"), (1, 2, 3), ("Dice",))
    lines = deviations(wanted, [], [*rows, *again])["Task1", "3d_fullres"]
    assert any("1 case of 12 validated in several folds" in line for line in lines)
    some = [*rows, *(r for r in again if (r.variant, r.seed) != ("other", 2))]
    assert judge(some, "base", 0.01).main[0].scores["other"].seeds == 2
    lines = deviations(wanted, [], some)["Task1", "3d_fullres"]
    assert "other: 1 seed of 3 not complete and left out: 2." in lines
    foreign = [replace(r, variant="v1", origin="old.csv", fold="") for r in rows if r.seed == 1]
    assert "v1" in judge([*rows, *again, *foreign], "base", 0.01).main[0].scores


def test_foreign_results_of_other_cases_are_not_compared():
    rows = rows_of({"base": 0, "other": 0.01})
    foreign = [
        dataclasses.replace(row, variant="v1", origin="old.csv", seed=0)
        for row in rows_of({"base": 0.5}, seeds=1)
        if row.case != "case_3"
    ]
    assert compared([*rows, *foreign]) == {(row.fold, row.case) for row in rows}
    wanted = Wanted(("base", "other"), (1, 2, 3), ("Dice",))
    lines = deviations(wanted, [], [*rows, *foreign])["Task1", "3d_fullres"]
    assert "v1 (old.csv) is not compared: it lacks 1 case of 12: case_3." in lines
    assert any("taken on trust" in line for line in lines)
    judgement = judge([*rows, *foreign], "base", 0.01)
    assert "v1" not in judgement.main[0].scores


def test_distances_of_missed_structures_are_infinite_and_rank_last():
    rows = []
    for row in rows_of({"base": 0, "misses": 0}):
        value = 100 * (1 - row.value) - 5 * (row.variant == "misses")
        if (row.variant, row.case) == ("misses", "case_0"):
            value = np.inf
        rows.append(dataclasses.replace(row, metric="HD95", value=value))
    judgement = judge(rows, "base", 0.01)
    (table,) = of_kind(judgement, "scores")
    assert table.rows[0][1] == "base"
    assert cell(table, "misses", "mean") == np.inf
    assert cell(table, "misses", "95 % low") is None
    assert "only ranks compare it" in summary(judgement)[0]
    (compared,) = of_kind(judgement, "comparisons")
    assert np.isnan(cell(compared, "misses", "difference"))
    assert cell(compared, "misses", "effect") > 0  # better in all other cases
    finite = judge([r for r in rows if r.case != "case_0"], "base", 0.01)
    (compared,) = of_kind(finite, "comparisons")
    assert cell(compared, "misses", "difference") == pytest.approx(-5, abs=1)
    assert cell(compared, "misses", "method") == "better"


def test_a_dataset_counts_once():
    """Three datasets in two configurations are three, not six."""
    names = ("Task1", "Task2", "Task3")
    variants = {"base": 0, "better": 0.02}
    rows = rows_of(variants, datasets=names) + rows_of(variants, datasets=names, configuration="2d")
    judgement = judge(rows, "base", 0.01)
    assert [over.configuration for over in judgement.over_datasets] == ["3d_fullres", "2d"]
    assert all(len(over.overall.datasets) == 3 for over in judgement.over_datasets)
    said = " ".join(summary(judgement))
    assert "3 datasets, no test" in said


@pytest.mark.parametrize(("n", "is_told"), [(2, False), (6, True)])
def test_few_datasets_are_no_evidence_of_equality(n, is_told):
    names = tuple(f"Task{number}" for number in range(n))
    judgement = judge(rows_of({"base": 0, "same": 0}, datasets=names), "base", 0.01)
    assert ("practically equal" in " ".join(summary(judgement))) == is_told
    (table,) = of_kind(judgement, "datasets")
    assert cell(table, "same", "practically equal (%)") > 50
    warned = f"{n} datasets, which is too few to rely on" in " ".join(table.notes)
    assert warned != is_told


def test_what_is_practically_equal_is_traced_in_every_table():
    judgement = judge(rows_of({"base": 0, "same": 0}, datasets=["A", "B"]), "base", 0.02)
    (table,) = of_kind(judgement, "datasets")
    for text in (markdown(table), latex(table)):
        assert "Differences within 2 points (rope) are practically none" in text
    lines = list(csv.DictReader(io.StringIO(csv_files([table])["datasets"])))
    assert {line["rope (points)"] for line in lines if line["variant"] == "same"} == {"2.0"}


def test_without_a_rope_nothing_is_practically_equal():
    rows = rows_of({"base": 0, "better": 0.02}, datasets=["A", "B"])
    twin = [replace(row, variant="twin") for row in rows if row.variant == "base"]
    judgement = judge([*rows, *twin], "base", 0)
    (table,) = of_kind(judgement, "datasets")
    assert cell(table, "better", "practically equal (%)") is None
    assert cell(table, "better", "better (%)") > 75
    assert [cell(table, "twin", f"{side} (%)") for side in ("worse", "better")] == [50, 50]
    assert "(rope = 0)" in markdown(table)


def test_metrics_of_one_file_keep_their_units():
    rows = rows_of({"base": 0, "other": 0.02})
    far = [replace(row, metric="HD95", value=10 * row.value) for row in rows]
    text = csv_files(tables.tables(judge([*rows, *far], "base", 0.01)))["comparisons"]
    lines = list(csv.DictReader(io.StringIO(text)))
    assert {(line["metric"], line["unit"]) for line in lines} == {
        ("Dice", "points"),
        ("HD95", "mm"),
    }
    assert not [name for name in lines[0] if "points" in name]


def test_missed_structures_have_no_size():
    """The stand-in of an infinite distance, which makes it rank last, is in no number."""
    rows = []
    for row in rows_of({"base": 0, "misses": 0.02, "other": 0.01}, datasets=["A", "B"]):
        value = 100 * (1 - row.value)
        if (row.variant, row.case, row.dataset) == ("misses", "case_0", "A"):
            value = np.inf
        rows.append(replace(row, metric="HD95", value=value))
    judgement = judge(rows, "base", 0.01)
    said = " ".join(summary(judgement))
    assert "not known: distances are infinite in some cases (missed structures)" in said
    (table,) = of_kind(judgement, "suitability")
    assert cell(table, "A", "spread of variants / of seeds") is None
    assert cell(table, "B", "can separate them") == "yes"
    (over,) = judgement.over_datasets
    assert set(over.practical) == {"other"}
    (table,) = of_kind(judgement, "datasets")
    assert cell(table, "misses", "worse (%)") is None
    assert "No probabilities of misses" in " ".join(table.notes)
    assert max(numbers_of(said)) < 1e4


def numbers_of(text):
    return [float(number) for number in numbers(text)]


def test_seeds_of_one_network_are_no_sample_of_the_method():
    rows = rows_of({"base": 0, "deaf": 0}, cases=60)
    first = {(r.case, r.label): r.value for r in rows if (r.variant, r.seed) == ("deaf", 1)}
    rows = [
        replace(r, value=first[r.case, r.label] + 0.05) if r.variant == "deaf" else r for r in rows
    ]
    judgement = judge(rows, "base", 0.01)
    said = " ".join(summary(judgement))
    assert (
        "the 3 seeds of the variant gave one and the same network (the same score in every case): "
        "says nothing about the method"
    ) in said
    assert "seeds gave one and the same network: deaf" in said
    assert "shown to be" not in said
    (table,) = of_kind(judgement, "comparisons")
    assert cell(table, "deaf", "method") == "says nothing"
    assert cell(table, "deaf", "p") is None


def test_orders_that_cannot_agree_are_no_nan():
    rows = rows_of({"base": 0}, datasets=["A", "B"])
    twin = [replace(row, variant="twin") for row in rows]
    found = tables.tables(judge([*rows, *twin], "base", 0.01))
    assert "nan" not in " ".join(map(markdown, found)).replace("-nan", "nan").split()
    assert not [note for table in found for note in table.notes if "nan" in note]


def test_a_variant_that_is_not_on_every_dataset_is_left_out_and_named():
    names = ("Task1", "Task2")
    rows = rows_of({"base": 0, "other": 0.02}, datasets=names)
    rows += [
        replace(r, variant="theirs") for r in rows if (r.variant, r.dataset) == ("base", "Task1")
    ]
    (over,) = (judgement := judge(rows, "base", 0.01)).over_datasets
    assert set(over.overall.mean_ranks) == {"base", "other"}
    assert over.overall.datasets == names
    assert "not complete, left out: theirs" in " ".join(summary(judgement))


def test_one_seed_of_many_datasets_says_nothing_about_the_method():
    names = tuple(f"Task{number}" for number in range(6))
    rows = rows_of({"base": 0, "better": 0.1}, seeds=1, datasets=names)
    over = [line for line in summary(judge(rows, "base", 0.01)) if "datasets" in line.lower()]
    assert len(over) == 1
    assert over[0].endswith("one run each: says nothing about the method.")


def record(**changes):
    trainer = ComponentRecord(
        reference="builtin/v2",
        target="a:B",
        distribution="nnunet-core",
        version="1",
        settings={"epochs": changes.pop("epochs", 10), "iterations_per_epoch": 20},
        code_digest=changes.pop("code", "a"),
    )
    fields = {
        "status": "finished", "dataset": "Task1", "dataset_digest": "d", "variant": "v",
        "configuration": "3d_fullres", "fold": "0", "seed": 1, "inputs_digest": "i",
        "model_digest": "m", "split_digest": "s", "libraries": {"torch": "2"}, "device": "cpu",
    } | changes  # fmt: skip
    return FoldRecord(components={"trainer": trainer}, **fields)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"epochs": 20}, "Epochs not the same: base: 10 of 20 iterations; other: 20 of 20"),
        ({"split_digest": "t"}, "Folds of other cases in some trainings: 0."),
        ({"dataset_digest": "e"}, "The dataset changed between trainings."),
        ({"libraries": {"torch": "3"}}, "Versions not the same in all trainings: torch 2 and 3."),
        ({"code": "b"}, "Code changed between trainings: trainer builtin/v2."),
        ({"device": "cuda"}, "Device and precision not the same: base: cpu"),
    ],
)
def test_what_is_not_alike_is_said(tmp_path, changes, said):
    rows = rows_of({"base": 0, "other": 0.01})
    places = {name: Place("Task1", "3d_fullres", name, 1, "0") for name in ("base", "other")}
    wanted = Wanted(("base", "other"), (1, 2, 3), ("Dice",))
    alike = [Run(place, tmp_path, record()) for place in places.values()]
    lines = deviations(wanted, alike, rows)["Task1", "3d_fullres"]
    assert len(lines) == 1  # how it was measured
    runs = [
        Run(places["base"], tmp_path, record()),
        Run(places["other"], tmp_path, record(**changes)),
    ]
    assert said in " ".join(deviations(wanted, runs, rows)["Task1", "3d_fullres"])


def test_other_processors_are_said(tmp_path):
    places = {name: Place("Task1", "3d_fullres", name, 1, "0") for name in ("base", "other")}

    def said(*processors):
        runs = [
            Run(place, tmp_path, record(), "node", processor)
            for place, processor in zip(places.values(), processors, strict=True)
        ]
        wanted = Wanted(tuple(places), (1, 2, 3), ("Dice",))
        return " ".join(deviations(wanted, runs, rows_of({"base": 0}))["Task1", "3d_fullres"])

    assert "Processors not the same: base: EPYC; other: Xeon. Costs" in said("EPYC", "Xeon")
    assert "Processors" not in said("EPYC", "EPYC")
    assert "Processors" not in said("EPYC", "")  # written down by an older version


def test_the_tolerance_of_surfaces_is_said():
    wanted = Wanted(("base",), (1, 2, 3), ("Dice", "Surface Dice"))
    rows, tolerances = rows_of({"base": 0}), {"Task1": {"anterior": 2.0}}
    lines = deviations(wanted, [], rows, tolerances)["Task1", "3d_fullres"]
    assert "Surface Dice at a tolerance of 1 mm; anterior 2 mm." in lines


def test_costs_are_in_a_table():
    cost = Cost(
        "Task1", "3d_fullres", "base", 6, 0.5, 1.25, 2_000_000_000, None, 1_500_000, 0.21, 1
    )
    judgement = judge(rows_of({"base": 0}), "base", 0.01, costs=[cost])
    (table,) = of_kind(judgement, "costs")
    assert table.shown()[0] == [
        *("Task1", "3d_fullres", "base", "6", "0.500", "1.250", "2.00", "-", "1.50", "0.21")
    ]
    assert "1 tries were killed" in " ".join(table.notes)


def test_tables_are_escaped_and_whole(tmp_path):
    columns = (Column("a_b & c", is_text=True), Column("n %", ".2f"))
    table = Table(
        "kind", {"dataset": "D,1"}, "50 % of #1", columns, (("x|y_{z}\\", 0.12345), ("q", None))
    )
    assert "x|y" not in markdown(table)
    assert "x\\|y" in markdown(table)
    assert r"a\_b \& c & n \%" in latex(table)
    assert r"x|y\_\{z\}\textbackslash{} & 0.12" in latex(table)
    assert r"\caption{50 \% of \#1}" in latex(table)
    assert escaped("~^$<") == r"\textasciitilde{}\textasciicircum{}\$\textless{}"
    rows = list(csv.reader(io.StringIO(csv_files([table])["kind"])))
    assert rows == [
        ["dataset", "a_b & c", "n %"],
        ["D,1", "x|y_{z}\\", "0.12345"],
        ["D,1", "q", ""],
    ]


def test_written_tables_hold_the_same_numbers(tmp_path):
    rows = rows_of({"base": 0, "better": 0.02})
    judgement = judge(rows, "base", 0.01)
    tables.write(judgement, rows, tmp_path)
    assert "# Summary" in (tmp_path / "comparison.md").read_text()
    found = list(csv.DictReader((tmp_path / "tables" / "scores.csv").open()))
    for each in judgement.judged:
        for name in each.scores:
            (row,) = [r for r in found if (r["label"], r["variant"]) == (each.label, name)]
            assert float(row["mean"]) == each.mean(name)
            assert f"{each.mean(name):.4f}" in (tmp_path / "tables" / "tables.tex").read_text()


def test_tables_of_kinds_that_are_gone_go_and_other_files_stay(tmp_path):
    rows = rows_of({"base": 0, "better": 0.02}, datasets=("Task1", "Task2"))
    tables.write(judge(rows, "base", 0.01), rows, tmp_path)
    written = {path.name for path in (tmp_path / "tables").glob("*.csv")}
    assert all(tables._CSV_FILE.fullmatch(name) for name in written)
    assert {"datasets.csv", "comparisons.csv"} <= written
    (tmp_path / "tables" / "mine.csv").write_text("mine")
    rows = rows_of({"base": 0})
    tables.write(judge(rows, "base", 0.01), rows, tmp_path)
    left = {path.name for path in (tmp_path / "tables").iterdir()}
    assert {"mine.csv", "scores.csv", "tables.tex"} <= left
    assert not left & {"datasets.csv", "comparisons.csv"}


def test_nothing_complete_is_said():
    assert "Nothing is complete yet" in tables.document(judge([], "base", 0.01), [])


def test_broken_records_are_no_runs(tmp_path):
    (tmp_path / "run.json").write_text("{")
    place = Place("Task1", "2d", "base", 1, "0")
    assert find([(place, tmp_path), (place, tmp_path / "none")]) == []
    record().write(tmp_path / "run.json")
    (run,) = find([(place, tmp_path)])
    assert (run.epochs, run.gpu_memory, run.parameters) == ((), None, None)
    (tmp_path / "metrics.jsonl").write_text('{"epoch": 1, "gpu_memory_gb": 1.5}\n')
    header = b'{"a": {"shape": [2, 3]}, "n.running_mean": {"shape": [9]}, "__metadata__": {}}'
    (tmp_path / "weights.safetensors").write_bytes(len(header).to_bytes(8, "little") + header)
    (run,) = find([(place, tmp_path)])
    assert (len(run.epochs), run.gpu_memory, run.parameters) == (1, 1_500_000_000, 6)
    assert collect([], {}) == []


def test_rows_are_read_from_summaries_and_measured_surfaces(tmp_path):
    counts = {"Total Positives Reference": 5.0, "Total Positives Test": 0.0}
    case = {"0": {"Dice": 1.0}, "1": {"Dice": 0.0, **counts}, "2": {"Dice": None}}
    case |= {"test": "/moved/case_1.nii.gz", "reference": "r"}
    path = tmp_path / "validation" / "summary.json"
    Summary(results=Results(all=(case,), mean={})).write(path)
    scores = {"1": {"status": "missed", "HD95": "Infinity"}, "2": {"HD95": None}}
    measured = tmp_path / "surfaces" / "evaluation" / "evaluation.json"
    files.write_json(measured, {"cases": {"case_1": scores}})
    labels = {
        "Task1": (Labels(names={0: "background", 1: "a", 2: "b"}, foreground=(1, 2)), ".nii.gz")
    }
    place = Place("Task1", "2d", "base", 1, "0")
    rows = collect([(place, path)], labels, metrics=["Dice", "HD95"])
    assert [(row.label, row.metric, row.value, row.status) for row in rows] == [
        ("a", "Dice", 0.0, "missed"),
        ("b", "Dice", None, ""),
        (MEAN, "Dice", 0.0, ""),
        ("a", "HD95", np.inf, "missed"),
        ("b", "HD95", None, ""),
        (MEAN, "HD95", np.inf, ""),
    ]
    failed = {replace(place, variant="other"): ["case_1"], replace(place, fold="1"): ["case_2"]}
    crashed_rows = [r for r in collect([], labels, failed, ["Dice"]) if r.status == "crashed"]
    assert [(r.variant, r.fold, r.case, r.label, r.value) for r in crashed_rows] == [
        *(("other", "0", "case_1", label, 0.0) for label in ("a", "b", MEAN)),
        *(("base", "1", "case_2", label, 0.0) for label in ("a", "b", MEAN)),
    ]
