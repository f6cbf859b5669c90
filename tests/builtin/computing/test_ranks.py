"""Several processes: how they leave each other, and which weights they average."""

import os
import signal
import subprocess
import sys
import time
import warnings
from contextlib import contextmanager
from pathlib import Path

import pytest
import small_training as small
import torch
from torch import distributed, nn

from nnunet_builtin.computing import ranks
from nnunet_core.errors import TrainingError

BUILDERS = Path(__file__).parents[2] / "builders"
TWO = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2", "-m", "nnunet_cli"]
SETTINGS = (
    *("planner.max_batch_size=2", "planner.base_features=4"),
    *("trainer.iterations_per_epoch=40", "trainer.validation_iterations=1"),
)
#: `nnunet` on a machine that seems to have two GPUs; its processes find that they have none.
WITH_GPUS = """
import torch
from nnunet_cli.main import main

torch.cuda.device_count = lambda: 2
main()
"""


@pytest.fixture
def two(monkeypatch):
    """A group of one process that counts itself twice."""
    store = distributed.HashStore()
    distributed.init_process_group("gloo", store=store, rank=0, world_size=1)
    monkeypatch.setattr(ranks, "world_size", lambda: 2)
    yield
    distributed.destroy_process_group()


class Heads(nn.Module):
    """A network of two heads, and a layer that neither of them depends on if `idle`."""

    def __init__(self, idle=False):
        super().__init__()
        self.body = nn.Conv3d(1, 4, 3, padding=1)
        self.full, self.coarse = nn.Conv3d(4, 2, 1), nn.Conv3d(4, 2, 1)
        self.idle = nn.Conv3d(4, 2, 1) if idle else None

    def forward(self, images):
        features = self.body(images)
        return [self.full(features), self.coarse(features)]


def averaged(network, trained):
    """Return the network that averages, as a training gets it."""

    @contextmanager
    def trial():
        yield network(torch.zeros(2, 1, 4, 4, 4))

    return ranks.distributed_network(network, torch.device("cpu"), trained, trial)


def steps(network, averaging, trained):
    """Train three steps; return what PyTorch warned of."""
    optimizer = torch.optim.SGD(network.parameters(), 0.1, weight_decay=0.5)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        for seed in range(3):
            torch.manual_seed(seed)
            optimizer.zero_grad(set_to_none=True)
            heads = averaging(torch.randn(2, 1, 4, 4, 4))
            torch.stack([heads[head].square().mean() for head in trained]).sum().backward()
            optimizer.step()
    return [str(warning.message) for warning in caught]


@pytest.mark.parametrize("idle", [False, True])
@pytest.mark.parametrize("trained", [[0], [0, 1]])
def test_only_networks_with_idle_weights_pay_for_them(two, idle, trained):
    torch.manual_seed(0)
    alone, network = Heads(idle), Heads(idle)
    network.load_state_dict(alone.state_dict())
    averaging = averaged(network, trained)
    assert averaging.find_unused_parameters == idle
    assert all(weight.requires_grad for weight in network.parameters())
    assert steps(network, averaging, trained) == steps(alone, alone, trained) == []
    for name, tensor in alone.state_dict().items():
        torch.testing.assert_close(network.state_dict()[name], tensor, msg=name)


def test_a_network_may_say_that_its_weights_change_from_batch_to_batch(two):
    network = Heads()
    network.graph_changes = True
    assert averaged(network, [0, 1]).find_unused_parameters


def test_weights_in_channels_last_order_take_the_strides_of_their_gradients(two):
    network = Heads().to(memory_format=torch.channels_last_3d)
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    averaging = averaged(network, [0, 1])
    for name, tensor in network.state_dict().items():
        assert torch.equal(tensor, before[name])
    assert steps(network, averaging, [0, 1]) == []


def test_frozen_weights_stay_frozen(two):
    network = Heads()
    network.full.requires_grad_(False)
    averaged(network, [0, 1])
    assert not network.full.weight.requires_grad
    assert network.coarse.weight.requires_grad


