"""Train with this package's command line, with its own batches or always with the first one, and
print JSON like the peers.

Usage: python own_train.py loading|one-batch WARM_UP ITERATIONS DATASET OPTIONS...
The training needs one more iteration than it times.
"""

import json
import sys
import time

from nnunet_builtin.training import loop as training_loop
from nnunet_cli.main import main

mode, warm_up, iterations = sys.argv[1], *map(int, sys.argv[2:4])
batches = training_loop.batches


def timed_batches(dataset, steps, workers, report, **settings):
    """Yield the batches of `steps`, and print how long the training took with those after the
    warm-up.
    """
    stream = (
        batches(dataset, steps, workers, report, **settings)
        if mode == "loading"
        else one_batch(dataset, steps, report)
    )
    for index in range(len(steps)):
        before = time.perf_counter()
        if index <= warm_up:
            waited, started = 0.0, before
        elif index == warm_up + iterations:
            print(
                "\n"
                + json.dumps(
                    {
                        "seconds": (before - started) / iterations,
                        "wait": waited / (before - started),
                    }
                )
            )
        item = next(stream)
        waited += time.perf_counter() - before
        yield item


def one_batch(dataset, steps, report):
    ((_, batch),) = batches(dataset, steps[:1], 0, report)
    for step in steps:
        yield step, batch


if __name__ == "__main__":
    training_loop.batches = timed_batches
    main(["train", *sys.argv[4:]])
