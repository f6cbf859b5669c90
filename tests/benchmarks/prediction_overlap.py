"""What reading, preparing and writing beside the network saves: one case after the other against
overlapped, in turns.

python tests/benchmarks/prediction_overlap.py [SECONDS]

The network is a stand-in that waits SECONDS for each case, as a process does whose card computes;
everything else is real: compressed NIfTI files of 64 x 192 x 192 voxels, resampled to the model's
spacing and back.
"""

import sys
import tempfile
import time
from concurrent.futures import Future
from dataclasses import dataclass
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[1] / "builders"))
sys.path.insert(0, str(Path(__file__).parent))

from tiny_model import make_tiny_model

from nnunet_builtin.formats.simpleitk import SimpleItkFormat
from nnunet_core.contracts.trainer import Runtime
from nnunet_core.data.images import Geometry
from nnunet_core.prediction import predict
from nnunet_core.registry.discovery import Registry
from nnunet_core.store.models import Model

CASES, TURNS, GRID = 5, 3, Geometry((64, 192, 192), (2.0, 0.9, 0.9))


@dataclass
class Waiting:
    """Args:
    seconds: For each case.
    """

    seconds: float = 1.0

    def load(self, model):
        def apply(images):
            time.sleep(self.seconds)
            found = np.zeros((model.labels.outputs, *images.shape[1:]), np.float32)
            found[0] = 1
            return found

        return apply


def one_by_one(items, prepare, work, write):
    """Yield what `overlapped` yields, without threads."""
    for item in items:
        outcome = Future()
        outcome.set_result(write(item, work(prepare(item))))
        yield item, outcome


def main(seconds):
    """Print the median seconds per case of both."""
    ways = {"one by one": one_by_one, "overlapped": predict.overlapped}
    taken = {name: [] for name in ways}
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder)
        rng = np.random.default_rng(0)
        for number in range(CASES):
            voxels = rng.normal(100, 20, GRID.shape).astype(np.int16)
            SimpleItkFormat().write(place / "images" / f"c{number}.nii.gz", voxels, GRID)
        waiting = {"predictor": "prediction_overlap:Waiting", "settings": {"seconds": seconds}}
        made = make_tiny_model(place / "3d_fullres", spacing=(2.0, 1.2, 1.2), folds=1, **waiting)
        options = predict.PredictionOptions(postprocess=False, runtime=Runtime("cpu", "float32"))
        for turn in range(TURNS):
            for name, way in ways.items():
                predict.overlapped = way
                started, out = time.perf_counter(), place / f"{name}{turn}"
                model = Model.open(made, trusted=True)
                predict.predict_folder(model, place / "images", out, Registry.discover(), options)
                taken[name].append((time.perf_counter() - started) / CASES)
    for name, found in taken.items():
        shown = ", ".join(f"{value:.2f}" for value in sorted(found))
        print(f"{name}: median {np.median(found):.2f} s per case ({shown})")


if __name__ == "__main__":
    main(float(sys.argv[1]) if len(sys.argv) > 1 else 1.0)
