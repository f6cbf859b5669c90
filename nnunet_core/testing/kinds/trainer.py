"""Checks of trainers: short trainings on the toy datasets."""

from __future__ import annotations

import contextlib
import functools
import json
import math
import os
import signal
import threading
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nnunet_core.contracts.abilities import ChecksRuntime, ability
from nnunet_core.contracts.trainer import Runtime, TrainingTask
from nnunet_core.data.plans import Configuration
from nnunet_core.errors import StoppedError, TrainingError, UsageError
from nnunet_core.registry.settings import full_settings
from nnunet_core.runtime.reporting import Silence
from nnunet_core.store.models import WEIGHTS
from nnunet_core.testing.check import Subject, check, require, skip
from nnunet_core.testing.files import contents
from nnunet_core.testing.kinds.network import least_patch

if TYPE_CHECKING:
    import torch

    from nnunet_core.data.labels import Labels
    from nnunet_core.store.prepared import PreparedStore
    from nnunet_core.testing.toys import Toys

_EPOCHS = 3
#: What makes a training short, where a trainer has these settings.
_SHORT = {"epochs": _EPOCHS, "iterations_per_epoch": 4, "validation_iterations": 1}
_BRIEF = {"epochs": 1, "iterations_per_epoch": 2, "validation_iterations": 1}
_RUNTIME = Runtime("cpu", "float32", 0, 1)
_COMPUTED = {"device", "precision", "threads"}


@check("trainer")
def trainer_writes_the_weights_of_the_network(subject: Subject) -> None:
    """It ends with finite weights that fit the network, and says how they were computed; for
    volumes, planes and regions.
    """
    straight = _straight(subject)
    returned = straight.returned
    require(
        isinstance(returned, Mapping)
        and set(returned) >= _COMPUTED
        and all(isinstance(value, str) for value in returned.values()),
        f"`train` returns {returned!r}; it must return the texts {sorted(_COMPUTED)}.",
    )
    _require_fitting(_Training(subject), straight.weights)
    # partners of its own may be for nothing else
    for toy in () if _has_own_partners(subject) else ("2d", "regions"):
        training = _Training(subject, toy, name=toy, settings=_BRIEF)
        training.run()
        _require_fitting(training, training.weights())


@check("trainer")
def trainer_lowers_the_loss(subject: Subject) -> None:
    """The loss on the training cases is lower after the training than before."""
    training, straight = _Training(subject), _straight(subject)
    before = training.loss(training.network())
    trained = training.network()
    trained.load_state_dict(straight.weights)
    after = training.loss(trained)
    require(
        after < before,
        f"The cross entropy on the training cases is {before:.5f} before a training of "
        f"{len(straight.lines)} epochs and {after:.5f} after it; it must fall.",
    )


@check("trainer")
def trainer_follows_its_seed(subject: Subject) -> None:
    """Equal seeds end with equal weights, bit for bit, other seeds with others."""
    straight = _straight(subject)
    again, other = _Training(subject, name="again"), _Training(subject, name="other", seed=8)
    again.run()
    other.run()
    different = _different(straight.weights, again.weights())
    require(
        not different,
        f"Two trainings with one seed end with different weights: {different}. Seed everything "
        "that is drawn with `task.seed`.",
    )
    require(
        _different(straight.weights, other.weights()),
        "Trainings with different seeds end with the same weights: `task.seed` is not used.",
    )


@check("trainer")
def trainer_tells_of_every_epoch(subject: Subject) -> None:
    """`epoch_finished` is called with a line of JSON values for each epoch, whose `epoch` counts
    from 1.
    """
    lines = _straight(subject).lines
    epochs = [line.get("epoch") for line in lines]
    require(
        epochs and epochs == list(range(1, len(epochs) + 1)),
        f"`task.epoch_finished` was called with lines whose `epoch` is {epochs}; it must be 1, 2, "
        "... Observers hear of the training through it.",
    )
    for line in lines:
        try:
            json.dumps(dict(line), allow_nan=False)
        except (TypeError, ValueError) as error:
            require(False, f"A line of an epoch is no JSON ({error}): {line!r}.")


