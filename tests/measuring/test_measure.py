"""`make gpu`: the orchestrator, its report, and every stage at tiny size on a CPU."""

import json
import math
import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from pathlib import Path
from types import SimpleNamespace

import measure as orchestrator
import psutil
import pytest
import torch
from common import HERE, REPOSITORY, Asked, Results
from measure import STAGES, Stage, Wanted, chosen_stages, main, measure
from own_steps import FULL, TINY, Choice, own_step
from report import ENDED, FAILED, STOPPED, TIMED_OUT, read_ends, show, write_report
from stage_profile import (
    DEFAULT,
    Piece,
    best_choices,
    busy,
    launches_of,
    operations_of,
    pieces_of,
    share_of_convolutions,
    span,
    totals,
)
from stage_steps import (
    ALL,
    COLUMNS,
    FULLY,
    OURS,
    PEER,
    RESERVE,
    Clock,
    Peer,
    Round,
    StepTimes,
)
from stage_tests import last_line
from timing import milliseconds_over

#: A stage that starts at once: it writes what `common.Results` would write.
PREAMBLE = """
import json, pathlib, sys
output = pathlib.Path(sys.argv[sys.argv.index("--output") + 1])
machine = {"card": "CPU", "cores": 1, "python": "3", "torch": "2", "cuda": None}
def write(what, value, finished=False, notes=()):
    table = {"title": "Figures", "columns": ["what", "value"], "rows": [[what, value]]}
    content = {"title": "a stage", "machine": machine, "tables": [table], "notes": notes}
    output.write_text(json.dumps(content | {"finished": finished, "seconds": 1.0}))
"""
GOOD = f"""{PREAMBLE}
write("good", 1.5, finished=True, notes=["all is well"])
"""
FAILING = f"""{PREAMBLE}
write("before it failed", 2.5)
print("half way")
raise RuntimeError("no such kernel")
"""
ENDLESS = f"""{PREAMBLE}
import subprocess, time
write("before its time was up", 3.5)
command = [sys.executable, "-c", "import time; time.sleep(600)"]
children = [subprocess.Popen(command, start_new_session=own) for own in (False, True)]
pids = output.with_name("pids")
pids.with_suffix(".part").write_text(" ".join(str(child.pid) for child in children))
pids.with_suffix(".part").rename(pids)
time.sleep(600)
"""


def stages_of(folder, **scripts):
    """Return stages that run these programs."""
    found = {}
    for letter, text in scripts.items():
        path = folder / f"stage_{letter}.py"
        path.write_text(text)
        found[letter] = Stage(f"stage {letter}", path, limit=60)
    return found


def wanted_in(folder, **changes):
    return Wanted(device="cpu", tiny=False, output=folder / "report", **changes)


def section(report, letter):
    """Return the part of a report about a stage."""
    return report.split(f"## {letter}: ")[1].split("\n## ")[0]


def alive(pids):
    """Return the processes that still run."""
    kept = []
    for pid in map(int, pids.split()):
        try:
            running = psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
        except psutil.NoSuchProcess:
            running = False
        kept += [pid] if running else []
    return kept


def all_end(pids):
    """Wait for processes that were killed."""
    until = time.monotonic() + 10
    while alive(pids) and time.monotonic() < until:
        time.sleep(0.05)
    return not alive(pids)


def test_the_limits_of_all_stages_fit_together():
    assert [stage.script.is_file() for stage in STAGES.values()] == [True] * 6
    assert sum(stage.limit for stage in STAGES.values()) <= 10 * 60


