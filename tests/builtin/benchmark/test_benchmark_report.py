"""The report of a benchmark: every number can be traced, nothing is claimed that is not shown."""

import re
from dataclasses import replace
from html.parser import HTMLParser

import chromium
import numpy as np
import pytest
import sample_pages
from synthetic_benchmark import Shape, synthetic

from nnunet_builtin.benchmark.report.cases import case_section, choose
from nnunet_builtin.benchmark.report.datasets import dataset_sections
from nnunet_builtin.benchmark.report.page import report_page
from nnunet_builtin.benchmark.report.provenance import provenance_section
from nnunet_builtin.benchmark.report.ranks import blobs, clique_plots
from nnunet_builtin.benchmark.report.trainings import training_section
from nnunet_builtin.judging.judgement import judge, summary
from nnunet_builtin.pages import bundling
from nnunet_builtin.pages.cases import MOST_BYTES
from nnunet_builtin.pages.elements import Gallery, Plot, Section, Table, Viewer
from nnunet_builtin.pages.writing import Page
from nnunet_core.errors import UsageError
from nnunet_core.registry.discovery import Registry
from nnunet_core.runtime.reporting import Silence


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A benchmark of two datasets, three variants, three seeds; `topk` is better."""
    return synthetic(tmp_path_factory.mktemp("bench"), Shape(files=True))


@pytest.fixture
def stand_ins(monkeypatch, tmp_path):
    """Let pages hold small programs instead of the bundles."""
    for name in (bundling.PLOTLY, bundling.NIIVUE, bundling.LICENSES):
        (tmp_path / name).write_text("// nothing")
    monkeypatch.setattr(bundling, "BUNDLES", tmp_path)


class _Tables(HTMLParser):
    """Collects the texts of a page beside those of its summary."""

    def __init__(self, text):
        super().__init__()
        self.texts = []
        self.feed(text[text.index("</section>") :])

    def handle_data(self, data):
        self.texts.append(data)


def _numbers(text):
    return {number.lstrip("+") for number in re.findall(r"[+-]?\d+\.\d+", text)}


def test_every_number_of_the_summary_stands_in_a_table(made, stand_ins):
    content, _ = made
    text = report_page(content, None, []).html()
    there = _numbers(" ".join(_Tables(text).texts))
    lines = summary(content.judgement)
    assert len(lines) > 8
    for line in lines:
        assert _numbers(line.replace("p < 0.001", "").replace("0.05", "")) <= there, line


def test_a_variant_against_itself_is_not_better(tmp_path, stand_ins):
    shape = Shape(datasets=1, shifts=(("default", 0.0), ("same", 0.0)))
    content, _ = synthetic(tmp_path, shape)
    text = report_page(content, None, []).html()
    assert "not shown to be real" in text
    assert "shown to be better" not in text
    assert ">better<" not in text


def test_a_planted_difference_is_shown(made, stand_ins):
    text = report_page(made[0], None, []).html()
    assert "topk against default: difference +2.1" in text
    assert "shown to be better on this dataset" in text
    assert ">better<" in text


def test_one_seed_says_nothing_about_the_method(tmp_path, stand_ins):
    content, _ = synthetic(tmp_path, Shape(datasets=1, seeds=1))
    text = report_page(content, None, []).html()
    assert "one run each: says nothing about the method" in text
    assert "says nothing" in text
    assert "shown to be better" not in text


def test_cliques_are_drawn_where_there_are_enough_datasets(made, tmp_path):
    assert not list(clique_plots(made[0]))
    (plot,) = clique_plots(synthetic(tmp_path, Shape(datasets=7, labels=()))[0])
    points, *bars = plot.figure["data"]
    assert points["text"][0] == "topk"
    assert [len(bar["x"]) for bar in bars] == [2]  # joins the two that are the same
    assert bars[0]["x"][0] > points["x"][0]


def test_areas_of_blobs_are_shares():
    (first, second) = blobs({"a": (0.75, 0.25), "b": (0.25, 0.75)}, {"a": "red", "b": "blue"})[
        "data"
    ]
    sizes = first["marker"]["size"]
    assert first["x"] == second["x"] == [1, 2]
    assert (sizes[0] / sizes[1]) ** 2 == pytest.approx(3, rel=1e-2)


def test_curves_of_all_runs_are_thinned_and_named(tmp_path):
    content, _ = synthetic(tmp_path, Shape(datasets=1, epochs=700, files=True))
    figure = training_section(content).elements[0].figure
    assert len(figure["data"]) == len(content.runs) == 18
    assert sum(len(curve["x"]) for curve in figure["data"]) <= 9000
    assert sum(curve["showlegend"] for curve in figure["data"]) == 3  # once a variant
    assert figure["data"][0]["meta"] == "default, seed 1, fold 0"


def test_settings_that_differ_are_side_by_side(made):
    differences, components, *_ = provenance_section(made[0]).elements
    assert [c.title for c in differences.heads] == ["setting", "default", "topk", "wide"]
    ((name, *values),) = differences.rows
    assert name == "trainer.epochs"
    assert [(cell.text, cell.strong) for cell in values] == [
        ("40", False),
        ("41", True),
        ("42", True),
    ]
    assert components.rows == [
        ["trainer", "builtin/v2", "nnunet-core 0.1.0", "default, topk, wide"]
    ]


def test_machines_are_named_with_processor_and_hosts(made):
    content, _ = made
    hosts = ("node1", "node2", "")
    runs = [replace(r, host=h, processor="EPYC") for r, h in zip(content.runs, hosts, strict=False)]
    machines = provenance_section(replace(content, runs=runs)).elements[-1]
    assert [head.title for head in machines.heads][3:] == ["processor", "hosts", "trainings"]
    assert [row[3:] for row in machines.rows] == [["EPYC", "node1, node2", 3]]


def _shown(section, kind):
    return next((each for each in section.elements if isinstance(each, kind)), None)


@pytest.mark.pictures
def test_the_worst_cases_are_shown_with_the_predictions_of_every_variant(made):
    content, registry = made
    chosen = choose(content, [], 1)
    assert len(chosen) == 2
    for one in chosen:
        mine = [r for r in content.rows if (r.dataset, r.label) == (one.dataset, "mean")]
        means = {c: np.mean([r.value for r in mine if r.case == c]) for c in {r.case for r in mine}}
        assert one.case == min(means, key=means.get)
    section = case_section(content, chosen, registry.hooks, Silence())
    volumes = _shown(section, Viewer).volumes
    assert [v.name for v in volumes] == [f"{one.dataset}: {one.case}" for one in chosen]
    assert list(volumes[0].maps) == ["reference", *chosen[0].scores]
    assert volumes[0].labels == {1: "cube"}
    assert len(_shown(section, Gallery).pictures) == 2


def test_chosen_cases_are_shown_and_unknown_ones_named(made):
    content, _ = made
    assert [one.case for one in choose(content, ["case_3"], 2)] == ["case_3", "case_3"]
    with pytest.raises(UsageError, match=r"no case case_33.*case_3"):
        choose(content, ["case_3", "case_33"], 2)


def test_without_the_plugin_that_draws_volumes_are_shown_alone(made, monkeypatch):
    content, _ = made
    monkeypatch.setenv("NNUNET_DISABLE_PLUGINS", "pictures")
    section = case_section(content, choose(content, [], 1), Registry.discover().hooks, Silence())
    assert _shown(section, Gallery) is None
    assert len(_shown(section, Viewer).volumes) == 2


def test_the_largest_page_stays_below_its_limit(made):
    if not bundling.are_current():
        pytest.skip(f"no bundles: {bundling.COMMAND}")
    content, _ = made
    rng = np.random.default_rng(0)
    noise = sample_pages.volume()
    image = rng.normal(0, 1, (90, 180, 180)).astype(np.float32)  # does not compress
    label = (rng.random(image.shape) < 0.01).astype(np.uint8)
    maps = {f"variant {number}": label for number in range(4)}
    volumes = [type(noise)(f"case {n}", image, maps, {1: "x"}, (1.0, 1.0, 1.0)) for n in range(8)]
    page = report_page(content, Section("Worst cases", [Viewer(volumes)]), [])
    assert 8_000_000 < len(page.html().encode()) < MOST_BYTES


def test_missed_structures_are_seen_in_distributions(made):
    content, _ = made
    section = next(dataset_sections(content))
    (plot, _) = (each for each in section.elements if isinstance(each, Plot))
    assert "infinite" not in plot.caption
    rows = [replace(row, metric="HD95", value=50 * (1 - row.value)) for row in content.rows]
    missed = [
        replace(row, value=np.inf) if (row.variant, row.case) == ("topk", "case_0") else row
        for row in rows
    ]
    section = next(dataset_sections(replace(content, judgement=judge(missed, "default", 0.01))))
    (plot, _) = (each for each in section.elements if isinstance(each, Plot))
    assert "Triangles at the top: how many cases have an infinite distance" in plot.caption
    assert ["1 infinite"] in [trace.get("text") for trace in plot.figure["data"]]


def test_tables_hold_what_they_say(made, stand_ins):
    content, _ = made
    page = report_page(content, None, [])
    assert isinstance(page, Page)
    titles = [section.title for section in page.sections]
    assert titles == [
        "Summary",
        "Over datasets",
        "Dataset001_Tiny, 3d_fullres",
        "Dataset002_Tiny, 3d_fullres",
        "Training curves",
        "Cost",
        "Provenance",
    ]
    section = page.sections[2]
    means, comparisons, ranks = (each for each in section.elements if isinstance(each, Table))
    mine = [r for r in content.rows if (r.dataset, r.variant) == ("Dataset001_Tiny", "topk")]
    expected = np.mean([row.value for row in mine if row.label == "mean"])
    row = next(row for row in means.cells if [row[0].text, row[1].text] == ["mean", "topk"])
    assert row[4].text == f"{expected:.4f}"
    assert len(comparisons.rows) == 2 * 2  # two variants, of one label and the mean
    assert [row[0] for row in ranks.rows] == ["topk", "wide", "default"]
    assert sum(isinstance(each, Plot) for each in section.elements) == 2


@pytest.mark.slow
@pytest.mark.skipif(chromium.PROGRAM is None, reason=chromium.MISSING)
@pytest.mark.skipif(not bundling.are_current(), reason=f"no bundles: {bundling.COMMAND}")
@pytest.mark.parametrize("webgl", [True, False])
def test_it_opens_in_a_browser_wide_and_narrow(made, tmp_path, webgl):
    content, registry = made
    cases = case_section(content, choose(content, [], 1), registry.hooks, Silence())
    report_page(content, cases, []).write(tmp_path / "report.html")
    browser = chromium.Chromium(webgl)
    try:
        for width in (1280, 390):
            browser.open(tmp_path / "report.html", width)
            browser.evaluate("document.querySelectorAll('.plot').forEach(draw)")
            drawn = "document.querySelectorAll('.plot .main-svg').length"
            browser.wait(f"{drawn} >= document.querySelectorAll('.plot').length")
            if webgl:
                browser.wait("document.querySelector('.viewer').dataset.shown === '0'")
            else:
                browser.wait("document.querySelector('.fallback img').naturalWidth > 200")
            assert browser.evaluate("document.documentElement.scrollWidth <= innerWidth")
            assert browser.complaints == browser.requests == []
    finally:
        browser.close()
