"""Train with this package's command line, with its own batches or always with the first one.

Usage: python own_train.py loading|one-batch DATASET OPTIONS...
"""

import sys

from nnunet_builtin import training_loop
from nnunet_cli.main import main

batches = training_loop.batches


def one_batch(dataset, steps, workers, report):
    stream = batches(dataset, steps[:1], 0, report)
    ((_, batch),) = stream
    for step in steps:
        yield step, batch


if __name__ == "__main__":
    if sys.argv[1] == "one-batch":
        training_loop.batches = one_batch
    main(["train", *sys.argv[2:]])
