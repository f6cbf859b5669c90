"""Exported models brought into a workspace: checked whole, before anything of it stands there."""

from __future__ import annotations

import contextlib
import posixpath
import re
import shlex
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from nnunet_builtin.networks.weights import read_weights
from nnunet_builtin.sharing import manifest as m
from nnunet_builtin.sharing.fitting import check_fit
from nnunet_builtin.untrusted.archives import unpacked
from nnunet_core.errors import NnunetError, StorageError, UsageError, listed
from nnunet_core.registry.components import PREDICTING_KINDS
from nnunet_core.registry.discovery import Registry
from nnunet_core.registry.records import FILE as RUN_FILE
from nnunet_core.runtime.files import atomic_folder
from nnunet_core.runtime.names import below
from nnunet_core.runtime.reporting import Reporter, Silence
from nnunet_core.store import inference
from nnunet_core.store.inference import InferenceDocument
from nnunet_core.store.models import FILE, WEIGHTS, Model, check_weights

_FITTED = r"postprocessing/[^/]+\.json"
_SELECTION = rf"(ensembles/[^/]+/)?{re.escape(inference.FILE)}"  # in the folder of a dataset
# of models of others, by what lies in them
_FOREIGN = {
    "plans.pkl": "nnU-Net v1",
    "model_final_checkpoint.model": "nnU-Net v1",
    "checkpoint_final.pth": "nnU-Net v2",
    "checkpoint_best.pth": "nnU-Net v2",
}


@dataclass(frozen=True)
class Installed:
    """What was installed.

    Attributes:
        manifest: Of the archive.
        folders: Of each model of it.
        selections: The files that say which of the models predict together.
    """

    manifest: m.Manifest
    folders: tuple[Path, ...]
    selections: tuple[Path, ...] = ()


def install(
    archive: Path,
    results: Path,
    registry: Registry,
    overwrite: bool = False,
    digest: str | None = None,
    report: Reporter | None = None,
) -> Installed:
    """Install what `export` wrote, a zip or its content as tar.gz, into the results of a workspace.

    Everything is checked before anything stands in its place: the digest of the archive, that of
    every file, each JSON file, and that the weights are numbers of the network that is described.
    Nothing that the archive names is imported, but the networks of installed plugins.

    Args:
        archive: The file.
        results: Of the workspace.
        registry: Says which plugins are missing.
        overwrite: Replace models of the same names.
        digest: Of the archive, `sha256:...`; None does not compare.
        report: Warned of missing plugins.

    Raises:
        UsageError: The archive is something else, for instance a model of nnU-Net v1 or v2.
        StorageError: A model of that name exists; or the archive is damaged or hostile.
    """
    report = report or Silence()
    _check_digest(archive, digest)
    with unpacked(archive, results / "install") as folder, _named(folder, archive):
        top = _top(folder, archive)
        manifest = m.Manifest.read(top / m.FILE)
        _check_files(top, manifest)
        models = [_checked(top, card, registry, report) for card in manifest.models]
        chosen = {below(results, *n.split("/")): d for n, d in _selections(top, manifest).items()}
        targets = [below(results, *card.name.split("/")) for card in manifest.models]
        kept = [_is_same(model, target) for model, target in zip(models, targets, strict=True)]
        others = [target for target, same in zip(targets, kept, strict=True) if not same]
        further = [
            place
            for place, document in chosen.items()
            if not place.is_file() or InferenceDocument.read(place) != document
        ]
        _refuse_replacing([*others, *further], overwrite)
        for model, target, same in zip(models, targets, kept, strict=True):
            if not same:
                manifest.write(model.folder / m.FILE)
                _move(model.folder, target, overwrite)
        for place in further:
            chosen[place].write(place)
    return Installed(manifest, tuple(targets), tuple(chosen))


def _refuse_replacing(places: Sequence[Path], overwrite: bool) -> None:
    for place in places:
        if place.exists() and not overwrite:
            raise StorageError(
                f"There is {place} already, and it was kept. Name another --workspace, or replace "
                "it, with all that is in its folder, by --overwrite."
            )


