"""Small models of nnU-Net v1, as it writes them: pickles of plans and trainers, files of
torch.save.
"""

import pickle
from collections import OrderedDict

import numpy as np
import torch

from nnunet_builtin.networks.plain_unet import PlainUNet
from nnunet_builtin.networks.state_names import to_v1
from nnunet_core.data.plans import NetworkSpec

PATHS = "/home/somebody/nnUNet_preprocessed/Task007_Pancreas"


def v1_plans(dimensions=3, channels=1, classes=2, stages=1, old=False):
    """Return plans as v1 writes them; `old` leaves out what early versions did not have."""
    stage = {
        "batch_size": 2,
        "num_pool_per_axis": [2] * dimensions,
        "patch_size": np.array([8] * dimensions),
        "median_patient_size_in_voxels": np.array([10, 12.0, 11]),
        "current_spacing": np.array([1.0, 0.5, 0.5]),
        "original_spacing": np.array([1.0, 0.5, 0.5]),
        "do_dummy_2D_data_aug": False,
        "pool_op_kernel_sizes": [[2] * dimensions] * 2,
        "conv_kernel_sizes": [[3] * dimensions] * 3,
    }
    plans = {
        "num_stages": stages,
        "num_modalities": channels,
        "modalities": dict.fromkeys(range(channels), "CT"),
        "normalization_schemes": OrderedDict((index, "CT") for index in range(channels)),
        "dataset_properties": {
            "all_sizes": [(10, 12, 11)],
            "all_classes": list(range(1, classes + 1)),
            "intensityproperties": {
                index: OrderedDict(
                    local_props=OrderedDict(pancreas_001={"mean": np.float32(3)}),
                    **{
                        name: np.float32(value)
                        for name, value in zip(
                            ("mn", "mx", "median", "mean", "sd"), (-9, 90, 30, 31, 12), strict=True
                        )
                    },
                    percentile_99_5=np.float64(80),
                    percentile_00_5=np.float64(-5),
                )
                for index in range(channels)
            },
        },
        "list_of_npz_files": [f"{PATHS}/pancreas_001.npz"],
        "preprocessed_data_folder": PATHS,
        "num_classes": classes,
        "all_classes": list(range(1, classes + 1)),
        "base_num_features": 32,
        "use_mask_for_norm": OrderedDict((index, np.bool_(False)) for index in range(channels)),
        "keep_only_largest_region": None,
        "transpose_forward": [2, 0, 1],
        "transpose_backward": [1, 2, 0],
        "plans_per_stage": {index: dict(stage) for index in range(stages)},
        "preprocessor_name": "PreprocessorFor2D" if dimensions == 2 else "GenericPreprocessor",
        "conv_per_stage": 2,
    }
    if old:
        for name in ("transpose_forward", "transpose_backward", "preprocessor_name"):
            del plans[name]
        del plans["conv_per_stage"]
        for part in plans["plans_per_stage"].values():
            del part["pool_op_kernel_sizes"], part["conv_kernel_sizes"]
    return plans


def network_spec(dimensions=3, **changes):
    """Return the sizes of a network of three resolutions."""
    return NetworkSpec(
        **{
            "dimensions": dimensions,
            "input_channels": 1,
            "output_channels": 3,
            "pool_kernels": ((2,) * dimensions,) * 2,
            "conv_kernels": ((3,) * dimensions,) * 3,
            "base_features": 2,
            **changes,
        }
    )


def write_v1_model(
    folder,
    folds=("fold_0",),
    network=None,
    names=None,
    spec=None,
    classes=2,
    stages=1,
    stage=0,
    old=False,
    trainer="nnUNetTrainerV2",
    checkpoint="model_final_checkpoint.model",
    plans=None,
    zipped=True,
):
    """Write a trainer's folder of v1 with random weights; return {fold: its network}."""
    builder, sizes = network or PlainUNet(), network_spec(**(spec or {}))
    plans = plans or v1_plans(sizes.dimensions, 1, classes, stages, old)
    folder.mkdir(parents=True)
    (folder / "plans.pkl").write_bytes(pickle.dumps(plans))
    configuration, task = folder.parts[-3], folder.parts[-2]
    output = f"/home/somebody/results/nnUNet/{configuration}/{task}/{folder.name}"
    made = {}
    for fold in folds:
        (folder / fold).mkdir()
        made[fold] = builder.build(sizes)
        state = (names or v1_names)(made[fold])
        torch.save(
            {
                "epoch": 1000,
                "state_dict": state,
                "optimizer_state_dict": {"state": {0: {"momentum_buffer": torch.ones(3)}}},
                "plot_stuff": ([np.float64(1)], [2.0], [], []),
            },
            folder / fold / checkpoint,
            _use_new_zipfile_serialization=zipped,
        )
        info = OrderedDict(
            init=(f"{PATHS}/plans.pkl", 0, output, PATHS, True, stage, True, False, True),
            name=trainer,
            plans=plans,
        )
        (folder / fold / f"{checkpoint}.pkl").write_bytes(pickle.dumps(info))
    return made


def v1_names(network):
    """Return the state dict of a plain U-Net under v1's names, biases of heads too."""
    state = network.state_dict()
    heads = {n: t for n, t in state.items() if n.startswith("heads.") and n.endswith(".bias")}
    named = to_v1({name: tensor for name, tensor in state.items() if name not in heads})
    named.update({n.replace("heads", "seg_outputs"): t for n, t in heads.items()})
    return OrderedDict(named)
