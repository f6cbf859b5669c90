"""Places where jobs run: this machine, a Ray cluster of two nodes, a Slurm of two nodes."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import loopback_slurm
import psutil
import pytest
from driving import built


@dataclass
class Place:
    """Attributes:
    name: Of the executor.
    target, settings: Of its class.
    cluster: What it runs on; None is this machine.
    """

    name: str
    target: str
    settings: dict[str, Any] = field(default_factory=dict)
    cluster: Any = None

    def executor(self, **changed: Any) -> Any:
        return built(self.target, {**self.settings, **changed})

    def kill_node_of(self, process: psutil.Process) -> None:
        """Let the machine die that a process runs on; there is another one for its job."""
        _NODE_KILLERS[self.name](self, process)


def _kill_ray_node(place: Place, process: psutil.Process) -> None:
    parents = {parent.pid for parent in process.parents()}
    nodes = place.cluster.list_all_nodes()
    (dying,) = [
        node
        for node in nodes
        if any(info.process.pid in parents for info in node.all_processes["raylet"])
    ]
    place.cluster.add_node(num_cpus=4, memory=4e9)
    place.cluster.remove_node(dying, allow_graceful=False)


def _kill_slurm_node(place: Place, process: psutil.Process) -> None:
    node = process.environ()["SLURMD_NODENAME"]
    place.cluster.kill_node(node)
    for job in place.cluster.ask("squeue", "-h", "-r", "-t", "PENDING", "-o", "%i").split():
        # Slurm itself waits for two minutes before it starts a job again
        place.cluster.ask("scontrol", "update", f"jobid={job}", "StartTime=now")


_NODE_KILLERS: dict[str, Callable[[Place, psutil.Process], None]] = {
    "ray": _kill_ray_node,
    "slurm": _kill_slurm_node,
    "sbatch": _kill_slurm_node,
}


@pytest.fixture(scope="session")
def slurm_cluster() -> Iterator[loopback_slurm.LoopbackSlurm]:
    if reason := loopback_slurm.missing():
        pytest.skip(reason)
    folder = Path(tempfile.mkdtemp(prefix="slurm-"))  # sockets have short paths
    cluster = loopback_slurm.LoopbackSlurm(folder)
    before = os.environ.get("SLURM_CONF")
    os.environ["SLURM_CONF"] = cluster.environment["SLURM_CONF"]
    try:
        cluster.start()
        yield cluster
    finally:
        cluster.stop()
        os.environ.pop("SLURM_CONF") if before is None else os.environ.update(SLURM_CONF=before)
        shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(scope="session")
def ray_cluster() -> Iterator[Any]:
    ray = pytest.importorskip("ray")
    from ray.cluster_utils import Cluster

    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    cluster = Cluster(
        initialize_head=True,
        head_node_args={"num_cpus": 2, "num_gpus": 1, "memory": 4e9, "include_dashboard": False},
    )
    cluster.add_node(num_cpus=4, memory=4e9)
    try:
        yield cluster
    finally:
        ray.shutdown()
        cluster.shutdown()


def _place(name: str, request: pytest.FixtureRequest) -> Place:
    if name == "third_party":
        return Place(name, "driving_third_party:OneAfterTheOther")
    if name == "local":
        settings = {"gpus": ("7",), "cpus": 4, "memory_gb": 4.0}
        return Place(name, "nnunet_builtin.executors.local:LocalExecutor", settings)
    if name == "ray":
        cluster = request.getfixturevalue("ray_cluster")
        settings = {"address": cluster.address, "grace_seconds": 10}
        return Place(name, "nnunet_builtin.executors.ray:RayExecutor", settings, cluster)
    cluster = request.getfixturevalue("slurm_cluster")
    settings = {"poll_seconds": 0.2, "grace_seconds": 10}
    target = f"nnunet_builtin.executors.{name}:{name.capitalize()}Executor"
    return Place(name, target, settings, cluster)


@pytest.fixture(scope="module", params=["local", "third_party", "ray", "slurm", "sbatch"])
def place(request: pytest.FixtureRequest) -> Iterator[Place]:
    found = _place(request.param, request)
    yield found
    if isinstance(found.cluster, loopback_slurm.LoopbackSlurm):
        found.cluster.repair()
