"""Runs inside an environment with nnunetv2: trains some iterations with its own loaders on CPU,
prints JSON.

Usage: python peer_train_v2.py loading|one-batch DATASET BATCH_SIZE WARM_UP ITERATIONS THREADS
The environment variables nnUNet_preprocessed and nnUNet_results name folders with a planned and
preprocessed dataset.
"""

import json
import os
import sys
import time
from pathlib import Path

import torch
from peer_ending import leave


def main() -> None:
    mode, dataset, batch_size, warm_up, iterations, threads = (
        *sys.argv[1:3],
        *map(int, sys.argv[3:]),
    )
    from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer

    folder = Path(os.environ["nnUNet_preprocessed"]) / dataset  # noqa: SIM112
    plans = json.loads((folder / "nnUNetPlans.json").read_text())
    plans["configurations"]["3d_fullres"]["batch_size"] = batch_size
    plans["continue_training"] = False  # what its own start adds
    document = json.loads((folder / "dataset.json").read_text())
    trainer = nnUNetTrainer(plans, "3d_fullres", 0, document, torch.device("cpu"))
    trainer.initialize()
    trainer.on_train_start()
    torch.set_num_threads(threads)  # after the start, which sets its own
    trainer.network.train()
    waited, batch = 0.0, next(trainer.dataloader_train)
    for index in range(warm_up + iterations):
        if index == warm_up:
            waited, started = 0.0, time.perf_counter()
        before = time.perf_counter()
        batch = next(trainer.dataloader_train) if mode == "loading" else batch
        waited += time.perf_counter() - before
        trainer.train_step(batch)
    seconds = time.perf_counter() - started
    leave({"seconds": seconds / iterations, "wait": waited / seconds})


if __name__ == "__main__":
    main()
