"""The summary of a validation: metrics of each case and their means, in the layout of v1."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from nnunet_core.runtime import files

SUMMARY = "summary.json"

_Metrics = dict[str, float | None]


class Results(BaseModel):
    """What was measured.

    Attributes:
        all: One entry per case: metrics by label or region, and the paths `test` and `reference`.
        mean: {label or region: means over the cases where the metric is defined}.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    all: tuple[dict[str, Annotated[_Metrics | str, Field(union_mode="left_to_right")]], ...]
    mean: dict[str, _Metrics]


class Summary(files.Document):
    """A summary.json file.

    Attributes:
        id, author, description, name, task, timestamp: As v1 wrote them.
        results: What was measured.
    """

    schema_version: Literal[1] = 1
    id: str = ""
    author: str = ""
    description: str = ""
    name: str = ""
    task: str = ""
    timestamp: str = ""
    results: Results

    def problem(self, folder: Path, outputs: set[str], targets: set[str]) -> str:
        """Say what is missing of the validation that this is the summary of; empty if nothing is.

        Args:
            folder: Where the label maps lie.
            outputs: Their names.
            targets: Labels or regions that are measured, see `evaluate.targets`.
        """
        if {Path(str(case.get("test"))).name for case in self.results.all} != outputs:
            return f"{SUMMARY} is of other cases"
        rows: list[Mapping[str, Any]] = [*self.results.all, self.results.mean]
        for row in rows:
            if any("Dice" not in row.get(target, ()) for target in targets):
                return f"{SUMMARY} lacks a label"
        missing = sorted(name for name in outputs if not (folder / name).is_file())
        return f"{missing[0]} is missing" if missing else ""

    def content(self) -> dict[str, Any]:
        """Return the plain document, as `evaluate.summarise` made it."""
        return self.model_dump(mode="json")
