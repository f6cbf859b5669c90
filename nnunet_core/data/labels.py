"""What the voxel values of a label map mean: classes, regions, ignore label."""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from typing import Any

import numpy as np
from pydantic import BaseModel, ConfigDict, ValidationError, model_validator

from nnunet_core.data.metadata import first_problem
from nnunet_core.errors import DatasetError


class Labels(BaseModel):
    """The labels of a dataset.

    Attributes:
        names: {value: name} in the order of dataset.json, background first in ordinary datasets.
        foreground: Foreground values in the order in which dataset.json lists them (v1 keeps that
            order).
        regions: One tuple of values per network output for region-based training; empty otherwise.
        region_order: The value that each region writes, later ones over earlier ones; empty without
            regions.
        ignore: The value of voxels that no loss and no metric sees, or None.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    names: dict[int, str]
    foreground: tuple[int, ...]
    regions: tuple[tuple[int, ...], ...] = ()
    region_names: tuple[str, ...] = ()
    region_order: tuple[int, ...] = ()
    ignore: int | None = None

    @model_validator(mode="after")
    def _check_possible(self) -> Labels:
        """Refuse tables that no label map can follow, from whatever file they come."""
        _refuse_equal("have the values", {i: (v,) for i, v in enumerate(self.foreground)})
        _check_regions(self)
        return self

    @property
    def outputs(self) -> int:
        """Number of network output channels: classes with background, or regions."""
        return len(self.regions) or len(self.foreground) + 1

    @property
    def named(self) -> dict[str, tuple[int, ...]]:
        """{name: values} of what is segmented: the regions, or each label without background."""
        if self.regions:
            return dict(zip(self.region_names, self.regions, strict=True))
        return {self.names[value]: (value,) for value in self.foreground}

    @property
    def values(self) -> frozenset[int]:
        """Every value that a label file may hold."""
        known = {0, *self.foreground} | {value for region in self.regions for value in region}
        return frozenset(known if self.ignore is None else known | {self.ignore})

    @classmethod
    def from_names(
        cls, names: Mapping[str, Any], order: object = None, source: object = "labels"
    ) -> Labels:
        """Return the labels of {name: value}: `{"background": 0, "liver": 1}`.

        Args:
            names: A list of values makes the labels regions; the name `ignore` is the ignore label,
                which comes last.
            order: With regions, the value that each one writes.
            source: Where they are declared, for messages.

        Raises:
            DatasetError: No background 0, values that are not consecutive, two names for one value,
                a region that is written with a value that it does not hold, or unknown forms.
        """
        try:
            return cls._from_names(names, order, source)
        except ValidationError as error:
            problem = first_problem(error).removeprefix("Value error, ")
            raise DatasetError(f"{source}: {problem}") from error
        except ValueError as error:
            raise DatasetError(f"{source}: {error}") from error

    @classmethod
    def _from_names(cls, names: Mapping[str, Any], order: object, source: object) -> Labels:
        pairs = {name: _values(value, source) for name, value in names.items() if name != "ignore"}
        ignore = _value(names["ignore"], source) if "ignore" in names else None
        present = sorted({value for values in pairs.values() for value in values})
        _check_consecutive(present, ignore, source)
        _refuse_equal("have the values", pairs)
        foreground = {name: values for name, values in pairs.items() if values != (0,)}
        if not any(isinstance(value, list | tuple) for value in names.values()):
            return cls(
                names={values[0]: name for name, values in pairs.items()},
                foreground=tuple(values[0] for values in foreground.values()),
                ignore=ignore,
            )
        if not isinstance(order, list | tuple) or len(order) != len(foreground):
            raise DatasetError(
                f"{source}: region-based labels need 'regions_class_order' with one value per "
                f"region, got {order!r}."
            )
        singles = {values[0]: name for name, values in pairs.items() if len(values) == 1}
        return cls(
            names={value: singles.get(value, f"label {value}") for value in present},
            foreground=tuple(value for value in present if value),
            regions=tuple(foreground.values()),
            region_names=tuple(foreground),
            region_order=tuple(_value(value, source) for value in order),
            ignore=ignore,
        )


def _refuse_equal(what: str, named: Mapping[Any, tuple[int, ...]]) -> None:
    """Raise ValueError where two names stand for the same values."""
    first: dict[tuple[int, ...], Any] = {}
    for name, values in named.items():
        key = tuple(sorted(values))
        if first.setdefault(key, name) != name:
            raise ValueError(
                f"the labels '{first[key]}' and '{name}' both {what} {list(key)}; no two may be "
                "equal. Correct one of them, or remove it."
            )


def _check_regions(labels: Labels) -> None:
    """Raise ValueError unless every region is written with a value of its own that it holds."""
    regions = dict(zip(labels.region_names, labels.regions, strict=True))
    _refuse_equal("have the values", regions)
    order = dict(zip(regions, labels.region_order, strict=True))
    for name, value in order.items():
        if value not in regions[name]:
            raise ValueError(
                f"'regions_class_order' writes the region '{name}' as {value}, which is not among "
                f"its values {list(regions[name])}; it must be one of them."
            )
    for earlier, later in itertools.combinations(regions, 2):
        if set(regions[earlier]) < set(regions[later]):
            raise ValueError(
                f"the region '{later}' is written after '{earlier}' and covers it, so that no "
                f"{order[earlier]} would be left. List '{later}' before '{earlier}'."
            )
    _refuse_equal(
        "are written by 'regions_class_order' as",
        {name: (value,) for name, value in order.items()},
    )


def _check_consecutive(present: list[int], ignore: int | None, source: object) -> None:
    if present == list(range(len(present))) and ignore in (None, len(present)):
        return
    shown, last = (
        (present, "") if ignore is None else ([*present, ignore], ", the ignore label last")
    )
    raise DatasetError(
        f"{source}: label values are {shown}; they must be consecutive from 0 (background){last}."
    )


def _value(value: Any, source: object) -> int:
    if isinstance(value, str) and value.isdecimal():
        return int(value)
    if isinstance(value, bool) or not isinstance(value, int) or value < 0:
        raise DatasetError(f"{source}: label value {value!r} is not a non-negative integer.")
    return value


def _values(value: Any, source: object) -> tuple[int, ...]:
    several = value if isinstance(value, list | tuple) else (value,)
    if not several:
        raise DatasetError(f"{source}: a region has no value; it needs at least one.")
    return tuple(_value(each, source) for each in several)


def label_type(highest: int) -> type[np.uint8 | np.uint16]:
    """Return the type of label maps whose highest value is this one: uint8, or uint16 above 255."""
    return np.uint8 if highest < 256 else np.uint16