@pytest.mark.slow
@pytest.mark.timeout(2400)
def test_the_whole_command(tmp_path):
    words = ["--device", "cpu", "--tiny", "--output", str(tmp_path)]
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    done = subprocess.run(
        [sys.executable, str(HERE / "measure.py"), *words],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    report = (tmp_path / "report.md").read_text()
    assert done.returncode == 0, done.stdout + done.stderr + report
    assert str(tmp_path / "report.md") in done.stdout
    found = {letter: end.how for letter, end in read_ends(tmp_path).items()}
    assert found == dict.fromkeys(STAGES, ENDED)
    assert report.splitlines()[2].startswith("CPU, ")
    for letter, stage in STAGES.items():
        content = json.loads((tmp_path / f"{letter}.json").read_text())
        assert content["finished"]
        assert f"\n## {letter}: {stage.title}\n" in report
        filled = [table for table in content["tables"] if table["rows"]]
        assert filled
        for table in filled:
            assert f"### {table['title']}" in section(report, letter)
            check_figures(table)
    everything = json.dumps([json.loads(p.read_text()) for p in tmp_path.glob("[bde].json")])
    assert "nnunetv2 left out" in everything


def check_figures(table):
    """Every row fits its heading; numbers are finite and not negative, and some are positive."""
    numbers = []
    for row in table["rows"]:
        assert len(row) == len(table["columns"])
        numbers += [value for value in row if isinstance(value, int | float)]
    assert all(math.isfinite(number) and number >= 0 for number in numbers)
    assert not numbers or any(number > 0 for number in numbers)


def test_a_stage_that_fails_or_takes_too_long_leaves_the_others(tmp_path, capsys):
    stages = stages_of(tmp_path, a=FAILING, b=ENDLESS, c=GOOD)
    for letter, limit in (("a", 6), ("b", 4)):  # b also has what a leaves
        stages[letter] = Stage(letter, stages[letter].script, limit)
    assert measure(stages, ["a", "b", "c"], wanted_in(tmp_path)) == 1

    folder = tmp_path / "report"
    ends = read_ends(folder)
    assert [ends[letter].how for letter in "abc"] == [FAILED, TIMED_OUT, ENDED]
    report = (folder / "report.md").read_text()
    assert "RuntimeError: no such kernel" in section(report, "a")
    assert "| before it failed | 2.5 |" in section(report, "a")
    assert "Ran out of time" in section(report, "b")
    assert "| before its time was up | 3.5 |" in section(report, "b")
    assert "* all is well" in section(report, "c")
    assert all_end((folder / "pids").read_text())
    printed = capsys.readouterr().out
    assert "ran out of time" in printed
    assert str(folder / "report.md") in printed


def test_other_stages_are_added_to_a_report(tmp_path):
    stages = stages_of(tmp_path, a=GOOD, b=FAILING)
    assert measure(stages, ["b"], wanted_in(tmp_path)) == 1
    assert measure(stages, ["a"], wanted_in(tmp_path)) == 0
    report = (tmp_path / "report" / "report.md").read_text()
    assert "RuntimeError" in section(report, "b")
    assert "| good | 1.5 |" in section(report, "a")
    assert report.index("## a: ") < report.index("## b: ")

    stages["b"].script.write_text(GOOD)  # mended
    assert measure(stages, ["b"], wanted_in(tmp_path)) == 0
    assert "RuntimeError" not in (tmp_path / "report" / "report.md").read_text()


def test_a_stage_has_the_time_that_those_before_it_did_not_need(tmp_path, capsys):
    stages = stages_of(tmp_path, a=GOOD, b=GOOD)
    assert measure(stages, ["a", "b"], wanted_in(tmp_path)) == 0
    limits = re.findall(r"at most (\d+) s", capsys.readouterr().out)
    assert int(limits[0]) == 60
    assert 60 < int(limits[1]) <= 120


def test_what_is_missing_is_said_at_once(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(orchestrator, "NEEDED", ("json", "no_such_module"))
    assert main(["--device", "cpu", "--tiny", "--output", str(tmp_path / "out")]) == 2
    assert "pip install no_such_module\n" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


NUMERIC = ["-k", "losses and dice_ce", "-q"]


@pytest.mark.slow
def test_the_tests_on_a_card_need_no_reader_of_images(tmp_path):
    """SimpleITK is large, and may be missing beside a card."""
    (tmp_path / "SimpleITK.py").write_text("raise ImportError('blocked')")
    paths = os.pathsep.join([str(tmp_path), os.environ.get("PYTHONPATH", "")])
    command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "-m", "gpu", *NUMERIC]
    done = subprocess.run(
        [*command, str(HERE)],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "PYTHONPATH": paths, "NNUNET_GPU_TESTS": "cpu"},
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "passed" in done.stdout


def test_a_limit_for_every_stage(tmp_path):
    stages = stages_of(tmp_path, a=ENDLESS)
    measure(stages, ["a"], wanted_in(tmp_path, limit=6))
    assert read_ends(tmp_path / "report")["a"].how == TIMED_OUT
    assert read_ends(tmp_path / "report")["a"].seconds < 20


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_stopped_run_ends_its_stage_and_writes_the_report(tmp_path, number):
    stages, folder = stages_of(tmp_path, a=GOOD, b=ENDLESS, c=GOOD), tmp_path / "report"

    def stop():
        until = time.monotonic() + 50
        while not (folder / "pids").exists() and time.monotonic() < until:
            time.sleep(0.05)
        os.kill(os.getpid(), number)

    threading.Thread(target=stop).start()
    assert measure(stages, ["a", "b", "c"], wanted_in(tmp_path)) == 1
    assert {letter: end.how for letter, end in read_ends(folder).items()} == {
        "a": ENDED,
        "b": STOPPED,
    }
    report = (folder / "report.md").read_text()
    assert "| before its time was up | 3.5 |" in section(report, "b")
    assert "## c" not in report
    assert all_end((folder / "pids").read_text())


@pytest.mark.parametrize("text", ["a,x", "", ",", "ab"])
def test_a_wrong_stage_is_one_message(text, capsys, tmp_path):
    assert main(["--stages", text, "--output", str(tmp_path)]) == 2
    error = capsys.readouterr().err
    assert len(error.strip().splitlines()) == 1
    assert "b (step times)" in error
    assert not list(tmp_path.iterdir())


def test_stages_run_in_their_own_order():
    assert chosen_stages("f, b,a") == ["a", "b", "f"]


def test_no_card_is_one_message(capsys, tmp_path, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert main(["--output", str(tmp_path)]) == 2
    error = capsys.readouterr().err
    assert error.startswith("There is no CUDA device here.")
    assert error.endswith("--device cpu --tiny.\n")


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        (None, "–"),
        (0.123456, "0.123"),
        (1234.5, "1234"),
        (12.345, "12.3"),
        (7, "7"),
        ("a|b", "a\\|b"),
    ],
)
def test_cells(value, shown):
    assert show(value) == shown


