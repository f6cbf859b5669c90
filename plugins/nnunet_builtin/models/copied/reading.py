"""Read plans from files and folders of ours, and of nnU-Net v1 and v2."""

from __future__ import annotations

import functools
from pathlib import Path

from nnunet_builtin.models.copied.source import Source, with_planes
from nnunet_builtin.models.copied.v1 import read_v1
from nnunet_builtin.models.copied.v2 import read_v2
from nnunet_core.data.plans import Plans
from nnunet_core.errors import UsageError
from nnunet_core.runtime import files
from nnunet_core.store.models import FILE, Model, ModelDocument

V1_PLANS, V2_PLANS = "plans.pkl", "plans.json"
_LARGEST = 64 << 20  # bytes; plans have some ten thousand
_KINDS = "a plans file or model folder, a plans.pkl of nnU-Net v1, or a plans.json of v2"


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
        return _of_models([Model(path.parent, ModelDocument.read(path))])
    if "fingerprint_digest" in found:
        plans = Plans.read(path)
        title = f"the plans of {plans.dataset} by {plans.planner}"
        return Source(title, plans.configurations, skipped=plans.skipped)
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
        return _of_models([Model.open(folder)])
    if models := sorted(path.parent for path in folder.glob(f"*/{FILE}")):
        return _of_models([Model.open(model) for model in models])
    for name in (V2_PLANS, V1_PLANS):
        if (folder / name).is_file():
            return read_source(folder / name)
    raise UsageError(
        f"planner.source: the folder {folder} holds no {FILE}, {V2_PLANS} or {V1_PLANS}, nor do "
        f"folders in it hold a {FILE}. Give {_KINDS}."
    )


def _of_models(given: list[Model]) -> Source:
    """Return the configurations of models, and of the stages that they follow."""
    models = [stage for model in given for stage in model.stages()]
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
