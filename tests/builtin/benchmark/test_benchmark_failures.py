"""What failed counts as the worst there is, whichever job of it failed; what is stale is said."""

import pytest
from tiny_dataset import make_tiny

from nnunet_builtin.benchmark import opening, records
from nnunet_builtin.benchmark.opening import opened
from nnunet_builtin.judging.rows import CRASHED, MEAN, TEST
from nnunet_builtin.judging.runs import Run
from nnunet_core.registry.discovery import Registry
from nnunet_core.runtime.reporting import Silence
from nnunet_core.store.workspace import Workspace

TEXT = """
name = "b"
datasets = ["data"]
baseline = "default"
folds = [0, 1]
seeds = [1]
metrics = ["Dice", "HD95"]
variants.default = {}
variants.topk = {loss = "dice_topk"}
test.data = {images = "imagesTr", labels = "labelsTr"}
"""


@pytest.fixture
def found(tmp_path):
    """A benchmark of which no job is done."""
    make_tiny(tmp_path / "data")
    (path := tmp_path / "bench.toml").write_text(TEXT)
    return opened(path, Registry.discover(), Workspace.find(tmp_path / "ws"), Silence())


def crashed_of(found):
    """Return {(configuration, variant, fold): (cases, labels, metrics)} of what failed."""
    found.board.look()
    rows = found.rows()
    assert all(row.status == CRASHED for row in rows)
    return {
        key: tuple(
            {
                getattr(row, name)
                for row in rows
                if (row.configuration, row.variant, row.fold) == key
            }
            for name in ("case", "label", "metric")
        )
        for key in {(row.configuration, row.variant, row.fold) for row in rows}
    }


def test_trainings_and_test_sets_behind_a_failed_plan_count_as_the_worst(found):
    assert not crashed_of(found)
    plan = next(job for job in found.graph.jobs.values() if job.stage == "plan")
    found.board.give_up(plan, "killed")
    crashed = crashed_of(found)
    (subject,) = found.subjects.values()
    for variant in ("default", "topk"):
        for fold in ("0", "1"):
            cases, labels, metrics = crashed["3d_fullres", variant, fold]
            assert cases == set(subject.split(fold).val)
            assert labels == {*subject.dataset.labels.named, MEAN}
            assert metrics == {"Dice", "HD95"}
        assert crashed[TEST, variant, ""][0] == set(subject.dataset.names)
    judgement, _ = found.judged()
    head = judgement.deviations["data", TEST]
    assert any("topk, seed 1, its prediction of the test set failed" in line for line in head)


def test_trainings_know_the_machine_that_their_jobs_ran_on(found, monkeypatch):
    job = next(job for job in found.graph.jobs.values() if job.stage == "train")
    ended = records.Ended(identity=job.identity, code=0, host="node1", processor="EPYC")
    found.board.done[job.name] = ended
    monkeypatch.setattr(opening, "find", lambda places: [Run(*each, None) for each in places])
    (run,) = found.runs()
    assert (run.place, run.host, run.processor) == (job.place, "node1", "EPYC")


def test_a_failed_prediction_of_a_test_set_fails_that_alone(found):
    predict = next(job for job in found.graph.jobs.values() if job.stage == "predict")
    found.board.give_up(predict, "killed")
    assert set(crashed_of(found)) == {(TEST, "default", "")}
