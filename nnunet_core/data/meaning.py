"""What the values of a label map mean to others: names, codes of a terminology, the image that they
were found in.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, TypeAdapter, ValidationError

from nnunet_core.data.labels import Labels
from nnunet_core.data.metadata import first_problem
from nnunet_core.errors import DatasetError


class Code(BaseModel):
    """A concept of a terminology.

    Attributes:
        value: `10200004`.
        scheme: Terminology: `SCT` is SNOMED CT.
        meaning: `Liver`.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    value: str
    scheme: str
    meaning: str


class LabelCodes(BaseModel):
    """What a label is, in codes.

    Attributes:
        category: Of the structure: anatomical, or morphologically abnormal.
        type: The structure itself.
        modifier: Its side, for example.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    category: Code
    type: Code
    modifier: Code | None = None


_CODES: TypeAdapter[dict[str, LabelCodes]] = TypeAdapter(dict[str, LabelCodes])


@dataclass(frozen=True)
class SegmentationMeaning:
    """What a label map of a prediction means.

    Attributes:
        images: The files that it was predicted from.
        names: {value: name} of the foreground.
        codes: {name: codes}, of as many as are known.
        maker: What predicted it, one line.
    """

    images: tuple[Path, ...]
    names: Mapping[int, str]
    codes: Mapping[str, LabelCodes] = field(default_factory=dict)
    maker: str = ""


def read_codes(
    document: Mapping[str, Any], labels: Labels, source: object
) -> dict[str, LabelCodes]:
    """Return `codes` of a dataset.json; empty where it has none.

    Args:
        document: The parsed dataset.json.
        labels: What it declares.
        source: Its path, for messages.

    Raises:
        DatasetError: It has another form, or names a label that there is not.
    """
    try:
        codes = _CODES.validate_python(document.get("codes") or {})
    except ValidationError as error:
        raise DatasetError(
            f"{source}: 'codes' maps names of labels to their codes, {{NAME: {{'category': CODE, "
            "'type': CODE}} with CODE {'value': ..., 'scheme': ..., 'meaning': ...}: "
            f"{first_problem(error)}."
        ) from error
    known = {*labels.names.values(), *labels.region_names}
    if unknown := sorted(set(codes) - known):
        raise DatasetError(
            f"{source}: 'codes' names {', '.join(unknown)}; the labels are "
            f"{', '.join(sorted(known))}."
        )
    return codes