def _selections(top: Path, manifest: m.Manifest) -> dict[str, InferenceDocument]:
    """Return {path in the archive: content} of each inference.json, after a check that its models
    are there.
    """
    dataset, found = manifest.models[-1].dataset, {}
    for name in sorted(manifest.files):
        if not re.fullmatch(f"{re.escape(dataset)}/{_SELECTION}", name):
            continue
        path = below(top, *name.split("/"))
        document, folder = InferenceDocument.read(path), posixpath.dirname(name)
        cards = [card.name for card in manifest.models if card.dataset == document.dataset]
        there = {posixpath.relpath(card, folder) for card in cards}
        if missing := [record.model for record in document.members if record.model not in there]:
            raise StorageError(f"{path} names the model {missing[0]}, which is not in {top}.")
        found[name] = document
    return found


def missing_plugins(model: Model, registry: Registry) -> list[str]:
    """Return what a model needs to predict and this installation lacks, one text for each
    component, with what to install.
    """
    found = []
    for kind in PREDICTING_KINDS:
        record = model.document.components[kind]
        package = f"{record.distribution}=={record.version}"
        if ":" in record.reference:
            found.append(
                f"the {kind} '{record.reference}', code that no plugin registers: ask for it where "
                "the model is from, read it, and predict with --trust"
            )
            continue
        try:
            resolved = registry.registered(kind, record.reference, FILE, "")
        except NnunetError:
            found.append(
                f"the {kind} '{record.reference}' of {record.distribution} {record.version}, which "
                f"is not installed: pip install '{package}', if you know this package"
            )
            continue
        if resolved.version != record.version:
            found.append(
                f"the {kind} '{record.reference}' in version {record.version}; "
                f"{resolved.version} is installed. For equal numbers: pip install '{package}'"
            )
    return found


def missing_for_training(model: Model, registry: Registry) -> str:
    """Say which packages that only the training needed are not installed here, and what installs
    them; empty if none is missing.
    """
    installed = {(info.distribution, info.version) for info in registry.plugins()}
    missing: dict[str, list[str]] = {}
    for kind, record in model.document.components.items():
        package = (record.distribution, record.version)
        if record.distribution and kind not in PREDICTING_KINDS and package not in installed:
            named = f"{record.distribution}=={record.version}"
            missing.setdefault(named, []).append(f"{kind} '{record.reference}'")
    if not missing:
        return ""
    parts = "; ".join(f"{', '.join(named)} of {package}" for package, named in missing.items())
    return (
        f"was trained with {parts}, not installed here. Prediction does not need that; to train "
        f"it further, if you know these packages: pip install {shlex.join(missing)}"
    )


def _check_digest(archive: Path, digest: str | None) -> None:
    if digest is None:
        return
    if not archive.is_file():
        raise UsageError(f"{archive} is no file. Name the archive of a model.")
    found = m.digest_of(archive).digest
    if found != digest:
        raise StorageError(
            f"{archive} has the digest {found}, not {digest}. It is damaged, or another file. "
            "Nothing of it was unpacked: get it anew, and compare the digest where it comes from."
        )


@contextlib.contextmanager
def _named(folder: Path, archive: Path) -> Iterator[None]:
    """Let messages name the archive: the folder with its content is gone when they are read."""
    try:
        yield
    except NnunetError as error:
        if str(folder) not in str(error):
            raise
        raise type(error)(str(error).replace(str(folder), str(archive))) from error


def _top(folder: Path, archive: Path) -> Path:
    """Return the folder with the manifest: that of the archive, or the only one in it."""
    inside = [folder, *(path for path in folder.iterdir() if path.is_dir())]
    tops = [path for path in inside if (path / m.FILE).is_file()]
    if len(tops) == 1:
        return tops[0]
    names = {path.name for path in folder.rglob("*")}
    foreign = next((kind for name, kind in _FOREIGN.items() if name in names), None)
    if foreign:
        raise UsageError(
            f"{archive} is a model of {foreign}, not one that 'nnunet models export' wrote. Run: "
            f"nnunet models import {archive}"
        )
    hint = " Unpack it, and name its folder: nnunet predict FOLDER IMAGES OUTPUT."
    raise UsageError(
        f"{archive} holds no {m.FILE}, so 'nnunet models export' did not write it."
        f"{hint if FILE in names else ' Name the archive of a model.'}"
    )


