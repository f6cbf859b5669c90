"""A method: one resolved component per kind, with a name and an identity."""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from nnunet_core.contracts.abilities import StartsFromWeights, ability, built
from nnunet_core.data.plans import Configuration
from nnunet_core.data.weights import InitialWeights
from nnunet_core.errors import SettingsError, UsageError
from nnunet_core.registry.components import RUN_KINDS, TRAINING_KINDS, Variant
from nnunet_core.registry.discovery import Registry, Resolved
from nnunet_core.registry.provenance import component_record, components_digest
from nnunet_core.registry.records import FILE as RUN_FILE
from nnunet_core.registry.records import ComponentRecord
from nnunet_core.registry.variants import (
    DEFAULT,
    Bundle,
    check_code,
    check_kinds,
    find,
    is_file,
    write,
)
from nnunet_core.runtime import files
from nnunet_core.store.models import WEIGHTS, check_weights
from nnunet_core.store.origins import KEPT, options_of


@dataclass(frozen=True)
class Method:
    """The components of a run.

    Attributes:
        registry: Resolves the preprocessor that plans name.
        variants: References to the variants that it started from.
        variant: Their names, joined by a plus; the results folder begins with it.
        components: {kind: resolved component}; `preprocessor` is absent while the plans decide it.
        preprocessor_settings: Settings for the preprocessor that the plans name.
        bundle: What the variants and the user chose, and what each of them changed.
        unchanged: The variants without the user's changes, for naming; None is this method itself.
        published: The installed variant of that name; a method that equals it has a name without
            digest.
        initial: Weights that its trainings start from.
    """

    registry: Registry
    variants: tuple[str, ...]
    variant: str
    components: Mapping[str, Resolved]
    preprocessor_settings: Mapping[str, Any]
    bundle: Bundle
    unchanged: Method | None = None
    published: Method | None = None
    initial: InitialWeights | None = None

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

    def options(self, configuration: Configuration) -> list[str]:
        """Return the options of the command line that make it."""
        return options_of(self.variants, self.records(configuration), self.initial, self.registry)

    @functools.cached_property
    def name(self) -> str:
        """The results folder: the name of an installed variant, or the names of variants with what
        was changed and a digest.
        """
        mine = self._digest()
        if self.initial is not None:
            mine = files.digest([mine, self.initial.identity()])
        elif self.published is not None and mine == self.published._digest():
            return self.variant
        return f"{self.head}-{mine[:8]}"

    @property
    def head(self) -> str:
        """The readable part of its name: the variants, and the components that the user changed."""
        plain = self.unchanged or self
        references = {kind: resolved.reference for kind, resolved in plain.components.items()}
        changed = [
            resolved.name
            for kind, resolved in self.components.items()
            if kind in TRAINING_KINDS and resolved.reference != references.get(kind)
        ]
        return "_".join([self.variant, *changed])

    def _digest(self) -> str:
        records = {
            kind: component_record(resolved)
            for kind, resolved in self.components.items()
            if kind in TRAINING_KINDS
        }
        return files.digest([components_digest(records), dict(self.preprocessor_settings)])


def choose(
    registry: Registry,
    variant: str | Sequence[str] = DEFAULT,
    choices: Mapping[str, str] | None = None,
    settings: Mapping[str, Mapping[str, Any]] | None = None,
) -> Method:
    """Resolve a variant, or several that are composed from left to right, with the user's changes.

    Args:
        registry: Where components come from.
        variant: References to the variants to start from: names, or TOML files; kinds that they
            leave open are those of `default`.
        choices: {kind: reference} that replace the variants'.
        settings: {kind: {field: value}} on top of the variants'.

    Raises:
        UnknownComponentError, PluginError: A reference that does not resolve.
        UsageError: A file is no variant, or names code that no plugin registers.
        SettingsError: Unknown kinds.
    """
    references = (variant,) if isinstance(variant, str) else tuple(variant)
    own = {kind: reference for kind, reference in (choices or {}).items() if reference}
    user = Variant("", settings=settings or {}, **own)
    check_kinds(user.settings, "--set")
    bundle, names = Bundle().then("", registry.variant(DEFAULT)[1], _full(registry)), []
    bundle = replace(bundle, changes=())
    for reference in references:
        found = find(registry, reference)
        check_kinds(found.settings, f"variant '{reference}'")
        if is_file(reference):
            check_code(reference, found, own, user.settings)
        bundle = bundle.then(f"variant {reference}", found, _full(registry))
        names.append(found.name)
    plain = _resolved(registry, references, "+".join(names), bundle)
    mine = plain
    if own or user.settings:
        changed = bundle.then("command line", user, _full(registry))
        mine = _resolved(registry, references, plain.variant, changed)
    return replace(mine, unchanged=plain, published=_published(plain))


def _full(registry: Registry) -> Callable[[str, str], str]:
    """Return what finds the full reference of a component."""
    return lambda kind, reference: registry.resolve(kind, reference).reference


def _published(plain: Method) -> Method | None:
    """Return the installed variant that has the name of a method; None if there is none."""
    if len(plain.variants) == 1 and not is_file(plain.variants[0]):
        return plain
    installed = [variant.name for _, variant in plain.registry.variants()]
    return choose(plain.registry, plain.variant) if installed.count(plain.variant) == 1 else None


def _resolved(registry: Registry, variants: tuple[str, ...], name: str, bundle: Bundle) -> Method:
    components = {
        kind: registry.resolve(kind, bundle.choices[kind]).with_settings(
            bundle.settings.get(kind, {})
        )
        for kind in RUN_KINDS
        if kind in bundle.choices
    }
    preprocessor = bundle.settings.get("preprocessor", {})
    return Method(registry, variants, name, components, preprocessor, bundle)


def save_variant(method: Method, path: Path) -> list[str]:
    """Write what the variants and the user chose to a TOML file, a variant of its own under whose
    name the same results are found; see `variants.write`.
    """
    chosen = [method.registry.resolve(k, method.bundle.choices[k]) for k in method.components]
    return write(path, method.head, chosen, method.bundle.settings)


def keep_variant(method: Method, folder: Path) -> None:
    """Keep the variants of a method beside its results, if one of them is a file, which may change:
    the command that trains it later names what is kept.
    """
    if any(map(is_file, method.variants)) and not (folder / KEPT).exists():
        with contextlib.suppress(SettingsError):  # of null; the command then has all as --set
            save_variant(method, folder / KEPT)


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
