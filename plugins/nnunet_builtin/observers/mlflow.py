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
    """One run; a training that goes on goes on in the same run.

    Args:
        library: `mlflow`.
        record: What is trained.
        folder: Of the fold; kept as a tag.
    """

    def __init__(self, library: Any, record: FoldRecord, folder: Path) -> None:
        self._client = library.MlflowClient()
        number = self._experiment(record.dataset)
        known = self._client.search_runs([number], filter_string=f"tags.{TAG} = '{run_id(record)}'")
        if known:
            self._run = known[0].info.run_id
            self._client.update_run(self._run, status="RUNNING")
            return
        tags = {TAG: run_id(record), "folder": str(folder)}
        self._run = self._client.create_run(number, tags=tags, run_name=title(record)).info.run_id
        for name, value in facts(record).items():
            self._client.log_param(self._run, _name(name), value)

    def _experiment(self, name: str) -> str:
        """Return the id of an experiment; folds that start at the same time may all find none, and one creates it."""
        found = self._client.get_experiment_by_name(name)
        if found is None:
            try:
                return str(self._client.create_experiment(name))
            except Exception:
                found = self._client.get_experiment_by_name(name)
                if found is None:
                    raise
        return str(found.experiment_id)

    def write(self, values: Mapping[str, float], epoch: int) -> None:
        """Log the numbers of an epoch."""
        for name, value in values.items():
            self._client.log_metric(self._run, _name(name), value, step=epoch)

    def finish(self, values: Mapping[str, float]) -> None:
        """Log the validation scores, and end the run."""
        for name, value in values.items():
            self._client.log_metric(self._run, _name(name), value)
        self._client.set_terminated(self._run)


def _name(text: str) -> str:
    """Return a name without the characters that MLflow refuses."""
    return re.sub(r"[^\w\-./ ]", "_", text, flags=re.ASCII)


plugin = Observer("mlflow", "mlflow", MlflowLog)
