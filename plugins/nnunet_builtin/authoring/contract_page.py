"""CONTRACT.md of a package: what each of its kinds has to do, from the code of the contracts."""

from __future__ import annotations

import inspect
import textwrap
from collections.abc import Iterable
from typing import Any

from nnunet_core.contracts.abilities import CONTRACTS
from nnunet_core.contracts.augmentation import Sample, Step
from nnunet_core.contracts.executor import Resources, Status, Task
from nnunet_core.contracts.predictor import TrainedModel
from nnunet_core.contracts.trainer import TrainingTask
from nnunet_core.data.images import Geometry, Header, Image
from nnunet_core.data.plans import NetworkSpec
from nnunet_core.registry import hookspecs
from nnunet_core.registry.components import Variant

#: What the methods of a kind get or return, where its contract alone does not say it.
_DATA: dict[str, tuple[type, ...]] = {
    "network": (NetworkSpec,),
    "augmentation": (Step, Sample),
    "trainer": (TrainingTask,),
    "predictor": (TrainedModel,),
    "image_format": (Image, Header, Geometry),
    "executor": (Task, Resources, Status),
}
_OBSERVERS = (
    hookspecs.nnunet_run_started,
    hookspecs.nnunet_epoch_finished,
    hookspecs.nnunet_fold_validated,
    hookspecs.nnunet_run_finished,
)


def parts_of(kind: str) -> tuple[Any, ...]:
    """Return the classes and hooks that say what a kind has to do: its contract first."""
    if kind == "observer":
        return _OBSERVERS
    if kind == "command":
        return (hookspecs.nnunet_commands,)
    if kind == "variant":
        return (Variant,)
    return (CONTRACTS[kind][0], *_DATA.get(kind, ()), *CONTRACTS[kind][1:])


def contract_of(kinds: Iterable[str]) -> str:
    """Return the contracts of some kinds as they stand in the code, in Markdown."""
    sections = []
    for kind in kinds:
        title = kind.replace("_", " ").capitalize()
        code = "\n\n\n".join(map(_source, parts_of(kind)))
        sections.append(f"## {title}\n\n```python\n{code}\n```\n")
    return "\n".join(sections)


def _source(part: Any) -> str:
    """Return the code of a class up to its first private member, or of a function."""
    lines = textwrap.dedent(inspect.getsource(part)).rstrip().splitlines()
    private = (i for i, line in enumerate(lines) if line.startswith(("    def _", "    @model_")))
    return "\n".join(lines[: next(private, len(lines))]).rstrip()
