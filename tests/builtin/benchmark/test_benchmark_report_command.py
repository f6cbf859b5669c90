"""`nnunet benchmark report`: where it writes, what it refuses, how it stays small."""

from dataclasses import replace
from types import SimpleNamespace

import pytest
from synthetic_benchmark import Shape, synthetic

from nnunet_builtin.benchmark.report import commands
from nnunet_builtin.judging.judgement import judge
from nnunet_builtin.pages import bundling, cases
from nnunet_core.errors import StorageError, UsageError
from nnunet_core.runtime import locks
from nnunet_core.runtime.reporting import Silence


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A benchmark of one dataset with all its files."""
    return synthetic(tmp_path_factory.mktemp("bench"), Shape(datasets=1, seeds=1, files=True))


class _Board:
    """The state of two jobs, of which one failed."""

    failed = {"Dataset001_Tiny/train/wide": "exit code 1"}  # noqa: RUF012
    graph = SimpleNamespace(jobs={})

    def look(self):
        """Know it already."""

    def states(self):
        return {"Dataset001_Tiny/plan": "done", "Dataset001_Tiny/train/wide": "failed"}

    def folder(self, job):
        return job


@pytest.fixture
def report(made, monkeypatch, tmp_path):
    """Return the command; what it opens is made up, and its page has small programs."""
    content, registry = made
    root = tmp_path / "benchmarks" / "synthetic"
    (log := tmp_path / "job").mkdir()
    (log / "log.txt").write_text("boom <script>\n")
    found = SimpleNamespace(
        bench=content.bench,
        members={n: SimpleNamespace(method=m) for n, m in content.methods.items()},
        subjects={n: SimpleNamespace(dataset=d) for n, d in content.datasets.items()},
        graph=SimpleNamespace(jobs={"Dataset001_Tiny/train/wide": log}),
        board=_Board(),
        root=root,
        judged=lambda: (content.judgement, content.rows),
        runs=lambda: content.runs,
    )
    monkeypatch.setattr(commands, "opened", lambda *_: found)
    monkeypatch.setattr(commands, "log_tail", lambda folder: ["boom <script>"])
    monkeypatch.setattr(commands.o, "registry_of", lambda _: registry)
    monkeypatch.setattr(commands.o, "workspace_of", lambda _: None)
    (bundles := tmp_path / "bundles").mkdir()
    for name in (bundling.PLOTLY, bundling.NIIVUE, bundling.LICENSES):
        (bundles / name).write_text("// nothing")
    monkeypatch.setattr(bundling, "BUNDLES", bundles)

    def run(**options):
        commands.report(None, tmp_path / "bench.toml", **{"worst": 0, **options})
        return root

    return run


def test_page_and_tables_are_written_into_the_folder_of_the_benchmark(report, capsys):
    root = report()
    text = (root / "report.html").read_text()
    assert f"report: {root / 'report.html'}" in capsys.readouterr().out
    assert "This benchmark is not finished (1 done, 1 failed)" in text
    assert "boom &lt;script&gt;" in text  # the last line of the failed job's log
    for name in ("scores.csv", "tables_scores.csv", "tables_tables.tex", "comparison.md"):
        assert f'download="{name}"' in text
    assert (root / "tables" / "tables.tex").is_file()


def test_while_somebody_runs_the_benchmark_the_tables_are_left_to_him(report, tmp_path, capsys):
    root = tmp_path / "benchmarks" / "synthetic"
    with locks.held(root / locks.NAME, "this benchmark", Silence()):
        report()
    assert not (root / "comparison.md").exists()
    assert 'download="comparison.md"' in (root / "report.html").read_text()
    assert "runs this benchmark and writes" in " ".join(capsys.readouterr().err.split())


def test_stale_scores_are_named_and_nothing_good_is_overwritten(
    report, made, monkeypatch, tmp_path
):
    root, line = report(), "stale: Dataset001_Tiny/train/wide: changed: loss"
    before = {path: path.read_bytes() for path in root.rglob("*") if path.is_file()}
    monkeypatch.setattr(commands, "stale_lines", lambda board: [line])
    (root / "comparison.md").unlink()
    report()
    assert line in (root / "report.html").read_text()
    assert not (root / "comparison.md").exists()  # what was there would have stayed
    del before[root / "comparison.md"]
    (root / "report.html").write_bytes(before[root / "report.html"])
    content, _ = made
    nothing = judge([], content.bench.baseline, content.bench.rope), []
    monkeypatch.setattr(
        commands,
        "gathered",
        lambda found: replace(content, judgement=nothing[0], rows=[], stale=[line]),
    )
    with pytest.raises(UsageError, match=rf"{line}\nTo make .* benchmark run .*bench.toml"):
        report()
    assert {path: path.read_bytes() for path in root.rglob("*") if path.is_file()} == before


def test_it_writes_where_it_is_told(report, tmp_path):
    report(output=tmp_path / "elsewhere" / "page.html")
    assert (tmp_path / "elsewhere" / "page.html").is_file()


def test_another_ending_is_refused(report, tmp_path):
    with pytest.raises(UsageError, match=r"ends in \.html"):
        report(output=tmp_path / "page.pdf")


def test_an_unknown_case_is_named(report):
    with pytest.raises(UsageError, match=r"no case case_99"):
        report(case=["case_99"])


def test_without_bundles_nothing_is_written(report, monkeypatch, tmp_path):
    monkeypatch.setattr(bundling, "BUNDLES", tmp_path / "none")
    with pytest.raises(StorageError, match=r"Fetch it with: python -m"):
        report(output=tmp_path / "page.html")
    assert not (tmp_path / "page.html").exists()


def test_a_page_that_would_be_too_large_shows_fewer_cases(report, monkeypatch, capsys):
    whole = len((report(worst=2) / "report.html").read_bytes())
    monkeypatch.setattr(cases, "MOST_BYTES", whole - 1)
    text = (report(worst=2) / "report.html").read_text()
    assert len(text.encode()) < whole
    assert text.count("<option") == 1
    assert "it shows 1 case only" in capsys.readouterr().err