def test_a_report_of_results_without_an_end(tmp_path):
    given = Asked("cpu", True, tmp_path / "a.json", None, None)
    results = Results("a stage", given)
    table = results.table("Figures", "what", "value", "later")
    results.row(table, "one", 1.25, None)
    results.fill(table, 0, "later", 2.5)
    report = write_report(tmp_path, {"a": "first", "b": "second"}).read_text()
    assert "| a | first | not ended | – |" in report
    assert "| what | value | later |\n| --- | --: | --: |\n| one | 1.25 | 2.5 |" in report
    assert "## b" not in report


def test_a_report_of_nothing(tmp_path):
    assert "No stage has results" in write_report(tmp_path, {"a": "first"}).read_text()


def test_tests_say_their_error():
    crash = SimpleNamespace(message="AssertionError: 1 != 2\nassert 1 == 2")
    assert last_line(SimpleNamespace(reprcrash=crash)) == "AssertionError: 1 != 2"
    assert last_line("a trace\nImportError: no module\n") == "ImportError: no module"
    assert last_line("") == "no message"


def test_full_sizes_are_the_known_ones():
    """A training step of 128^3, batches of 2, is 5.7 TFLOP."""
    assert FULL[0].teraflops() == pytest.approx(5.73, abs=0.01)
    for size in (*FULL, *TINY):
        for axis, length in enumerate(size.patch):
            assert length % math.prod(pool[axis] for pool in size.pools) == 0


def test_every_size_is_measured_before_anything_is_compiled():
    first, *others, compiled = FULLY.rounds[: len(FULL) + 1]
    assert first == Round(0, compiled=False, count=ALL)
    assert {turn.size for turn in others} == {1, 2, 3}
    assert {(turn.compiled, turn.count) for turn in others} == {(False, 1)}
    assert compiled == Round(0, compiled=True, count=1)
    counts = Counter()
    for turn in FULLY.rounds:
        counts[turn.size, turn.compiled] += turn.count
    assert counts == {(size, how): ALL for size in range(len(FULL)) for how in (False, True)}


