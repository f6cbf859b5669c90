"""Gather what the report of a benchmark is made of, from what lies on disk."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

from nnunet_builtin.benchmark.opening import Opened
from nnunet_builtin.benchmark.records import log_tail
from nnunet_builtin.benchmark.report.content import Content
from nnunet_builtin.judging.costs import Spent, costs
from nnunet_builtin.judging.deviations import deviations
from nnunet_builtin.judging.judgement import judge
from nnunet_builtin.judging.runs import find


def gather(found: Opened) -> Content:
    """Return the content of a report; the board has been asked to look."""
    bench, board, rows = found.bench, found.board, found.rows()
    trained = [
        (job.place, job.makes)
        for job in found.compared()
        if job.name in board.done and job.place is not None and job.makes is not None
    ]
    runs = find(trained)
    different = deviations(bench, runs, rows)
    judgement = judge(rows, bench.baseline, bench.rope, different, costs(runs, _spent(found)))
    return Content(
        bench=bench,
        judgement=judgement,
        rows=rows,
        runs=runs,
        methods={name: member.method for name, member in found.members.items()},
        datasets={each.dataset.name: each.dataset for each in found.subjects.values()},
        states=Counter(board.states().values()),
        failed={
            name: "\n".join([why, *log_tail(board.folder(found.graph.jobs[name]))])
            for name, why in board.failed.items()
        },
    )


def _spent(found: Opened) -> Iterator[Spent]:
    """Yield what the jobs that are done took."""
    names = {key: each.dataset.name for key, each in found.subjects.items()}
    for name, ended in found.board.done.items():
        job = found.graph.jobs[name]
        dataset = job.place.dataset if job.place is not None else job.name.split("/")[0]
        yield Spent(
            job.place,
            names.get(dataset, dataset),
            ended.gpu_seconds,
            ended.cpu_seconds,
            ended.peak_memory,
            ended.uncounted,
        )
