"""The executor `ray`: tasks on a Ray cluster; on Kubernetes through KubeRay."""

from __future__ import annotations

import contextlib
import importlib.metadata
import logging
import secrets
import socket
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from nnunet_builtin.executors.launching import Delivery, delivery
from nnunet_core.contracts.executor import Resources, Status, Task
from nnunet_core.errors import NnunetError, UsageError

_NAMESPACE = "nnunet"
_HEAD = "node:__internal_head__"
_CONNECT_SECONDS = 10
_ANSWER_SECONDS = 60
_POLL_SECONDS = 0.2


@dataclass(frozen=True)
class RayExecutor:
    """Hands jobs to a Ray cluster, each as a task with its resources. The folder of the benchmark
    must be there, under the same path, on all machines of the cluster.

    Args:
        address: Of the cluster: `auto` for the one that this machine is part of, `HOST:6379`, or
            `ray://HOST:10001` from outside of it.
        max_jobs: Most jobs that wait or run at once.
        grows: The cluster adds machines when jobs wait (KubeRay's autoscaler), so that a job may
            be larger than every machine that is there now.
        grace_seconds: Given to jobs that are stopped, to save their work.
    """

    address: str = "auto"
    max_jobs: int = 1000
    grows: bool = False
    grace_seconds: int = 120

    def check(self, needed: Sequence[Resources]) -> None:
        """Raise UsageError where Ray is missing, its cluster cannot be reached, lacks this package,
        or has no machine that is large enough.
        """
        try:
            self._answer("look", [])
        except UsageError:
            raise
        except NnunetError as error:
            raise UsageError(
                f"{error}\nInstall the same nnunet-core[ray] and plugins on all machines of the "
                "cluster, for the Python that Ray runs with."
            ) from error
        nodes = [node["Resources"] for node in self._ray().nodes() if node["Alive"]]
        for each in dict.fromkeys(needed):
            wanted = {"CPU": each.cpus, "GPU": each.gpus, "memory": each.memory}
            fits = [
                all(node.get(name, 0) >= amount for name, amount in wanted.items())
                for node in nodes
            ]
            if not any(fits) and not self.grows:
                largest = {name: max(node.get(name, 0) for node in nodes) for name in wanted}
                raise UsageError(
                    f"A job needs {_told(wanted)}; no machine of the Ray cluster has that at once "
                    f"(most of each: {_told(largest)}). Lower 'resources' in the benchmark, or set "
                    "'grows' if the cluster adds larger machines by itself."
                )

    def start(self, tasks: Sequence[Task], running: Mapping[str, Resources]) -> dict[str, str]:
        """Hand tasks to the cluster, which starts them where there is room."""
        some = tasks[: max(0, self.max_jobs - len(running))]
        if not some:
            return {}
        handles = {task.name: secrets.token_hex(8) for task in some}
        orders = {handles[task.name]: (delivery(task), task.resources) for task in some}
        self._answer("submit", orders, self.grace_seconds)
        return handles

    def look(self, handles: Sequence[str]) -> dict[str, Status]:
        """Ask the cluster; while it does not answer, jobs run."""
        if not handles:
            return {}
        try:
            return self._answer("look", list(handles))
        except NnunetError as error:
            return dict.fromkeys(handles, Status("running", str(error)))

    def stop(self, handles: Sequence[str]) -> None:
        """Cancel what waits, and stop what runs once it has saved its work."""
        if handles:
            self._answer("stop", list(handles), seconds=self.grace_seconds + _ANSWER_SECONDS)

    def _answer(self, method: str, *arguments: object, seconds: float = _ANSWER_SECONDS) -> Any:
        """Ask the queue on the cluster.

        Raises:
            NnunetError: It does not answer.
        """
        ray = self._ray()
        try:
            queue = _queue(ray)
            return ray.get(getattr(queue, method).remote(*arguments), timeout=seconds)
        except ray.exceptions.RayError as error:
            raise NnunetError(f"The Ray cluster does not answer: {_last_line(error)}") from error

    def _ray(self) -> Any:
        """Return Ray, connected.

        Raises:
            UsageError: It is not installed, or there is no cluster.
        """
        try:
            import ray
        except ImportError as error:
            raise UsageError(
                "The executor 'ray' needs Ray. Run: pip install 'nnunet-core[ray]'"
            ) from error
        if not ray.is_initialized():
            try:
                _reach(self.address)
                ray.init(
                    self.address,
                    namespace=_NAMESPACE,
                    log_to_driver=False,
                    logging_level=logging.ERROR,
                )
            # Ray raises RuntimeError where versions of it or of Python differ
            except (OSError, RuntimeError, ValueError) as error:
                raise UsageError(
                    f"There is no Ray cluster at '{self.address}' that can be used: {error}\nStart "
                    "one with 'ray start --head', or set 'address' of the executor: 'auto', "
                    "'HOST:6379' or 'ray://HOST:10001'."
                ) from error
        return ray


