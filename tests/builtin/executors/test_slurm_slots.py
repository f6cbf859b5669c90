"""Jobs of Slurm that do not fit into one time slot, or are sent away in between; a Slurm that is
not there.
"""

from __future__ import annotations

import subprocess
import time

import pytest
from driving import SMALL, logged, script, until

from nnunet_builtin.executors.sbatch import SbatchExecutor
from nnunet_builtin.executors.slurm import SlurmExecutor
from nnunet_core.contracts.executor import Resources
from nnunet_core.errors import UsageError
from nnunet_core.registry.discovery import Registry

EXECUTORS = {"slurm": SlurmExecutor, "sbatch": SbatchExecutor}
#: Saves its work when it is told to stop, and ends when it was started twice.
_LONG = """
import signal
def save(*_):
    (here / 'saved').touch(); sys.exit(143)
signal.signal(signal.SIGTERM, save)
saved = (here / 'saved').exists()
print('goes on' if saved else 'begins', flush=True)
while not saved and not (here / 'done').exists(): time.sleep(0.05)
"""


@pytest.fixture(params=EXECUTORS)
def executor(request, slurm_cluster):
    return EXECUTORS[request.param](poll_seconds=0.2, grace_seconds=10)


def _job(handle: str) -> str:
    return handle.partition("@")[0]


def _goes_on(cluster, executor, handle: str) -> None:
    """Wait until a job is in the queue again, and spare it most of Slurm's two minutes there."""
    until(lambda: executor.look([handle])[handle].state == "waiting", "the job in the queue")
    time.sleep(3)  # until what is left of the first slot is gone, which they are for
    cluster.ask("scontrol", "update", f"jobid={_job(handle)}", "StartTime=now")
    until(lambda: executor.look([handle])[handle].state == "ended", "the end of the job")


@pytest.mark.slow
def test_a_job_goes_on_in_another_slot_after_its_time_limit(executor, slurm_cluster, tmp_path):
    task = script(tmp_path, "job", _LONG)
    (handle,) = executor.start([task], {}).values()
    until(lambda: "begins" in logged(task), "the start")
    # what Slurm sends before the time limit; it looks at the clock twice a minute only
    signal = ["--signal=USR2"] if isinstance(executor, SlurmExecutor) else ["-b", "--signal=USR1"]
    slurm_cluster.ask("scancel", *signal, _job(handle))
    _goes_on(slurm_cluster, executor, handle)
    assert "goes on" in logged(task)
    assert executor.look([handle])[handle].reason == ""


@pytest.mark.slow
def test_a_job_out_of_restarts_ends_with_its_work_saved(executor, slurm_cluster, tmp_path):
    last = type(executor)(poll_seconds=0.2, grace_seconds=10, restarts=0)
    task = script(tmp_path, "job", _LONG)
    (handle,) = last.start([task], {}).values()
    until(lambda: "begins" in logged(task), "the start")
    signal = ["--signal=USR2"] if isinstance(executor, SlurmExecutor) else ["-b", "--signal=USR1"]
    slurm_cluster.ask("scancel", *signal, _job(handle))
    until(lambda: last.look([handle])[handle].state == "ended", "the end")
    status = last.look([handle])[handle]
    assert (status.reason.startswith("FAILED"), status.is_lost) == (True, False)
    assert (task.folder / "saved").exists()


@pytest.mark.slow
def test_preemption_is_no_failure(executor, slurm_cluster, tmp_path):
    whole = Resources(0, 4, 500_000_000, 60)
    task = script(tmp_path, "job", _LONG, whole)
    low = type(executor)(poll_seconds=0.2, grace_seconds=10, options={"nodelist": "s2"})
    (handle,) = low.start([task], {}).values()
    until(lambda: "begins" in logged(task), "the start")
    urgent = ["--partition=urgent", "--nodelist=s2", "--cpus-per-task=4", "--mem=100"]
    slurm_cluster.ask("sbatch", *urgent, "--output=/dev/null", "--wrap", "true")
    _goes_on(slurm_cluster, low, handle)
    assert "goes on" in logged(task), (low.look([handle]), logged(task))


