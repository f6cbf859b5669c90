"""Plans of another dataset, wherever they are from."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field

from pydantic_core import to_jsonable_python

from nnunet_core.contracts.network import NetworkBuilder
from nnunet_core.data.plans import Configuration
from nnunet_core.registry.discovery import Registry
from nnunet_core.registry.records import ComponentRecord
from nnunet_core.registry.variants import DEFAULT
from nnunet_core.runtime import files
from nnunet_core.store.origins import options_of

_PLANES = {"builtin/default": "builtin/planes", "builtin/v2": "builtin/v2_planes"}


@dataclass(frozen=True)
class Source:
    """Plans of another dataset in our words.

    Attributes:
        title: What they are, for people; no path.
        configurations: {name: configuration}.
        channels: Names of the image channels; empty where they are not known.
        skipped: {name: why a configuration cannot be had}.
        components: {name: {kind: record}} of the network and the preprocessor that trained with a
            configuration, as far as they are known.
    """

    title: str
    configurations: Mapping[str, Configuration]
    channels: tuple[str, ...] = ()
    skipped: Mapping[str, str] = field(default_factory=dict)
    components: Mapping[str, Mapping[str, ComponentRecord]] = field(default_factory=dict)

    def digest(self) -> str:
        """Identify what plans that are taken from it depend on."""
        found = self.configurations.items()
        return files.digest({n: c.model_dump(mode="json", exclude={"notes"}) for n, c in found})

    def options(self, name: str, network: NetworkBuilder) -> list[str]:
        """Return the options that a command needs beside the plans for the network and the
        preprocessor that a configuration was trained with.

        Args:
            name: Of the configuration.
            network: The one that is planned for.
        """
        known = dict(self.components.get(name, {}))
        if "network" in known and _is_built(known["network"], network):
            del known["network"]
        return options_of((DEFAULT,), known, None, Registry.discover())


def with_planes(
    found: Configuration, parts: dict[str, ComponentRecord]
) -> tuple[Configuration, dict[str, ComponentRecord]]:
    """Return a configuration, and the records of its parts, with a preprocessor that resamples
    within slices by its name: plans name one, and say nothing of its settings.
    """
    record = parts["preprocessor"]
    name = _PLANES.get(record.reference)
    if name is None or record.settings.get("resample") != "in_plane":
        return found, parts
    found = found.model_copy(update={"preprocessor": name})
    return found, {**parts, "preprocessor": record.model_copy(update={"reference": name})}


def _is_built(record: ComponentRecord, network: NetworkBuilder) -> bool:
    """Return whether a network builder is that of a record, with the same settings."""
    cls = type(network)
    if record.target != f"{cls.__module__}:{cls.__qualname__}":
        return False
    own = vars(network)
    if dataclasses.is_dataclass(network):
        own = {f.name: getattr(network, f.name) for f in dataclasses.fields(network)}
    return all(to_jsonable_python(own.get(n)) == value for n, value in record.settings.items())
