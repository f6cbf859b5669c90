"""What a benchmark starts, and when: random graphs, jobs and drivers that die at any moment."""

import dataclasses
import io
import json
import os
import tempfile
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from listening import Listener
from rich.console import Console

from nnunet_builtin.benchmark import matrix, records, scheduling
from nnunet_builtin.benchmark.graph import Job, Place, ordered
from nnunet_builtin.benchmark.leases import leased
from nnunet_builtin.benchmark.progress import estimate, stale, stale_lines, view, warn_of_idle_cards
from nnunet_builtin.benchmark.scheduling import Board
from nnunet_core.contracts.executor import Status
from nnunet_core.errors import StoppedError, StorageError, UsageError

KILLED = "killed"


class InMemory:
    """Ends each delivery in the next way of its list, 0 after that; runs some at once."""

    def __init__(self, ways=None, room=2):
        self.ways, self.room = {name: list(each) for name, each in (ways or {}).items()}, room
        self.started, self.alive, self.stopped = [], {}, []

    def check(self, needed):
        pass

    def start(self, tasks, running):
        found = {}
        for task in tasks[: self.room - len(running)]:
            handle = f"{task.name} {len(self.started)}"
            self.started.append(task.name)
            self.alive[handle] = task
            found[task.name] = handle
        return found

    def look(self, handles):
        found = {}
        for handle in handles:
            found[handle] = Status("ended")
            if task := self.alive.pop(handle, None):
                self.end(task)
        return found

    def stop(self, handles):
        self.stopped += handles

    def end(self, task):
        ways = self.ways.get(task.name, [])
        way = ways.pop(0) if ways else 0
        job = records.JobFile.read(task.folder / records.JOB)
        before = records.ended(task.folder, job.identity)
        records.Began(identity=job.identity, tries=1, parts=job.parts).write(
            task.folder / records.BEGAN
        )
        if way == KILLED:
            return
        attempts = (before.attempts if before else 0) + (way not in records.STOPPED)
        records.Ended(
            identity=job.identity,
            inputs=job.inputs,
            run=str(len(self.started)),
            code=way,
            attempts=attempts,
            seconds=10.0,
        ).write(task.folder / records.ENDED)


def jobs_of(needs, **parts):
    return [
        Job(f"data/train/{n}", "train", needs=tuple(f"data/train/{m}" for m in before), parts=parts)
        for n, before in enumerate(needs)
    ]


def board_of(jobs, root, executor, retries=1):
    return Board(ordered(jobs), root, executor, "test/memory", retries)


@pytest.fixture(autouse=True, scope="module")
def without_waiting():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(scheduling, "_POLL_SECONDS", 0)
        patch.setattr(os, "fsync", lambda _: None)
        yield


GRAPHS = st.integers(1, 12).flatmap(
    lambda n: st.tuples(
        *(st.sets(st.integers(0, max(0, i - 1)), max_size=min(i, 3)) for i in range(n))
    )
)
WAYS = st.lists(st.sampled_from([1, 2, 137, 143, KILLED]), max_size=4)


@given(needs=GRAPHS, ways=st.dictionaries(st.integers(0, 11), WAYS), room=st.integers(1, 4))
@settings(max_examples=12, deadline=None)
def test_needs_come_first_what_is_done_is_left_alone_and_a_failure_stops_only_what_needs_it(
    needs, ways, room
):
    executor = InMemory({f"data/train/{n}": w for n, w in ways.items()}, room)
    with tempfile.TemporaryDirectory() as root:
        board = board_of(jobs_of(needs), Path(root), executor)
        scheduling.run(board, Listener())
        jobs = board.graph.jobs
        blocked = board.graph.blocked_by(set(board.failed))
        assert {*board.done, *board.failed, *blocked} == set(jobs)
        for name in board.failed:
            assert not board.done.keys() & set(board.graph.dependents[name])
        first = {name: executor.started.index(name) for name in dict.fromkeys(executor.started)}
        assert all(first[n] < first[name] for name in first for n in jobs[name].needs)
        # another start gives what failed its chance, and does nothing again that is done
        before, done = len(executor.started), set(board.done)
        executor.ways.clear()
        again = board_of(jobs_of(needs), Path(root), executor)
        scheduling.run(again, Listener())
        assert set(again.done) == set(jobs)
        assert not done & set(executor.started[before:])


@given(needs=GRAPHS, deaths=st.lists(st.integers(0, 6), max_size=4))
@settings(max_examples=10, deadline=None)
def test_drivers_that_die_lose_nothing_and_start_nothing_twice(needs, deaths):
    executor = InMemory()
    with tempfile.TemporaryDirectory() as root:
        for steps in [*deaths, 1000]:
            board = board_of(jobs_of(needs), Path(root), executor)
            board.look()
            for _ in range(steps):
                if not scheduling._step(board, Listener()):
                    break
        assert set(board.done) == set(board.graph.jobs)
        assert sorted(executor.started) == sorted(board.graph.jobs)


