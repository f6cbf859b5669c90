"""Runs inside an environment with nnunet 1.7.1: plans the fingerprints of a JSON file, writes JSON.

Usage: python peer_v1_plans.py FINGERPRINTS.json PLANS.json PROCESSES

The input is {"fingerprints": [...], "planners": [class names]}, the output one {class name: plans}
per fingerprint. What v1 cannot plan is {"error": "type: message"}.
"""

import contextlib
import functools
import json
import multiprocessing
import pickle
import signal
import sys
import tempfile
from collections import OrderedDict
from pathlib import Path

with contextlib.redirect_stdout(None):
    import nnunet
    from batchgenerators.utilities.file_and_folder_operations import load_pickle
    from nnunet.experiment_planning.common_utils import get_pool_and_conv_props
    from nnunet.experiment_planning.experiment_planner_baseline_2DUNet import ExperimentPlanner2D
    from nnunet.experiment_planning.experiment_planner_baseline_3DUNet_v21 import (
        ExperimentPlanner3D_v21,
    )
    from nnunet.network_architecture.generic_UNet import Generic_UNet
    from nnunet.training.model_restore import recursive_find_python_class

LIMIT_SECONDS = 120
KEYS = (
    *(
        "num_stages",
        "num_modalities",
        "num_classes",
        "base_num_features",
        "conv_per_stage",
        "preprocessor_name",
    ),
    *(
        "normalization_schemes",
        "use_mask_for_norm",
        "transpose_forward",
        "transpose_backward",
        "plans_per_stage",
    ),
)


@functools.lru_cache
def planner_class(name):
    """Return a planner class of v1; a variant of its oldest planner is put on top of v21."""
    folder = str(Path(nnunet.__path__[0]) / "experiment_planning")
    found = recursive_find_python_class([folder], name, "nnunet.experiment_planning")
    if issubclass(found, (ExperimentPlanner3D_v21, ExperimentPlanner2D)):
        return found
    module = sys.modules[found.__module__]
    module.get_pool_and_conv_props_poolLateV2 = pool_by_spacing
    module.Generic_UNet = MemoryOfV21
    return type(name, (found, ExperimentPlanner3D_v21), {})


def pool_by_spacing(patch_size, smallest, most, spacing):
    """v21's pooling rule with the arguments of the older one."""
    return get_pool_and_conv_props(spacing, patch_size, smallest, most)


class MemoryOfV21(Generic_UNet):
    """The estimate with the limit of v21, which counts 32 features instead of 30."""

    use_this_for_batch_size_computation_3D = (  # noqa: N815
        Generic_UNet.use_this_for_batch_size_computation_3D * 32 / 30
    )


def write_cropped(fingerprint, folder):
    """Write what v1's planners read: the dataset's properties, and an empty npz and a small pkl per
    case.
    """
    names = [f"case_{index:04d}" for index in range(len(fingerprint["sizes"]))]
    properties = {
        "all_sizes": [tuple(size) for size in fingerprint["sizes"]],
        "all_spacings": [tuple(spacing) for spacing in fingerprint["spacings"]],
        "all_classes": list(range(1, fingerprint["num_classes"] + 1)),
        "modalities": dict(enumerate(fingerprint["modalities"])),
        "intensityproperties": None,
        "size_reductions": OrderedDict(zip(names, fingerprint["size_reductions"])),  # noqa: B905 (Python 3.8 too)
    }
    (folder / "dataset_properties.pkl").write_bytes(pickle.dumps(properties))
    for name in names:
        (folder / (name + ".npz")).touch()
        (folder / (name + ".pkl")).write_bytes(pickle.dumps({}))


def plan(name, folder):
    """Return the plans of one planner, or its error."""
    signal.alarm(LIMIT_SECONDS)
    try:
        planner = planner_class(name)(str(folder), str(folder))
        planner.plan_experiment()
        plans = load_pickle(planner.plans_fname)
    except Exception as error:  # noqa: BLE001 (an error of v1 is a result)
        return {"error": f"{type(error).__name__}: {error}"}
    finally:
        signal.alarm(0)
    return {key: plans[key] for key in KEYS if key in plans}


def plan_all(fingerprint, planners):
    with tempfile.TemporaryDirectory() as folder, contextlib.redirect_stdout(None):
        write_cropped(fingerprint, Path(folder))
        return {name: plan(name, Path(folder)) for name in planners}


def main():
    content = json.loads(Path(sys.argv[1]).read_text())
    signal.signal(signal.SIGALRM, _too_long)
    with multiprocessing.Pool(int(sys.argv[3])) as pool:
        job = functools.partial(plan_all, planners=content["planners"])
        results = pool.map(job, content["fingerprints"], chunksize=1)
    Path(sys.argv[2]).write_text(json.dumps(results, default=lambda value: value.tolist()))


def _too_long(number, frame):
    raise TimeoutError(f"more than {LIMIT_SECONDS} s")


if __name__ == "__main__":
    main()