def test_other_sizes_begin_with_the_best_choice_so_far(tmp_path):
    given = Asked("cpu", True, tmp_path / "b.json", None, None)
    times = StepTimes(given, FULLY, Results("steps", given), tmp_path)
    slow, best = Choice("float16", True, False), Choice("bfloat16", False, False)
    for size, choice, taken in [(FULL[0], slow, 9.0), (FULL[0], best, 8.0), (FULL[1], slow, 3.0)]:
        times._row(size, OURS, choice, taken, None)
        times.measured.add((size, choice))
    assert times._choices(FULL[2], compiled=False)[:2] == [best, slow]
    assert times._choices(FULL[1], compiled=False)[0] == best  # the other one is measured
    assert times._choices(FULL[1], compiled=True)[0] == Choice("float16", True, True)
    assert len(times._choices(FULL[0], compiled=False)) == ALL - 2


def test_a_step_writes_nothing(tmp_path):
    step = own_step(TINY[3], Choice("float32", False, False), "cpu", tmp_path)
    assert math.isfinite(step())
    assert not list(tmp_path.iterdir())  # no table and no drawing of the network


def test_the_peer_answers_size_by_size(tmp_path):
    script = tmp_path / "peer.py"
    script.write_text(
        "import json, sys, time\n"
        "print('a line of its own')\n"
        "print('{\"ready\": true}', flush=True)\n"
        "for line in sys.stdin:\n"
        "    size = json.loads(line)['size']\n"
        "    if size == 'huge':\n"
        "        time.sleep(600)\n"
        "    if size == 'fatal':\n"
        "        sys.exit('no such card')\n"
        "    key = 'error' if size == 'large' else 'ms'\n"
        "    print('noise', json.dumps({key: size}), sep='\\n', flush=True)\n"
    )
    peer = Peer(sys.executable, script)
    peer.wait(30)
    assert [peer.ask({"size": size}, 30) for size in "ab"] == [{"ms": "a"}, {"ms": "b"}]
    with pytest.raises(RuntimeError, match="large"):
        peer.ask({"size": "large"}, 30)
    with pytest.raises(RuntimeError, match="ended with 1: no such card"):
        peer.ask({"size": "fatal"}, 30)
    peer.close()
    peer = Peer(sys.executable, script)
    peer.wait(30)
    with pytest.raises(RuntimeError, match="longer than 1 s"):
        peer.ask({"size": "huge"}, 1)
    peer.close()
    assert peer.process.returncode == -signal.SIGKILL


def test_as_many_steps_as_take_long_enough():
    times = []
    taken = milliseconds_over(lambda: times.append(time.perf_counter()), 0.05, "cpu")
    assert len(times) * taken >= 50


def test_a_side_that_takes_longer_than_what_is_left_is_left_out():
    clock = Clock(RESERVE + 30, {(OURS, False): 1, (PEER, False): 100})
    assert clock.has_time(OURS, False)
    assert not clock.has_time(PEER, False)
    with clock.learning(PEER, False):
        pass
    assert clock.has_time(PEER, False)


def test_pieces_that_overlap_count_once():
    pieces = [Piece("b", 4, 6), Piece("a", 0, 3), Piece("a", 1, 2), Piece("c", 5, 8)]
    assert busy(pieces) == 7
    assert span(pieces) == 8
    assert busy([]) == span([]) == 0
    assert list(totals(pieces).items()) == [("a", (2, 4)), ("c", (1, 3)), ("b", (1, 2))]


def card_profile():
    """Return what PyTorch's profiler tells of a card: kernels, a marked range, calls."""
    cuda, cpu = torch.autograd.DeviceType.CUDA, torch.autograd.DeviceType.CPU

    def event(name, device, start, end, annotation=False):
        return SimpleNamespace(
            name=name,
            device_type=device,
            is_user_annotation=annotation,
            time_range=SimpleNamespace(start=start, end=end),
            cpu_parent=None,
        )

    events = [
        event("wgrad_kernel", cuda, 0, 30),
        event("norm_kernel", cuda, 40, 50),
        event("Optimizer.step", cuda, 0, 90, annotation=True),
        event("cudaLaunchKernel", cpu, 0, 1),
        event("cuLaunchKernelEx", cpu, 2, 3),
        event("aten::convolution_backward", cpu, 0, 4),
    ]
    averages = [
        SimpleNamespace(key=name, count=1, device_type=device, self_device_time_total=time)
        for name, device, time in [
            ("aten::native_batch_norm", cpu, 10),
            ("aten::convolution_backward", cpu, 30),
            ("cudaLaunchKernel", cpu, 40),
            ("aten::empty", cpu, 0),
            ("wgrad_kernel", cuda, 30),
        ]
    ]
    return SimpleNamespace(events=lambda: events, key_averages=lambda: averages)