@pytest.mark.slow
def test_tasks_that_need_the_same_are_one_array(executor, slurm_cluster, tmp_path):
    tasks = [script(tmp_path, name, "") for name in "abc"]
    tasks.append(script(tmp_path, "d", "", Resources(0, 2, 500_000_000, 60)))
    jobs = [_job(handle) for handle in executor.start(tasks, {}).values()]
    assert [job.partition("_")[2] for job in jobs[:3]] == ["0", "1", "2"]
    assert len({job.partition("_")[0] for job in jobs}) == 2
    assert len(executor.start(tasks, {str(i): SMALL for i in range(998)})) == 2, "max_jobs"


@pytest.mark.slow
def test_a_controller_that_does_not_answer_ends_no_job(slurm_cluster, tmp_path, monkeypatch):
    executor = SbatchExecutor(poll_seconds=0.0)
    handles = list(executor.start([script(tmp_path, "job", "time.sleep(1)")], {}).values())
    dead = tmp_path / "slurm.conf"
    text = (slurm_cluster.folder / "slurm.conf").read_text()
    dead.write_text(text.replace("SlurmctldPort=", "SlurmctldPort=1#") + "MessageTimeout=2\n")
    monkeypatch.setenv("SLURM_CONF", str(dead))
    (status,) = executor.look(handles).values()
    assert status.state == "running"
    assert "Slurm does not answer" in status.reason
    with pytest.raises(UsageError, match=r"cannot be reached: .*Unable to contact"):
        executor.check([SMALL])


def test_scripts_are_shown_before_anything_is_submitted(tmp_path):
    executor = SbatchExecutor(
        partition="gpu", account="me", options={"qos": "long"}, setup=("module load x",), parallel=2
    )
    tasks = [script(tmp_path, name, "print('a b')", Resources(1, 2, 10**9, 7200)) for name in "ab"]
    tasks.append(script(tmp_path, "c", "", SMALL))
    first, second = executor.scripts(tasks)
    for line in (
        "--array=0-1%2", "--partition=gpu", "--account=me", "--qos=long", "--gres=gpu:1",
        "--mem=954M", "--time=120", "--cpus-per-task=2", "--requeue", "--signal=B:USR1@120",
    ):  # fmt: skip
        assert f"#SBATCH {line}\n" in first
    assert "module load x" in first
    assert "export CUDA_VISIBLE_DEVICES=\n" in second
    assert "CUDA_VISIBLE_DEVICES" not in first
    for text in (first, second):
        subprocess.run(["bash", "-n"], input=text, text=True, check=True)
    assert not list(tmp_path.glob("**/.slurm"))


def test_a_machine_without_slurm_is_named(monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(UsageError, match=r"no sbatch here.*login node"):
        SbatchExecutor().check([SMALL])


@pytest.mark.parametrize(
    ("sinfo", "said"),
    [
        (
            "echo Unable to contact slurm controller >&2; exit 1",
            "controller cannot be reached: sinfo",
        ),
        ("exit 0", "Slurm takes no job with --job-name=nnunet .*Change 'resources'"),
    ],
)
def test_a_controller_that_is_gone_is_not_called_a_wrong_resource(
    monkeypatch, tmp_path, sinfo, said
):
    for name, lines in (("sbatch", "echo allocation failure >&2; exit 1"), ("sinfo", sinfo)):
        (tmp_path / name).write_text(f"#!/bin/sh\n{lines}\n")
        (tmp_path / name).chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    with pytest.raises(UsageError, match=said):
        SbatchExecutor().check([SMALL])


@pytest.mark.parametrize("name", ["slurm", "ray"])
def test_a_missing_package_is_named_with_its_extra(name, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, {"slurm": "submitit"}.get(name, name), None)
    executor = Registry.discover().resolve("executor", name).load()()
    with pytest.raises(UsageError, match=rf"pip install 'nnunet-core\[{name}\]'"):
        executor.check([SMALL])


def test_a_ray_cluster_that_is_not_there_is_named_with_what_to_do():
    pytest.importorskip("ray").shutdown()
    from nnunet_builtin.executors.ray import RayExecutor

    with pytest.raises(UsageError, match=r"no Ray cluster at '127.0.0.1:9'(.|\n)*ray start --head"):
        RayExecutor(address="127.0.0.1:9").check([SMALL])
