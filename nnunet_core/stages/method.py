"""A method: one resolved component per kind, with a name and an identity."""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from nnunet_core.contracts.abilities import StartsFromWeights, ability, built
from nnunet_core.data.plans import Configuration
from nnunet_core.data.weights import InitialWeights
from nnunet_core.errors import SettingsError, UsageError
from nnunet_core.registry.components import RUN_KINDS, TRAINING_KINDS
from nnunet_core.registry.discovery import Registry, Resolved
from nnunet_core.registry.provenance import component_record, components_digest
from nnunet_core.registry.records import FILE as RUN_FILE
from nnunet_core.registry.records import ComponentRecord
from nnunet_core.runtime import files
from nnunet_core.store.models import WEIGHTS, check_weights

DEFAULT_VARIANT = "default"


@dataclass(frozen=True)
class Method:
    """The components of a run.

    Attributes:
        registry: Resolves the preprocessor that plans name.
        variant: Name of the variant that it started from.
        components: {kind: resolved component}; `preprocessor` is absent while the plans decide it.
        preprocessor_settings: Settings for the preprocessor that the plans name.
        unchanged: The variant without the user's changes, for naming; None is this method itself.
        initial: Weights that its trainings start from.
        lost_settings: Of the variant, {kind: {field: value}}, for components that the user
            replaced.
    """

    registry: Registry
    variant: str
    components: Mapping[str, Resolved]
    preprocessor_settings: Mapping[str, Any]
    unchanged: Method | None = None
    initial: InitialWeights | None = None
    lost_settings: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)

    def build(self, kind: str) -> Any:
        """Import and construct the component of a kind; see `abilities.built` for errors."""
        return built(self.components[kind])

    def preprocessor(self, configuration: Configuration, plans: object = "the plans") -> Resolved:
        """Return the chosen preprocessor, or the one that plans (their file, for messages) name.

        Raises:
            UnknownComponentError: They name something else than a registered component.
        """
        chosen = self.components.get("preprocessor")
        if chosen is not None:
            return chosen
        named = self.registry.registered(
            "preprocessor",
            configuration.preprocessor,
            f"preprocessor of {plans}",
            "Correct the entry, or choose a preprocessor on the command line (--preprocessor).",
        )
        return named.with_settings(self.preprocessor_settings)

    def records(self, configuration: Configuration) -> dict[str, ComponentRecord]:
        """Describe every component of a run of one configuration."""
        complete = {**self.components, "preprocessor": self.preprocessor(configuration)}
        return {kind: component_record(complete[kind]) for kind in RUN_KINDS}

    @functools.cached_property
    def name(self) -> str:
        """The results folder: the variant's name, with what was changed and a digest when anything
        was changed.
        """
        mine, plain = self._digest(), self.unchanged or self
        if self.initial is not None:
            mine = files.digest([mine, self.initial.identity()])
        elif mine == plain._digest():
            return self.variant
        references = {kind: resolved.reference for kind, resolved in plain.components.items()}
        changed = [
            resolved.name
            for kind, resolved in self.components.items()
            if kind in TRAINING_KINDS and resolved.reference != references.get(kind)
        ]
        return f"{'_'.join([self.variant, *changed])}-{mine[:8]}"

    def _digest(self) -> str:
        records = {
            kind: component_record(resolved)
            for kind, resolved in self.components.items()
            if kind in TRAINING_KINDS
        }
        return files.digest([components_digest(records), dict(self.preprocessor_settings)])


def choose(
    registry: Registry,
    variant: str = DEFAULT_VARIANT,
    choices: Mapping[str, str] | None = None,
    settings: Mapping[str, Mapping[str, Any]] | None = None,
) -> Method:
    """Resolve a variant with the user's changes.

    Args:
        registry: Where components come from.
        variant: Reference of the variant to start from; kinds that it leaves open are those of
            `default`.
        choices: {kind: reference} that replace the variant's.
        settings: {kind: {field: value}} on top of the variant's.

    Raises:
        UnknownComponentError, PluginError: A reference that does not resolve.
        SettingsError: Settings for a component that the user replaced stay with the replaced one;
            unknown kinds.
    """
    _, base = registry.variant(DEFAULT_VARIANT)
    _, named = registry.variant(variant)
    chosen = {**base.choices(), **named.choices()}
    variant_settings = {kind: dict(values) for kind, values in named.settings.items()}
    _check_kinds(variant_settings, f"variant '{variant}'")
    own = {kind: reference for kind, reference in (choices or {}).items() if reference}
    kept = {kind: values for kind, values in variant_settings.items() if kind not in own}
    merged = {
        kind: {**kept.get(kind, {}), **(settings or {}).get(kind, {})}
        for kind in {*kept, *(settings or {})}
    }
    _check_kinds(merged, "--set")
    plain = _resolve(registry, named.name, chosen, variant_settings)
    mine = _resolve(registry, named.name, {**chosen, **own}, merged)
    lost = {kind: values for kind, values in variant_settings.items() if kind in own and values}
    return replace(mine, unchanged=plain, lost_settings=lost)


def _resolve(
    registry: Registry,
    variant: str,
    references: Mapping[str, str],
    settings: Mapping[str, Mapping[str, Any]],
) -> Method:
    components = {
        kind: registry.resolve(kind, references[kind]).with_settings(settings.get(kind, {}))
        for kind in RUN_KINDS
        if kind in references
    }
    return Method(registry, variant, components, settings.get("preprocessor", {}))


def starting_from(method: Method, path: Path | None, frozen: Sequence[str] = ()) -> Method:
    """Return the method whose trainings start from the weights of another model.

    Args:
        method: With random initial weights.
        path: What the trainer finds weights in; None leaves the method as it is.
        frozen: Parts of the network that keep what is loaded.

    Raises:
        UsageError: There are no weights, the trainer cannot start from any, or random ones would be
            frozen.
        StorageError: They are damaged.
    """
    if path is None:
        if frozen:
            raise UsageError(
                f"--freeze {','.join(frozen)} would keep random weights: give a model to start "
                "from, too (--pretrained)."
            )
        return method
    trainer = ability(method.build("trainer"), StartsFromWeights)
    if trainer is None:
        raise UsageError(
            f"The trainer '{method.components['trainer'].reference}' starts from random weights; "
            "it takes no --pretrained."
        )
    file = trainer.find_weights(path)
    if file.name == WEIGHTS and (file.parent / RUN_FILE).is_file():
        check_weights(file.parent)
    initial = InitialWeights(path=str(file), digest=files.file_digest(file), frozen=tuple(frozen))
    return replace(method, initial=initial)


def _check_kinds(settings: Mapping[str, object], source: str) -> None:
    unknown = [kind for kind in settings if kind not in RUN_KINDS]
    if unknown:
        raise SettingsError(
            f"{source} sets fields of '{unknown[0]}', which is no kind. Kinds: "
            f"{', '.join(RUN_KINDS)}."
        )
