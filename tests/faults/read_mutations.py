"""Reads damaged images one after another and prints a line for each: `python read_mutations.py
FOLDER SEEDS`.

A file that takes too long, or memory without end, ends this process; the last line names it.
"""

import json
import resource
import shutil
import signal
import sys
from pathlib import Path

import numpy as np
from mutations import KINDS, mutated, seeds

from nnunet_builtin.dicom.series import DicomSeriesFormat
from nnunet_builtin.formats.simpleitk import SimpleItkFormat
from nnunet_core.errors import ImageError

SECONDS, BYTES = 20, 3 << 30  # of damaged DICOM, a busy machine reads some for seconds


def read(path):
    chosen = DicomSeriesFormat() if path.suffix == ".dcm" else SimpleItkFormat()
    return chosen.header(path), chosen.read(path)


def outcome(path, original):
    """Return what happened: an error's text, or how the image differs from the undamaged one."""
    try:
        header, image = read(path)
    except ImageError as error:
        return {"error": str(error)}
    except Exception as error:  # noqa: BLE001
        return {"unexpected": f"{type(error).__name__}: {error}"}
    numbers = (*image.geometry.spacing, *image.geometry.origin, *image.geometry.direction)
    return {
        "same_shape": image.array.shape == original.array.shape
        and header.shape == image.geometry.shape,
        "same_type": image.array.dtype == original.array.dtype,
        "same": np.array_equal(image.array, original.array),
        "finite": bool(np.all(np.isfinite(numbers)) and min(image.geometry.spacing) > 0),
        "bytes": image.array.nbytes,
    }


def main(folder, count):
    resource.setrlimit(resource.RLIMIT_AS, (BYTES, BYTES))
    (folder / "seeds").mkdir()
    (folder / "damaged").mkdir()
    found = seeds(folder / "seeds")
    for path in (folder / "seeds").iterdir():
        if path not in found:  # the voxels of detached headers
            shutil.copyfile(path, folder / "damaged" / path.name)
    for path in found:
        _, original = read(path)
        for kind in KINDS:
            for seed in range(count):
                copy = folder / "damaged" / path.name
                copy.write_bytes(mutated(path.read_bytes(), path.name, kind, seed))
                print(json.dumps({"file": path.name, "kind": kind, "seed": seed}), flush=True)
                signal.alarm(SECONDS)
                print(json.dumps(outcome(copy, original)), flush=True)
                signal.alarm(0)


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]))
