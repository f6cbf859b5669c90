"""Where plans can be taken from: files and folders of ours, and of nnU-Net v1 and v2."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from pydantic_core import to_jsonable_python

from nnunet_core.contracts.network import NetworkBuilder
from nnunet_core.data.plans import Configuration, Plans
from nnunet_core.errors import UsageError
from nnunet_core.registry.discovery import Registry
from nnunet_core.registry.records import ComponentRecord
from nnunet_core.registry.variants import DEFAULT
from nnunet_core.runtime import files
from nnunet_core.store.models import FILE, Model
from nnunet_core.store.origins import options_of

V1_PLANS, V2_PLANS = "plans.pkl", "plans.json"
_LARGEST = 64 << 20  # bytes; plans have some ten thousand
_PLANES = {"builtin/default": "builtin/planes", "builtin/v2": "builtin/v2_planes"}
_KINDS = "a plans file or model folder, a plans.pkl of nnU-Net v1, or a plans.json of v2"


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


def read_source(path: Path) -> Source:
    """Return the plans in a file or folder.

    Raises:
        UsageError: It is not there, or is none of these.
        StorageError: It is damaged, or asks for more than a machine has.
    """
    if path.is_dir():
        return _of_folder(path)
    if not path.is_file():
        raise UsageError(f"planner.source: there is no {path}. Give {_KINDS}.")
    if path.suffix == ".pkl":
        from nnunet_builtin.models.copied.v1 import read_v1

        return read_v1(path)
    if path.suffix != ".json" or path.stat().st_size > _LARGEST:
        raise UsageError(
            f"planner.source: {path} holds no plans. Give {_KINDS}. Archives of models are "
            "imported or installed first: 'nnunet models import', 'nnunet models install'."
        )
    files.check_regular(path)
    content = files.read_json(path)
    found = content if isinstance(content, dict) else {}
    if "configuration_name" in found:
        return _of_models([path.parent])
    if "fingerprint_digest" in found:
        plans = Plans.read(path)
        title = f"the plans of {plans.dataset} by {plans.planner}"
        return Source(title, plans.configurations, skipped=plans.skipped)
    from nnunet_builtin.models.copied.v2 import read_v2

    return read_v2(path)


def digest_of(path: str) -> str:
    """Identify the content of a source, see `read_source`."""
    found = Path(path)
    folders = [found, found.parent, *found.glob("*/"), *found.parent.glob("*/")]  # stages, too
    read = {f / name for f in folders for name in (FILE, V1_PLANS, V2_PLANS)} | {found}
    states = [(str(p), p.stat().st_mtime_ns, p.stat().st_size) for p in read if p.is_file()]
    return _digest_of(found, tuple(sorted(states)))


@functools.lru_cache(maxsize=16)
def _digest_of(path: Path, _: tuple[tuple[str, int, int], ...]) -> str:
    return read_source(path).digest()


def _of_folder(folder: Path) -> Source:
    if (folder / FILE).is_file():
        return _of_models([folder])
    if models := sorted(path.parent for path in folder.glob(f"*/{FILE}")):
        return _of_models(models)
    for name in (V2_PLANS, V1_PLANS):
        if (folder / name).is_file():
            return read_source(folder / name)
    raise UsageError(
        f"planner.source: the folder {folder} holds no {FILE}, {V2_PLANS} or {V1_PLANS}, nor do "
        f"folders in it hold a {FILE}. Give {_KINDS}."
    )


def _of_models(folders: list[Path]) -> Source:
    """Return the configurations of models, and of the stages that they follow."""
    models = [stage for folder in folders for stage in Model.open(folder).stages()]
    documents = {model.document.configuration_name: model.document for model in models}
    first = next(iter(documents.values()))
    title = f"the model {first.dataset}/{first.variant}"
    if len(documents) == 1:
        title = f"{title}/{first.configuration_name}"
    found, components = {}, {}
    for name, document in documents.items():
        parts = {kind: document.components[kind] for kind in ("network", "preprocessor")}
        found[name], components[name] = with_planes(document.configuration, parts)
    return Source(title, found, first.channels, components=components)


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
