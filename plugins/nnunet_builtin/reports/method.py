"""What a method is made of: components, versions, settings that differ, reasons of its plans."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from nnunet_builtin.reports.content import Part, Planned, Setting
from nnunet_core.contracts.abilities import ExplainsPlans, ability, built
from nnunet_core.data.fingerprint import Fingerprint
from nnunet_core.data.plans import Configuration, Plans
from nnunet_core.errors import NnunetError
from nnunet_core.registry.components import RUN_KINDS
from nnunet_core.registry.discovery import Registry, Resolved
from nnunet_core.registry.records import ComponentRecord
from nnunet_core.registry.settings import full_settings
from nnunet_core.registry.variants import DEFAULT, find
from nnunet_core.store.models import FILE, Model, ModelDocument


def parts_of(document: ModelDocument, registry: Registry) -> list[Part]:
    """Return the components of a model. Code that no plugin registers is not imported."""
    usual = find(registry, DEFAULT).choices()
    kinds = [kind for kind in RUN_KINDS if kind in document.components]
    return [_part(kind, document.components[kind], registry, usual.get(kind, "")) for kind in kinds]


def _part(kind: str, record: ComponentRecord, registry: Registry, usual: str) -> Part:
    remarks = []
    if usual and registry.resolve(kind, usual).reference != record.reference:
        remarks.append(f"default: {usual}")
    try:
        resolved = _registered(kind, record, registry)
        own = full_settings(resolved)
    except NnunetError:
        where = record.distribution or record.target
        own = {}
        remarks.append(f"{where} is not installed here, so no defaults are known")
    else:
        if resolved.version != record.version:
            remarks.append(f"{resolved.version} is installed")
    changed = [
        Setting(name, value, own.get(name, "unknown"))
        for name, value in record.settings.items()
        if name not in own or own[name] != value
    ]
    return Part(kind, record, changed, "; ".join(remarks))


def _registered(kind: str, record: ComponentRecord, registry: Registry) -> Resolved:
    return registry.registered(kind, record.reference, FILE, "")


def plans_of(model: Model, preprocessed: list[Path], registry: Registry) -> Planned:
    """Say why the configuration of a model is as it is.

    Args:
        model: Whose.
        preprocessed: Folders `preprocessed/DATASET` where its plans may be.
        registry: Provides its planner and its network.
    """
    document = model.document
    notes = document.configuration.notes
    if "planner" not in document.components:
        return Planned(missing=f"It was planned elsewhere: {document.origin}.", notes=notes)
    found = _found_plans(document, preprocessed)
    if found is None:
        return Planned(missing="Its plans are not in the workspace.", notes=notes)
    plans, place = found
    notes = (*plans.notes, *notes)
    fingerprint = _found_fingerprint(plans, place)
    if fingerprint is None:
        missing = "The fingerprint that its plans were made of is not in the workspace."
        return Planned(missing=missing, skipped=plans.skipped, notes=notes)
    try:
        reasons, missing = _reasons(document, fingerprint, registry)
    except NnunetError as error:
        reasons, missing = {}, str(error)
    return Planned(reasons, missing, plans.skipped, notes)


def _reasons(
    document: ModelDocument, fingerprint: Fingerprint, registry: Registry
) -> tuple[dict[str, str], str]:
    """Return the reasons of a planner, or why there are none.

    Raises:
        NnunetError: The planner or the network cannot be had.
    """
    components: dict[str, Any] = {}
    for kind in ("planner", "network"):
        record = document.components[kind]
        resolved = _registered(kind, record, registry)
        components[kind] = built(resolved.with_settings(record.settings))
    explaining = ability(components["planner"], ExplainsPlans)
    if explaining is None:
        return {}, f"The planner {document.components['planner'].reference} does not explain."
    arguments = (document.labels, fingerprint, document.configuration, components["network"])
    return dict(explaining.explain(*arguments)), ""


def _found_plans(document: ModelDocument, preprocessed: list[Path]) -> tuple[Plans, Path] | None:
    """Return the plans that hold a configuration, and their `preprocessed/DATASET`."""
    planner = document.components["planner"].reference
    for plans, place in _readable(preprocessed):
        found = plans.configurations.get(document.configuration_name)
        if plans.planner == planner and found and _same(found, document.configuration):
            return plans, place
    return None


def _same(one: Configuration, other: Configuration) -> bool:
    """Return whether two configurations are equal; a command may have chosen another
    preprocessor.
    """
    without = {"notes", "preprocessor"}
    return one.model_dump(exclude=without) == other.model_dump(exclude=without)


def _readable(preprocessed: list[Path]) -> Iterator[tuple[Plans, Path]]:
    for place in preprocessed:
        for path in sorted((place / "plans").glob("*.json")):
            try:
                yield Plans.read(path), place
            except NnunetError:  # plans of others, or of another version
                continue


def _found_fingerprint(plans: Plans, place: Path) -> Fingerprint | None:
    for path in sorted((place / "fingerprints").glob("*.json")):
        try:
            fingerprint = Fingerprint.read(path)
        except NnunetError:
            continue
        if fingerprint.digest == plans.fingerprint_digest:
            return fingerprint
    return None


def fingerprint_of(preprocessed: list[Path], digest: str) -> Fingerprint | None:
    """Return a fingerprint of the dataset of this content digest, if there is one."""
    for place in preprocessed:
        for path in sorted((place / "fingerprints").glob("*.json")):
            try:
                fingerprint = Fingerprint.read(path)
            except NnunetError:
                continue
            if fingerprint.dataset_digest == digest:
                return fingerprint
    return None
