"""A real Slurm on this machine: one controller and two nodes, from Debian's packages."""

from __future__ import annotations

import contextlib
import getpass
import os
import shutil
import socket
import subprocess
import time
from dataclasses import dataclass, field
from pathlib import Path

import psutil

NODES = ("s1", "s2")
_CONFIGURATION = """\
ClusterName=loopback
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={ports[0]}
SlurmUser={user}
SlurmdUser={user}
AuthType=auth/none
CredType=cred/none
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/%n
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/%n.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/%n.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/linux
JobAcctGatherFrequency=task=1
JobAcctGatherParams=OverMemoryKill
SelectType=select/cons_tres
SelectTypeParameters=CR_Core_Memory
SchedulerParameters=sched_interval=1,bf_interval=1
PreemptType=preempt/partition_prio
PreemptMode=REQUEUE
ReturnToService=2
MpiDefault=none
SlurmdTimeout=6
KillWait=2
SlurmdParameters=config_overrides
GresTypes=gpu
NodeName=s1 NodeHostname={host} NodeAddr=127.0.0.1 Port={ports[1]} CPUs=4 RealMemory=4000 Gres=gpu:1
NodeName=s2 NodeHostname={host} NodeAddr=127.0.0.1 Port={ports[2]} CPUs=4 RealMemory=4000
PartitionName=all Nodes=ALL Default=YES MaxTime=60 PriorityTier=1 GraceTime=4
PartitionName=urgent Nodes=ALL MaxTime=60 PriorityTier=9 PreemptMode=OFF
"""


@dataclass
class LoopbackSlurm:
    """Attributes:
    folder: Of its files.
    processes: {name of node, or `slurmctld`: process}.
    """

    folder: Path
    processes: dict[str, subprocess.Popen] = field(default_factory=dict)

    def start(self) -> None:
        """Start everything, and wait until the nodes are there."""
        host = socket.gethostname().split(".")[0]
        with contextlib.ExitStack() as stack:
            sockets = [stack.enter_context(socket.socket()) for _ in range(3)]
            for each in sockets:
                each.bind(("127.0.0.1", 0))
            ports = [each.getsockname()[1] for each in sockets]
        text = _CONFIGURATION.format(
            host=host, ports=ports, user=getpass.getuser(), folder=self.folder
        )
        (self.folder / "state").mkdir()
        (self.folder / "slurm.conf").write_text(text)
        (self.folder / "gres.conf").write_text("NodeName=s1 Name=gpu File=/dev/null\n")
        self._start("slurmctld", ["slurmctld", "-D", "-i"])
        for node in NODES:
            self.start_node(node)

    def start_node(self, node: str) -> None:
        (self.folder / node).mkdir(exist_ok=True)
        self._start(node, ["slurmd", "-D", "-N", node])
        self.wait(node, "idle", "mixed", "allocated")

    def wait(self, node: str, *states: str, seconds: float = 30) -> None:
        """Wait until a node is in one of these states."""
        end, state = time.monotonic() + seconds, ""
        while time.monotonic() < end:
            state = self.ask("sinfo", "-h", "-N", "-p", "all", "-n", node, "-o", "%T").strip()
            if state in states:
                return
            time.sleep(0.1)
        log = (self.folder / "slurmctld.log").read_text()[-2000:]
        raise TimeoutError(f"{node} is '{state}', not {' or '.join(states)}\n{log}")

    def kill_node(self, node: str) -> None:
        """Let a machine die with all that runs on it."""
        self.processes.pop(node).kill()
        self._kill_steps(node)
        # Slurm would find out by itself after some 30 s, as of a machine without power
        self.ask("scontrol", "update", f"nodename={node}", "state=down", "reason=no power")

    def _kill_steps(self, node: str) -> None:
        """Kill what runs on a machine: the steps that listen in its folder, and their children."""
        dying = []
        for process in psutil.process_iter(["cmdline"]):
            if " ".join(process.info["cmdline"] or ()).startswith("slurmstepd: "):
                with contextlib.suppress(psutil.Error):
                    sockets = [each.laddr for each in process.net_connections("unix")]
                    if any(str(path).startswith(f"{self.folder / node}/") for path in sockets):
                        dying += [process, *process.children(recursive=True)]
        for act in (psutil.Process.suspend, psutil.Process.kill):  # none tells of another's death
            for each in dying:
                with contextlib.suppress(psutil.Error):
                    act(each)

    def repair(self) -> None:
        """Start the nodes that died."""
        for node in set(NODES).difference(self.processes):
            self.start_node(node)

    def ask(self, *words: str) -> str:
        done = subprocess.run(
            words, env=self.environment, capture_output=True, text=True, check=False
        )
        return done.stdout

    @property
    def environment(self) -> dict[str, str]:
        return {**os.environ, "SLURM_CONF": str(self.folder / "slurm.conf")}

    def stop(self) -> None:
        for process in self.processes.values():
            process.terminate()
        for process in self.processes.values():
            process.wait(20)
        for node in NODES:
            self._kill_steps(node)

    def _start(self, name: str, words: list[str]) -> None:
        with (self.folder / f"{name}.out").open("ab") as out:
            self.processes[name] = subprocess.Popen(
                words, env=self.environment, stdout=out, stderr=out, stdin=subprocess.DEVNULL
            )


def missing() -> str:
    """Return why there can be no Slurm here; empty if there can."""
    programs = ("slurmctld", "slurmd", "sbatch", "srun", "scontrol", "sinfo")
    lacking = [name for name in programs if shutil.which(name) is None]
    if lacking:
        return f"no {', '.join(lacking)}: apt-get install slurmctld slurmd slurm-client"
    return ""