class Queue:
    """Lives on the cluster, so that tasks outlive the process that handed them in: Ray stops tasks
    whose owner is gone.
    """

    def __init__(self) -> None:
        self._references: dict[str, Any] = {}
        self._nodes: dict[str, str] = {}
        self._ended: dict[str, Status] = {}

    def submit(self, orders: Mapping[str, tuple[Delivery, Resources]], grace: int) -> None:
        """Start tasks: {handle: what, and what it needs}."""
        import ray

        own = ray.get_runtime_context().current_actor
        for handle, (what, needed) in orders.items():
            options = {
                "num_cpus": needed.cpus,
                "num_gpus": needed.gpus,
                "memory": needed.memory,
                "max_retries": 0,  # the benchmark decides what is tried again
                "name": f"nnunet {what.log.parent.name}",
            }
            task = ray.remote(work).options(**options)
            self._references[handle] = task.remote(handle, what, grace, own)

    def began(self, handle: str, node: str) -> None:
        """Note that a task began."""
        self._nodes[handle] = node

    def look(self, handles: Sequence[str]) -> dict[str, Status]:
        """Return what is known of tasks."""
        import ray

        waiting = list(self._references.values())
        done, _ = ray.wait(waiting, num_returns=len(waiting), timeout=0) if waiting else ([], [])
        finished = set(done)
        for handle, reference in list(self._references.items()):
            if reference in finished:
                self._ended[handle] = self._end(handle, reference)
                del self._references[handle]
        return {handle: self._status(handle) for handle in handles}

    def stop(self, handles: Sequence[str]) -> None:
        """Stop tasks; return when they ended."""
        import ray

        some = [self._references[handle] for handle in handles if handle in self._references]
        for reference in some:
            ray.cancel(reference)
        if some:
            ray.wait(some, num_returns=len(some))

    def _status(self, handle: str) -> Status:
        if handle in self._ended:
            return self._ended[handle]
        if handle not in self._references:
            return Status("ended", "the Ray cluster has forgotten it", is_lost=True)
        node = self._nodes.get(handle)
        return Status("waiting") if node is None else Status("running", f"on node {node[:8]}")

    def _end(self, handle: str, reference: Any) -> Status:
        import ray

        try:
            code = ray.get(reference)
        except ray.exceptions.OutOfMemoryError as error:
            return Status("ended", f"OUT_OF_MEMORY: {_first_line(error)}")
        except ray.exceptions.TaskCancelledError:
            return Status("ended", "CANCELLED")
        except ray.exceptions.NodeDiedError as error:
            return Status("ended", f"NODE_FAIL: {_first_line(error)}", is_lost=True)
        except ray.exceptions.RayError as error:
            alive = {node["NodeID"] for node in ray.nodes() if node["Alive"]}
            node = self._nodes.get(handle)
            if node is not None and node not in alive:
                return Status("ended", f"NODE_FAIL: node {node[:8]} is gone", is_lost=True)
            return Status("ended", f"{type(error).__name__}: {_first_line(error)}")
        return Status("ended", f"exit code {code}" if code else "")


def work(handle: str, what: Delivery, grace: int, queue: Any) -> int:
    """Run a task on a machine of the cluster; return its exit code."""
    import subprocess

    import ray

    context = ray.get_runtime_context()
    queue.began.remote(handle, context.get_node_id())
    # Ray asks for one version of Python; where it lies is the machine's affair
    here = replace(what, command=(sys.executable, *what.command[1:]))
    # Ray no longer hides cards from tasks that have none (ray#62653)
    process = here.start(",".join(context.get_accelerator_ids().get("GPU", [])))
    try:
        while (code := process.poll()) is None:
            time.sleep(_POLL_SECONDS)  # Ray cannot interrupt a wait
        return code
    except KeyboardInterrupt:  # how Ray tells a task that it is cancelled
        process.terminate()
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(grace)
        process.kill()
        raise


def _queue(ray: Any) -> Any:
    """Return the queue on the cluster; those of other versions of this package are others."""
    version = importlib.metadata.version("nnunet-core")
    return (
        ray.remote(Queue)
        .options(
            name=f"queue {version}",
            namespace=_NAMESPACE,
            lifetime="detached",
            get_if_exists=True,
            num_cpus=0,
            # the cluster lives as long as its head
            resources={_HEAD: 0.001},
        )
        .remote()
    )


def _reach(address: str) -> None:
    """Raise OSError where nobody listens at HOST:PORT: Ray itself takes minutes to say so."""
    host, colon, port = address.removeprefix("ray://").rpartition(":")
    if colon and port.isdigit():
        socket.create_connection((host.strip("[]"), int(port)), _CONNECT_SECONDS).close()


def _told(amounts: Mapping[str, float]) -> str:
    return (
        f"{amounts['CPU']:g} CPUs, {amounts['GPU']:g} GPUs, {amounts['memory'] / 1e9:.1f} GB of "
        "memory"
    )


def _first_line(error: Exception) -> str:
    return next((line for line in str(error).splitlines() if line.strip()), "")


def _last_line(error: Exception) -> str:
    """Return what was raised on a worker, without the way there."""
    return next((line for line in reversed(str(error).splitlines()) if line.strip()), "")
