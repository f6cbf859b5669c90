"""Runs inside an environment with nnunetv2: trains fold 0 and scores its validation cases.

Usage: python peer_training.py SIZES, with the JSON of `stage_training.Sizes` and
    folder: Of preprocessed datasets.
    results: Folder to write to.
    device: `cpu` or `cuda`.
    workers: Loader processes.
    until: Time at which it ends, see `timed_parts.Parts`.
The network is not compiled.
"""

from __future__ import annotations

import json
import os
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from timed_parts import Parts


def make_trainer(sizes: dict[str, Any]) -> Any:
    """Return nnunetv2's trainer with a short schedule."""
    from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer

    (folder,) = Path(sizes["folder"]).glob("Dataset*")
    plans = json.loads((folder / "nnUNetPlans.json").read_text())
    configuration = plans["configurations"]["3d_fullres"]
    configuration["batch_size"] = sizes["batch"] or configuration["batch_size"]
    plans["continue_training"] = False  # what its own start adds
    document = json.loads((folder / "dataset.json").read_text())
    trainer = nnUNetTrainer(plans, "3d_fullres", 0, document, torch.device(sizes["device"]))
    trainer.num_epochs = sizes["epochs"]
    trainer.num_iterations_per_epoch = sizes["iterations"]
    trainer.num_val_iterations_per_epoch = sizes["validation_iterations"]
    return trainer


def timed_epochs(trainer: Any) -> list[float]:
    """Return a list that gets the seconds of every epoch, as they end."""
    seconds: list[float] = []
    starts: list[float] = []
    start, end = trainer.on_epoch_start, trainer.on_epoch_end

    def started() -> None:
        starts.append(time.perf_counter())
        start()

    def ended() -> None:
        seconds.append(round(time.perf_counter() - starts[-1], 3))
        end()  # draws a picture, writes a checkpoint

    trainer.on_epoch_start, trainer.on_epoch_end = started, ended
    return seconds


def dice_of(trainer: Any, cases: int) -> list[list[float | None]]:
    """Predict the first validation cases on their prepared grid; return the Dice per label."""
    from nnunetv2.inference.predict_from_raw_data import nnUNetPredictor

    trainer.set_deep_supervision_enabled(False)
    predictor = nnUNetPredictor(device=trainer.device, allow_tqdm=False)
    managers = (trainer.plans_manager, trainer.configuration_manager)
    what = (trainer.dataset_json, "nnUNetTrainer", trainer.inference_allowed_mirroring_axes)
    predictor.manual_initialization(trainer.network, *managers, None, *what)
    _, names = trainer.do_split()
    dataset = trainer.dataset_class(trainer.preprocessed_dataset_folder, sorted(names)[:cases])
    scores = []
    for name in dataset.identifiers:
        images, label, *_ = dataset.load_case(name)
        tensor = torch.from_numpy(np.array(images[:]))
        with torch.inference_mode():
            logits = predictor.predict_sliding_window_return_logits(tensor)
        found, truth = logits.argmax(0).cpu().numpy(), np.array(label[:])[0]
        values = trainer.label_manager.foreground_labels
        scores.append([_dice(found == value, truth == value) for value in values])
    return scores


def _dice(found: np.ndarray, truth: np.ndarray) -> float | None:
    size = int(found.sum()) + int(truth.sum())
    return 2 * int((found & truth).sum()) / size if size else None


def main() -> None:
    sizes = json.loads(sys.argv[1])
    parts = Parts(sizes["device"], sizes["until"])
    chosen = {"preprocessed": sizes["folder"], "results": sizes["results"], "raw": sizes["results"]}
    chosen |= {"n_proc_DA": str(sizes["workers"]), "compile": "f"}
    os.environ.update({f"nnUNet_{name}": value for name, value in chosen.items()})
    torch.manual_seed(0)
    with parts.part("start"):
        trainer = make_trainer(sizes)
        parts.result["epoch_seconds"] = timed_epochs(trainer)
    parts.reset_peak()
    with parts.part("training"):
        trainer.run_training()
    with parts.part("prediction"):
        parts.result["dice"] = dice_of(trainer, sizes["cases"])
    parts.leave()


if __name__ == "__main__":
    main()
