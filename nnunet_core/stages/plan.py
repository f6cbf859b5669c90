"""Fingerprint and plans of a dataset: made once, and used again while their inputs are equal."""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Iterator
from pathlib import Path

from pydantic import ValidationError

from nnunet_core.contracts.network import NetworkBuilder, divisor_of
from nnunet_core.contracts.planner import Planner
from nnunet_core.data.dataset import Dataset
from nnunet_core.data.fingerprint import Fingerprint
from nnunet_core.data.images import SLICE_SPACING_2D, check_planar, spacing_outliers
from nnunet_core.data.metadata import first_problem
from nnunet_core.data.plans import Plans
from nnunet_core.errors import PluginError, UsageError
from nnunet_core.registry.provenance import code_identity, component_record
from nnunet_core.runtime import locks
from nnunet_core.runtime.files import digest, remove_leftovers
from nnunet_core.runtime.reporting import Reporter
from nnunet_core.runtime.workers import Workers
from nnunet_core.stages.method import Method
from nnunet_core.store.workspace import Workspace


def make_fingerprint(
    dataset: Dataset, method: Method, workspace: Workspace, workers: Workers, report: Reporter
) -> Fingerprint:
    """Return the dataset's fingerprint, computed if the stored one is missing or of other data.

    Planners that share the code of `fingerprint` share its result; it must not depend on settings.

    Raises:
        ImageError: 2D images and volumes in one dataset.
    """
    planner: Planner = method.build("planner")
    path = _fingerprint_path(dataset, planner, workspace)
    if not path.is_file():
        with locks.held(path.with_name(locks.NAME), f"the fingerprint of {dataset.name}", report):
            remove_leftovers(path.parent)
            if not path.is_file():  # another run may have written it while this one waited
                with report.track("fingerprint", len(dataset.training)) as tracker:
                    advance = functools.partial(tracker.advance, 1)
                    with _possible(method):
                        made = planner.fingerprint(dataset, workers, progress=advance)
                    made.write(path)
    found = Fingerprint.read(path)
    spacings = {case.name: case.spacing for case in found.cases}
    check_planar({name: spacing[0] == SLICE_SPACING_2D for name, spacing in spacings.items()})
    for sentence in spacing_outliers(spacings):
        report.warning(sentence)
    return found


def make_plans(
    dataset: Dataset, method: Method, workspace: Workspace, workers: Workers, report: Reporter
) -> tuple[Plans, Path]:
    """Return the plans of the method and their file. An existing file is read as it is, so it may
    be edited by hand.

    Raises:
        UsageError: A patch size is no multiple of the network's divisor.
        UnknownComponentError: The plans name a preprocessor that no plugin registers.
        PluginError: The planner made plans that cannot be.
    """
    identities = _identities(method)  # first: a file that a setting names may be missing
    found = make_fingerprint(dataset, method, workspace, workers, report)
    path = _plans_path(dataset, found, method, workspace, identities)
    network: NetworkBuilder = method.build("network")
    if path.is_file():
        plans = Plans.read(path)
        _check(plans, method, network, path)
        return plans, path
    with _possible(method):
        plans = method.build("planner").plan(dataset, found, network)
    plans = plans.model_copy(update={"planner": method.components["planner"].reference})
    _check(plans, method, network, path)
    for note in () if "normalization" in method.preprocessor_settings else plans.notes:
        report.message(note)
    remove_leftovers(path.parent)
    plans.write(path)
    return plans, path


def stored_plans(dataset: Dataset, method: Method, workspace: Workspace) -> Plans | None:
    """Return the plans that `make_plans` would read; None where they are not made yet."""
    path = _fingerprint_path(dataset, method.build("planner"), workspace)
    if not path.is_file():
        return None
    found = Fingerprint.read(path)
    path = _plans_path(dataset, found, method, workspace, _identities(method))
    return Plans.read(path) if path.is_file() else None


def _fingerprint_path(dataset: Dataset, planner: Planner, workspace: Workspace) -> Path:
    key = digest([dataset.digest, code_identity(type(planner).fingerprint)])
    return workspace.preprocessed / dataset.name / "fingerprints" / f"{key}.json"


def _identities(method: Method) -> list[dict[str, object]]:
    """Return what identifies the planner and the network, which plans are of."""
    parts = [method.components[kind] for kind in ("planner", "network")]
    return [component_record(part).identity() for part in parts]


def _plans_path(
    dataset: Dataset,
    fingerprint: Fingerprint,
    method: Method,
    workspace: Workspace,
    identities: list[dict[str, object]],
) -> Path:
    key = digest([fingerprint.digest, identities])
    name = method.components["planner"].name
    return workspace.preprocessed / dataset.name / "plans" / f"{name}-{key[:8]}.json"


@contextlib.contextmanager
def _possible(method: Method) -> Iterator[None]:
    try:
        yield
    except ValidationError as error:
        raise PluginError(
            f"The planner '{method.components['planner'].reference}' made what cannot be: "
            f"{first_problem(error)}. 'nnunet dataset verify' shows sizes and spacings of the "
            "images; --set planner.FIELD=VALUE changes the planner."
        ) from error


def _check(plans: Plans, method: Method, network: NetworkBuilder, path: Path) -> None:
    for name, configuration in plans.configurations.items():
        method.preprocessor(configuration, f"{name} in {path}")
        divisor = divisor_of(network, configuration.network)
        pairs = zip(configuration.patch_size, divisor, strict=True)
        for axis, (size, step) in enumerate(pairs):
            below = size // step * step
            if below != size:
                nearest_sizes = f"{below} or {below + step}" if below else f"{step}"
                raise UsageError(
                    f"Plans {path}: {name} has patch_size {configuration.patch_size}, but the "
                    f"network {type(network).__name__} needs a multiple of {step} along axis "
                    f"{axis}: {nearest_sizes}."
                )
