"""The record of a trained fold: every component with its origin, settings, seed, data, libraries,
device.
"""

from __future__ import annotations

import platform
from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from nnunet_core.data.weights import InitialWeights
from nnunet_core.registry.components import TRAINING_KINDS
from nnunet_core.runtime import files

FILE = "run.json"


class ComponentRecord(BaseModel):
    """One component of a run.

    Attributes:
        reference: Full reference.
        distribution, version: The pip package to install; None for code outside any package.
        target: Where the code was.
        settings: Every setting, defaults included.
        contents: {setting that names a file: digest of what is in it}; part of the identity, in
            the place of the file's name.
        source_digest: Of the code outside any package; part of the identity.
        code_digest: Of the code in the file of the target, wherever it is; tells changes.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    reference: str
    target: str
    # messages tell people to install these
    distribution: Annotated[str, Field(pattern=r"^[A-Za-z0-9._-]+$")] | None
    version: Annotated[str, Field(pattern=r"^[A-Za-z0-9.+!_-]+$")] | None
    settings: dict[str, Any]
    contents: dict[str, str] = Field(default_factory=dict)
    source_digest: str | None = None
    code_digest: str | None = None

    def identity(self) -> dict[str, Any]:
        """Return what decides whether two runs are the same method."""
        return {
            "reference": self.reference,
            "settings": {**self.settings, **self.contents},
            "source": self.source_digest,
        }

    def described(self) -> str:
        """Return reference and settings for a message: "builtin/sliding_window (step_size=0.5)"."""
        chosen = ", ".join(f"{name}={value}" for name, value in self.settings.items())
        return f"{self.reference} ({chosen})" if chosen else self.reference


class FoldRecord(files.Document):
    """The record of one trained fold.

    Attributes:
        status: `running` until the fold is `trained`; `finished` when it is validated, too;
            `imported` when its weights come from elsewhere, and nothing of its validation is here.
        dataset, dataset_digest, variant, configuration, fold, seed: What was run.
        components: {kind: record}; the predictor is the one whose validation the fold holds.
        initial: Weights that the training started from.
        inputs_digest: Identity of everything that the training depends on; a finished fold with
            another digest is stale.
        model_digest: Of the model that the fold is a part of, see `models.ModelDocument.digest`.
        split_digest: Of the cases that it was trained and validated on; empty of what is older.
        weights: (bytes, digest) of the weights file, as it was when the training ended.
        seconds_per_case: Of its validation, mean: to predict a prepared case, write and score it.
        libraries: {distribution: version}.
        device, precision, threads: What computed it; on CPU, sums depend on the threads.
        plugins: {plugin: "distribution version"} of all active plugins.
    """

    schema_version: Literal[4] = 4
    status: Literal["running", "trained", "finished", "imported"]
    dataset: str
    dataset_digest: str
    variant: str
    configuration: str
    fold: str
    seed: int
    inputs_digest: str
    model_digest: str
    components: dict[str, ComponentRecord]
    initial: InitialWeights | None = None
    split_digest: str = ""
    weights: tuple[int, str] | None = None
    seconds_per_case: float | None = None
    python: str = Field(default_factory=platform.python_version)
    libraries: dict[str, str] = Field(default_factory=dict)
    device: str = "auto"
    precision: str = "auto"
    threads: str = "auto"
    plugins: dict[str, str] = Field(default_factory=dict)
    started: str = ""
    finished: str = ""

    def changed_code(self, now: Mapping[str, ComponentRecord]) -> list[str]:
        """Describe the components of the training whose code is not what the fold was trained
        with.

        Args:
            now: {kind: record} of the same components as they are installed now.
        """
        changed = []
        for kind in (kind for kind in TRAINING_KINDS if kind in self.components):
            old, new = self.components[kind], now[kind]
            if old.code_digest not in (None, new.code_digest):
                versions = "" if old.version == new.version else f" {old.version} -> {new.version}"
                changed.append(f"{kind} '{old.reference}'{versions}")
        return changed

    def is_validated(self, predictor: ComponentRecord) -> bool:
        """Return whether the fold is trained, and validated with this predictor."""
        mine = self.components.get("predictor")
        return (
            self.status == "finished"
            and mine is not None
            and (mine.identity() == predictor.identity())
        )
