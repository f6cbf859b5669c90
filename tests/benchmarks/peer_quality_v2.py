"""Runs inside an environment with nnunetv2: trains and validates a fold on CPU with a short
schedule.

Usage: python peer_quality_v2.py DATASET FOLD EPOCHS ITERATIONS BATCH_SIZE THREADS
The environment variables nnUNet_preprocessed and nnUNet_results name folders with a planned and
preprocessed dataset.
"""

import json
import os
import sys
from pathlib import Path

import torch
from peer_ending import leave


def main() -> None:
    dataset, fold, epochs, iterations, batch_size, threads = sys.argv[1], *map(int, sys.argv[2:])
    from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer

    folder = Path(os.environ["nnUNet_preprocessed"]) / dataset  # noqa: SIM112
    plans = json.loads((folder / "nnUNetPlans.json").read_text())
    plans["configurations"]["3d_fullres"]["batch_size"] = batch_size
    plans["continue_training"] = False  # what its own start adds
    document = json.loads((folder / "dataset.json").read_text())
    torch.manual_seed(fold)
    trainer = nnUNetTrainer(plans, "3d_fullres", fold, document, torch.device("cpu"))
    trainer.num_epochs, trainer.num_iterations_per_epoch, trainer.num_val_iterations_per_epoch = (
        epochs,
        iterations,
        1,
    )
    start = trainer.on_train_start

    def started() -> None:
        start()
        torch.set_num_threads(threads)  # after the start, which sets its own

    trainer.on_train_start = started
    trainer.run_training()
    trainer.perform_actual_validation(False)
    leave()


if __name__ == "__main__":
    main()
