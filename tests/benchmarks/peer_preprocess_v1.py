"""Runs inside an environment with nnunet 1.7.1: the steps of preprocessing that its command line
cannot do alone.

Usage: python peer_preprocess_v1.py impose TASK SPACING PATCH    edits the plans, values as 1.5,1,1;
one stage is kept
       python peer_preprocess_v1.py prepare TASK PROCESSES       crops and preprocesses with
       existing plans; prints seconds python peer_preprocess_v1.py unpack TASK PROCESSES        npz
       to npy, as before a training python peer_preprocess_v1.py read TASK COUNT              times
       random patches; prints JSON
"""

import json
import pickle
import sys
import time
from pathlib import Path

import numpy as np
from nnunet.experiment_planning.experiment_planner_baseline_3DUNet_v21 import (
    ExperimentPlanner3D_v21,
)
from nnunet.experiment_planning.utils import create_lists_from_splitted_dataset
from nnunet.paths import nnUNet_cropped_data, nnUNet_raw_data, preprocessing_output_dir
from nnunet.preprocessing.cropping import ImageCropper
from nnunet.training.dataloading.dataset_loading import unpack_dataset
from patch_reading import time_reads


def impose(task, spacing, patch):
    path = Path(preprocessing_output_dir, task, "nnUNetPlansv2.1_plans_3D.pkl")
    plans = pickle.loads(path.read_bytes())
    stage = dict(plans["plans_per_stage"][plans["num_stages"] - 1])
    stage["current_spacing"] = np.array([float(value) for value in spacing.split(",")])
    stage["patch_size"] = np.array([int(value) for value in patch.split(",")])
    plans.update(num_stages=1, plans_per_stage={0: stage})
    path.write_bytes(pickle.dumps(plans))


def prepare(task, processes):
    started = time.perf_counter()
    lists, _ = create_lists_from_splitted_dataset(str(Path(nnUNet_raw_data, task)))
    cropped = Path(nnUNet_cropped_data, task)
    ImageCropper(int(processes), str(cropped)).run_cropping(lists, overwrite_existing=True)
    cropping = time.perf_counter() - started
    planner = ExperimentPlanner3D_v21(str(cropped), str(Path(preprocessing_output_dir, task)))
    planner.load_my_plans()
    planner.run_preprocessing(int(processes))
    print(json.dumps({"cropping": cropping}))


def unpack(task, processes):
    unpack_dataset(str(_folder(task)), int(processes))


def read(task, count):
    """Read as the training does: the npy file is mapped anew for every patch."""

    def patch(name, slices):
        case = np.load(str(_folder(task) / (name + ".npy")), mmap_mode="r")
        return np.array(case[(slice(0, -1), *slices)]), np.array(case[(-1, *slices)])

    files = _folder(task).glob("*.npy")
    time_reads(
        patch,
        {path.stem: np.load(str(path), mmap_mode="r").shape[1:] for path in files},
        int(count),
    )


def _folder(task):
    return Path(preprocessing_output_dir, task, "nnUNetData_plans_v2.1_stage0")


if __name__ == "__main__":
    {"impose": impose, "prepare": prepare, "unpack": unpack, "read": read}[sys.argv[1]](
        *sys.argv[2:]
    )
