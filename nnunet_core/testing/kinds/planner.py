"""Checks of planners."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

from nnunet_core.contracts.network import divisor_of
from nnunet_core.data.dataset import Dataset
from nnunet_core.data.fingerprint import Fingerprint
from nnunet_core.data.plans import Plans
from nnunet_core.errors import UsageError
from nnunet_core.runtime.workers import Workers
from nnunet_core.testing.check import Subject, check, require, skip
from nnunet_core.testing.files import contents
from nnunet_core.testing.toys import NAMES

#: The setting that planners size their patches for, GB.
_BUDGET = "gpu_memory_gb"
_BUDGETS = (6, 8, 11, 16, 32)
_FEW = ("2d", "3d", "anisotropic")
#: What the cases of a fingerprint are made into: larger than any patch, and one axis short.
_SIZES = ((180, 300, 260), (24, 500, 480))


@check("planner")
def planner_plans_every_dataset(subject: Subject) -> None:
    """There is a configuration for each toy dataset, with its channels, classes and an installed
    preprocessor; it is the same once it was written and read.
    """
    for dataset, _, plans in _planned(subject):
        require(plans.configurations, f"{dataset.name}: the plans have no configuration.")
        for name, found in plans.configurations.items():
            where = f"{name} of {dataset.name}"
            outputs, inputs = found.network.output_channels, found.network.input_channels
            require(
                outputs == dataset.labels.outputs,
                f"{where}: the network has {outputs} outputs; the labels need "
                f"{dataset.labels.outputs}.",
            )
            channels = len(dataset.channels)
            wanted = channels + len(dataset.labels.foreground) * (found.previous is not None)
            require(
                (inputs, len(found.normalization)) == (wanted, channels),
                f"{where}: {inputs} input channels and {len(found.normalization)} normalisations; "
                f"the dataset needs {wanted} and {channels}.",
            )
            subject.registry.resolve("preprocessor", found.preprocessor)
        path = subject.folder / f"{dataset.name}.json"
        plans.write(path)
        require(Plans.read(path) == plans, f"{dataset.name}: other plans once they were written.")


@check("planner")
def planner_is_deterministic(subject: Subject) -> None:
    """The same dataset gives the same fingerprint and the same plans, of another object too."""
    runs = (_planned(subject, _FEW) for _ in range(2))
    for first, second in zip(*runs, strict=True):
        for what, one, other in zip(("fingerprint", "plans"), first[1:], second[1:], strict=True):
            require(one == other, f"{first[0].name}: another {what} the second time.")


@check("planner")
def planner_fingerprint_depends_on_no_setting(subject: Subject) -> None:
    """The fingerprint is the same for any budget: planners that share its code share its result."""
    if _BUDGET not in _settings(subject):
        skip(f"It has no setting {_BUDGET}.")
    dataset = subject.toys.dataset("3d")
    found = [_fingerprint(subject.build(**{_BUDGET: gb}), dataset) for gb in (4, 32)]
    require(found[0] == found[1], f"The fingerprint changes with {_BUDGET}.")


@check("planner")
def planner_patch_fits_the_network(subject: Subject) -> None:
    """Patch sizes are multiples of the divisor of the network, for toy datasets and large cases."""
    network = subject.other("network")
    planned = [(dataset, plans) for dataset, _, plans in _planned(subject, _FEW)]
    planner, dataset = subject.build(), subject.toys.dataset("3d")
    planned += [(dataset, planner.plan(dataset, f, network)) for f in _large(planner, dataset)]
    for dataset, plans in planned:
        for name, found in plans.configurations.items():
            divisor = divisor_of(network, found.network)
            require(
                all(size % d == 0 for size, d in zip(found.patch_size, divisor, strict=True)),
                f"{name} of {dataset.name}: the patch {found.patch_size} is no multiple of "
                f"{divisor}, the divisor of {type(network).__name__}.",
            )


@check("planner")
def planner_smaller_budget_never_has_a_larger_patch(subject: Subject) -> None:
    """With less GPU memory (setting `gpu_memory_gb`) no patch has more voxels."""
    if _BUDGET not in _settings(subject):
        skip(f"It has no setting {_BUDGET}.")
    network, dataset = subject.other("network"), subject.toys.dataset("3d")
    for fingerprint in _large(subject.build(), dataset):
        before: dict[str, tuple[int, tuple[int, ...]]] = {}
        for gigabytes in _BUDGETS:
            try:
                plans = subject.build(**{_BUDGET: gigabytes}).plan(dataset, fingerprint, network)
            except UsageError:
                continue  # nothing fits: the smallest budget of all
            for name, found in plans.configurations.items():
                less, patch = before.get(name, (0, ()))
                require(
                    math.prod(patch) <= math.prod(found.patch_size) or not patch,
                    f"{name}: the patch {patch} of {less} GB has more voxels than "
                    f"{found.patch_size} of {gigabytes} GB.",
                )
                before[name] = gigabytes, found.patch_size
        require(before, f"Nothing is planned with any of {_BUDGETS} GB.")


@check("planner")
def planner_changes_no_file(subject: Subject) -> None:
    """The dataset is left as it is: nothing is written beside it."""
    dataset = subject.toys.dataset("3d")
    before = contents(dataset.folder)
    planner = subject.build()
    planner.plan(dataset, _fingerprint(planner, dataset), subject.other("network"))
    require(contents(dataset.folder) == before, f"Files in {dataset.folder} changed.")


def _settings(subject: Subject) -> set[str]:
    from nnunet_core.registry.settings import full_settings

    return set(full_settings(subject.component))


def _fingerprint(planner: object, dataset: Dataset) -> Fingerprint:
    with Workers(1) as workers:
        found = planner.fingerprint(dataset, workers)  # type: ignore[attr-defined]
    require(isinstance(found, Fingerprint), f"The fingerprint is a {type(found).__name__}.")
    return found


def _planned(
    subject: Subject, names: Sequence[str] = NAMES
) -> Iterator[tuple[Dataset, Fingerprint, Plans]]:
    """Yield toy datasets with what a planner that was built anew finds and plans."""
    network = subject.other("network")
    for name in names:
        planner, dataset = subject.build(), subject.toys.dataset(name)
        fingerprint = _fingerprint(planner, dataset)
        plans = planner.plan(dataset, fingerprint, network)
        require(isinstance(plans, Plans), f"The plans are a {type(plans).__name__}.")
        yield dataset, fingerprint, plans


def _large(planner: object, dataset: Dataset) -> Iterator[Fingerprint]:
    """Yield fingerprints as of large cases, on which a budget has an effect."""
    small = _fingerprint(planner, dataset)
    for size in _SIZES:
        spacing = (5.0, 0.8, 0.8) if size[0] < 50 else (1.0, 1.0, 1.0)
        changed = {"size": size, "spacing": spacing}
        cases = tuple(case.model_copy(update=changed) for case in small.cases)
        yield small.model_copy(update={"cases": cases})
