"""A small executor of somebody else: no queue, no cards, one job after the other."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess

import psutil

from nnunet_core.contracts.executor import Status


class OneAfterTheOther:
    """Runs one job at a time."""

    def check(self, needed):
        pass

    def start(self, tasks, running):
        if running or not tasks:
            return {}
        environment = {**os.environ, **tasks[0].environment, "CUDA_VISIBLE_DEVICES": ""}
        with tasks[0].log.open("ab") as log:
            process = subprocess.Popen(
                tasks[0].command, env=environment, stdout=log, stderr=log, start_new_session=True
            )
        return {tasks[0].name: str(process.pid)}

    def look(self, handles):
        return {h: Status("running" if _is_alive(int(h)) else "ended") for h in handles}

    def stop(self, handles):
        for handle in handles:
            with contextlib.suppress(ProcessLookupError):
                os.kill(int(handle), signal.SIGTERM)
        psutil.wait_procs([psutil.Process(int(h)) for h in handles if _is_alive(int(h))], 30)


def _is_alive(number: int) -> bool:
    try:
        return psutil.Process(number).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False
