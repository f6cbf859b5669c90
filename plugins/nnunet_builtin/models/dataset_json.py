"""Labels and channels of a model that does not store them, from a dataset.json."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nnunet_core.data.labels import Labels
from nnunet_core.errors import DatasetError, UsageError
from nnunet_core.runtime import files

_EXAMPLE = (
    '{"labels": {"background": 0, "whole": [1, 2, 3], "core": [2, 3], "enhancing": 3}, '
    '"regions_class_order": [1, 2, 3]}'
)


@dataclass(frozen=True)
class DatasetJson:
    """What a dataset.json says of a model's inputs and outputs.

    Attributes:
        path: The file.
        labels: What outputs mean.
        channels: Names of the channels in their order; empty where it has none.
    """

    path: Path
    labels: Labels
    channels: tuple[str, ...]


def read_dataset_json(path: Path | None) -> DatasetJson | None:
    """Return labels and channels of a file in the form of v1 or v2; None without a file.

    Raises:
        StorageError: It is no JSON.
        DatasetError: It has no labels, or impossible ones.
    """
    if path is None:
        return None
    content = files.read_json(path)
    names = content.get("labels") if isinstance(content, Mapping) else None
    if not isinstance(names, Mapping) or not names:
        raise DatasetError(f"{path} has no 'labels'. Expected: {_EXAMPLE}")
    labels = Labels.from_names(_by_name(names), content.get("regions_class_order"), path)
    channels = content.get("channel_names") or content.get("modality") or {}
    if not isinstance(channels, Mapping):
        raise DatasetError(f"{path}: the names of channels are no object.")
    ordered = tuple(str(channels[key]) for key in sorted(channels, key=_number))
    return DatasetJson(path, labels, ordered)


def labels_of(document: DatasetJson | None, classes: int, outputs: int, title: str) -> Labels:
    """Return the labels of a model that stores only their number.

    Args:
        document: What the user says.
        classes: Foreground classes of its plans.
        outputs: Channels of its heads.
        title: What it is, for messages.

    Raises:
        UsageError: It has another number of outputs, so that it was trained on regions, which only
            the user can name; or those that the user names do not fit.
    """
    if document is not None:
        if document.labels.outputs != outputs:
            raise UsageError(
                f"{document.path} describes {document.labels.outputs} outputs (classes with "
                f"background, or regions); the network of {title} has {outputs}. Correct 'labels'."
            )
        return document.labels
    if outputs != classes + 1:
        raise UsageError(
            f"The network of {title} has {outputs} outputs for {classes} classes and background: "
            "it was trained on regions, which v1 does not store. Say which with --dataset-json "
            f"FILE, a file like {_EXAMPLE}"
        )
    names = {0: "background", **{value: f"label {value}" for value in range(1, classes + 1)}}
    return Labels(names=names, foreground=tuple(range(1, classes + 1)))


def _by_name(names: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return {name: value}; v1 writes {value: name}."""
    if all(name.isdecimal() and isinstance(value, str) for name, value in names.items()):
        return {value: int(name) for name, value in names.items()}
    return names


def _number(key: str) -> tuple[int, str]:
    return (int(key), "") if key.isdecimal() else (1 << 31, key)
