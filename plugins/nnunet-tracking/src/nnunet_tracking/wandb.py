"""Weights & Biases: one run per fold; the WANDB_ variables count as usual."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from nnunet_builtin.observers.observer import Observer, facts, run_id, title

if TYPE_CHECKING:
    from pathlib import Path

    from nnunet_core.registry.records import FoldRecord

PROJECT = "nnunet"


class WandbLog:
    """One run.

    Args:
        run: What `wandb.init` returned.
    """

    def __init__(self, run: Any) -> None:
        self._run = run

    @classmethod
    def open(cls, library: Any, record: FoldRecord, folder: Path) -> WandbLog:
        """Start the run of a fold, or go on with it: a training that goes on goes on in the same
        run.

        Args:
            library: `wandb`.
            record: What is trained.
            folder: Of the fold; local files go into its folder `wandb`.
        """
        chosen = os.environ.get  # an argument of `init` would win over the variable
        return cls(
            library.init(
                project=chosen("WANDB_PROJECT", PROJECT),
                group=chosen(
                    "WANDB_RUN_GROUP",
                    f"{record.dataset} {record.variant} {record.configuration}",
                ),
                name=chosen("WANDB_NAME", title(record)),
                dir=chosen("WANDB_DIR", str(folder)),
                id=run_id(record),
                resume="allow",
                config=facts(record),
            )
        )

    def write(self, values: Mapping[str, float], epoch: int) -> None:
        """Log the numbers of an epoch."""
        self._run.log(dict(values), step=epoch)

    def finish(self, values: Mapping[str, float]) -> None:
        """Put the validation scores into the summary of the run, and finish it."""
        self._run.summary.update(dict(values))
        self._run.finish()


plugin = Observer("wandb", "wandb", WandbLog.open, install="nnunet-tracking[wandb]")
