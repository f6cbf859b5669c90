"""A trained model as one zip: what prediction needs, without the cases and the machine."""

from __future__ import annotations

import json
import posixpath
import shutil
import zipfile
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, TypeVar

from pydantic import BaseModel
from safetensors import safe_open

from nnunet_builtin.sharing import manifest as m
from nnunet_builtin.sharing.scrubbing import changed, refuse_cases, without_paths
from nnunet_core.errors import StorageError, UsageError, listed
from nnunet_core.registry.discovery import Registry
from nnunet_core.registry.records import FILE as RUN_FILE
from nnunet_core.registry.records import FoldRecord
from nnunet_core.runtime import files
from nnunet_core.runtime.reporting import Reporter, Silence
from nnunet_core.stages.experiment import VALIDATION
from nnunet_core.store import inference
from nnunet_core.store.inference import InferenceDocument, open_member
from nnunet_core.store.models import FILE, WEIGHTS, Model, ModelDocument, check_weights
from nnunet_core.store.origins import command, options_of, variants_of
from nnunet_core.store.postprocessing import PostprocessingRecord
from nnunet_core.store.summaries import SUMMARY, Summary

_FIRST_DAY = (1980, 1, 1, 0, 0, 0)  # zip has no earlier one
_PLAIN_FILE = 0o100644 << 16
_UNIX = 3
_Document = TypeVar("_Document", bound=files.Document)


@dataclass(frozen=True)
class Exported:
    """What an export wrote.

    Attributes:
        file: The zip.
        manifest: Its manifest.
        digest: Of the zip, `sha256:...`.
    """

    file: Path
    manifest: m.Manifest
    digest: str


def export(
    model: Model,
    file: Path,
    folds: tuple[str, ...] = (),
    licence: str = "",
    citation: str = "",
    report: Reporter | None = None,
) -> Exported:
    """Write a model, and in a cascade the stages before it, to one zip. The same model gives the
    same bytes.

    Args:
        model: A trained model; nothing that it names is imported.
        file: The zip; what is there is replaced.
        folds: Names; empty means every numbered fold that is trained.
        licence: Text; an empty one is that which the model was installed with.
        citation: The same.
        report: Told what was left out.

    Raises:
        UsageError: A fold is not trained.
        StorageError: A file of the model is damaged, or names a case; the zip cannot be written.
    """
    return export_models([(model, folds)], {}, file, licence, citation, report)


def export_selected(
    path: Path,
    file: Path,
    licence: str = "",
    citation: str = "",
    report: Reporter | None = None,
) -> Exported:
    """Write every model of an inference.json, and that file, to one zip.

    Args:
        path: What `nnunet find-best` wrote.
        file: The zip; what is there is replaced.
        licence: Text; an empty one is that which the last of the models was installed with.
        citation: The same.
        report: Told what was left out.

    Raises:
        UsageError, StorageError: As of `export`; or a model is not what it was when it was
            selected.
    """
    selected = {inference.FILE: (path, InferenceDocument.read(path))}
    return export_models([], selected, file, licence, citation, report)


def export_models(
    models: Sequence[tuple[Model, tuple[str, ...]]],
    selections: Mapping[str, tuple[Path, InferenceDocument]],
    file: Path,
    licence: str = "",
    citation: str = "",
    report: Reporter | None = None,
) -> Exported:
    """Write models of a dataset, and what says which of them predict together, to one zip.

    Args:
        models: With the names of their folds; none mean every numbered one that is trained.
        selections: {`inference.json` or `ensembles/NAME/inference.json`, its place in the folder
            of the dataset: (where it lies, or would, so that its models are found; its content)}.
            Its models are written too.
        file: The zip; what is there is replaced.
        licence: Text; an empty one is that which the last of the models was installed with.
        citation: The same.
        report: Told what was left out.

    Raises:
        UsageError, StorageError: As of `export_selected`; or the models are of several datasets.
    """
    report, members, further = report or Silence(), [*models], dict[str, bytes]()
    for place, (path, document) in selections.items():
        found = [(open_member(record, path, False), record.folds) for record in document.members]
        members += found
        moved = _moved(document, [model for model, _ in found], place)
        cases = {case for model, _ in found for case in _case_names(model)}
        scrubbed = _scrubbed(InferenceDocument, moved, path, cases, report)
        further[f"{found[0][0].document.dataset}/{place}"] = _text(scrubbed)
    datasets = sorted({model.document.dataset for model, _ in members})
    if len(datasets) > 1:
        raise UsageError(f"The models are of {listed(datasets)}; such a zip has one dataset.")
    return _export(members, further, file, (licence, citation), report)