@check("trainer")
def trainer_goes_on_where_it_was_stopped(subject: Subject) -> None:
    """After Ctrl-C, the same call goes on from the last checkpoint and ends with the weights of a
    training that was never stopped, bit for bit.
    """
    if threading.current_thread() is not threading.main_thread():
        skip("Signals can be sent in the main thread alone.")
    straight, stopped = _straight(subject), _Training(subject, name="stopped")
    epochs = len(straight.lines)
    if epochs < 2:
        skip("A training of one epoch is too short to be stopped.")
    require(
        not stopped.run_until(2),
        f"Ctrl-C in the second of {epochs} epochs does not end the training: it must save and "
        "raise StoppedError, or let KeyboardInterrupt through.",
    )
    stopped.lines.clear()
    stopped.run()
    require(
        len(stopped.lines) < epochs,
        f"After it was stopped in epoch 2, the training takes {len(stopped.lines)} epochs, as many "
        "as from the start: it must go on from its last checkpoint.",
    )
    different = _different(straight.weights, stopped.weights())
    if different:
        again = _Training(subject, name="again")
        again.run()
        if _different(straight.weights, again.weights()):
            skip("Trainings that are not stopped differ, too.")
    require(
        not different,
        f"A training that was stopped ends with other weights: {different}. A checkpoint needs "
        "everything that changes: weights, optimiser, schedule, what is drawn.",
    )


@check("trainer")
def trainer_leaves_a_finished_fold(subject: Subject) -> None:
    """A fold that is trained is left as it is, and nothing is returned."""
    straight = _straight(subject)
    require(
        not straight.lines_again and not straight.returned_again,
        f"A fold that is trained is trained again: {len(straight.lines_again)} epochs, and `train` "
        f"returns {straight.returned_again!r}; it must do nothing and return an empty mapping.",
    )
    different = _different(straight.weights, straight.weights_again)
    require(not different, f"The weights of a fold that is trained change: {different}.")


@check("trainer")
def trainer_writes_in_its_folder_alone(subject: Subject) -> None:
    """Outside of the fold's folder nothing is written: not beside it, not in the current folder,
    not to the prepared cases, and no temporary file is left.
    """
    stray = _straight(subject).stray
    require(
        not stray,
        f"The training writes outside of its folder: {', '.join(stray[:5])}. What it has to say "
        "belongs into `task.folder`.",
    )


@check("trainer")
def trainer_ends_at_a_loss_that_is_not_finite(subject: Subject) -> None:
    """A loss that is not finite ends the training with TrainingError, and no weights are left."""
    training = _Training(subject, settings=_BRIEF, loss_builder=_NotFinite())
    try:
        training.run()
    except TrainingError:
        left = (training.folder / WEIGHTS).exists()
        require(not left, f"After a training that failed there is a {WEIGHTS}.")
        return
    require(False, "With a loss of NaN the training goes on; it must raise TrainingError.")


@check("trainer", "predictor")
def unknown_devices_are_refused(subject: Subject) -> None:
    """`check` refuses a device and a precision that do not exist, before any case is prepared."""
    able = ability(subject.build(), ChecksRuntime)
    if able is None:
        skip("It has no `check`.")
    able.check(_RUNTIME)
    for wrong in (replace(_RUNTIME, device="abacus"), replace(_RUNTIME, precision="float7")):
        try:
            able.check(wrong)
        except UsageError:
            continue
        require(False, f"`check` accepts {wrong}; it must raise UsageError.")


@dataclass(frozen=True)
class _NotFinite:
    """Builds a loss that is NaN."""

    def build(
        self, *, batch_dice: bool, ignore_label: int | None = None, regions: bool = False
    ) -> Callable[..., torch.Tensor]:
        del batch_dice, ignore_label, regions
        return lambda logits, target: logits.sum() * math.nan + target.sum() * 0


