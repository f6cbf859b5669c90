"""MLflow: one experiment per dataset, one run per fold; the MLFLOW_ variables count as usual."""

from __future__ import annotations

import contextlib
import os
import re
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from nnunet_builtin.observers.observer import Observer, facts, run_id, title

if TYPE_CHECKING:
    from pathlib import Path

    from nnunet_core.registry.records import FoldRecord

TAG = "nnunet_id"
#: Of parameters in one request, and of the characters of a value: limits of MLflow.
_AT_ONCE = 100
_LONGEST = 6000
#: A server that does not answer holds up a training for seconds, not for the minutes that MLflow
#: tries.
_PATIENCE = {"MLFLOW_HTTP_REQUEST_MAX_RETRIES": "2", "MLFLOW_HTTP_REQUEST_TIMEOUT": "10"}


class MlflowLog:
    """One run.

    Args:
        library: `mlflow`.
        client: `mlflow.MlflowClient`.
        run: Its id.
    """

    def __init__(self, library: Any, client: Any, run: str) -> None:
        self._library = library
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
        with _patience():
            client = library.MlflowClient()
            number = _experiment(client, record.dataset)
            known = client.search_runs([number], filter_string=f"tags.{TAG} = '{run_id(record)}'")
            if known:
                run = known[0].info.run_id
                client.update_run(run, status="RUNNING")
                return cls(library, client, run)
            tags = {TAG: run_id(record), "folder": str(folder)}
            run = client.create_run(number, tags=tags, run_name=title(record)).info.run_id
            parameters = [
                library.entities.Param(_name(name), str(value)[:_LONGEST])
                for name, value in facts(record).items()
            ]
            for part in _parts(parameters):
                client.log_batch(run, params=part)
            return cls(library, client, run)

    def write(self, values: Mapping[str, float], epoch: int) -> None:
        """Log the numbers of an epoch, in one request."""
        now = time.time_ns() // 1_000_000
        metrics = [
            self._library.entities.Metric(_name(name), value, now, epoch)
            for name, value in values.items()
        ]
        with _patience():
            for part in _parts(metrics):
                self._client.log_batch(self._run, metrics=part)

    def finish(self, values: Mapping[str, float]) -> None:
        """Log the validation scores, and end the run."""
        self.write(values, 0)
        with _patience():
            self._client.set_terminated(self._run)


def _experiment(client: Any, dataset: str) -> str:
    """Return the id of the experiment: that of MLflow's own variables, or one named after the
    dataset; folds that start at the same time may all find none, and one creates it.
    """
    if number := os.environ.get("MLFLOW_EXPERIMENT_ID"):
        return number
    name = os.environ.get("MLFLOW_EXPERIMENT_NAME") or dataset
    found = client.get_experiment_by_name(name)
    if found is None:
        try:
            return str(client.create_experiment(name))
        except Exception:
            found = client.get_experiment_by_name(name)
            if found is None:
                raise
    return str(found.experiment_id)


@contextlib.contextmanager
def _patience() -> Iterator[None]:
    """Let MLflow give up soon, unless its variables say how long it tries."""
    added = {name: value for name, value in _PATIENCE.items() if name not in os.environ}
    os.environ.update(added)
    try:
        yield
    finally:
        for name in added:
            os.environ.pop(name, None)


def _parts(items: Sequence[Any]) -> Iterator[Sequence[Any]]:
    for start in range(0, len(items), _AT_ONCE):
        yield items[start : start + _AT_ONCE]


def _name(text: str) -> str:
    """Return a name without the characters that MLflow refuses."""
    return re.sub(r"[^\w\-./ ]", "_", text, flags=re.ASCII)


plugin = Observer("mlflow", "mlflow", MlflowLog.open, install="nnunet-tracking[mlflow]")