def _moved(document: InferenceDocument, models: Sequence[Model], place: str) -> dict[str, Any]:
    """Return an inference.json that lies at a place in the folder of the dataset."""
    folder = posixpath.dirname(place) or "."
    records = tuple(
        record.model_copy(update={"model": posixpath.relpath(_in_dataset(model), folder)})
        for record, model in zip(document.members, models, strict=True)
    )
    return document.model_copy(update={"members": records}).model_dump(mode="json")


def _in_dataset(model: Model) -> str:
    """Return VARIANT/CONFIGURATION."""
    return _name(model, last=True).partition("/")[2]


def _export(
    members: Sequence[tuple[Model, tuple[str, ...]]],
    further: Mapping[str, bytes],
    file: Path,
    texts: tuple[str, str],
    report: Reporter,
) -> Exported:
    """Write models with some folds (none: every numbered one), and further files."""
    cards, content = [], dict[str, bytes | Path](further)
    for name, (model, folds) in _together(members).items():
        part = _Part(model, model.folds(folds), name.rpartition("/")[2], report)
        cards.append(part.card())
        content.update(part.content())
    earlier = members[-1][0].folder / m.FILE
    before = m.Manifest.read(earlier) if earlier.is_file() else None
    manifest = m.Manifest(
        models=tuple(cards),
        licence=texts[0] or (before.licence if before else ""),
        citation=texts[1] or (before.citation if before else ""),
        files={name: m.digest_of(content[name]) for name in sorted(content)},
    )
    for card in cards:
        if card.unregistered:
            report.warning(
                f"{card.name} needs code that no plugin registers: "
                f"{', '.join(card.unregistered)}. It is not in the zip: publish it as a plugin, "
                "and train with its name; or send it along, to be used with --trust."
            )
    content[m.FILE] = _text(manifest)
    files.write_with(file, lambda opened: _write(opened, content))
    return Exported(file, manifest, m.digest_of(file).digest)


def _together(
    members: Sequence[tuple[Model, tuple[str, ...]]],
) -> dict[str, tuple[Model, tuple[str, ...]]]:
    """Return {name: (model, folds)} with the stages before each model; one that two of them need
    has the folds of both.
    """
    found: dict[str, tuple[Model, tuple[str, ...]]] = {}
    for model, folds in members:
        for stage in model.stages():
            is_last = stage.folder == model.folder
            wanted = folds if is_last or set(folds) <= set(stage.trained()) else ()
            wanted = tuple(fold.name.removeprefix("fold_") for fold in stage.folds(wanted))
            name = _name(stage, is_last)
            more = found.get(name, (stage, ()))[1]
            found[name] = stage, tuple(dict.fromkeys((*more, *wanted)))
    return found


def _name(model: Model, last: bool) -> str:
    """Return DATASET/VARIANT/CONFIGURATION; others name a stage before them by its folder."""
    document = model.document
    configuration = document.configuration_name if last else model.folder.name
    return f"{document.dataset}/{document.variant}/{configuration}"


def _write(file: IO[bytes], content: Mapping[str, bytes | Path]) -> None:
    """Write a zip that depends on names and contents alone; weights do not shrink when packed."""
    first = [m.FILE, *sorted(set(content) - {m.FILE})]
    with zipfile.ZipFile(file, "w", zipfile.ZIP_STORED) as opened:
        for name in first:
            part = content[name]
            info = zipfile.ZipInfo(name, _FIRST_DAY)
            info.create_system, info.external_attr = _UNIX, _PLAIN_FILE
            info.file_size = len(part) if isinstance(part, bytes) else part.stat().st_size
            with opened.open(info, "w") as target:
                if isinstance(part, bytes):
                    target.write(part)
                else:
                    with part.open("rb") as source:
                        shutil.copyfileobj(source, target, 1 << 20)


