"""Ensembles of nnU-Net v1: two models, and what it decided on the postprocessing of their mean."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nnunet_builtin.models.foreign import Foreign
from nnunet_core.registry.discovery import Registry
from nnunet_core.registry.provenance import component_record
from nnunet_core.runtime.names import below
from nnunet_core.store.foreign_postprocessing import foreign_state
from nnunet_core.store.inference import FILE, InferenceDocument, member_record
from nnunet_core.store.models import Model, weights_digests
from nnunet_core.store.postprocessing import PostprocessingRecord

_CLEANING = "builtin/largest_component"
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

    def write(self, folders: Mapping[str, Path], registry: Registry) -> Path:
        """Write an inference.json of the models {configuration: folder}; return it."""
        models = [Model.open(folders[name]) for name in self.configurations]
        name = "ensemble_" + "--".join(self.configurations)
        target = below(models[0].folder.parents[1], "ensembles", name) / FILE
        members = [(model, tuple(model.trained())) for model in models]
        ensemble_document(members, self.state, target.parent, registry).write(target)
        return target


def ensemble_document(
    members: Sequence[tuple[Model, tuple[str, ...]]],
    state: Mapping[str, Any],
    folder: Path,
    registry: Registry,
) -> InferenceDocument:
    """Return the inference.json of an ensemble.

    Args:
        members: Its models, with the names of their folds.
        state: What v1 decided, as the state of `largest_component`.
        folder: Where the file will lie.
        registry: Of the postprocessors.
    """
    weights = {
        f"{model.folder.parent.name}/{model.folder.name} fold {fold}": digest
        for model, names in members
        for fold, digest in weights_digests(map(model.fold_folder, names)).items()
    }
    return InferenceDocument(
        dataset=members[0][0].document.dataset,
        members=tuple(member_record(model, names, folder) for model, names in members),
        postprocessing=PostprocessingRecord(
            component=component_record(registry.resolve("postprocessor", _CLEANING)),
            folds=tuple(sorted({fold for _, names in members for fold in names})),
            weights=weights,
            inputs="",
            state=dict(state),
        ),
    )


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
    written: Sequence[Path],
    registry: Registry,
) -> list[str]:
    """Write an inference.json for each ensemble whose models were imported; return how to use them,
    for people.

    Args:
        ensembles: What v1 decided.
        found: The models as they were found.
        written: Where each of them lies now.
        registry: Of the postprocessors.
    """
    told = []
    pairs = list(zip(found, written, strict=True))
    for ensemble in ensembles:
        folders = {place.name: place for one, place in pairs if one.dataset == ensemble.dataset}
        if not set(ensemble.configurations) <= {*folders}:
            continue
        path = ensemble.write(folders, registry)
        told.append(
            f"ensemble of {' and '.join(ensemble.configurations)}: predict with: nnunet predict "
            f"{path} IMAGES OUTPUT"
        )
    return told
