"""Runs inside an environment with nnunet 1.7.1: trains some iterations with its own loaders on CPU,
prints JSON.

Usage: python peer_train_v1.py loading|one-batch TASK BATCH_SIZE WARM_UP ITERATIONS THREADS
The environment variables nnUNet_preprocessed and RESULTS_FOLDER name folders with a planned and
preprocessed task.
"""

import os
import pickle
import sys
import time
from pathlib import Path

import torch
from peer_ending import leave


def main() -> None:
    mode, task, batch_size, warm_up, iterations, threads = *sys.argv[1:3], *map(int, sys.argv[3:])
    from nnunet.training.network_training.nnUNetTrainerV2 import nnUNetTrainerV2

    torch.set_num_threads(threads)
    folder = Path(os.environ["nnUNet_preprocessed"]) / task  # noqa: SIM112
    plans_file = folder / "nnUNetPlansv2.1_plans_3D.pkl"
    plans = pickle.loads(plans_file.read_bytes())
    plans["plans_per_stage"][0]["batch_size"] = batch_size
    changed = folder / "plans_of_benchmark.pkl"
    changed.write_bytes(pickle.dumps(plans))
    out = str(Path(os.environ["RESULTS_FOLDER"]) / "benchmark")
    trainer = nnUNetTrainerV2(
        str(changed), 0, out, str(folder), batch_dice=False, stage=0, fp16=False
    )
    trainer.initialize(True)
    trainer.network.train()
    waited, first = [0.0], next(trainer.tr_gen)

    class Timed:
        def __next__(self):
            started = time.perf_counter()
            batch = next(trainer.tr_gen) if mode == "loading" else first
            waited[0] += time.perf_counter() - started
            return batch

    for _ in range(warm_up):
        trainer.run_iteration(Timed())
    waited[0], started = 0.0, time.perf_counter()
    for _ in range(iterations):
        trainer.run_iteration(Timed())
    seconds = time.perf_counter() - started
    leave({"seconds": seconds / iterations, "wait": waited[0] / seconds})


if __name__ == "__main__":
    main()
