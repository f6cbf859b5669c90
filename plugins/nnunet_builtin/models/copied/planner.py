"""Plans of another dataset for this one, as networks need them that start from trained weights."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import numpy as np
from pydantic import AfterValidator

from nnunet_builtin.models.copied.reading import digest_of, read_source
from nnunet_builtin.models.copied.source import Source
from nnunet_builtin.planning.fingerprinting import Fingerprinting
from nnunet_builtin.planning.target import median_shape
from nnunet_core.contracts.network import NetworkBuilder, divisor_of
from nnunet_core.data.dataset import Dataset
from nnunet_core.data.fingerprint import Fingerprint
from nnunet_core.data.images import SLICE_SPACING_2D
from nnunet_core.data.plans import Configuration, Plans
from nnunet_core.errors import UsageError, counted
from nnunet_core.registry.provenance import CODE, texts_of
from nnunet_core.registry.settings import Content
from nnunet_core.store.origins import shell_line


def _absolute(path: str | None) -> str | None:
    return None if path is None else str(Path(path).expanduser().absolute())


@dataclass
class CopiedPlans(Fingerprinting):
    """Takes spacing, axes, patch, batch, normalisation and network of other plans as they are; the
    numbers of outputs and of cases are the dataset's own.

    Args:
        source: Plans file, or folder of a model or of all models of a variant; also a plans.pkl of
            nnU-Net v1, a plans.json of v2, or the folder of either.
    """

    source: Annotated[str | None, AfterValidator(_absolute), Content(digest_of)] = None

    def plan(self, dataset: Dataset, fingerprint: Fingerprint, network: NetworkBuilder) -> Plans:
        """Return the plans (contracts.Planner).

        Raises:
            UsageError: There is no source, its channels are not those of the dataset, or none of
                its configurations can be used with the images or the network.
            StorageError: The source is damaged.
        """
        if self.source is None:
            raise UsageError(
                "The planner 'copied' needs the plans to take: --set planner.source=PLANS, a plans "
                "file or the folder of a model."
            )
        source = read_source(Path(self.source))
        planned: dict[str, Configuration] = {}
        skipped = {n: f"{source.title} has none: {why}" for n, why in source.skipped.items()}
        for name, found in source.configurations.items():
            _check_channels(name, found, dataset, source)
            problem = _problem(found, fingerprint, network, [*source.configurations])
            if problem:
                skipped[name] = problem
            else:
                planned[name] = _fitted(found, dataset, fingerprint)
        for name in [n for n, c in planned.items() if c.previous not in (None, *planned)]:
            skipped[name] = f"there is no {planned.pop(name).previous}"
        if not planned:
            reasons = "; ".join(f"{name}: {why}" for name, why in skipped.items())
            raise UsageError(
                f"Nothing of {source.title} ({self.source}) can be used for {dataset.name}: "
                f"{reasons}. Take other plans, or let the dataset be planned (--planner v21)."
            )
        return Plans(
            dataset=dataset.name,
            planner=f"{type(self).__module__}:{type(self).__qualname__}",
            fingerprint_digest=fingerprint.digest,
            configurations=planned,
            skipped=skipped,
            notes=(*_channel_notes(source, dataset), *_option_notes(source, planned, network)),
        )


def _check_channels(name: str, found: Configuration, dataset: Dataset, source: Source) -> None:
    theirs, ours = len(found.normalization), len(dataset.channels)
    if theirs != ours:
        raise UsageError(
            f"{name} of {source.title} is for {counted(theirs, 'image channel')}, and "
            f"{dataset.name} has {ours} ({', '.join(dataset.channels)}): each channel has its own "
            "normalisation. Take plans of a dataset with the same channels; or plan this one "
            "(--planner v21) and take over patch, pooling and kernels by hand in the file that "
            "'nnunet plan' prints."
        )


def _problem(
    found: Configuration, fingerprint: Fingerprint, network: NetworkBuilder, names: list[str]
) -> str:
    """Say why a configuration cannot be used; nothing if it can.

    Args:
        found: Of the source.
        fingerprint: Of the dataset.
        network: Which is asked for its divisor.
        names: Of all configurations of the source.
    """
    planar = any(case.spacing[0] == SLICE_SPACING_2D for case in fingerprint.cases)
    single = planar or all(case.size[0] == 1 for case in fingerprint.cases)
    if single and found.dimensions == 3:
        return "its patches are volumes, and every case is a single slice"
    if single and found.transpose_forward[0] != 0:
        return f"its slices lie across axis {found.transpose_forward[0]}, and cases are one slice"
    if code := [text for text in texts_of([found.extra, found.network.extra]) if CODE.match(text)]:
        return f"it names code ({code[0]}), which is not taken from elsewhere"
    if found.previous is not None and found.previous not in names:
        return f"it follows {found.previous}, which the source does not have"
    divisor = divisor_of(network, found.network)
    if any(size % step for size, step in zip(found.patch_size, divisor, strict=True)):
        return (
            f"its patch {found.patch_size} is no multiple of {divisor}, which the network "
            f"{type(network).__name__} needs"
        )
    return ""


def _fitted(found: Configuration, dataset: Dataset, fingerprint: Fingerprint) -> Configuration:
    """Return a configuration with what the dataset decides: inputs, outputs, its median case."""
    order = list(found.transpose_forward)
    spacing = np.array(found.spacing)
    if found.dimensions == 2:  # the distance of slices, across which nothing is resampled
        distances = [case.spacing[order[0]] for case in fingerprint.cases]
        spacing[0] = np.median(distances)
    in_file = np.empty(3)
    in_file[order] = spacing
    shape = np.round(median_shape(fingerprint, in_file)[order]).astype(int).clip(min=1)
    labels = dataset.labels
    inputs = len(dataset.channels)
    if found.previous is not None:
        inputs += len(labels.foreground)
    sizes = {"input_channels": inputs, "output_channels": labels.outputs}
    changed = {
        "spacing": tuple(spacing.tolist()),
        "median_shape": tuple(shape.tolist()),
        "network": found.network.model_copy(update=sizes),
        "notes": (),
    }
    return found.model_copy(update=changed)


def _channel_notes(source: Source, dataset: Dataset) -> list[str]:
    """Return where the plans are from, and a note on each channel that has another name there."""
    notes = [f"taken from {source.title}"]
    pairs = zip(source.channels, dataset.channels, strict=False)
    for index, (theirs, ours) in enumerate(pairs):
        if theirs != ours:
            notes.append(
                f"channel {index} '{ours}' is normalised as '{theirs}' in {source.title}; another "
                f"scheme: --set preprocessor.normalization.{index}=SCHEME"
            )
    return notes


def _option_notes(source: Source, names: Iterable[str], network: NetworkBuilder) -> list[str]:
    """Return a note on configurations that were trained with another network or preprocessor than
    these plans alone make.
    """
    by_words: dict[str, list[str]] = {}
    for name in names:
        by_words.setdefault(shell_line(source.options(name, network)), []).append(name)
    return [
        f"{', '.join(those)} of {source.title}: trained with other parts than these plans alone "
        f"make; to have them, add: {words}"
        for words, those in by_words.items()
        if words
    ]