@pytest.mark.parametrize(
    ("ways", "starts", "fails"),
    [
        ([1, 1], 3, False),
        ([1, 1, 1], 3, True),
        ([2], 1, True),  # wrong input: another try would end the same way
        ([137, KILLED], 3, False),  # out of memory, killed
        ([KILLED, KILLED, KILLED], 3, True),
        ([1, KILLED, KILLED, KILLED], 4, True),  # the record of the first says nothing of these
        ([143] * 9, 10, False),  # stopping somebody's job is no failure of it
    ],
)
def test_which_failures_are_tried_again(tmp_path, ways, starts, fails):
    executor = InMemory({"data/train/0": ways})
    board, said = board_of(jobs_of([()]), tmp_path, executor, retries=2), Listener()
    scheduling.run(board, said)
    assert len(executor.started) == starts
    assert bool(board.failed) == fails
    assert any("failed for good" in text for text in said.warnings) == fails


def test_why_a_job_without_a_record_failed_is_known_to_other_processes(tmp_path):
    class Slurm(InMemory):
        def look(self, handles):
            ended = super().look(handles)
            return dict.fromkeys(ended, Status("ended", "OUT_OF_MEMORY, job 17 on node5"))

    ways = {"data/train/0": [KILLED] * 2}
    jobs = jobs_of([(), (0,)])
    scheduling.run(board_of(jobs, tmp_path, Slurm(ways)), Listener())
    board = board_of(jobs, tmp_path, InMemory())
    board.look()
    assert board.states() == {"data/train/0": "failed", "data/train/1": "blocked"}
    assert "without a result: OUT_OF_MEMORY, job 17 on node5" in board.failed["data/train/0"]
    scheduling.run(board, Listener())  # whoever starts it again gives it another chance
    assert set(board.done) == {"data/train/0", "data/train/1"}


def test_a_longer_matrix_runs_only_what_is_new(tmp_path):
    executor = InMemory()
    scheduling.run(board_of(jobs_of([(), (0,)]), tmp_path, executor), Listener())
    scheduling.run(board_of(jobs_of([(), (0,), (0, 1)]), tmp_path, executor), Listener())
    assert executor.started == ["data/train/0", "data/train/1", "data/train/2"]


def test_what_is_made_of_a_job_that_is_run_again_is_stale(tmp_path):
    executor, output = InMemory(), tmp_path / "weights"
    first, *rest = jobs_of([(), (0,), (1,)])
    jobs = [dataclasses.replace(first, output=output), *rest]
    output.touch()
    scheduling.run(board_of(jobs, tmp_path, executor), Listener())
    output.unlink()
    board = board_of(jobs, tmp_path, executor)
    board.look()
    assert not board.done
    assert "is gone" in stale(board)["data/train/0"]
    output.touch()
    (tmp_path / "jobs/data/train/0/ended.json").unlink()
    scheduling.run(board, Listener())
    assert executor.started[3:] == ["data/train/0", "data/train/1", "data/train/2"]


def test_another_identity_makes_a_job_stale_and_says_what_changed(tmp_path):
    executor = InMemory()
    scheduling.run(board_of(jobs_of([()], loss="a", seed="1"), tmp_path, executor), Listener())
    board = board_of(jobs_of([()], loss="b", seed="1"), tmp_path, executor)
    board.look()
    assert not board.done
    assert stale(board) == {"data/train/0": "loss"}


def test_what_is_stale_for_one_reason_is_one_line(tmp_path):
    def jobs(loss):
        parts = {"loss": loss, "after data/plan/a": loss, "after data/plan/b": loss}
        names = [f"data/train/a/2d/seed_{seed}/fold_0" for seed in (1, 2, 3)]
        return [Job(name, "train", parts=parts) for name in names]

    scheduling.run(board_of(jobs("a"), tmp_path, InMemory()), Listener())
    board = board_of(jobs("b"), tmp_path, InMemory())
    board.look()
    line = "stale: 3 jobs, data/train/a/2d: changed: plan, loss"
    assert stale_lines(board) == [line]
    console = Console(record=True, width=120, file=io.StringIO())
    console.print(view(board, "a benchmark", "", "nnunet benchmark run"))
    assert line in console.export_text()


def test_a_job_whose_lease_is_held_runs_whatever_its_handle_says(tmp_path):
    executor = InMemory()
    board = board_of(jobs_of([()]), tmp_path, executor)
    folder = board.folder(board.graph.jobs["data/train/0"])
    folder.mkdir(parents=True)
    with leased(folder):
        board.look()
        assert board.states() == {"data/train/0": "running"}
        assert scheduling._step(board, Listener())
        assert not executor.started
    scheduling.run(board, Listener())
    assert executor.started == ["data/train/0"]


