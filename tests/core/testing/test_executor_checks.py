"""Each check of executors finds the one that is wrong in its way."""

import contextlib
import os
import signal
import subprocess

import psutil
import pytest
from kit import row_of
from wrong_components import failures, outcomes, own_checks

from nnunet_core.contracts.executor import Status
from nnunet_core.errors import UsageError
from nnunet_core.testing.kinds import executor


class OneAfterTheOther:
    """A right one, which the wrong ones change."""

    mode, in_session, signal, patience = "ab", True, signal.SIGTERM, 30

    def check(self, needed):
        pass

    def environment(self, task):
        return {**os.environ, **task.environment, "CUDA_VISIBLE_DEVICES": ""}

    def start(self, tasks, running):
        if running or not tasks:
            return {}
        with tasks[0].log.open(self.mode) as log:
            process = subprocess.Popen(
                tasks[0].command,
                env=self.environment(tasks[0]),
                stdout=log,
                stderr=log,
                start_new_session=self.in_session,
            )
        return {tasks[0].name: str(process.pid)}

    def look(self, handles):
        return {h: Status("running" if _alive(h) else "ended") for h in handles}

    def stop(self, handles):
        processes = [process for handle in handles if (process := _alive(handle))]
        for process in processes:
            process.send_signal(self.signal)
        if self.patience:
            psutil.wait_procs(processes, self.patience)


def _alive(handle):
    with contextlib.suppress(psutil.NoSuchProcess):
        process = psutil.Process(int(handle))
        return process if process.status() != psutil.STATUS_ZOMBIE else None
    return None


class DeliversTwice(OneAfterTheOther):
    def start(self, tasks, running):
        if tasks and tasks[0].name == "two" and not running:
            subprocess.run(tasks[0].command, check=True)
        return super().start(tasks, running)


class OverwritesTheLog(OneAfterTheOther):
    mode = "wb"


class DropsVariables(OneAfterTheOther):
    def environment(self, task):
        return {**os.environ, "CUDA_VISIBLE_DEVICES": ""}


class ShowsCards(OneAfterTheOther):
    def environment(self, task):
        return {**os.environ, **task.environment}


class BlamesNobody(OneAfterTheOther):
    def look(self, handles):
        found = super().look(handles)
        return {h: Status(s.state, is_lost=s.state == "ended") for h, s in found.items()}


class DiesWithItsDriver(OneAfterTheOther):
    in_session = False


class KillsAtOnce(OneAfterTheOther):
    signal = signal.SIGKILL


class ReturnsAtOnce(OneAfterTheOther):
    patience = 0


class HasNoMachine(OneAfterTheOther):
    def check(self, needed):
        raise UsageError("the cluster cannot be reached")


WRONG = {
    DeliversTwice: "executor_runs_all_tasks_once",
    OverwritesTheLog: "executor_brings_back_what_is_printed",
    DropsVariables: "executor_passes_words_and_variables",
    ShowsCards: "executor_hides_cards",
    BlamesNobody: "executor_sees_a_failure_end",
    DiesWithItsDriver: "executor_finds_tasks_of_a_driver_that_died",
    KillsAtOnce: "executor_stops_tasks_gently",
    ReturnsAtOnce: "executor_stops_tasks_gently",
}


def test_a_right_executor_passes_every_check():
    assert failures("executor", OneAfterTheOther) == {}


@pytest.mark.parametrize("wrong", WRONG, ids=lambda wrong: wrong.__name__)
def test_a_wrong_executor_fails_the_check_that_names_its_fault(wrong, monkeypatch):
    monkeypatch.setattr(executor, "_SECONDS", 10)  # that a dead task is waited for
    assert row_of(f"{__name__}:{wrong.__name__}", WRONG[wrong], "executor").outcome == "failed"


def test_an_executor_without_a_machine_here_is_skipped_with_the_reason():
    rows = outcomes("executor", HasNoMachine).values()
    assert {row.outcome for row in rows} == {"skipped"}
    assert {row.message for row in rows} == {
        "It cannot run anything here: the cluster cannot be reached"
    }


def test_every_check_of_executors_has_one_that_fails_it():
    assert own_checks("executor") == set(WRONG.values())
