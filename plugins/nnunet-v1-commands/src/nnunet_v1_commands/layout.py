"""v1's places in RESULTS_FOLDER/nnUNet: links to our files, and small files in v1's form."""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from nnunet_core.errors import NnunetError
from nnunet_core.registry.discovery import Registry
from nnunet_core.runtime import files
from nnunet_core.store import inference
from nnunet_core.store.models import FILE, Model, weights_digests
from nnunet_core.store.postprocessing import postprocessing_state
from nnunet_v1_commands.methods import V1Method, method_of_folder
from nnunet_v1_commands.running import note, v1_results, workspace

POSTPROCESSING = "postprocessing.json"

#: {name of v1 in the folder of a fold: name of ours}.
_LINKS = {
    "model_final_checkpoint.model": "weights.safetensors",
    "model_best.model": "weights_best.safetensors",
    "progress.png": "progress.png",
    "validation_raw": "validation",
}


def show_task(task: str, registry: Registry) -> None:
    """Show every model of a task that has a name in v1, and what was decided for it and for
    ensembles; a damaged one is a note.
    """
    top = workspace().results / task
    for path in sorted(top.glob(f"*__*/*/{FILE}")):
        method = method_of_folder(path.parent, registry)
        if method is None:
            continue
        show_model(method, task, path.parent)
        try:
            _show_decision(method, task, Model.open(path.parent))
        except NnunetError as error:
            note(str(error))
    selections = [*top.glob(inference.FILE), *top.glob(f"ensembles/*/{inference.FILE}")]
    for path in sorted(selections, key=lambda path: path.stat().st_mtime_ns):
        try:
            _show_ensemble(path, task, registry)
        except NnunetError as error:  # for instance, a member was trained anew
            note(str(error))


def ensemble_file(task: str, methods: Sequence[V1Method]) -> Path:
    """Return where v1 keeps what it decided for an ensemble."""
    name = "ensemble_" + "--".join(method.title for method in methods)
    return v1_results() / "ensembles" / task / name / POSTPROCESSING


def _show_decision(method: V1Method, task: str, model: Model) -> None:
    place = method.folder(task)
    weights = weights_digests(map(model.fold_folder, model.trained()))
    state = postprocessing_state(model, weights)
    if state is not None and not _is_of_v1(place):
        write_postprocessing(place / POSTPROCESSING, state)


def _show_ensemble(path: Path, task: str, registry: Registry) -> None:
    document = inference.read_inference(path)
    members = [inference.open_member(record, path, False) for record in document.members]
    found = [method_of_folder(member.folder, registry) for member in members]
    methods = [method for method in found if method is not None]
    decided = document.postprocessing
    if decided is not None and 1 < len(methods) == len(members):
        write_postprocessing(ensemble_file(task, methods), decided.state)


def show_model(method: V1Method, task: str, model: Path) -> None:
    """Link the folds of a model where v1 has them; models of v1 itself stay as they are."""
    place = method.folder(task)
    if _is_of_v1(place):
        note(f"{place} holds a model of v1 and stays as it is; the new one is {model}")
        return
    for fold in sorted(model.glob("fold_*")):
        folder = place / ("all" if fold.name == "fold_all" else fold.name)
        folder.mkdir(parents=True, exist_ok=True)
        for name, ours in _LINKS.items():
            if (fold / ours).exists():
                _link(folder / name, fold / ours)


def write_postprocessing(path: Path, state: Mapping[str, Any]) -> None:
    """Write a decision in v1's form, where its kind is v1's."""
    if "for_which_classes" not in state:
        note(f"{path} is not written: the postprocessor is none of v1's")
        return
    document = {"validation_raw": "validation_raw", "validation_final": "validation_raw", **state}
    document["min_valid_object_sizes"] = str(state.get("min_valid_object_sizes"))
    path.parent.mkdir(parents=True, exist_ok=True)
    files.write_json(path, document)


def _is_of_v1(place: Path) -> bool:
    return (place / "plans.pkl").is_file()


def _link(place: Path, target: Path) -> None:
    """Link, or copy where the disk has no links."""
    if place.is_symlink() or place.is_file():
        place.unlink()
    elif place.is_dir():
        return
    try:
        place.symlink_to(os.path.relpath(target, place.parent))
    except OSError:
        if target.is_file():
            shutil.copyfile(target, place)
