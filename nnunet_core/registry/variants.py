"""Variants: found by name, read from and written to TOML files, and composed from left to right."""

from __future__ import annotations

import json
import shlex
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, JsonValue, ValidationError

from nnunet_core.errors import PluginError, SettingsError, UsageError, nearest, printable
from nnunet_core.registry.components import RUN_KINDS, Variant
from nnunet_core.registry.discovery import FILE_ENDING, Registry, Resolved
from nnunet_core.registry.needs import unmet_requirements
from nnunet_core.registry.provenance import CODE, described_code, texts_of
from nnunet_core.registry.settings import full_settings
from nnunet_core.runtime import files

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

#: What every method starts from.
DEFAULT = "default"
_MOST_BYTES = 1_000_000
_TYPES = {
    "string_type": "a text in quotes",
    "list_type": "a list in brackets",
    "dict_type": "a table of settings",
    "invalid-json-value": "a text, number, true, false, list or table",
    "value_error": "made of finite numbers",
    "string_pattern_mismatch": "letters, digits, '_', '-', '.' and '+'",
}
_NAME = r"^[A-Za-z0-9][A-Za-z0-9_.+-]*$"  # a plus joins the names of composed variants
_NULL = "TOML has no null. Leave --save-variant out, or register the variant in a plugin."
_HEAD = (
    "# A variant of nnunet: nnunet run DATASET --variant {file}\n"
    "# Settings and components that are not named here are the defaults.\n\n"
)


def _finite(value: dict[str, Any]) -> dict[str, Any]:
    json.dumps(value, allow_nan=False)
    return value


class VariantFile(BaseModel):
    """The content of a TOML file that describes a variant; see `components.Variant`.

    Attributes:
        name: What the results folder begins with; by default the name of the file.
        requires: Distributions that must be installed for it ("nnunet-resenc>=0.1").
    """

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    name: Annotated[str, Field(pattern=_NAME)]
    summary: str = ""
    requires: list[str] = Field(default_factory=list)
    planner: str | None = None
    preprocessor: str | None = None
    network: str | None = None
    loss: str | None = None
    augmentation: str | None = None
    trainer: str | None = None
    predictor: str | None = None
    postprocessor: str | None = None
    settings: dict[str, Annotated[dict[str, JsonValue], AfterValidator(_finite)]] = Field(
        default_factory=dict
    )

    def variant(self) -> Variant:
        """Return the record that a plugin would register."""
        return Variant(**self.model_dump(exclude={"requires"}))


def is_file(reference: str) -> bool:
    """Return whether a reference to a variant is a file rather than a name."""
    return reference.endswith(FILE_ENDING)


def find(registry: Registry, reference: str) -> Variant:
    """Return a variant by `name` or `plugin/name`, or from a file that ends in .toml.

    Raises:
        UnknownComponentError, PluginError: As `Registry.variant`; or what the file requires is not
            installed.
        UsageError: The file cannot be read, or is no variant.
    """
    return read(Path(reference)) if is_file(reference) else registry.variant(reference)[1]


def read(path: Path) -> Variant:
    """Read a variant from a TOML file; nothing that it names is looked up or imported.

    Raises:
        UsageError: There is no such file, it is no TOML, or it has entries that variants do not
            have, or of other types; the message names all of them.
        PluginError: A distribution that it requires is not installed.
    """
    content = {"name": path.name.removesuffix(FILE_ENDING), **_parsed(path)}
    try:
        found = VariantFile.model_validate(content)
    except ValidationError as error:
        problems = dict.fromkeys(_problem(each) for each in error.errors())
        raise UsageError(f"{path} is no variant: {' '.join(problems)}") from error
    unknown = [kind for kind in found.settings if kind not in RUN_KINDS]
    if unknown:
        raise UsageError(
            f"{path} is no variant: settings.{printable(unknown[0])}: there is no such kind."
            f"{nearest(unknown[0], RUN_KINDS)} Kinds: {', '.join(RUN_KINDS)}."
        )
    if missing := unmet_requirements(found.requires):
        raise PluginError("\n".join(f"The variant {path} {each}" for each in missing))
    return found.variant()


