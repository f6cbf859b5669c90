"""Prepare the training cases of a dataset for one configuration, in parallel, only those that are
missing or stale.
"""

from __future__ import annotations

import dataclasses
import functools
from typing import TYPE_CHECKING

from nnunet_core.contracts.abilities import ComputesOnDevice, ability, built
from nnunet_core.errors import DatasetError
from nnunet_core.registry.provenance import component_record
from nnunet_core.runtime import files, locks
from nnunet_core.runtime.collecting import collector_rests
from nnunet_core.runtime.reporting import Silence
from nnunet_core.store.prepared import PreparedStore

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from nnunet_core.contracts.preprocessor import Preprocessor
    from nnunet_core.data.cases import Case, PreparedCase
    from nnunet_core.data.dataset import CaseFiles, Dataset
    from nnunet_core.data.plans import Configuration
    from nnunet_core.runtime.reporting import Reporter
    from nnunet_core.runtime.workers import Workers
    from nnunet_core.stages.method import Method
    from nnunet_core.store.entries import Known
    from nnunet_core.store.workspace import Workspace

_FORMAT = 3  # of prepared cases; a change makes every stored case stale


@collector_rests()
def case_keys(
    dataset: Dataset,
    configuration: Configuration,
    preprocessor_identity: Mapping[str, object],
    contents: Mapping[str, str] | None = None,
) -> dict[str, str]:
    """Return {name: digest of everything that a prepared case depends on} of every training case.

    Args:
        dataset: The content of its files, the metadata of its cases, its foreground values, which
            decide the class locations, and its regions.
        configuration: Its preprocessing inputs count, patch size and network do not.
        preprocessor_identity: Reference and settings of the preprocessor, JSON values.
        contents: `Dataset.contents`; None looks at the files now.

    Raises:
        ImageError: A file cannot be read.
    """
    common = {
        "format": _FORMAT,
        "configuration": configuration.preprocessing_inputs(),
        "preprocessor": dict(preprocessor_identity),
        "foreground": dataset.labels.foreground,
    }
    if dataset.labels.regions:  # a preprocessor may add an array for each of them
        common["regions"] = dataset.labels.regions
    contents = dataset.contents() if contents is None else contents
    inputs = (
        {
            "images": [contents[str(path)] for path in case.images],
            "label": contents[str(case.label)] if case.label else None,
            "metadata": dict(case.metadata),
        }
        for case in dataset.training
    )
    return dict(zip(dataset.names, files.digests_with(common, inputs), strict=True))


def prepare_cases(
    dataset: Dataset,
    configuration: Configuration,
    preprocessor: Preprocessor,
    store: PreparedStore,
    keys: Mapping[str, str],
    workers: Workers,
    report: Reporter | None = None,
) -> Iterator[str]:
    """Load, prepare and store the cases of {name: key} (see `case_keys`); yield the name of each
    when it is stored; `report` hears what is doubtful about its images.

    Raises:
        DatasetError: Cases that cannot be loaded or prepared, all of them, after the others are
            stored.
        NnunetError: The first other error, or a process that died. Cases that were stored before
            stay.
    """
    slim = PreparedStore(store.folder)  # without keys: cheap to send to another process
    report, failed = report or Silence(), []
    outcomes = workers.each(
        functools.partial(_prepare, dataset.slim(), configuration, preprocessor, slim),
        [(dataset.case(name), key) for name, key in keys.items()],
        cost=lambda job: dataset.memory(job[0], configuration.spacing),
        name=lambda job: f"case {job[0].name}",
    )
    written: dict[str, Known] = {}
    try:
        for name, outcome in zip(keys, outcomes, strict=True):
            if isinstance(outcome, str):
                failed.append(outcome)
                continue
            notes, written[name] = outcome
            for note in notes:
                report.warning(note)
            yield name
    finally:
        store.remember(written)
    if len(failed) == 1:
        raise DatasetError(failed[0])
    if failed:
        raise DatasetError(f"{len(failed)} cases cannot be prepared:\n" + "\n".join(failed))


def prepare_case(
    preprocessor: Preprocessor,
    case: Case,
    configuration: Configuration,
    foreground: Sequence[int] = (),
) -> PreparedCase:
    """Return a prepared case, with the metadata of the raw one for `restore` unless the
    preprocessor set its own.
    """
    prepared = preprocessor.prepare(case, configuration, foreground)
    if prepared.geometry.metadata or not case.metadata:
        return prepared
    geometry = dataclasses.replace(prepared.geometry, metadata=dict(case.metadata))
    return dataclasses.replace(prepared, geometry=geometry)


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
) -> tuple[tuple[str, ...], Known] | str:
    """Prepare one case; return what is doubtful about its images, and what the store is to
    remember; or why it cannot be prepared.
    """
    files, key = job
    foreground = dataset.labels.foreground
    try:
        case = dataset.load(files)
        prepared = prepare_case(preprocessor, case, configuration, foreground)
    except DatasetError as error:
        return str(error)
    written = store.write(prepared, key, configuration.patch_size)
    return case.geometry.notes, written


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
    """Return the store of prepared cases, after preparing those that are missing or stale; on
    `device` if it can.

    With `verify`, files whose content is not what was written are found, too: every prepared case
    is read.
    """
    resolved = method.preprocessor(configuration)
    identity = component_record(resolved).identity()
    key = files.digest([configuration.preprocessing_inputs(), identity])
    folder = workspace.preprocessed / dataset.name / "prepared" / f"{resolved.name}-{key[:8]}"
    # what the plans are of: a file that changed since makes its case stale for the next run
    keys = case_keys(dataset, configuration, identity, dataset.first_contents)
    store = PreparedStore(folder, keys)
    if store.missing(verify):
        with locks.held(folder / locks.NAME, f"preprocessing {dataset.name}", report):
            files.remove_leftovers(folder)
            todo = store.missing(verify)  # another run may have prepared some meanwhile
            store.remove(*todo)
            preprocessor = on_device(built(resolved), device)
            with report.track(
                f"preprocess ({resolved.name})", len(keys), len(keys) - len(todo)
            ) as tracker:
                for name in prepare_cases(
                    dataset, configuration, preprocessor, store, todo, workers, report
                ):
                    tracker.advance(1, name)
    return store
