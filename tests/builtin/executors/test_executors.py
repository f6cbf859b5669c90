"""What every executor keeps, on what it really runs on."""

from __future__ import annotations

import itertools
import json
import os
import signal
import subprocess
import sys

import driving
import psutil
import pytest
from driving import SMALL, drive, job, logged, script, until

from nnunet_builtin.benchmark import records
from nnunet_core.contracts.executor import Resources

pytestmark = pytest.mark.slow
_BEGIN = "(here / 'began').write_text(str(os.getpid()))\n"
_WAIT = "while not (here / 'go').exists(): time.sleep(0.05)\n"
_LATE = "with (here / 'times').open('a') as file: file.write('x')\n"


def _began(task) -> psutil.Process:
    path = task.folder / "began"
    until(lambda: path.is_file() and path.read_text(), f"the start of {task.name}")
    return psutil.Process(int(path.read_text()))


def _all_ended(executor, handles) -> dict:
    def ended():
        found = executor.look(handles)
        return all(status.state == "ended" for status in found.values()) and found

    return until(ended, f"the end of {handles}")


def test_a_matrix_runs_once_each_with_room_for_some_at_a_time(place, tmp_path):
    names = ["-".join(each) for each in itertools.product("ab", "cd", "ef")]
    executor = (
        place.executor() if place.name in ("local", "third_party") else place.executor(max_jobs=5)
    )
    executor.check([SMALL])
    tasks = [script(tmp_path, name, f"{_LATE}print('{name}', 'is done')") for name in names]
    ended = drive(executor, tasks)
    assert [status.reason for status in ended.values()] == [""] * 8 or place.name == "third_party"
    for task in tasks:
        assert (task.folder / "times").read_text() == "x"
        assert f"{task.name} is done" in logged(task)


def test_jobs_outlive_the_driver_and_are_found_again(place, tmp_path):
    for name in "ab":
        (tmp_path / f"{name}.py").write_text(_BEGIN + _WAIT + _LATE)
    if place.name == "third_party":
        (tmp_path / "b.py").write_text("")  # it has room for one
    (tmp_path / "settings.json").write_text(json.dumps([place.target, place.settings]))
    words = [sys.executable, driving.__file__, str(tmp_path / "settings.json"), str(tmp_path)]
    driver = subprocess.Popen(words, start_new_session=True)
    handles = tmp_path / "handles.json"
    until(lambda: handles.is_file() and handles.read_text(), "the start of the jobs")
    started = json.loads(handles.read_text())
    first = script(tmp_path, "a", "")
    _began(first)
    os.killpg(driver.pid, signal.SIGKILL)
    driver.wait()
    executor = place.executor()
    assert executor.look([started["a"]])[started["a"]].state == "running"
    for name in started:
        (tmp_path / name / "go").touch()
    _all_ended(executor, list(started.values()))
    assert [(tmp_path / name / "times").read_text() for name in started] == ["x"] * len(started)


def test_a_killed_worker_is_an_end_that_counts(place, tmp_path):
    executor, task = place.executor(), script(tmp_path, "job", _BEGIN + _WAIT)
    handles = list(executor.start([task], {}).values())
    process = _began(task)
    starter = process.parent()
    if starter.pid != os.getpid():
        starter.kill()
    process.kill()
    (status,) = _all_ended(executor, handles).values()
    assert not status.is_lost
    if place.name not in ("local", "third_party"):
        assert status.reason
    (task.folder / "go").touch()
    drive(executor, [task])


def test_a_job_is_told_to_stop_and_saves_its_work(place, tmp_path):
    code = (
        "import signal\n"
        "def save(*_):\n"
        "    time.sleep(0.5); (here / 'saved').touch(); sys.exit(143)\n"
        "signal.signal(signal.SIGTERM, save)\n"
    )
    executor, task = place.executor(), script(tmp_path, "job", code + _BEGIN + _WAIT)
    handles = list(executor.start([task], {}).values())
    _began(task)
    executor.stop(handles)
    assert (task.folder / "saved").exists()
    _all_ended(executor, handles)
    executor.stop(handles)  # what has ended does no harm


