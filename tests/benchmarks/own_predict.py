"""Predict with this package's command line, and print JSON of the seconds in the network.

Usage: python own_predict.py OPTIONS... MODEL IMAGES OUTPUT
"""

import atexit
import json
import os
import sys
import time

from nnunet_cli.main import main

spent = {"network": 0.0}


def timed(function):
    def timing(*arguments, **options):
        started = time.perf_counter()
        found = function(*arguments, **options)
        spent["network"] += time.perf_counter() - started
        return found

    return timing


def watch() -> None:
    from nnunet_builtin.inference import sliding_window

    sliding_window._mirrored = timed(sliding_window._mirrored)


if __name__ == "__main__":
    os.environ.setdefault("GOMP_SPINCOUNT", "10000")  # as the command sets it, before PyTorch loads
    watch()
    atexit.register(lambda: print("\n" + json.dumps(spent)))
    main(["predict", *sys.argv[1:]])
