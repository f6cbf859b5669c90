"""v1's places in RESULTS_FOLDER/nnUNet: links to our files, and small files in v1's form."""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from nnunet_core.runtime import files
from nnunet_v1_commands.methods import V1Method
from nnunet_v1_commands.running import note

#: {name of v1 in the folder of a fold: name of ours}.
_LINKS = {
    "model_final_checkpoint.model": "weights.safetensors",
    "model_best.model": "weights_best.safetensors",
    "progress.png": "progress.png",
    "validation_raw": "validation",
}


def show_model(method: V1Method, task: str, model: Path) -> None:
    """Link the folds of a model where v1 has them; models of v1 itself stay as they are."""
    place = method.folder(task)
    if (place / "plans.pkl").is_file():
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
