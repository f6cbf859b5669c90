"""MLflow: one experiment per dataset, one run per fold; MLFLOW_TRACKING_URI says where."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from nnunet_builtin.observers.observer import Observer, facts, run_id, title

if TYPE_CHECKING:
    from pathlib import Path

    from nnunet_core.registry.records import FoldRecord

TAG = "nnunet_id"


class MlflowLog:
    """One run.

    Args:
        client: `mlflow.MlflowClient`.
        run: Its id.
    """

    def __init__(self, client: Any, run: str) -> None:
        self._client = client
        self._run = run

    @classmethod
    def open(cls, library: Any, record: FoldRecord, folder: Path) -> MlflowLog:
        """Start the run of a fold, or go on with it: a training that goes on goes on in the same
        run.

        Args:
            library: `mlflow`.
            record: What is trained.
            folder: Of the fold; kept as a tag.
        """
        client = library.MlflowClient()
        number = _experiment(client, record.dataset)
        known = client.search_runs([number], filter_string=f"tags.{TAG} = '{run_id(record)}'")
        if known:
            run = known[0].info.run_id
            client.update_run(run, status="RUNNING")
            return cls(client, run)
        tags = {TAG: run_id(record), "folder": str(folder)}
        run = client.create_run(number, tags=tags, run_name=title(record)).info.run_id
        for name, value in facts(record).items():
            client.log_param(run, _name(name), value)
        return cls(client, run)

    def write(self, values: Mapping[str, float], epoch: int) -> None:
        """Log the numbers of an epoch."""
        for name, value in values.items():
            self._client.log_metric(self._run, _name(name), value, step=epoch)

    def finish(self, values: Mapping[str, float]) -> None:
        """Log the validation scores, and end the run."""
        for name, value in values.items():
            self._client.log_metric(self._run, _name(name), value)
        self._client.set_terminated(self._run)


def _experiment(client: Any, name: str) -> str:
    """Return the id of an experiment; folds that start at the same time may all find none, and one
    creates it.
    """
    found = client.get_experiment_by_name(name)
    if found is None:
        try:
            return str(client.create_experiment(name))
        except Exception:
            found = client.get_experiment_by_name(name)
            if found is None:
                raise
    return str(found.experiment_id)


def _name(text: str) -> str:
    """Return a name without the characters that MLflow refuses."""
    return re.sub(r"[^\w\-./ ]", "_", text, flags=re.ASCII)


plugin = Observer("mlflow", "mlflow", MlflowLog.open)
