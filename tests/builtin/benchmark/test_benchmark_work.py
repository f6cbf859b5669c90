"""What a worker does with the folder of a job: once, whoever else was told to."""

import subprocess
import sys

import pytest

from nnunet_builtin.benchmark import records, work
from nnunet_builtin.benchmark.leases import LeasedError, is_leased, leased


def written(folder, identity="a", inputs="", words=("--version",), makes=None):
    folder.mkdir(exist_ok=True)
    made = None if makes is None else str(makes)
    job = records.JobFile(
        name="job",
        identity=identity,
        inputs=inputs,
        parts={},
        words=words,
        environment={},
        makes=made,
    )
    job.write(folder / records.JOB)
    return folder


def test_a_job_is_done_once_however_often_it_is_delivered(tmp_path):
    folder = written(tmp_path / "job")
    assert work.work(folder) == 0
    first = records.ended(folder, "a")
    assert first.is_done
    assert first.cpu_seconds > 0
    assert first.host
    assert first.processor
    assert work.work(folder) == 0
    assert records.ended(folder, "a") == first
    assert work.work(written(folder, inputs="of another run")) == 0
    assert records.ended(folder, "a").run != first.run


def test_a_processor_is_called_by_its_model(tmp_path):
    (tmp_path / "cpuinfo").write_text("processor\t: 0\nmodel name\t: AMD  EPYC 7763\nmodel\t: 1\n")
    assert work._processor(tmp_path / "cpuinfo") == "AMD EPYC 7763"
    assert work._processor(tmp_path / "none")


def test_while_somebody_does_it_a_second_delivery_ends_without_work(tmp_path, capsys):
    folder = written(tmp_path / "job")
    with leased(folder):
        assert is_leased(folder)
        assert work.work(folder) == 0
    assert "delivered twice" in capsys.readouterr().out
    assert records.ended(folder, "a") is None
    assert not is_leased(folder)


def test_costs_add_up_and_wrong_input_is_told_apart(tmp_path):
    folder = written(tmp_path / "job", words=("no-such-command",))
    assert work.work(folder) == 2
    assert records.ended(folder, "a").is_hopeless
    before = records.ended(folder, "a")
    (folder / records.BEGAN).write_text(
        records.Began(identity="a", tries=3, parts={}).model_dump_json()
    )
    work.work(folder)
    after = records.ended(folder, "a")
    assert (after.attempts, after.uncounted) == (2, 2)  # two tries were killed
    assert after.seconds > before.seconds
    assert "no-such-command" in "\n".join(records.log_tail(folder))


def test_what_another_job_of_the_name_made_is_set_aside_and_its_own_goes_on(tmp_path):
    made = tmp_path / "results" / "fold_0"
    made.mkdir(parents=True)
    folder = written(tmp_path / "job", makes=made)
    job = records.JobFile.read(folder / records.JOB)
    work._begin(folder, job)
    assert made.is_dir()  # nobody knows what it is of: the command will
    assert work._begin(folder, job).tries == 2
    assert made.is_dir()
    work._begin(folder, job.model_copy(update={"identity": "b"}))
    assert not made.exists()
    assert len(list(made.parent.glob("fold_0_stale_*"))) == 1


def test_a_lease_is_held_for_as_long_as_the_command_lives(tmp_path):
    with leased(tmp_path) as lease:
        command = subprocess.Popen(
            [sys.executable, "-c", "input()"], stdin=subprocess.PIPE, pass_fds=(lease,)
        )
    try:
        assert is_leased(tmp_path)  # the worker is gone
        with pytest.raises(LeasedError), leased(tmp_path):
            pass
    finally:
        command.communicate(b"\n")
    assert not is_leased(tmp_path)
    assert not is_leased(tmp_path / "nothing")


def test_a_stopped_job_is_no_failure():
    assert records.Ended(identity="a", code=143).is_stopped
    assert not records.Ended(identity="a", code=137).is_stopped
