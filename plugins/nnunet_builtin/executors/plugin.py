"""The plugin `executors`: where the jobs of a benchmark run."""

from __future__ import annotations

from nnunet_core import Component, hookimpl


@hookimpl
def nnunet_executors() -> list[Component]:
    """Return the executors."""
    return [
        Component(
            "local",
            "nnunet_builtin.executors.local:LocalExecutor",
            "Processes of this machine, with places for cards, cores and memory.",
        ),
        Component(
            "ray",
            "nnunet_builtin.executors.ray:RayExecutor",
            "A Ray cluster; on Kubernetes through KubeRay.",
        ),
        Component(
            "slurm",
            "nnunet_builtin.executors.slurm:SlurmExecutor",
            "Slurm through submitit.",
        ),
        Component(
            "sbatch",
            "nnunet_builtin.executors.sbatch:SbatchExecutor",
            "Slurm through array scripts; needs no other package.",
        ),
    ]
