"""What the report of a benchmark is made of, as plain values."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property

from nnunet_builtin.benchmark.matrix import Bench
from nnunet_builtin.judging.judgement import Judgement
from nnunet_builtin.judging.rendering import Table
from nnunet_builtin.judging.rows import Row
from nnunet_builtin.judging.runs import Run
from nnunet_builtin.judging.tables import tables
from nnunet_builtin.pages.figures import colour
from nnunet_core.data.dataset import Dataset
from nnunet_core.stages.method import Method


@dataclass(frozen=True)
class Content:
    """A benchmark, as far as it is done.

    Attributes:
        bench: What was asked for.
        judgement: What its scores show.
        rows: All scores.
        runs: Trainings that are done.
        methods: {variant: what it stands for}.
        datasets: {name: dataset}.
        states: {state of jobs: how many}.
        failed: {failed job: last lines of its log}.
        stale: Lines that say which results are stale, and why.
    """

    bench: Bench
    judgement: Judgement
    rows: Sequence[Row]
    runs: Sequence[Run]
    methods: Mapping[str, Method]
    datasets: Mapping[str, Dataset]
    states: Mapping[str, int] = field(default_factory=dict)
    failed: Mapping[str, str] = field(default_factory=dict)
    stale: Sequence[str] = ()

    @cached_property
    def tables(self) -> list[Table]:
        """All tables of the judgement, as they are written beside the page, too."""
        return tables(self.judgement)

    @property
    def variants(self) -> list[str]:
        """Of the benchmark, and those of foreign results after them."""
        return list(dict.fromkeys([*self.bench.variants, *(row.variant for row in self.rows)]))

    @property
    def colours(self) -> dict[str, str]:
        """{variant: its colour in all plots}."""
        return {name: colour(number) for number, name in enumerate(self.variants)}
