"""What observers share that show trainings elsewhere: whether they were asked for, and what they
write. Other packages may use it.
"""

from __future__ import annotations

import hashlib
import importlib
import math
import os
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar, Protocol

from nnunet_core import hookimpl
from nnunet_core.errors import PluginError, UsageError, nearest

if TYPE_CHECKING:
    from pathlib import Path

    from nnunet_core.registry.records import FoldRecord

VARIABLE = "NNUNET_LOG"
#: Observers of packages that are not always there: {name: what to install}.
_PACKAGES = {"wandb": "nnunet-tracking[wandb]", "mlflow": "nnunet-tracking[mlflow]"}


class Log(Protocol):
    """Where the numbers of one fold go."""

    def write(self, values: Mapping[str, float], epoch: int) -> None:
        """Write the numbers of an epoch."""

    def finish(self, values: Mapping[str, float]) -> None:
        """Write the validation of the whole fold, and close."""


class Observer:
    """Passes what a training reports to a library that shows it; silent unless NNUNET_LOG names it.

    Args:
        name: In NNUNET_LOG, and of the entry point.
        library: Module of the library, imported when a training starts.
        open_log: From library, record and fold folder to the log of one fold.
        install: What pip installs for the library, for messages.
    """

    #: Of all observers in this process.
    names: ClassVar[list[str]] = []

    def __init__(
        self,
        name: str,
        library: str,
        open_log: Callable[[Any, FoldRecord, Path], Log],
        install: str,
    ) -> None:
        self.name = name
        self.library = library
        self.open_log = open_log
        self.install = install
        self.names.append(name)
        self._logs: dict[Path, Log | None] = {}

    @hookimpl
    def nnunet_run_started(self, record: FoldRecord, folder: Path) -> None:
        """Open the log of a fold; what fails here is said once, and the fold is then not logged."""
        if self.name in asked_names():
            self._open(record, folder)

    @hookimpl
    def nnunet_epoch_finished(self, folder: Path, metrics: Mapping[str, object]) -> None:
        """Write the numbers of an epoch."""
        log = self._logs.get(folder)
        if log is not None:
            numbers = flat(metrics)
            try:
                log.write(numbers, int(numbers.pop("epoch")))
            except Exception as error:
                self._logs[folder] = None  # a server that is gone would hold up every epoch
                raise RuntimeError(
                    f"the rest of {folder.name} is not logged: {type(error).__name__}: {error}"
                ) from error

    @hookimpl
    def nnunet_run_finished(
        self, record: FoldRecord, folder: Path, summary: Mapping[str, object]
    ) -> None:
        """Write the scores of the fold's validation; a fold that only had to be validated is opened
        for it.
        """
        if self.name in asked_names() and folder not in self._logs:
            self._open(record, folder)
        log = self._logs.pop(folder, None)
        if log is not None:
            log.finish(flat(summary, "validation/"))

    def _open(self, record: FoldRecord, folder: Path) -> None:
        self._logs[folder] = None
        self._logs[folder] = self.open_log(_imported(self), record, folder)


def asked_names() -> tuple[str, ...]:
    """Return the names in NNUNET_LOG."""
    return tuple(
        name for part in os.environ.get(VARIABLE, "").split(",") if (name := part.strip().lower())
    )


def check_names() -> None:
    """Check NNUNET_LOG.

    Raises:
        UsageError: It names something else than the observers that are installed.
    """
    known = sorted(set(Observer.names))
    for name in asked_names():
        if name in known:
            continue
        if name in _PACKAGES:
            raise UsageError(
                f"{VARIABLE} asks for {name}, a plugin of another package that is not installed, "
                f"or is blocked. Run: pip install '{_PACKAGES[name]}'"
            )
        raise UsageError(
            f"{VARIABLE} names '{name}'.{nearest(name, [*known, *_PACKAGES])} Installed: "
            f"{', '.join(known)}."
        )


def flat(values: Mapping[str, object], prefix: str = "") -> dict[str, float]:
    """Return the finite numbers of nested mappings and lists; keys are joined by '/', elements
    counted from 1.
    """
    found: dict[str, float] = {}
    for key, value in values.items():
        name = f"{prefix}{key}"
        if isinstance(value, Mapping):
            found.update(flat(value, f"{name}/"))
        elif isinstance(value, Sequence) and not isinstance(value, str):
            found.update(flat({str(i): item for i, item in enumerate(value, 1)}, f"{name}/"))
        elif isinstance(value, int | float) and math.isfinite(value):
            found[name] = float(value)
    return found


def title(record: FoldRecord) -> str:
    """Return the name of a fold for people."""
    return f"{record.dataset} {record.variant} {record.configuration} fold {record.fold}"


def run_id(record: FoldRecord) -> str:
    """Return 16 hexadecimal digits that a training keeps when it is stopped and goes on."""
    parts = (title(record), record.inputs_digest, record.started)
    return hashlib.blake2b("\n".join(parts).encode(), digest_size=8).hexdigest()


def facts(record: FoldRecord) -> dict[str, Any]:
    """Return what was run: what to group and compare trainings by."""
    keys = ("dataset", "variant", "configuration", "fold", "seed", "device", "precision")
    chosen: dict[str, Any] = {key: getattr(record, key) for key in keys}
    for kind, component in record.components.items():
        chosen[kind] = component.reference
        chosen.update({f"{kind}.{name}": value for name, value in component.settings.items()})
    return chosen


def _imported(observer: Observer) -> Any:
    """Import a library by name, so that this module itself stays light."""
    try:
        return importlib.import_module(observer.library)
    except ImportError as error:
        raise PluginError(
            f"{VARIABLE} asks for {observer.name}, which cannot be imported ({error}). Run: pip "
            f"install '{observer.install}'. This fold is not logged there."
        ) from error