class _Part:
    """One model folder on its way into a zip.

    Attributes:
        document: Its model.json as it is exported.
    """

    def __init__(self, model: Model, folds: Iterable[Path], name: str, report: Reporter) -> None:
        self._model, self._folds, self._name, self._report = model, tuple(folds), name, report
        self._cases = _case_names(model)
        document = model.document.model_dump(mode="json")
        document["configuration"].update(notes=[])
        document["configuration_name"] = name
        scrubbed = self._scrubbed(ModelDocument, document, model.folder / FILE)
        origin = scrubbed.origin or _origin(scrubbed)
        self.document = scrubbed.model_copy(update={"origin": origin})

    def card(self) -> m.Card:
        """Describe it."""
        return m.card_of(self._model, self.document, self._folds, self._name)

    def content(self) -> dict[str, bytes | Path]:
        """Return {path in the zip: bytes, or the file that holds them}."""
        found: dict[str, bytes | Path] = {FILE: _text(self.document)}
        for fold in self._folds:
            check_weights(fold)
            self._check_header(fold / WEIGHTS)
            found[f"{fold.name}/{RUN_FILE}"] = _text(self._record(fold / RUN_FILE))
            found[f"{fold.name}/{WEIGHTS}"] = fold / WEIGHTS
        for path in sorted((self._model.folder / "postprocessing").glob("*.json")):
            record = PostprocessingRecord.read(path).model_dump(mode="json")
            scrubbed = self._scrubbed(PostprocessingRecord, record, path)
            found[f"postprocessing/{path.name}"] = _text(scrubbed)
        return {f"{self.card().name}/{name}": part for name, part in found.items()}

    def _record(self, path: Path) -> FoldRecord:
        """Return a run.json that belongs to the exported model.json."""
        record = FoldRecord.read(path).model_dump(mode="json")
        named = self.document.components.values()
        used = {f"{part.distribution} {part.version}" for part in named}
        record["plugins"] = {n: text for n, text in record["plugins"].items() if text in used}
        record["model_digest"] = self.document.digest()
        record["status"] = "imported"  # where it arrives, no case of its validation is
        return self._scrubbed(FoldRecord, record, path)

    def _scrubbed(self, kind: type[_Document], content: dict[str, Any], path: Path) -> _Document:
        return _scrubbed(kind, content, path, self._cases, self._report)

    def _check_header(self, path: Path) -> None:
        """Raise StorageError where a weights file says more than its tensors."""
        try:
            with safe_open(path, "np") as file:
                further = set(file.metadata() or {}) - {"format"}
        except Exception as error:  # safetensors raises classes of its own
            raise StorageError(f"The weights {path} cannot be read: {error}.") from error
        if further:
            raise StorageError(
                f"The weights {path} hold texts beside the tensors ({', '.join(sorted(further))}), "
                "and nothing was exported: they may tell where they are from. Write the file anew "
                "without metadata."
            )


def _scrubbed(
    kind: type[_Document],
    content: dict[str, Any],
    path: Path,
    cases: Collection[str],
    report: Reporter,
) -> _Document:
    """Return a document without paths of this machine.

    Raises:
        StorageError: It names a case.
    """
    scrubbed = without_paths(content)
    entries = list(changed(content, scrubbed))
    if entries:
        report.warning(
            f"{path}: of paths of this machine in {', '.join(entries)}, only the last part is "
            "exported."
        )
    refuse_cases(_free_texts(scrubbed), cases, path)
    return kind.model_validate_json(json.dumps(scrubbed))


def _origin(document: ModelDocument) -> str:
    """Return the command that trained a model, for people: printable ASCII, at most 500 letters."""
    registry = Registry.discover()
    variants = variants_of(document.variant, registry)
    options = options_of(variants, document.components, document.initial, registry)
    options += ["--configuration", document.configuration_name]
    text = f"trained elsewhere: {command('run', document.dataset, options)}"
    return "".join(c if " " <= c <= "~" else "?" for c in text)[:500]


def _case_names(model: Model) -> Collection[str]:
    """Return the names of the validation cases of every fold."""
    names = set()
    for path in model.folder.glob(f"fold_*/{VALIDATION}/{SUMMARY}"):
        for case in Summary.read(path).results.all:
            name = Path(str(case.get("reference"))).name
            names.add(name.removesuffix(model.document.label_ending))
    return names


def _free_texts(content: Mapping[str, Any]) -> dict[str, Any]:
    """Return the parts of a document of ours that components fill as they like."""
    configuration = content.get("configuration")
    parts = {
        "components": {k: r["settings"] for k, r in content.get("components", {}).items()},
        "component": content.get("component", {}).get("settings"),
        "state": content.get("state"),
        "postprocessing": content.get("postprocessing"),
    }
    if isinstance(configuration, dict):
        parts["configuration.extra"] = configuration["extra"]
        parts["configuration.network.extra"] = configuration["network"]["extra"]
    return parts


def _text(document: BaseModel) -> bytes:
    return (document.model_dump_json(indent=1) + "\n").encode()
