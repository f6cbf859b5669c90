"""The manifest of an exported model: what it is, what it needs, and a digest of every file."""

from __future__ import annotations

import hashlib
import io
from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

from nnunet_core.data.labels import Labels
from nnunet_core.registry.components import PREDICTING_KINDS
from nnunet_core.runtime.files import Document
from nnunet_core.runtime.names import PlainName
from nnunet_core.stages.evaluate import summarise
from nnunet_core.stages.experiment import VALIDATION
from nnunet_core.store.models import MANIFEST, Model, ModelDocument
from nnunet_core.store.summaries import SUMMARY, Summary

FILE = MANIFEST
_FROZEN = ConfigDict(frozen=True, extra="forbid")
#: A digest as people write it: `sha256:` and 64 hexadecimal digits.
Digest = Annotated[str, Field(pattern="^sha256:[0-9a-f]{64}$")]


class FileEntry(BaseModel):
    """One file of the archive: its size in bytes, and its digest."""

    model_config = _FROZEN

    size: int = Field(ge=0)
    digest: Digest


class Scores(BaseModel):
    """How a model did on the validation cases of its folds.

    Attributes:
        cases: How many there are.
        mean: {label or region: {metric: mean over the cases where it is defined}}.
    """

    model_config = _FROZEN

    cases: int
    mean: dict[str, dict[str, float | None]]


class Card(BaseModel):
    """One model of the archive.

    Attributes:
        dataset, variant, configuration: Its name, and the folders in which it lies.
        channels, labels: What goes in, what comes out.
        spacing: Of the images that its networks see, mm, (z, y, x).
        patch_size: Of these, voxels, in the order of `spacing`; two entries in 2D: (y, x).
        folds: That are in the archive.
        packages: {distribution: version} of the plugins that it was trained and predicts with.
        unregistered: Components whose code belongs to no plugin, 'package.module:Attribute'.
        scores: On the validation cases of these folds; None where they are not validated.
    """

    model_config = _FROZEN

    dataset: PlainName
    variant: PlainName
    configuration: PlainName
    channels: tuple[str, ...]
    labels: Labels
    spacing: tuple[float, ...]
    patch_size: tuple[int, ...]
    folds: tuple[PlainName, ...]
    packages: dict[str, str]
    unregistered: tuple[str, ...] = ()
    scores: Scores | None = None

    @property
    def name(self) -> str:
        """The name in the results: DATASET/VARIANT/CONFIGURATION."""
        return "/".join((self.dataset, self.variant, self.configuration))


class Manifest(Document):
    """The manifest.json at the top of an archive, and in each model folder that came from one.

    Attributes:
        models: Stages of a cascade stand before those that need them; the last one is the model.
        licence, citation: Texts for whoever uses it.
        files: {path in the archive: entry} of every other file.
    """

    schema_version: Literal[1] = 1
    models: Annotated[tuple[Card, ...], Field(min_length=1)]
    licence: str = ""
    citation: str = ""
    files: dict[str, FileEntry] = Field(default_factory=dict)


def card_of(model: Model, document: ModelDocument, folds: Iterable[Path], name: str) -> Card:
    """Describe a model.

    Args:
        model: The folder.
        document: Its model.json as it is exported.
        folds: The folders that are exported.
        name: Of its folder in the archive.
    """
    configuration, folds = document.configuration, tuple(folds)
    # position of each axis of the image among the permuted ones
    order = [configuration.transpose_forward.index(axis) for axis in range(3)]
    patch = (1,) * (3 - configuration.dimensions) + configuration.patch_size
    records = [document.components[kind] for kind in PREDICTING_KINDS]
    return Card(
        dataset=document.dataset,
        variant=document.variant,
        configuration=name,
        channels=document.channels,
        labels=document.labels,
        spacing=tuple(configuration.spacing[axis] for axis in order),
        patch_size=tuple(patch[axis] for axis in order),
        folds=tuple(fold.name.removeprefix("fold_") for fold in folds),
        packages={
            r.distribution: r.version or "" for r in document.components.values() if r.distribution
        },
        unregistered=tuple(r.reference for r in records if ":" in r.reference),
        scores=_scores(folds) or _earlier_scores(model, name),
    )


def _scores(folds: Iterable[Path]) -> Scores | None:
    """Return the means over the validation cases of all folds; None where one is not validated."""
    paths = [fold / VALIDATION / SUMMARY for fold in folds]
    if not all(path.is_file() for path in paths):
        return None
    cases = [case for path in paths for case in Summary.read(path).content()["results"]["all"]]
    return Scores(cases=len(cases), mean=summarise(cases)["results"]["mean"])


def _earlier_scores(model: Model, name: str) -> Scores | None:
    """Return the scores that a model was installed with: its validation cases are elsewhere."""
    if not (model.folder / FILE).is_file():
        return None
    cards = Manifest.read(model.folder / FILE).models
    return next((card.scores for card in cards if card.configuration == name), None)


def digest_of(content: bytes | Path) -> FileEntry:
    """Return size and digest of some bytes, or of a file."""
    state, size = hashlib.sha256(), 0
    with io.BytesIO(content) if isinstance(content, bytes) else content.open("rb") as file:
        while block := file.read(1 << 20):
            state.update(block)
            size += len(block)
    return FileEntry(size=size, digest=f"sha256:{state.hexdigest()}")
