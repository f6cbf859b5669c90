"""The executor `sbatch`: arrays of Slurm as scripts, without any other package."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from dataclasses import dataclass

from nnunet_builtin.executors.batch import SlurmQueue, ask, folder_of, handle_of
from nnunet_builtin.executors.launching import grouped, variables
from nnunet_core.contracts.executor import Resources, Task

_BODY = """\
exec >>"$log" 2>&1
self="${SLURM_ARRAY_JOB_ID}_$SLURM_ARRAY_TASK_ID"

# told to stop: the job saves its work
stop() {
  trap '' INT TERM USR1
  kill -TERM "$child" 2>/dev/null
  wait "$child"
}
# soon out of time, or preempted: it goes on in another slot, unless somebody cancelled it
again() {
  stop
  [ "$(squeue --noheader --format=%T --jobs="$self")" = RUNNING ] && scontrol requeue "$self"
  exit 0
}
out_of_time() {
  [ "${SLURM_RESTART_COUNT:-0}" -lt @RESTARTS@ ] && again
  echo "stopped for good: its time was up @RESTARTS@ times after the first"
  stop
  exit 1
}
trap out_of_time USR1
trap again TERM
trap 'stop; exit 130' INT

env "${environment[@]}" "${command[@]}" </dev/null &
child=$!
wait "$child"
code=$?
# the job heard the signal first
[ "$code" = 143 ] && out_of_time
exit "$code"
"""


@dataclass(frozen=True)
class SbatchExecutor(SlurmQueue):
    """Writes array scripts for Slurm and hands them to sbatch. The settings are those of
    `SlurmQueue`.
    """

    def scripts(self, tasks: Sequence[Task]) -> list[str]:
        """Return a script for each group of tasks that need the same."""
        return [
            self._script(group[i : i + self.array_size])
            for group in grouped(tasks)
            for i in range(0, len(group), self.array_size)
        ]

    def _submit(self, tasks: Sequence[Task]) -> list[str]:
        folder = folder_of(tasks)
        folder.mkdir(parents=True, exist_ok=True)
        number = ask(["sbatch", "--parsable"], self._script(tasks)).strip().split(";")[0]
        jobs = [f"{number}_{index}" for index in range(len(tasks))]
        return [handle_of(job, folder / f"{job}.txt") for job in jobs]

    def _stop_signal(self) -> list[str]:
        return ["--batch", "--signal=INT"]

    def _script(self, tasks: Sequence[Task]) -> str:
        resources = tasks[0].resources
        lines = ["#!/bin/bash"]
        lines += [f"#SBATCH --{text}" for text in self._flags(resources, tasks)]
        lines += ["", 'case "$SLURM_ARRAY_TASK_ID" in']
        for index, task in enumerate(tasks):
            lines += [f"{index})", *(f"  {line}" for line in _described(task)), "  ;;"]
        lines += ["esac", ""]
        if self.setup:
            lines += ["set -e", *self.setup, "set +e"]
        if not resources.gpus:
            lines += ["export CUDA_VISIBLE_DEVICES="]
        return "\n".join(lines) + "\n" + _BODY.replace("@RESTARTS@", str(self.restarts))

    def _flags(self, resources: Resources, tasks: Sequence[Task]) -> list[str]:
        most = f"%{self.parallel}" if self.parallel else ""
        output = shlex.quote(str(folder_of(tasks) / "%A_%a.txt"))
        return [
            *(shlex.quote(text) for text in self.flags(resources)),
            f"array=0-{len(tasks) - 1}{most}",
            f"output={output}",
            "open-mode=append",
            "requeue",
            f"signal=B:USR1@{self.grace_seconds}",
        ]


def _described(task: Task) -> list[str]:
    environment = [f"{name}={value}" for name, value in sorted(variables(task).items())]
    return [
        f"# {task.name}",
        f"log={shlex.quote(str(task.log.absolute()))}",
        f"environment=({shlex.join(environment)})",
        f"command=({shlex.join(task.command)})",
    ]