def _check_files(top: Path, manifest: m.Manifest) -> None:
    """Compare the files with the manifest, and let nothing pass that no model has."""
    found = {p.relative_to(top).as_posix(): p for p in top.rglob("*") if p.is_file()}
    del found[m.FILE]
    if further := sorted(set(found) - set(manifest.files)):
        raise StorageError(f"{top} holds files that are not in its {m.FILE}: {listed(further)}.")
    needed = {name for card in manifest.models for name in _needed(card)}
    if missing := sorted((needed | set(manifest.files)) - set(found)):
        raise StorageError(f"{top} is not whole: {listed(missing)} missing. Get an intact copy.")
    fitted = f"({'|'.join(re.escape(c.name) for c in manifest.models)})/{_FITTED}"
    selection = f"{re.escape(manifest.models[-1].dataset)}/{_SELECTION}"
    allowed = re.compile(f"{fitted}|{selection}")
    if odd := sorted(name for name in found if name not in needed and not allowed.fullmatch(name)):
        raise StorageError(
            f"{top} holds files that are no part of a model: {listed(odd)}. Allowed are {FILE}, "
            f"{RUN_FILE}, {WEIGHTS}, postprocessing/*.json and {inference.FILE}. Nothing of it was "
            "installed."
        )
    for name, path in found.items():
        entry = m.digest_of(path)
        if entry != manifest.files[name]:
            raise StorageError(
                f"{path} is not what {m.FILE} says: it has {entry.size} bytes and {entry.digest}, "
                f"instead of {manifest.files[name].size} bytes and {manifest.files[name].digest}. "
                "The archive was damaged or changed. Get an intact copy."
            )


def _needed(card: m.Card) -> Iterator[str]:
    """Yield the files that every model has."""
    yield f"{card.name}/{FILE}"
    for fold in card.folds:
        yield f"{card.name}/fold_{fold}/{RUN_FILE}"
        yield f"{card.name}/fold_{fold}/{WEIGHTS}"


def _checked(top: Path, card: m.Card, registry: Registry, report: Reporter) -> Model:
    """Return a model of the archive, after every check that needs no image."""
    model = Model.open(below(top, *card.name.split("/")))
    document = model.document
    names = (document.dataset, document.variant, document.configuration_name)
    if "/".join(names) != card.name:
        raise StorageError(
            f"{model.folder / FILE} is of {'/'.join(names)}, and lies where {card.name} is said to "
            "be. Get an intact copy of the archive."
        )
    before = document.configuration.previous
    if before is not None and not (model.folder.parent / before / FILE).is_file():
        raise StorageError(
            f"{card.name} needs the stage before it, {before}, which is not in {top}. Get an "
            "intact copy of the archive."
        )
    found = m.card_of(model, document, model.folds(card.folds), names[-1])
    # archives of before name the packages that predict, and not those that trained
    same_packages = card.packages.items() <= found.packages.items()
    said = card.model_copy(update={"scores": None, "packages": found.packages})
    if found != said or not same_packages:
        raise StorageError(
            f"{top / m.FILE} says otherwise of {card.name} than its {FILE}: channels, labels, "
            "spacing, patch, folds or packages are not those of the model. Get an intact copy."
        )
    model.stages()
    for missing in missing_plugins(model, registry):
        report.warning(f"{card.name} needs {missing}")
    if trained_with := missing_for_training(model, registry):
        report.message(f"{card.name} {trained_with}")
    for fold in model.folds(card.folds):
        check_weights(fold)
        check_fit(model, read_weights(fold / WEIGHTS), fold / WEIGHTS, registry)
    return model


def _is_same(model: Model, target: Path) -> bool:
    """Return whether a model is installed already, so that nothing has to be replaced."""
    with contextlib.suppress(NnunetError):
        installed = Model.open(target)
        same = installed.document == model.document
        return same and _weights(model) == _weights(installed)
    return False


def _weights(model: Model) -> Sequence[tuple[str, object]]:
    return sorted((name, record.weights) for name, record in model.trained().items())


def _move(folder: Path, target: Path, overwrite: bool) -> None:
    with atomic_folder(target, overwrite) as temporary:
        for path in folder.iterdir():
            path.rename(temporary / path.name)
