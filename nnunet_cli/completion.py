"""What the shell offers after TAB: names of components and variants, and settings of `--set`.

Only hook modules are imported; settings are read from the source of a class.
"""

from __future__ import annotations

import ast
import inspect
import json
import os
import shlex
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Annotated, Any

import typer

from nnunet_core.errors import NnunetError
from nnunet_core.registry.components import KINDS, RUN_KINDS
from nnunet_core.registry.discovery import OWN, Registry

_ASKED, _DEFAULT = "_NNUNET_COMPLETE", "default"
#: Values that need no quotes in a shell.
_PLAIN = frozenset("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789._-")

Offer = tuple[str, str]


def words_before_cursor() -> list[str] | None:
    """Return the whole words between `nnunet` and the one that the shell wants completed; None
    where this process was started for something else.
    """
    if _ASKED not in os.environ:
        return None
    if "COMP_CWORD" in os.environ:  # bash
        words = _split(os.environ.get("COMP_WORDS", ""))
        return words[1 : int(os.environ["COMP_CWORD"])]
    line = os.environ.get("_TYPER_COMPLETE_ARGS", "")
    words = _split(line)
    return words[1:] if line.endswith(" ") else words[1:-1]


def _split(line: str) -> list[str]:
    try:
        return shlex.split(line)
    except ValueError:  # a quote that is still open
        return line.split()


def wants_value(words: Sequence[str]) -> bool:
    """Return whether the word after these is the value of an option of `value_command`."""
    return bool(words) and words[-1] in {f"--{name}" for name in (*RUN_KINDS, "variant", "set")}


def value_command() -> Callable[..., None]:
    """Return what stands in for a command while the shell asks for the value of an option that
    chooses components: it has these options alone, so that the command need not be imported.
    """
    option, named = typer.Option, inspect.Parameter.KEYWORD_ONLY
    options: dict[str, Any] = {
        kind: Annotated[str | None, option(autocompletion=component_completion(kind))]
        for kind in RUN_KINDS
    }
    of_variants = option(autocompletion=component_completion("variant"))
    options["variant"] = Annotated[list[str] | None, of_variants]
    options["settings"] = Annotated[
        list[str] | None, option("--set", autocompletion=complete_setting)
    ]

    def stand_in(**_: Any) -> None:
        """Stand in for a command."""

    stand_in.__signature__ = inspect.Signature(  # type: ignore[attr-defined]
        [inspect.Parameter(name, named, default=None, annotation=a) for name, a in options.items()]
    )
    stand_in.__annotations__ = options
    return stand_in


def complete_kind(incomplete: str) -> list[str]:
    """Offer kinds of components."""
    return [kind for kind in (*KINDS, "variant") if kind.startswith(incomplete)]


def complete_reference(context: typer.Context, incomplete: str) -> list[Offer]:
    """Offer components and variants; of one kind if `--kind` stands before."""
    kind = context.params.get("kind")
    return _offers(context, (*KINDS, "variant") if kind is None else (kind,), incomplete)


def component_completion(kind: str) -> Callable[[typer.Context, str], list[Offer]]:
    """Return what offers the components of a kind, or variants."""

    def complete(context: typer.Context, incomplete: str) -> list[Offer]:
        return _offers(context, (kind,), incomplete)

    return complete


def complete_setting(context: typer.Context, incomplete: str) -> list[Offer]:
    """Offer `KIND.`, and once the kind is clear `KIND.FIELD=DEFAULT` of the chosen component."""
    kinds = [kind for kind in RUN_KINDS if f"{kind}.".startswith(incomplete.partition(".")[0])]
    if "." not in incomplete and len(kinds) != 1:
        return [(f"{kind}.", "") for kind in kinds]
    kind = incomplete.partition(".")[0] if "." in incomplete else kinds[0]
    offers = []
    for name, default in _settings(_registry(context), kind, context.params).items():
        offers.append((f"{kind}.{name}={_typed(default)}", ""))
    return [offer for offer in offers if offer[0].startswith(incomplete)]


def _typed(default: str) -> str:
    """Return a default as it is typed after `=`; empty where it is no literal, or needs quotes."""
    try:
        value = ast.literal_eval(default)
    except (ValueError, SyntaxError):
        return ""
    text = value if isinstance(value, str) else json.dumps(value, default=str)
    return text if set(text) <= _PLAIN else ""


def _registry(context: typer.Context) -> Registry:
    found = context.find_root().obj
    return found if isinstance(found, Registry) else Registry.discover()


def _offers(context: typer.Context, kinds: Iterable[str], incomplete: str) -> list[Offer]:
    """Return names with their summaries; with the plugin before it where the user types one, or
    where the name alone is not enough.
    """
    registry = _registry(context)
    rows = [
        (kind, *row)
        for kind in kinds
        if kind in (*KINDS, "variant")
        for row in _rows(registry, kind)
    ]
    offers = []
    for kind, plugin, distribution, name, summary in rows:
        same = [row for row in rows if row[0] == kind and row[3] == name]
        full = "/" in incomplete or (len(same) > 1 and distribution != OWN)
        offers.append((f"{plugin}/{name}" if full else name, summary))
    return sorted({offer[0]: offer for offer in offers if offer[0].startswith(incomplete)}.values())


def _rows(registry: Registry, kind: str) -> list[tuple[str, str | None, str, str]]:
    """Return plugin, distribution, name and summary of everything of a kind."""
    if kind == "variant":
        return [(i.name, i.distribution, v.name, v.summary) for i, v in registry.variants()]
    return [
        (c.reference.partition("/")[0], c.distribution, c.component.name, c.component.summary)
        for c in registry.components(kind)
    ]


def _settings(registry: Registry, kind: str, chosen: Mapping[str, Any]) -> dict[str, str]:
    """Return {setting: default as it stands in the source} of the component that a command line
    chooses so far.
    """
    from nnunet_cli.fields import fields_of

    if kind not in RUN_KINDS:
        return {}
    try:
        reference = chosen.get(kind) or _of_variants(registry, kind, chosen.get("variant"))
        component = registry.resolve(kind, reference).component
    except NnunetError:  # what is typed so far names nothing
        return {}
    own = {name: repr(value) for name, value in component.settings.items()}
    return {**fields_of(component.target), **own}


def _of_variants(registry: Registry, kind: str, variants: Any) -> str:
    """Return the component that variants choose, the last one first; one of the default method
    otherwise.
    """
    names = [variants] if isinstance(variants, str) else list(variants or ())
    for name in [*reversed(names), _DEFAULT]:
        if not name.endswith(".toml") and kind in (found := registry.variant(name)[1].choices()):
            return found[kind]
    return _DEFAULT