def test_a_job_without_cards_sees_none(place, tmp_path, monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "5")
    show = "print('cards', repr(os.environ.get('CUDA_VISIBLE_DEVICES')), flush=True)"
    tasks = [script(tmp_path, "none", show)]
    if place.name != "third_party":
        tasks.append(script(tmp_path, "one", show, Resources(1, 1, 500_000_000, 60)))
    drive(place.executor(), tasks)
    assert "cards ''" in logged(tasks[0])
    card = "7" if place.name == "local" else "0"
    assert place.name == "third_party" or f"cards '{card}'" in logged(tasks[1])


def test_settings_and_words_arrive_as_they_are(place, tmp_path, monkeypatch):
    monkeypatch.setenv("NNUNET_DISABLE_PLUGINS", "dicom,pictures")
    odd = "a 'b' \"c\" $HOME `x`; \\ * ü"
    task = script(tmp_path / "with space", "job", "print(os.environ['NNUNET_DISABLE_PLUGINS'])\n"
                  f"print(os.environ['ODD'] == {odd!r})", ODD=odd)  # fmt: skip
    drive(place.executor(), [task])
    assert "dicom,pictures" in logged(task)
    assert "True" in logged(task)


def test_a_job_that_is_delivered_twice_is_done_once(place, tmp_path):
    first = job(tmp_path, "job", "plugins", "list", NNUNET_DISABLE_PLUGINS="dicom")
    executor = place.executor()
    one = executor.start([first], {})
    two = executor.start([first], {}) or {"job": one["job"]}
    _all_ended(executor, [*one.values(), *two.values()])
    end = records.ended(first.folder, "job")
    assert end is not None
    assert (end.is_done, end.attempts) == (True, 1)
    assert logged(first).count("--- try") == 1
    assert "blocked" in logged(first)


def test_a_worker_without_a_plugin_says_which(place, tmp_path):
    task = job(tmp_path, "job", "plugins", "show", "absent/loss", "--kind", "loss")
    drive(place.executor(), [task])
    assert records.ended(task.folder, "job").is_hopeless
    assert "absent" in logged(task)


def test_a_job_that_takes_too_much_memory_is_named_so(place, tmp_path):
    if place.name not in ("slurm", "sbatch"):
        pytest.skip("it limits no memory")
    hungry = "data = bytearray(600_000_000)\nfor i in range(0, len(data), 4096): data[i] = 1\n"
    small = Resources(0, 1, 200_000_000, 60)
    ended = drive(place.executor(), [script(tmp_path, "job", hungry + "time.sleep(20)", small)])
    assert "memory limit" in ended["job"].reason
    assert not ended["job"].is_lost


def test_what_is_too_large_is_refused_before_any_job(place):
    if place.name == "third_party":
        pytest.skip("it refuses nothing")
    from nnunet_core.errors import UsageError

    for wrong in (Resources(gpus=3), Resources(cpus=99)):
        with pytest.raises(UsageError, match="resources"):
            place.executor().check([SMALL, wrong])


def test_the_machine_of_a_job_dies_and_it_runs_on_another(place, tmp_path):
    if place.cluster is None:
        pytest.skip("there is one machine")
    executor = place.executor()
    large = Resources(0, 3, 500_000_000, 60)
    task = script(tmp_path, "job", _BEGIN + _WAIT + _LATE, large)
    handles = list(executor.start([task], {}).values())
    process = _began(task)
    place.kill_node_of(process)
    until(lambda: not process.is_running(), "the death of the job")
    (task.folder / "go").touch()
    status = next(iter(executor.look(handles).values()))
    if place.name == "ray":
        (status,) = _all_ended(executor, handles).values()
        assert status.is_lost
        assert "NODE_FAIL" in status.reason
        drive(executor, [task])
    else:
        # Slurm itself starts it again
        assert [each.reason for each in _all_ended(executor, handles).values()] == [""]
    assert (task.folder / "times").read_text() == "x"
