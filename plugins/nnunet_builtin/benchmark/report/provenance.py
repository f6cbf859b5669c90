"""Where the numbers come from: what differs between variants, packages, versions, machines."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence

from nnunet_builtin.benchmark.report.content import Content
from nnunet_builtin.judging.runs import Run
from nnunet_builtin.pages.elements import (
    NOTHING,
    Cell,
    Element,
    Section,
    Sentences,
    Table,
    Text,
    Value,
)
from nnunet_core.registry.settings import full_settings
from nnunet_core.stages.method import Method


def provenance_section(content: Content) -> Section:
    """Return settings that differ, components with their packages, libraries and machines."""
    elements: list[Element] = [_differences(content.methods, content.bench.baseline)]
    if content.runs:
        elements += [_components(content.runs), _libraries(content.runs), _machines(content.runs)]
    else:
        elements.append(Text("No training is done: nothing is recorded of packages and machines."))
    return Section("Provenance", elements)


def flat(method: Method) -> dict[str, str]:
    """Return {kind or kind.field: reference or value as JSON} of a method, defaults included."""
    found = {}
    for kind, resolved in method.components.items():
        found[kind] = resolved.reference
        for name, value in full_settings(resolved).items():
            found[f"{kind}.{name}"] = json.dumps(value)
    for name, value in method.preprocessor_settings.items():
        found.setdefault(f"preprocessor.{name}", json.dumps(value))
    return found


def _differences(methods: Mapping[str, Method], baseline: str) -> Element:
    names = [baseline, *(name for name in methods if name != baseline)]
    found = {name: flat(methods[name]) for name in names}
    keys = dict.fromkeys(key for values in found.values() for key in values)
    rows: list[list[Value]] = []
    for key in keys:
        values = [found[name].get(key) for name in names]
        if len(set(values)) > 1:
            shown = [Cell(v or NOTHING, v, strong=v != values[0]) for v in values]
            rows.append([key, *shown])
    if not rows:
        return Sentences(["The variants do not differ in any component or setting."])
    caption = f"What differs between the variants; bold is another value than that of {baseline}"
    return Table(["setting", *names], rows, caption)


def _components(runs: Sequence[Run]) -> Table:
    """Return the packages that the components of all trainings came from."""
    found: dict[tuple[str, str, str], set[str]] = {}
    for run in runs:
        for kind, record in run.record.components.items():
            package = f"{record.distribution or 'no package'} {record.version or ''}".strip()
            found.setdefault((kind, record.reference, package), set()).add(run.place.variant)
    rows: list[list[Value]] = [
        [*key, ", ".join(sorted(variants))] for key, variants in found.items()
    ]
    return Table(["kind", "component", "package", "variants"], rows, "Components")


def _libraries(runs: Sequence[Run]) -> Table:
    found: dict[str, set[str]] = {"Python": {run.record.python for run in runs}}
    for run in runs:
        for name, version in run.record.libraries.items():
            found.setdefault(name, set()).add(version)
    rows: list[list[Value]] = [[name, ", ".join(sorted(each))] for name, each in found.items()]
    return Table(["library", "version"], rows, "Libraries of all trainings")


def _machines(runs: Sequence[Run]) -> Table:
    found: dict[tuple[str, ...], list[str]] = {}
    for run in runs:
        record = run.record
        key = (record.device, record.precision, record.threads, run.processor or NOTHING)
        found.setdefault(key, []).append(run.host)
    rows: list[list[Value]] = [
        [*key, ", ".join(sorted(set(filter(None, hosts)))) or NOTHING, len(hosts)]
        for key, hosts in found.items()
    ]
    heads = ["device", "precision", "threads", "processor", "hosts", "trainings"]
    return Table(heads, rows, "Machines")
