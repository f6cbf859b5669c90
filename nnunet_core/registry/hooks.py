"""The hooks of all plugins: one typed method per hook. Nothing else calls pluggy."""

from __future__ import annotations

import re
import traceback
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import pluggy

from nnunet_core.errors import PluginError, nearest
from nnunet_core.registry import hookspecs

if TYPE_CHECKING:
    from pathlib import Path

    import numpy as np

    from nnunet_core.data.cases import Case
    from nnunet_core.data.dataset import Dataset
    from nnunet_core.data.images import Image
    from nnunet_core.data.labels import Labels
    from nnunet_core.registry.records import FoldRecord
    from nnunet_core.runtime.reporting import Reporter
    from nnunet_core.store.workspace import Workspace


_OBSERVED = (
    "nnunet_run_started",
    "nnunet_epoch_finished",
    "nnunet_fold_validated",
    "nnunet_run_finished",
    "nnunet_results_ready",
    "nnunet_cases_shown",
    "nnunet_worst_case_found",
)


class Hooks:
    """What plugins implement. A hook that returns records is asked plugin by plugin, so that each
    has an origin.
    """

    def __init__(self) -> None:
        self._manager = pluggy.PluginManager(hookspecs.PROJECT)
        self._manager.add_hookspecs(hookspecs)

    def register(self, plugin: object, name: str) -> None:
        """Admit the hooks of a plugin.

        Raises:
            PluginError: It implements a hook that does not exist, with other arguments, or as a
                wrapper.
        """
        try:
            self._manager.register(plugin, name)
            self._manager.check_pending()
        except (pluggy.PluginValidationError, ValueError) as error:
            raise PluginError(f"{error}{self._meant(str(error))}") from error
        for caller in self._manager.get_hookcallers(plugin) or ():
            for implementation in _of(plugin, caller):
                if implementation.hookwrapper or implementation.wrapper:
                    raise PluginError(
                        f"{caller.name} of plugin '{name}' is a wrapper; hooks here are plain "
                        "functions."
                    )

    def _meant(self, message: str) -> str:
        """Return the hook whose name is nearest to the one that pluggy does not know."""
        unknown = re.match(r"unknown hook '(\w+)'", message)
        known = [name for name in vars(hookspecs) if name.startswith("nnunet_")]
        return nearest(unknown[1], known) if unknown else ""

    def forget(self, plugin: object) -> None:
        """Remove the hooks of a plugin, if they were admitted."""
        if self._manager.is_registered(plugin):
            self._manager.unregister(plugin)

    def records(self, plugin: object, kind: str) -> list[object]:
        """Return what a plugin registers of a kind of component (`nnunet_planners` and so on), or
        its variants.

        Raises:
            PluginError: The hook returned something else than a sequence.
        """
        hook = component_hook(kind)
        found: list[object] = []
        for implementation in _of(plugin, getattr(self._manager.hook, hook)):
            records = implementation.function()
            if not isinstance(records, Sequence):
                raise PluginError(
                    f"{hook} returned {type(records).__name__}; it must return a list of records."
                )
            found.extend(records)
        return found

    def observers(self) -> list[str]:
        """Return the names of the plugins that observe trainings or evaluations."""
        callers = [getattr(self._manager.hook, name) for name in _OBSERVED]
        return sorted({each.plugin_name for call in callers for each in call.get_hookimpls()})

    def run_started(self, record: FoldRecord, folder: Path) -> list[str]:
        """Tell the observers that a fold's training starts; return one warning per observer that
        raised.
        """
        return self._tell("nnunet_run_started", record=record, folder=folder)

    def epoch_finished(
        self, record: FoldRecord, folder: Path, metrics: Mapping[str, object]
    ) -> list[str]:
        """Tell the observers of an epoch; return one warning per observer that raised."""
        return self._tell("nnunet_epoch_finished", record=record, folder=folder, metrics=metrics)

    def fold_validated(
        self, record: FoldRecord, folder: Path, dataset: Dataset, summary: Mapping[str, Any]
    ) -> list[str]:
        """Tell the observers that a fold's validation cases are scored; return one warning per
        observer that raised.
        """
        return self._tell(
            "nnunet_fold_validated", record=record, folder=folder, dataset=dataset, summary=summary
        )

    def run_finished(
        self, record: FoldRecord, folder: Path, summary: Mapping[str, object]
    ) -> list[str]:
        """Tell the observers that a fold is validated; return one warning per observer that
        raised.
        """
        return self._tell("nnunet_run_finished", record=record, folder=folder, summary=summary)

    def results_ready(
        self,
        folder: Path,
        dataset: Dataset,
        workspace: Workspace,
        report: Reporter,
    ) -> list[str]:
        """Tell the observers that everything of a run is there; return one warning per observer
        that raised.
        """
        return self._tell(
            "nnunet_results_ready",
            folder=folder,
            dataset=dataset,
            workspace=workspace,
            report=report,
        )

    def cases_shown(self, cases: Iterable[Case], labels: Labels, path: Path) -> list[str]:
        """Tell the observers of cases that somebody wants to see; return one warning per observer
        that raised.
        """
        return self._tell("nnunet_cases_shown", cases=cases, labels=labels, path=path)

    def worst_case_found(
        self,
        image: Image,
        reference: np.ndarray,
        prediction: np.ndarray,
        labels: Labels,
        values: Sequence[int],
        title: str,
        path: Path,
    ) -> list[str]:
        """Tell the observers of one of the worst cases of an evaluation; return one warning per
        observer that raised.
        """
        return self._tell(
            "nnunet_worst_case_found",
            image=image,
            reference=reference,
            prediction=prediction,
            labels=labels,
            values=values,
            title=title,
            path=path,
        )

    def _tell(self, hook: str, **arguments: object) -> list[str]:
        warnings = []
        for implementation in getattr(self._manager.hook, hook).get_hookimpls():
            try:
                implementation.function(
                    **{name: arguments[name] for name in implementation.argnames}
                )
            except Exception as error:  # noqa: BLE001 - observers look, they do not stop a training
                last = traceback.extract_tb(error.__traceback__)[-1]
                warnings.append(
                    f"The observer {hook} of plugin '{implementation.plugin_name}' failed: "
                    f"{type(error).__name__}: {error} ({last.filename}, line {last.lineno})"
                )
        return warnings


def component_hook(kind: str) -> str:
    """Return the name of the hook that registers a kind of component."""
    return "nnunet_losses" if kind == "loss" else f"nnunet_{kind}s"


def _of(plugin: object, caller: pluggy.HookCaller) -> list[pluggy.HookImpl]:
    """Return a plugin's own implementations of a hook, whatever they are called."""
    return [
        implementation
        for implementation in caller.get_hookimpls()
        if implementation.plugin is plugin
    ]
