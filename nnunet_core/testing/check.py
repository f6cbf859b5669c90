"""What a check is, what it gets, and the row that it ends with."""

from __future__ import annotations

import contextlib
import functools
import io
import tempfile
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NoReturn
from unittest import SkipTest

from nnunet_core.contracts.abilities import built
from nnunet_core.errors import UsageError
from nnunet_core.registry.components import Variant
from nnunet_core.registry.settings import file_settings, full_settings
from nnunet_core.testing.probe import Probe

if TYPE_CHECKING:
    from nnunet_core.registry.discovery import Registry, Resolved
    from nnunet_core.testing.toys import Toys

Outcome = Literal["passed", "failed", "skipped", "expected"]


@dataclass(frozen=True)
class Row:
    """How one check of one component ended.

    Attributes:
        check: Name of the check.
        kind: Of the component: `loss`, `planner`, ..., `variant`, `observer`, `plugin`.
        reference: Of the component: `plugin/name`.
        outcome: `passed`, `failed`, `skipped`, or `expected`: it failed, and the author says why.
        message: Why it failed or was skipped; empty where it passed.
        seconds: That it took.
    """

    check: str
    kind: str
    reference: str
    outcome: Outcome
    message: str = ""
    seconds: float = 0.0


class CheckError(AssertionError):
    """What a check found: what is wrong, what was received, what is allowed."""


def require(condition: object, message: str) -> None:
    """Raise CheckError with a message unless a condition holds."""
    __tracebackhide__ = True  # of pytest: what a check says is enough
    if not condition:
        raise CheckError(message)


def skip(reason: str) -> NoReturn:
    """End a check that does not apply; the reason becomes the message of its row."""
    raise SkipTest(reason)


@dataclass(frozen=True)
class Subject:
    """What is checked, with everything that a check needs.

    Attributes:
        kind, reference: What it is and what it is called.
        registry: Where other components come from; built-in ones are reached by their names.
        resolved: The component; None of variants and observers.
        variant: The variant, if it is one.
        partners: What it works with, beside the default: a variant of its plugin that chooses it.
        example: A file or folder that the component reads, given by its author.
        hook_module: Of the plugin that registers it; None where none does.
        probe: What it does when it is imported and constructed in a fresh process.
        folder: Empty, of this check alone; removed afterwards.
    """

    kind: str
    reference: str
    registry: Registry = field(repr=False)
    resolved: Resolved | None = field(default=None, repr=False)
    variant: Variant | None = field(default=None, repr=False)
    partners: Variant = field(default=Variant("default"), repr=False)
    example: Path | None = field(default=None, repr=False)
    hook_module: str | None = field(default=None, repr=False)
    probe: Probe = field(default_factory=Probe, repr=False)
    folder: Path = field(default=Path(), repr=False)

    @property
    def component(self) -> Resolved:
        """The component, where it is one."""
        if self.resolved is None:
            raise TypeError(f"The {self.kind} '{self.reference}' is no component.")
        return self.resolved

    def build(self, **settings: Any) -> Any:
        """Import and construct the component, with some settings changed; see `abilities.built` for
        errors.
        """
        return built(self.component.with_settings(settings))

    def other(self, kind: str, name: str | None = None, **settings: Any) -> Any:
        """Build another component that this one works with.

        Args:
            kind: Of the other.
            name: Its reference; None is the partner of this one, or else the default component.
            settings: Of the other, in place of its own.
        """
        chosen = {"preprocessor": "default", **self.registry.variant("default")[1].choices()}
        partner = self.partners.choices().get(kind)
        if name is None and partner is not None:
            settings = {**self.partners.settings.get(kind, {}), **settings}
        resolved = self.registry.resolve(kind, name or partner or chosen[kind])
        return built(resolved.with_settings(settings))

    @property
    def toys(self) -> Toys:
        """Small datasets, made once in a process."""
        from nnunet_core.testing.toys import shared_toys

        return shared_toys()


@dataclass(frozen=True)
class Check:
    """One thing that a component has to keep.

    Attributes:
        name: Of the function, unique among all checks: `loss_is_a_finite_number`.
        kinds: That it applies to.
        function: Raises CheckError, or whatever the component raises; SkipTest where it does not
            apply.
    """

    name: str
    kinds: tuple[str, ...]
    function: Callable[[Subject], None] = field(repr=False)

    @property
    def about(self) -> str:
        """What is checked, for people."""
        return self.function.__doc__ or ""

    def __call__(self, subject: Subject) -> None:
        """Run the check: nothing, CheckError, another exception of the component, or SkipTest."""
        __tracebackhide__ = True
        with tempfile.TemporaryDirectory(prefix="nnunet-check-") as folder:
            try:
                self.function(replace(subject, folder=Path(folder).resolve()))
            except UsageError as error:
                if missing := _files_not_named(subject):
                    skip(f"It needs a file that its setting {' or '.join(missing)} names: {error}")
                raise

    def row(self, subject: Subject, expected: str | None = None) -> Row:
        """Run the check and say how it ended.

        Args:
            subject: What is checked.
            expected: Why it is known to fail; None where it has to pass.
        """
        start, outcome, message = time.perf_counter(), "passed", ""
        try:
            with contextlib.redirect_stdout(io.StringIO()):  # --json is read by programs
                self(subject)
            if expected is not None:
                outcome, message = "failed", f"It passes, but is expected to fail: {expected}"
        except SkipTest as skipped:
            outcome, message = "skipped", str(skipped)
        except Exception as error:  # noqa: BLE001 - a stranger's code may raise anything; it becomes a row
            outcome, message = "failed", _told(error)
            if expected is not None:
                outcome, message = "expected", f"{expected} ({message})"
        seconds = time.perf_counter() - start
        row = functools.partial(Row, self.name, subject.kind, subject.reference)
        return row(outcome, message, seconds)  # type: ignore[arg-type]


def check(*kinds: str) -> Callable[[Callable[[Subject], None]], Check]:
    """Make a check of these kinds from a function; its name and docstring are those of the check.

    @check("loss")
    def loss_is_a_number(subject):
        '''The loss is one number.'''
        loss = subject.build().build(batch_dice=False)
        require(loss(logits, target).ndim == 0, "...")
    """

    def of(function: Callable[[Subject], None]) -> Check:
        return Check(function.__name__, kinds, function)

    return of


def _files_not_named(subject: Subject) -> list[str]:
    """Return the settings of a component that name a file and have no value."""
    if subject.resolved is None:
        return []
    values = full_settings(subject.resolved)
    return [name for name in file_settings(subject.resolved) if values.get(name) is None]


def _told(error: Exception) -> str:
    """Return an exception for a row; of one that no check raised, the place too."""
    if isinstance(error, CheckError):
        return str(error)
    last = traceback.extract_tb(error.__traceback__)[-1]
    return f"{type(error).__name__}: {error} ({last.filename}, line {last.lineno})"
