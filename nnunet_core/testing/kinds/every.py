"""Checks of a plugin as a whole, and of every kind: imports, settings, constructor, processes."""

from __future__ import annotations

import inspect
import json
from multiprocessing.reduction import ForkingPickler
from typing import Any

from nnunet_core.registry.components import KINDS
from nnunet_core.registry.settings import full_settings
from nnunet_core.testing.check import Subject, check, require, skip
from nnunet_core.testing.probe import Found

#: Kinds whose components are classes with settings.
_BUILT = tuple(kind for kind in KINDS if kind != "command")
#: Libraries that a hook module may not import: it is read at every start of the command line.
HEAVY = {
    *("torch", "numpy", "scipy", "SimpleITK", "pydantic", "blosc2", "matplotlib", "pandas", "rich"),
    *("batchgenerators", "tensorboard", "wandb", "mlflow", "monai", "sklearn", "skimage"),
}
_HOOK_SECONDS = 1.0


@check("plugin")
def plugin_is_active(subject: Subject) -> None:
    """The plugin loads: its hook module can be imported, its hooks exist and return records, and no
    other distribution claims its name.
    """
    (info,) = [each for each in subject.registry.plugins() if each.name == subject.reference]
    require(info.status != "blocked", "It is blocked: remove it from --no-plugin and the like.")
    require(info.status == "active", info.error)


@check("plugin", *KINDS, "variant", "observer")
def hook_module_is_light(subject: Subject) -> None:
    """The hook module imports no large library, and takes less than a second: it is read at every
    start of the command line.
    """
    module = subject.hook_module
    if module is None:
        skip("It is not registered by a plugin.")
    found = subject.probe.hooks(module)
    require("seconds" in found, f"Importing {module} fails: {found.get('error')}")
    heavy = sorted(HEAVY.intersection(found["modules"]))
    require(
        not heavy,
        f"The hook module {module} imports {', '.join(heavy)}. Import it in the module of the "
        "target, which is imported when the component is used.",
    )
    require(
        found["seconds"] < _HOOK_SECONDS,
        f"Importing the hook module {module} took {found['seconds']:.1f} s; at most "
        f"{_HOOK_SECONDS:g} s are allowed.",
    )


@check(*KINDS)
def import_opens_no_network(subject: Subject) -> None:
    """Importing the target asks nothing of the network: downloads belong into a method."""
    _refuse(_found(subject).imported, "Importing the target", "network")


@check(*KINDS)
def import_writes_nothing(subject: Subject) -> None:
    """Importing the target writes no file, starts no process and changes nothing that others in the
    process share.
    """
    whats = {what for what, _ in _found(subject).imported} - {"network", "read"}
    _refuse(_found(subject).imported, "Importing the target", *whats)


@check(*KINDS)
def target_resolves(subject: Subject) -> None:
    """The target can be imported, what it requires is installed, and it has the methods of its
    kind.
    """
    require(not _found(subject).error, f"In a fresh process: {_found(subject).error}")
    if subject.kind == "command":
        require(callable(subject.component.load()), "The target of a command is no function.")
    else:
        subject.build()


@check(*_BUILT)
def settings_are_typed_json(subject: Subject) -> None:
    """Every setting has a type and a default value of that type, and is a JSON value: it can be set
    from the command line, and recorded.
    """
    target = subject.component.load()
    plain = target.__init__ is object.__init__
    for name, parameter in {} if plain else inspect.signature(target).parameters.items():
        typed = parameter.annotation is not parameter.empty and parameter.annotation is not Any
        require(typed, f"The setting '{name}' has no type. Annotate it in the constructor.")
    settings = full_settings(subject.component)
    text = json.dumps(settings, allow_nan=False)
    again = full_settings(subject.component.with_settings(json.loads(text)))
    require(again == settings, f"The settings {settings} are {again} once they were JSON.")


@check(*_BUILT)
def constructor_has_no_side_effects(subject: Subject) -> None:
    """The constructor stores its settings: it touches no file, network, process, GPU, environment
    or random state, and prints nothing.
    """
    events = _found(subject).constructed
    _refuse(events, "The constructor", *{what for what, _ in events})


@check(*_BUILT)
def is_picklable(subject: Subject) -> None:
    """A component can be sent to another process, as loaders and workers get it."""
    component = subject.build()
    again = ForkingPickler.loads(ForkingPickler.dumps(component))
    require(
        type(again) is type(component),
        f"In another process it is a {type(again).__name__}, not a {type(component).__name__}.",
    )


def _found(subject: Subject) -> Found:
    component = subject.component.component
    return subject.probe.of(subject.kind, subject.reference, component.target, component.settings)


def _refuse(events: tuple[tuple[str, str], ...], who: str, *whats: str) -> None:
    """Raise CheckError with the first thing of these sorts that happened."""
    for what, sentence in events:
        require(what not in whats, f"{who} does what it may not ({what}): {sentence}")