def threads():
    """Return the names of this process's threads."""
    return {path.read_text().strip() for path in Path("/proc/self/task").glob("*/comm")}


def train_and_look(rank, port, folder, stops_after):
    small.train_in_process(rank, 2, port, {folder: {}}, 0, stops_after)
    left = {name for name in threads() if "gloo" in name}
    (folder.parent / f"threads_{rank}").write_text(" ".join(left))


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/task").is_dir(), reason="names of threads are Linux's")
@pytest.mark.parametrize("stops_after", [0, 2])
def test_no_thread_of_the_group_outlives_a_training(tmp_path, stops_after):
    """One that releases a tensor while Python ends takes the process down with it (SIGABRT), now
    and then.
    """
    folder = tmp_path / "fold_0"
    small.prepare(folder, small.labels_of(small.CLASSES))
    small.start_processes(train_and_look, (small.free_port(), folder, stops_after), 2)
    assert [(tmp_path / f"threads_{rank}").read_text() for rank in range(2)] == ["", ""]


def test_a_lost_connection_says_where_to_look(two, monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setattr(distributed, "is_initialized", lambda: False)
    monkeypatch.setattr(ranks, "_meeting", lambda: (distributed.HashStore(), 0, 1))
    monkeypatch.setattr(distributed, "init_process_group", lambda *_, **__: None)
    with (
        pytest.raises(TrainingError, match="Another process of this training has ended"),
        ranks.joined(torch.device("cpu")),
    ):
        raise RuntimeError(
            "[gloo/transport/tcp/pair.cc:534] Connection closed by peer [127.0.0.1]:3"
        )


def command(dataset, *options, epochs=2):
    workspace = str(dataset.parents[1])
    arguments = ["train", str(dataset), "--workspace", workspace, "--folds", "0", *options]
    arguments += ["--workers", "0", "--precision", "float32", "--set", f"trainer.epochs={epochs}"]
    return arguments + [part for setting in SETTINGS for part in ("--set", setting)]


def environment():
    paths = [str(BUILDERS), *filter(None, [os.environ.get("PYTHONPATH")])]
    return {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join(paths)}


@pytest.mark.slow
def test_an_error_of_one_process_ends_both_with_its_message(tiny):
    arguments = command(tiny, "--trainer", "failing_trainer:FailingTrainer")
    done = subprocess.run(
        [sys.executable, *TWO, *arguments],
        capture_output=True,
        text=True,
        check=False,
        timeout=200,
        env=environment(),
    )
    assert done.returncode == 1
    assert "error: as planned" in done.stderr
    assert "exitcode: 1)" in done.stderr  # of the process; an abort would be -6
    assert "unexpected" not in done.stderr


@pytest.mark.slow
def test_a_wrong_setting_has_the_exit_code_of_a_single_process(tiny):
    arguments = command(tiny, "--gpus", "2", "--set", "trainer.optimizer=Nothing")
    done = subprocess.run(
        [sys.executable, "-c", WITH_GPUS, *arguments],
        capture_output=True,
        text=True,
        check=False,
        timeout=200,
        env=environment(),
    )
    assert done.returncode == 2
    assert "trainer.optimizer=Nothing cannot be used" in done.stderr


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_stop_of_several_processes_has_the_exit_code_of_a_single_one(tiny, tmp_path, number):
    log = tmp_path / "log"
    arguments = [sys.executable, "-c", WITH_GPUS, *command(tiny, "--gpus", "2", epochs=50)]
    with log.open("w") as file:
        process = subprocess.Popen(
            arguments, stderr=file, env=environment(), start_new_session=True
        )
        while "epoch 1/50" not in log.read_text() and process.poll() is None:
            time.sleep(0.1)
        process.send_signal(number)
        assert process.wait(timeout=100) == 128 + number, log.read_text()
    said = log.read_text()
    assert "everything is saved" in said
    assert "Warning" not in said
    assert list(tiny.parents[1].glob("results/*/*/*/fold_0/checkpoint.pt"))