@dataclass(frozen=True)
class _Straight:
    """A training that was never stopped, and what the same call does once more.

    Attributes:
        lines, returned, weights: What it told of its epochs, returned, and wrote.
        stray: Files that it wrote elsewhere, or changed.
        lines_again, returned_again, weights_again: Of the second call.
    """

    lines: list[Mapping[str, object]]
    returned: Any
    weights: dict[str, torch.Tensor]
    stray: list[str]
    lines_again: list[Mapping[str, object]]
    returned_again: Any
    weights_again: dict[str, torch.Tensor]


_last: dict[str, _Straight] = {}


def _straight(subject: Subject) -> _Straight:
    """Return the straight training of a trainer; it is done once for all checks."""
    component = subject.component.component
    key = json.dumps([component.target, dict(component.settings), subject.partners.choices()])
    if key not in _last:
        _last.clear()
        _last[key] = _train_straight(subject)
    return _last[key]


def _train_straight(subject: Subject) -> _Straight:
    training = _Training(subject, name="fold_0")
    current, temporary = subject.folder / "current", subject.folder / "temporary"
    current.mkdir()
    temporary.mkdir()
    store = training.task().store.folder
    prepared = contents(store)
    with _inside(current, temporary):
        returned = training.run()
    lines, weights = list(training.lines), training.weights()
    found = contents(subject.folder).items()
    stray = [name for name, digest in found if digest and Path(name).parts[0] != training.name]
    changed = prepared.items() ^ contents(store).items()
    stray += sorted({f"prepared cases: {name}" for name, _ in changed})
    training.lines.clear()
    again = training.run()
    return _Straight(lines, returned, weights, stray, training.lines, again, training.weights())


def _require_fitting(training: _Training, weights: Mapping[str, torch.Tensor]) -> None:
    """Raise CheckError unless weights are those of the network, and finite."""
    try:
        training.network().load_state_dict(weights)
    except RuntimeError as error:
        require(False, f"{WEIGHTS} does not fit the network ({training.toy}): {error}")
    broken = [name for name, value in weights.items() if not value.isfinite().all()]
    require(not broken, f"Weights are not finite ({training.toy}): {', '.join(broken[:3])}.")