def _parsed(path: Path) -> dict[str, Any]:
    try:
        files.check_regular(path)
        if path.stat().st_size > _MOST_BYTES:
            raise UsageError(f"{path} is no variant: it has more than {_MOST_BYTES} bytes.")
        return tomllib.loads(path.read_bytes().decode())
    except OSError as error:
        raise UsageError(
            f"The variant {path} cannot be read: {error}. Name a TOML file that is there, or a "
            "variant without .toml: nnunet variants list."
        ) from error
    except (ValueError, RecursionError) as error:
        raise UsageError(f"{path} is no TOML file: {error}") from error


def _problem(error: Mapping[str, Any]) -> str:
    """Return a sentence for a problem that pydantic found."""
    entry = ".".join(printable(str(part)) for part in error["loc"] if part != "dict")
    if error["type"] == "extra_forbidden":
        allowed = list(VariantFile.model_fields)
        return (
            f"There is no entry '{entry}'.{nearest(entry, allowed)} Allowed: {', '.join(allowed)}."
        )
    wanted = _TYPES.get(error["type"], error["msg"])
    return f"'{entry}' must be {wanted}; it is {printable(repr(error['input']))[:200]}."


def check_code(
    path: str, variant: Variant, choices: Mapping[str, str], settings: Mapping[str, Any]
) -> None:
    """Refuse a file that names code which no plugin registers, unless the same reference stands on
    the command line; nothing of it is imported.

    Args:
        path: The file, for messages.
        variant: What it holds.
        choices: {kind: reference} of the command line.
        settings: The same, {kind: {field: value}}.

    Raises:
        UsageError: It does; the message shows the code, and what to add.
    """
    given = {*choices.values(), *texts_of(settings)}
    refused = {
        text: words
        for words, value in _options(variant)
        for text in texts_of(value)
        if CODE.match(text) and text not in given
    }
    if refused:
        shown = "; ".join(described_code(text) for text in refused)
        words = shlex.join(word for words in refused.values() for word in words)
        raise UsageError(
            f"{path} names code that no installed plugin registers, and nothing of it was "
            f"imported: {shown}. A file may only name what plugins register (name or plugin/name). "
            f"If you know this code, name it on the command line, too: {words}"
        )


def _options(variant: Variant) -> Iterator[tuple[list[str], Any]]:
    """Yield the words of a command line that do what a variant does, with the value of each."""
    for kind, reference in variant.choices().items():
        yield [f"--{kind}", reference], reference
    for kind, values in variant.settings.items():
        for name, value in values.items():
            text = value if isinstance(value, str) else json.dumps(value)
            yield ["--set", f"{kind}.{name}={text}"], value


@dataclass(frozen=True)
class Bundle:
    """Variants composed so far.

    Attributes:
        choices: {kind: full reference}.
        settings: {kind: {field: value}}.
        changes: What each variant changed, a line for each.
        lost: Of settings that do not count, since a later variant chose another component.
    """

    choices: Mapping[str, str] = field(default_factory=dict)
    settings: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    changes: tuple[str, ...] = ()
    lost: tuple[str, ...] = ()

    def then(self, title: str, variant: Variant, full: Callable[[str, str], str]) -> Bundle:
        """Return what a further variant makes of it: its components replace those before, together
        with their settings; its settings are put on top of the others.

        Args:
            title: What the variant is called in the lines of `changes`.
            variant: The record.
            full: Returns the full reference of a component, given kind and reference.
        """
        choices, settings = dict(self.choices), {k: dict(v) for k, v in self.settings.items()}
        changed, lost = [], list(self.lost)
        for kind, reference in variant.choices().items():
            new, old = full(kind, reference), choices.get(kind)
            if new == old:
                continue
            choices[kind] = new
            changed.append(f"{kind} {new}" + (f" (was {old})" if old else ""))
            if gone := settings.pop(kind, None):
                lost.append(_lost(title, kind, gone))
        for kind, values in variant.settings.items():
            before = settings.setdefault(kind, {})
            for name, value in values.items():
                was = f" (was {json.dumps(before[name])})" if name in before else ""
                changed.append(f"{kind}.{name}={json.dumps(value)}{was}")
                before[name] = value
        line = f"{title}: {', '.join(changed) or 'changes nothing'}"
        return Bundle(choices, settings, (*self.changes, line), tuple(lost))


