"""What the voxel values of a label map mean: classes, regions, ignore label."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from pydantic import BaseModel, ConfigDict

from nnunet_core.errors import DatasetError


class Labels(BaseModel):
    """The labels of a dataset.

    Attributes:
        names: {value: name} in the order of dataset.json, background first in ordinary datasets.
        foreground: Foreground values in the order in which dataset.json lists them (v1 keeps that order).
        regions: One tuple of values per network output for region-based training; empty otherwise.
        region_order: The value that each region writes, later ones over earlier ones; empty without regions.
        ignore: The value of voxels that no loss and no metric sees, or None.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    names: dict[int, str]
    foreground: tuple[int, ...]
    regions: tuple[tuple[int, ...], ...] = ()
    region_names: tuple[str, ...] = ()
    region_order: tuple[int, ...] = ()
    ignore: int | None = None

    @property
    def outputs(self) -> int:
        """Number of network output channels: classes with background, or regions."""
        return len(self.regions) or len(self.foreground) + 1

    @property
    def values(self) -> frozenset[int]:
        """Every value that a label file may hold."""
        known = {0, *self.foreground} | {value for region in self.regions for value in region}
        return frozenset(known if self.ignore is None else known | {self.ignore})

    @classmethod
    def from_dataset_json(cls, content: Mapping[str, Any], source: object) -> Labels:
        """Read `labels` of a dataset.json of either layout: {"1": "liver"} (v1) or {"liver": 1} (v2).

        Args:
            content: The parsed dataset.json.
            source: Its path, for messages.

        Raises:
            DatasetError: No labels, no background 0, values that are not consecutive, or unknown forms.
        """
        raw = content.get("labels")
        if not isinstance(raw, Mapping) or not raw:
            raise DatasetError(
                f"{source}: 'labels' is missing; it maps values to names, for example {{'1': 'liver'}}."
            )
        if all(str(key).lstrip("-").isdigit() for key in raw):
            pairs: dict[str, Any] = {str(name): int(value) for value, name in raw.items()}
            if len(pairs) != len(raw):
                raise DatasetError(
                    f"{source}: two labels have the same name: {list(raw.values())}."
                )
        else:
            pairs = dict(raw)
        return _from_pairs(pairs, content.get("regions_class_order"), source)


def _from_pairs(pairs: dict[str, Any], order: Any, source: object) -> Labels:
    ignore = _value(pairs.pop("ignore"), source) if "ignore" in pairs else None
    as_sets = {name: _values(value, source) for name, value in pairs.items()}
    has_regions = any(isinstance(value, list | tuple) for value in pairs.values())
    present = sorted({value for values in as_sets.values() for value in values})
    expected = list(range(len(present)))
    if present != expected or (ignore is not None and ignore != len(present)):
        shown = present if ignore is None else [*present, ignore]
        raise DatasetError(
            f"{source}: label values are {shown}; they must be consecutive from 0 (background)"
            + ("" if ignore is None else ", the ignore label last")
            + "."
        )
    foreground = {name: values for name, values in as_sets.items() if values != (0,)}
    if not has_regions:
        names = {values[0]: name for name, values in as_sets.items()}
        return Labels(
            names=names, foreground=tuple(v[0] for v in foreground.values()), ignore=ignore
        )
    if not isinstance(order, list) or len(order) != len(foreground):
        raise DatasetError(
            f"{source}: region-based labels need 'regions_class_order' with one value per region, got {order!r}."
        )
    singles = {values[0]: name for name, values in as_sets.items() if len(values) == 1}
    return Labels(
        names={value: singles.get(value, f"label {value}") for value in present},
        foreground=tuple(value for value in present if value),
        regions=tuple(foreground.values()),
        region_names=tuple(foreground),
        region_order=tuple(_value(value, source) for value in order),
        ignore=ignore,
    )


def _value(value: Any, source: object) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or value < 0:
        raise DatasetError(f"{source}: label value {value!r} is not a non-negative integer.")
    return value


def _values(value: Any, source: object) -> tuple[int, ...]:
    return (
        tuple(_value(v, source) for v in value)
        if isinstance(value, list | tuple)
        else (_value(value, source),)
    )


def label_type(highest: int) -> type[np.uint8 | np.uint16]:
    """Return the type of label maps whose highest value is this one: uint8, or uint16 above 255."""
    return np.uint8 if highest < 256 else np.uint16