@dataclass
class _Training:
    """A short training of one fold of a toy dataset.

    Attributes:
        subject: The trainer.
        toy: Name of the dataset.
        name: Of the fold's folder.
        seed: Of the training.
        settings: Of the trainer, where it has them.
        loss_builder: None is the partner of the trainer, or cross entropy.
        lines: What the trainer told of its epochs.
    """

    subject: Subject
    toy: str = "3d"
    name: str = "fold"
    seed: int = 7
    settings: Mapping[str, int] = field(default_factory=lambda: _SHORT)
    loss_builder: Any = None
    lines: list[Mapping[str, object]] = field(default_factory=list)

    @property
    def folder(self) -> Path:
        """The fold's folder."""
        return self.subject.folder / self.name

    def task(self) -> TrainingTask:
        """Return what the trainer gets."""
        subject = self.subject
        network = subject.other("network")
        labels, names, store, plans = _data(subject.toys, self.toy)
        patch = least_patch(network.divisor(plans.network))
        loss = None if _has_own_partners(subject) else "builtin/ce"  # which takes every label
        return TrainingTask(
            folder=self.folder,
            configuration=Configuration(**{**dict(plans), "patch_size": patch}),
            labels=labels,
            training=names[:-1],
            validation=names[-1:],
            store=store,
            network=network,
            loss=self.loss_builder or subject.other("loss", loss),
            augmentation=subject.other("augmentation", "builtin/none"),
            runtime=_RUNTIME,
            seed=self.seed,
            report=Silence(),
            epoch_finished=self.lines.append,
        )

    def run(self, task: TrainingTask | None = None) -> Mapping[str, str]:
        """Train, or go on; return what the trainer returns."""
        self.folder.mkdir(exist_ok=True)
        known = full_settings(self.subject.component)
        short = {name: value for name, value in self.settings.items() if name in known}
        returned: Mapping[str, str] = self.subject.build(**short).train(task or self.task())
        return returned

    def run_until(self, epoch: int) -> bool:
        """Train, with Ctrl-C as an epoch ends; return whether the training went to its end."""

        def stopping(line: Mapping[str, object]) -> None:
            self.lines.append(line)
            if len(self.lines) == epoch:
                signal.raise_signal(signal.SIGINT)

        before = signal.signal(signal.SIGINT, signal.default_int_handler)
        try:
            self.run(replace(self.task(), epoch_finished=stopping))
        except (KeyboardInterrupt, StoppedError):
            return False
        finally:
            signal.signal(signal.SIGINT, before)
        return True

    def network(self) -> torch.nn.Module:
        """Return the network as it is before a training."""
        import torch

        with torch.random.fork_rng([]):
            torch.manual_seed(self.seed)
            task = self.task()
            network: torch.nn.Module = task.network.build(task.configuration.network)
        return network

    def weights(self) -> dict[str, torch.Tensor]:
        """Return what the training wrote."""
        from safetensors.torch import load_file

        path = self.folder / WEIGHTS
        require(path.is_file(), f"After the training ({self.toy}) there is no {WEIGHTS}.")
        return load_file(path)

    def loss(self, network: torch.nn.Module) -> float:
        """Return the mean cross entropy of a network on the training cases."""
        import torch

        task = self.task()
        divisor = task.network.divisor(task.configuration.network)
        values = []
        for name in task.training:
            case = task.store.open(name)
            sizes = zip(case.spatial_shape, divisor, strict=True)
            window = tuple(slice(0, size - size % step) for size, step in sizes)
            images = torch.from_numpy(case.images[(slice(None), *window)])[None]
            label = torch.from_numpy(case.label[window])[None].clamp(min=0).long()
            with torch.no_grad():
                returned = network.eval()(images)
            logits = returned if isinstance(returned, torch.Tensor) else returned[0]
            values.append(float(torch.nn.functional.cross_entropy(logits, label)))
        return math.fsum(values) / len(values)


def _has_own_partners(subject: Subject) -> bool:
    """Return whether a trainer works with a network or loss that is not the default one."""
    usual = subject.registry.variant("default")[1].choices()
    partners = subject.partners.choices()
    return any(partners.get(kind, usual[kind]) != usual[kind] for kind in ("network", "loss"))


@functools.cache
def _data(toys: Toys, name: str) -> tuple[Labels, tuple[str, ...], PreparedStore, Configuration]:
    """Return labels, case names, prepared cases and plans of a toy dataset."""
    dataset = toys.dataset(name)
    return dataset.labels, tuple(dataset.names), toys.prepared(name), toys.configuration(name)


def _different(first: Mapping[str, torch.Tensor], second: Mapping[str, torch.Tensor]) -> str:
    """Return how weights differ; empty where they are equal bit for bit."""
    if first.keys() != second.keys():
        return "they have other names"
    apart = [name for name in first if not first[name].equal(second[name])]
    if not apart:
        return ""
    largest = max(float((first[name] - second[name]).abs().max()) for name in apart)
    return f"{len(apart)} of {len(first)} tensors, by up to {largest:.3g}"


@contextlib.contextmanager
def _inside(current: Path, temporary: Path) -> Iterator[None]:
    """Let the process have another current folder, and another one for temporary files."""
    import tempfile

    before, kept = Path.cwd(), tempfile.tempdir
    os.chdir(current)
    tempfile.tempdir = str(temporary)
    try:
        yield
    finally:
        os.chdir(before)
        tempfile.tempdir = kept
