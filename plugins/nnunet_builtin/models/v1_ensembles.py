"""Ensembles of nnU-Net v1: two models, and what it decided on the postprocessing of their mean."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nnunet_builtin.models.foreign import Foreign, ForeignModel
from nnunet_core.runtime import files
from nnunet_core.runtime.names import below
from nnunet_core.store.foreign_postprocessing import foreign_state

_FOLDER = re.compile(r"ensemble_(?P<first>\w+?)__.+?--(?P<second>\w+?)__.+")


@dataclass(frozen=True)
class V1Ensemble:
    """An ensemble in a folder of v1.

    Attributes:
        dataset: Name of the task, as its folder has it.
        configurations: Of its two models.
        state: What was decided, as the state of `largest_component`.
    """

    dataset: str
    configurations: tuple[str, str]
    state: Mapping[str, Any]

    def write(self, dataset: Path) -> Path:
        """Write the decision below the folder of a dataset in the results; return the file."""
        name = "ensemble_" + "--".join(self.configurations)
        target = below(dataset, "ensembles", name) / "postprocessing.json"
        files.write_json(target, self.state)
        return target


def find_ensembles(folder: Path) -> list[V1Ensemble]:
    """Return the ensembles in a results folder of v1 and below.

    Raises:
        StorageError: A decision is none.
    """
    paths = sorted(folder.rglob("ensembles/*/ensemble_*/postprocessing.json"))
    named = [(path, _FOLDER.fullmatch(path.parent.name)) for path in paths]
    return [
        V1Ensemble(
            path.parents[1].name,
            (match["first"], match["second"]),
            foreign_state(path),
        )
        for path, match in named
        if match
    ]


def write_ensembles(
    ensembles: Sequence[V1Ensemble],
    found: Sequence[Foreign],
    models: Sequence[ForeignModel],
    results: Path,
) -> list[str]:
    """Write what was decided on ensembles whose models were imported; return how to use each, for
    people.
    """
    told = []
    pairs = list(zip(found, models, strict=True))
    for ensemble in ensembles:
        members = [model for one, model in pairs if one.dataset == ensemble.dataset]
        if not set(ensemble.configurations) <= {model.configuration_name for model in members}:
            continue
        path = ensemble.write(below(results, members[0].dataset))
        told.append(
            f"ensemble of {' and '.join(ensemble.configurations)}: predict with both "
            "(--save-probabilities --no-postprocessing), then: nnunet ensemble OUTPUT_1 "
            f"OUTPUT_2 PREDICTIONS --postprocessing {path}"
        )
    return told
