"""The stages before training: fingerprint, plans, prepared cases. Each is done once and reused while its inputs are equal."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from nnunet_core import locks
from nnunet_core.dataset import Dataset
from nnunet_core.files import digest
from nnunet_core.fingerprint import Fingerprint
from nnunet_core.interfaces import Planner
from nnunet_core.method import Method
from nnunet_core.parallel import Workers
from nnunet_core.plans import Configuration, Plans
from nnunet_core.preprocess import case_keys, on_device, prepare_cases
from nnunet_core.record import code_identity, component_record
from nnunet_core.reporting import Reporter
from nnunet_core.settings import build
from nnunet_core.storage import PreparedStore
from nnunet_core.workspace import Workspace


def fingerprint(
    dataset: Dataset, method: Method, workspace: Workspace, workers: Workers, report: Reporter
) -> Fingerprint:
    """Return the dataset's fingerprint, computed if the stored one is missing or of other data.

    Planners that share the code of `fingerprint` share its result; it must not depend on settings.
    """
    planner: Planner = method.build("planner")
    key = digest([dataset.digest, code_identity(type(planner).fingerprint)])
    path = workspace.preprocessed / dataset.name / "fingerprints" / f"{key}.json"
    if path.is_file():
        return Fingerprint.read(path)
    with locks.held(path.with_name(locks.NAME), f"the fingerprint of {dataset.name}", report):
        if path.is_file():
            return Fingerprint.read(path)
        with report.track("fingerprint", len(dataset.training)) as tracker:
            result = planner.fingerprint(dataset, workers, progress=lambda name: tracker.advance(1, name))
        result.write(path)
        return result


def plan(
    dataset: Dataset, method: Method, workspace: Workspace, workers: Workers, report: Reporter
) -> tuple[Plans, Path]:
    """Return the plans of the method and their file. An existing file is read as it is, so it may be edited by hand."""
    found = fingerprint(dataset, method, workspace, workers, report)
    resolved = method.components["planner"]
    identities = [component_record(method.components[kind]).identity() for kind in ("planner", "network")]
    key = digest([found.digest, identities])
    path = workspace.preprocessed / dataset.name / "plans" / f"{resolved.name}-{key[:8]}.json"
    if path.is_file():
        return Plans.read(path), path
    plans = method.build("planner").plan(dataset, found, method.build("network"))
    plans = plans.model_copy(update={"planner": resolved.reference})
    for note in () if "normalization" in method.preprocessor_settings else plans.notes:
        report.message(note)
    plans.write(path)
    return plans, path


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
    key = digest([configuration.preprocessing_inputs(), identity])
    store = PreparedStore(workspace.preprocessed / dataset.name / "prepared" / f"{resolved.name}-{key[:8]}")
    keys = case_keys(dataset, configuration, identity)
    if not _missing(store, keys, verify):
        return dataclasses.replace(store, keys=keys)
    with locks.held(store.folder / locks.NAME, f"preprocessing {dataset.name}", report):
        todo = _missing(store, keys, verify)  # another run may have prepared them while this one waited
        with report.track(f"preprocess ({resolved.name})", len(keys), len(keys) - len(todo)) as tracker:
            advance = lambda name: tracker.advance(1, name)  # noqa: E731
            prepare_cases(dataset, configuration, on_device(build(resolved), device), store, todo, workers, advance)
    return dataclasses.replace(store, keys=keys)


def _missing(store: PreparedStore, keys: Mapping[str, str], verify: bool) -> dict[str, str]:
    return {name: key for name, key in keys.items() if not store.is_current(name, key, verify)}


def describe(configuration: Configuration) -> dict[str, Any]:
    """Return the plain facts of a configuration for tables."""
    network = configuration.network
    return {
        "spacing (mm)": " x ".join(f"{v:.4g}" for v in configuration.spacing),
        "median shape": " x ".join(map(str, configuration.median_shape)),
        "patch size": " x ".join(map(str, configuration.patch_size)),
        "batch size": str(configuration.batch_size),
        "pooling per axis": " x ".join(
            str(sum(kernel[axis] > 1 for kernel in network.pool_kernels)) for axis in range(network.dimensions)
        ),
        "features": ", ".join(str(network.features(stage)) for stage in range(len(network.conv_kernels))),
        "axis order": str(configuration.transpose_forward),
        "normalisation": ", ".join(n.scheme + (" (mask)" if n.use_mask else "") for n in configuration.normalization),
        "preprocessor": configuration.preprocessor,
    }