def test_asked_to_stop_it_stops_its_jobs_and_goes_on_later(tmp_path):
    class Never(InMemory):
        def look(self, handles):
            (tmp_path / scheduling.STOP).touch()
            return {handle: Status("running") for handle in handles}

    executor = Never()
    with pytest.raises(StoppedError):
        scheduling.run(board_of(jobs_of([(), ()]), tmp_path, executor), Listener())
    assert len(executor.stopped) == 2
    assert not (tmp_path / scheduling.STOP).exists()


def test_what_can_never_run_is_refused_before_anything_starts(tmp_path):
    class Small(InMemory):
        def check(self, needed):
            raise UsageError("no machine is large enough")

    executor = Small()
    with pytest.raises(UsageError):
        scheduling.run(board_of(jobs_of([()]), tmp_path, executor), Listener())
    assert not executor.started


def test_a_job_that_cannot_be_started_does_not_stop_the_others(tmp_path):
    class Picky(InMemory):
        def start(self, tasks, running):
            if tasks[0].name == "data/train/0":
                raise StorageError("no")
            return super().start(tasks, running)

    board = board_of(jobs_of([(), ()]), tmp_path, Picky())
    scheduling.run(board, Listener())
    assert set(board.failed) == {"data/train/0"}
    assert set(board.done) == {"data/train/1"}
    board.look()  # as another process does
    assert board.failed == {"data/train/0": "it could not be started: no"}


def test_jobs_that_need_each_other_or_share_a_name_are_refused():
    with pytest.raises(ValueError, match="need each other"):
        ordered(jobs_of([(1,), (0,)]))
    with pytest.raises(ValueError, match="two jobs are named"):
        ordered([*jobs_of([()], loss="a"), *jobs_of([()], loss="b")])


def test_an_estimate_comes_from_jobs_like_these_and_says_what_is_unknown(tmp_path):
    def training(dataset, seed):
        place = Place(dataset, "2d", "a", seed, "0")
        return Job(f"{dataset}/train/a/2d/seed_{seed}/fold_0", "train", place=place)

    jobs = [training("one", seed) for seed in (1, 2, 3)]
    scheduling.run(board_of(jobs[:1], tmp_path, InMemory()), Listener())
    board = board_of(
        [*jobs, Job("one/select/a", "select", needs=(jobs[0].name,))], tmp_path, InMemory()
    )
    board.look()
    found = estimate(board)
    assert (found.left, found.seconds, found.longest) == (3, 20.0, 10.0)
    assert found.unknown == {"select": 1}
    assert "1 select" in found.words()


def test_what_is_stale_tells_about_how_long_its_like_will_take(tmp_path):
    def board(loss, seeds):
        names = [f"data/train/a/2d/seed_{seed}/fold_0" for seed in seeds]
        return board_of(
            [Job(n, "train", parts={"loss": loss}) for n in names], tmp_path, InMemory()
        )

    scheduling.run(board("a", [1, 2]), Listener())
    changed = board("b", [1, 2, 3])
    changed.look()
    found = estimate(changed)
    assert (found.left, found.seconds, found.unknown, found.guessed) == (3, 30.0, {}, 3)
    assert "3 jobs guessed from stale results" in found.words()
    scheduling.run(board("b", [1]), Listener())
    changed.look()
    assert estimate(changed).guessed == 0  # there is something current to go by


def test_cards_that_no_training_uses_are_spoken_of(tmp_path):
    class Seeing(InMemory):
        def cards(self):
            return ["0", "1"]

    def warned(executor, words=(), **resources):
        said, needs = Listener(), matrix.Resources(**resources)
        job = Job("data/train/a", "train", words=words, resources=needs)
        warn_of_idle_cards(board_of([job], tmp_path, executor), said)
        return " ".join(said.warnings)

    assert "2 GPUs are here" in warned(Seeing())
    assert "[resources.train]\ngpus = 1" in warned(Seeing())
    assert not warned(Seeing(), gpus=1)
    assert not warned(Seeing(), words=("train", "--device", "cpu"))
    assert not warned(InMemory())


def test_a_damaged_record_is_no_result(tmp_path):
    executor = InMemory()
    scheduling.run(board_of(jobs_of([()]), tmp_path, executor), Listener())
    path = tmp_path / "jobs/data/train/0/ended.json"
    content = json.loads(path.read_text())
    path.write_text(json.dumps({**content, "attempts": "many"}))
    scheduling.run(board_of(jobs_of([()]), tmp_path, executor), Listener())
    assert len(executor.started) == 2