def test_the_profile_of_a_card():
    found = card_profile()
    assert [piece.name for piece in pieces_of(found, "cuda")] == ["wgrad_kernel", "norm_kernel"]
    assert launches_of(found, "cuda") == 2
    assert list(operations_of(found, "cuda").items()) == [
        ("aten::convolution_backward", (1, 30.0)),
        ("aten::native_batch_norm", (1, 10.0)),
    ]


def test_the_share_of_convolutions_is_one_of_all_kernels():
    """Half of the time is that of kernels that no operation launched."""
    pieces = [Piece("wgrad", 0, 30), Piece("norm", 30, 50), Piece("triton", 50, 100)]
    operations = {"aten::convolution_backward": (1, 30.0), "aten::native_batch_norm": (1, 20.0)}
    assert share_of_convolutions(operations, pieces) == pytest.approx(30)
    assert share_of_convolutions({}, []) == 0


def write_steps(path, *rows):
    """Write results of stage b: (who, precision, order, compiled, ms)."""
    cells = [
        [TINY[0].name, 2, who, precision, order, compiled, ms, None, None, 1.0, 1.0]
        for who, precision, order, compiled, ms in rows
    ]
    products = {"columns": ["precision", "TFLOP/s"], "rows": [["float16", 700.0]]}
    path.write_text(json.dumps({"tables": [products, {"columns": COLUMNS, "rows": cells}]}))


def test_the_fastest_choice_is_profiled(tmp_path):
    path = tmp_path / "b.json"
    assert best_choices(path, TINY[0])[0] == [DEFAULT]
    eager, compiled = Choice("bfloat16", True, False), Choice("float16", False, True)
    slow = ("ours", "float16", "contiguous", "no", 9.0)
    fast = ("ours", "bfloat16", "channels-last", "no", 8.0)
    peer = ("nnunetv2", "float16", "contiguous", "no", 1.0)
    write_steps(path, slow, fast, peer)
    assert best_choices(path, TINY[0])[0] == [eager]
    write_steps(path, slow, fast, peer, ("ours", "float16", "contiguous", "yes", 7.0))
    assert best_choices(path, TINY[0])[0] == [eager, compiled]
    assert best_choices(path, FULL[0])[0] == [DEFAULT]


def test_steps_and_profile_need_no_images_and_no_pictures(tmp_path):
    program = (
        "import runpy, sys\n"
        "sys.modules['SimpleITK'] = sys.modules['matplotlib'] = None\n"
        "sys.argv[0] = sys.argv.pop(1)\n"
        "runpy.run_path(sys.argv[0], run_name='__main__')\n"
    )
    words = ["--device", "cpu", "--tiny", "--output", str(tmp_path / "f.json")]
    paths = os.pathsep.join(map(str, (REPOSITORY, REPOSITORY / "plugins", HERE)))
    subprocess.run(
        [sys.executable, "-c", program, str(HERE / "stage_profile.py"), *words],
        env={**os.environ, "PYTHONPATH": paths},
        check=True,
    )
    content = json.loads((tmp_path / "f.json").read_text())
    assert content["finished"]
    assert content["tables"]
    assert not [note for note in content["notes"] if "left out" in note]


def test_make_finds_a_python(tmp_path):
    """Without the environment of this folder it is the one that PYTHON names."""
    makefile = Path(REPOSITORY / "Makefile").read_text()
    (tmp_path / "Makefile").write_text(makefile)
    words = [
        "make",
        "--no-print-directory",
        "-n",
        "gpu",
        "PYTHON=py",
        "STAGES=a,c",
        "DEVICE=cpu",
        "TINY=1",
        "PREPARED=p",
    ]
    outside = {name: value for name, value in os.environ.items() if not name.startswith("MAKE")}
    done = subprocess.run(
        words, cwd=tmp_path, capture_output=True, text=True, check=True, env=outside
    )
    command = " ".join(done.stdout.replace("\\\n", " ").split())
    script, *options = command.split(" --")
    assert script == "py tests/gpu/measure.py"
    assert options == ["stages a,c", "device cpu", "output gpu_report", "tiny", "prepared p"]