def _lost(title: str, kind: str, gone: Mapping[str, Any]) -> str:
    values = ", ".join(f"{kind}.{name}={json.dumps(value)}" for name, value in gone.items())
    return (
        f"{title} chooses another {kind}; what the variants before it set for that one does not "
        f"count: {values}. Repeat with --set what is wanted."
    )


def check_kinds(settings: Iterable[str], source: str) -> None:
    """Raise SettingsError where settings are of something else than a kind."""
    unknown = [kind for kind in settings if kind not in RUN_KINDS]
    if unknown:
        raise SettingsError(
            f"{source} sets fields of '{unknown[0]}', which is no kind. Kinds: "
            f"{', '.join(RUN_KINDS)}."
        )


def write(
    path: Path,
    name: str,
    components: Sequence[Resolved],
    settings: Mapping[str, Mapping[str, Any]],
) -> list[str]:
    """Write a variant to a TOML file that `read` takes.

    Args:
        path: Ends in .toml.
        name: Of the variant.
        components: That it chooses.
        settings: {kind: {field: value}} of what differs from their defaults.

    Returns:
        References to code that no plugin registers; who uses the file has to name it, too.

    Raises:
        UsageError: The name of the file ends otherwise; another variant is there.
        SettingsError: A setting cannot be written: TOML has no null.
    """
    import tomli_w

    if not is_file(str(path)):
        raise UsageError(f"--save-variant got {path}; the file's name must end in {FILE_ENDING}.")
    packages = {c.distribution: c.version for c in components if c.distribution and not c.is_own}
    content: dict[str, Any] = {"name": name}
    if packages:
        content["requires"] = [f"{dist}>={version}" for dist, version in packages.items()]
    content.update({each.kind: each.reference for each in components})
    by_kind = {each.kind: each for each in components}
    written = {
        kind: kept
        for kind in RUN_KINDS
        if (kept := _without_null(kind, settings.get(kind, {}), by_kind.get(kind)))
    }
    if written:
        content["settings"] = written
    try:
        text = _HEAD.format(file=path.name) + tomli_w.dumps(content)
    except TypeError as error:
        raise SettingsError(f"The settings cannot be saved: {error}. {_NULL}") from error
    if path.exists() and _same(path, text):
        return []
    if path.exists():
        raise UsageError(
            f"{path} is there already, with another content, and was kept. Name another file."
        )
    files.write_text(path, text)
    code = [text for value in (content, written) for text in texts_of(value) if CODE.match(text)]
    return sorted(set(code))


def _without_null(kind: str, values: Mapping[str, Any], chosen: Resolved | None) -> dict[str, Any]:
    """Return settings without those that are null, which TOML lacks; they must be so by default."""
    usual = full_settings(chosen) if chosen and None in values.values() else {}
    for name, value in values.items():
        if value is None and usual.get(name, "") is not None:
            raise SettingsError(f"{kind}.{name}=null cannot be saved. {_NULL}")
    return {name: value for name, value in values.items() if value is not None}


def _same(path: Path, text: str) -> bool:
    try:
        return path.read_text(encoding="utf-8") == text
    except (OSError, ValueError):
        return False
