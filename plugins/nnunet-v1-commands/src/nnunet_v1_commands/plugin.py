"""The trainers of v1 as variants: TRAINER__PLANS, as v1 calls the folders of its results."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from nnunet_core import Variant, hookimpl

PLANS = "nnUNetPlansv2.1"
CASCADE = "CascadeFullRes"
_FILE = Path(__file__).with_name("trainers.json")


def trainers() -> dict[str, list[str] | None]:
    """Return {trainer of v1: options of `nnunet train`}; None where there is no counterpart."""
    found: dict[str, list[str] | None] = json.loads(_FILE.read_text(encoding="utf-8"))
    return found


def variant_name(trainer: str, plans: str = PLANS) -> str:
    """Return the name of a variant; a cascade goes beside its low resolution."""
    return f"{trainer.replace(CASCADE, '', 1)}__{plans}"


@hookimpl
def nnunet_variants() -> list[Variant]:
    """Return a variant for each trainer that has a counterpart."""
    found: dict[str, Variant] = {}
    for trainer, words in trainers().items():
        if words is not None:
            variant = _variant(trainer, words)
            found.setdefault(variant.name, variant)
    return list(found.values())


def _variant(trainer: str, words: list[str]) -> Variant:
    choices: dict[str, str] = {}
    settings: dict[str, dict[str, Any]] = {}
    for flag, value in zip(words[::2], words[1::2], strict=True):
        if flag == "--set":
            path, _, text = value.partition("=")
            kind, _, name = path.partition(".")
            settings.setdefault(kind, {})[name] = _json_or_text(text)
        elif flag not in RUN_OPTIONS:
            choices[flag.removeprefix("--")] = f"builtin/{value}"  # what nobody else can take
    summary = f"nnU-Net v1: {trainer}"
    return Variant(variant_name(trainer), summary, settings=settings, **choices)


#: Options of a training that are no part of a method.
RUN_OPTIONS = ("--seed", "--precision")


def _json_or_text(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        return text
