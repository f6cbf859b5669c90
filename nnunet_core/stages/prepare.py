"""Prepare the training cases of a dataset for one configuration, in parallel, only those that are missing or stale."""

from __future__ import annotations

import dataclasses
import functools
from typing import TYPE_CHECKING

from nnunet_core.contracts.abilities import ComputesOnDevice, ability, built
from nnunet_core.registry.provenance import component_record
from nnunet_core.runtime import files, locks
from nnunet_core.store.prepared import PreparedStore

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from nnunet_core.contracts.preprocessor import Preprocessor
    from nnunet_core.data.dataset import CaseFiles, Dataset
    from nnunet_core.data.plans import Configuration
    from nnunet_core.runtime.reporting import Reporter
    from nnunet_core.runtime.workers import Workers
    from nnunet_core.stages.method import Method
    from nnunet_core.store.workspace import Workspace

_FORMAT = 1  # of prepared cases; a change makes every stored case stale


def case_keys(
    dataset: Dataset, configuration: Configuration, preprocessor_identity: Mapping[str, object]
) -> dict[str, str]:
    """Return {name: digest of everything that a prepared case depends on} of every training case.

    Args:
        dataset: The content of its files, and its foreground values, which decide the class locations.
        configuration: Its preprocessing inputs count, patch size and network do not.
        preprocessor_identity: Reference and settings of the preprocessor, JSON values.

    Raises:
        ImageError: A file cannot be read.
    """
    common = {
        "format": _FORMAT,
        "configuration": configuration.preprocessing_inputs(),
        "preprocessor": dict(preprocessor_identity),
        "foreground": dataset.labels.foreground,
    }
    parts = [case.paths for case in dataset.training]
    digests = iter(dataset.file_digests([path for paths in parts for path in paths]))
    keys = {}
    for case, paths in zip(dataset.training, parts, strict=True):
        mine = [next(digests) for _ in paths]
        images, label = mine[: len(case.images)], mine[len(case.images) :]
        keys[case.name] = files.digest(
            {**common, "images": images, "label": label[0] if label else None}
        )
    return keys


def prepare_cases(
    dataset: Dataset,
    configuration: Configuration,
    preprocessor: Preprocessor,
    store: PreparedStore,
    keys: Mapping[str, str],
    workers: Workers,
    progress: Callable[[str], None] | None = None,
) -> None:
    """Load, prepare and store cases.

    Args:
        dataset: Where the cases are.
        configuration: What to prepare for.
        preprocessor: Built component; it is pickled when there are several processes.
        store: Where prepared cases go.
        keys: {name: key} of what to prepare, from `case_keys`.
        workers: Processes to work in.
        progress: Called with the name of each case when it is stored.

    Raises:
        NnunetError: The first error of loading, preparing or storing a case, or a process that died. Cases that were
            stored before stay.
    """
    jobs = [(dataset.case(name), key) for name, key in keys.items()]
    work = functools.partial(_prepare, dataset.slim(), configuration, preprocessor, store)
    results = workers.each(
        work,
        jobs,
        cost=lambda job: dataset.memory(job[0], configuration.spacing),
        name=lambda job: f"case {job[0].name}",
    )
    for name in results:
        if progress is not None:
            progress(name)


def on_device(preprocessor: Preprocessor, device: str) -> Preprocessor:
    """Return a preprocessor that computes on a device, if it can."""
    able = ability(preprocessor, ComputesOnDevice)
    return preprocessor if able is None else able.on(device)


def _prepare(
    dataset: Dataset,
    configuration: Configuration,
    preprocessor: Preprocessor,
    store: PreparedStore,
    job: tuple[CaseFiles, str],
) -> str:
    case, key = job
    prepared = preprocessor.prepare(dataset.load(case), configuration, dataset.labels.foreground)
    store.write(prepared, key, configuration.patch_size)
    return case.name


def prepare(
    dataset: Dataset,
    configuration: Configuration,
    method: Method,
    workspace: Workspace,
    workers: Workers,
    report: Reporter,
    device: str = "cpu",
    verify: bool = False,
) -> PreparedStore:
    """Return the store of prepared cases, after preparing those that are missing or stale; on `device` if it can.

    With `verify`, files whose content is not what was written are found, too: every prepared case is read.
    """
    resolved = method.preprocessor(configuration)
    identity = component_record(resolved).identity()
    key = files.digest([configuration.preprocessing_inputs(), identity])
    store = PreparedStore(
        workspace.preprocessed / dataset.name / "prepared" / f"{resolved.name}-{key[:8]}"
    )
    keys = case_keys(dataset, configuration, identity)
    if not _missing(store, keys, verify):
        return dataclasses.replace(store, keys=keys)
    with locks.held(store.folder / locks.NAME, f"preprocessing {dataset.name}", report):
        todo = _missing(
            store, keys, verify
        )  # another run may have prepared them while this one waited
        with report.track(
            f"preprocess ({resolved.name})", len(keys), len(keys) - len(todo)
        ) as tracker:
            advance = lambda name: tracker.advance(1, name)  # noqa: E731
            prepare_cases(
                dataset,
                configuration,
                on_device(built(resolved), device),
                store,
                todo,
                workers,
                advance,
            )
    return dataclasses.replace(store, keys=keys)


def _missing(store: PreparedStore, keys: Mapping[str, str], verify: bool) -> dict[str, str]:
    return {name: key for name, key in keys.items() if not store.is_current(name, key, verify)}
