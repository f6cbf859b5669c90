"""Import-free records that plugins return from their hooks: Component and Variant."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

#: The API of the core: contracts, hooks and what `nnunet_core` exports. The core serves this one
#: and the one before.
API = 1

#: Kinds that a run chooses one component of, in life-cycle order.
RUN_KINDS = (
    "planner",
    "preprocessor",
    "network",
    "loss",
    "augmentation",
    "trainer",
    "predictor",
    "postprocessor",
)

#: Kinds that a trained network depends on; another predictor or postprocessor needs no new
#: training.
TRAINING_KINDS = RUN_KINDS[: RUN_KINDS.index("predictor")]

#: Kinds that a trained model needs to predict.
PREDICTING_KINDS = ("preprocessor", "network", "predictor", "postprocessor")

#: Every kind of component. Kinds outside RUN_KINDS serve the framework around a run.
KINDS = (*RUN_KINDS, "image_format", "dataset_reader", "dataset", "executor", "command")


@dataclass(frozen=True)
class Component:
    """A named piece of the method: where its class lives and the settings it starts from.

    Nothing is imported until the component is used. Two components may share one target with
    different settings: `v21_32GB` is the class of `v21` with `settings={"gpu_memory_gb": 32}`, not
    a subclass.

    Attributes:
        name: Letters, digits, `_`, `-` and `.`; what users write after `--planner` and so on.
        target: `package.module:Attribute`, the class whose constructor takes the settings.
        summary: One line for `nnunet plugins list`.
        settings: Constructor arguments that differ from the class's defaults; JSON values.
        requires: Distributions that must be installed for this component (`"monai>=1.3"`), beyond
            the plugin's own.
        api: The lowest API of the core that it needs: that of the core it was written for.
    """

    name: str
    target: str
    summary: str = ""
    settings: Mapping[str, Any] = field(default_factory=dict)
    requires: tuple[str, ...] = ()
    api: int = 1


@dataclass(frozen=True)
class Variant:
    """A named bundle: at most one component per kind, and settings; the unit of publishing and of
    benchmarking.

    Attributes:
        name: What users write after `--variant`.
        summary: One line for `nnunet plugins list`.
        planner, preprocessor, network, loss, augmentation, trainer, predictor, postprocessor:
            References; None keeps the default. A preprocessor of None means the one that the plans
            name.
        settings: `{"trainer": {"epochs": 250}}`, JSON values.
    """

    name: str
    summary: str = ""
    planner: str | None = None
    preprocessor: str | None = None
    network: str | None = None
    loss: str | None = None
    augmentation: str | None = None
    trainer: str | None = None
    predictor: str | None = None
    postprocessor: str | None = None
    settings: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)

    def choices(self) -> dict[str, str]:
        """Return {kind: reference} of the kinds that this variant decides."""
        return {kind: getattr(self, kind) for kind in RUN_KINDS if getattr(self, kind) is not None}
