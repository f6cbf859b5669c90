"""Small models of nnU-Net v2 with random weights, in the files that v2 writes."""

import copy
import json

import torch

from nnunet_builtin.networks.plain_unet import PlainUNet
from nnunet_builtin.networks.residual_unet import ResidualUNet
from nnunet_builtin.networks.state_names import to_v2
from nnunet_core.data.plans import NetworkSpec

LABELS = {"background": 0, "first": 1, "second": 2}
REGIONS = {"background": 0, "whole": [1, 2], "core": [2]}
_SPLINES = "resample_data_or_seg_to_shape"
_DNA = "dynamic_network_architectures.architectures"


def resampling(order, **changes):
    return {"is_seg": False, "order": order, "order_z": 0, "force_separate_z": None, **changes}


def ways(name, arguments):
    """Return entries of a configuration that resamples everything by one function."""
    kinds = ("data", "seg", "probabilities")
    return {
        **{f"resampling_fn_{kind}": name for kind in kinds},
        **{f"resampling_fn_{kind}_kwargs": arguments for kind in kinds},
    }


def spec(dimensions=3, channels=1, outputs=3, features=8):
    return NetworkSpec(
        dimensions=dimensions,
        input_channels=channels,
        output_channels=outputs,
        pool_kernels=((1, 2, 2)[-dimensions:], (2,) * dimensions),
        conv_kernels=((1, 3, 3)[-dimensions:], *((3,) * dimensions,) * 2),
        base_features=features,
        max_features=4 * features,
    )


def configuration(patch=(8, 16, 16), spacing=(3.0, 1.0, 1.0), residual=False, **changes):
    """Return a configuration of plans.json for the network of `spec`."""
    dimensions = len(patch)
    network = spec(dimensions)
    kernels = [list(kernel) for kernel in network.conv_kernels]
    blocks = {"n_blocks_per_stage": [1, 2, 2]} if residual else {"n_conv_per_stage": [2, 2, 2]}
    found = {
        "data_identifier": "nnUNetPlans",
        "preprocessor_name": "DefaultPreprocessor",
        "batch_size": 2,
        "patch_size": list(patch),
        "median_image_size_in_voxels": [float(size) for size in patch],
        "spacing": list(spacing)[-dimensions:],
        "normalization_schemes": ["ZScoreNormalization"],
        "use_mask_for_norm": [False],
        "resampling_fn_data": _SPLINES,
        "resampling_fn_seg": _SPLINES,
        "resampling_fn_probabilities": _SPLINES,
        "resampling_fn_data_kwargs": resampling(3),
        "resampling_fn_seg_kwargs": resampling(1, is_seg=True),
        "resampling_fn_probabilities_kwargs": resampling(1),
        "architecture": {
            "network_class_name": f"{_DNA}.unet."
            + ("ResidualEncoderUNet" if residual else "PlainConvUNet"),
            "arch_kwargs": {
                "n_stages": 3,
                "features_per_stage": [8, 16, 32],
                "conv_op": f"torch.nn.modules.conv.Conv{dimensions}d",
                "kernel_sizes": kernels,
                "strides": [[1] * dimensions, *map(list, network.pool_kernels)],
                **blocks,
                "n_conv_per_stage_decoder": [1, 1] if residual else [2, 2],
                "conv_bias": True,
                "norm_op": f"torch.nn.modules.instancenorm.InstanceNorm{dimensions}d",
                "norm_op_kwargs": {"eps": 1e-05, "affine": True},
                "dropout_op": None,
                "dropout_op_kwargs": None,
                "nonlin": "torch.nn.LeakyReLU",
                "nonlin_kwargs": {"inplace": True},
            },
            "_kw_requires_import": ["conv_op", "norm_op", "dropout_op", "nonlin"],
        },
        "batch_dice": False,
    }
    return {**found, **changes}


def without_architecture(found):
    """Return a configuration as plans had it before 2.4."""
    older = copy.deepcopy(found)
    arguments = older.pop("architecture")["arch_kwargs"]
    return {
        **older,
        "UNet_class_name": "PlainConvUNet",
        "UNet_base_num_features": 8,
        "unet_max_num_features": 320,
        "n_conv_per_stage_encoder": arguments["n_conv_per_stage"],
        "n_conv_per_stage_decoder": arguments["n_conv_per_stage_decoder"],
        "num_pool_per_axis": [1, 2, 2],
        "pool_op_kernel_sizes": arguments["strides"],
        "conv_kernel_sizes": arguments["kernel_sizes"],
    }


def plans(configurations, **changes):
    intensities = {"mean": 20.0, "std": 30.0, "percentile_00_5": -40.0, "percentile_99_5": 90.0}
    intensities |= {"median": 20.0, "min": -60.0, "max": 100.0}
    return {
        "dataset_name": "Dataset900_Small",
        "plans_name": "nnUNetPlans",
        "original_median_spacing_after_transp": [3.0, 1.0, 1.0],
        "original_median_shape_after_transp": [8, 16, 16],
        "image_reader_writer": "SimpleITKIO",
        "transpose_forward": [0, 1, 2],
        "transpose_backward": [0, 1, 2],
        "configurations": configurations,
        "experiment_planner_used": "ExperimentPlanner",
        "label_manager": "LabelManager",
        "foreground_intensity_properties_per_channel": {"0": intensities, "1": intensities},
        **changes,
    }


def dataset(labels=None, channels=("CT",), **changes):
    return {
        "channel_names": {str(index): name for index, name in enumerate(channels)},
        "labels": labels or LABELS,
        "numTraining": 3,
        "file_ending": ".nii.gz",
        **changes,
    }


def network(seed=0, residual=False, norm="instance", **sizes):
    """Return a network with random weights, whose labels differ from voxel to voxel."""
    torch.manual_seed(seed)
    builder = (
        ResidualUNet(layout="v2", blocks=(1, 2, 2), norm=norm)
        if residual
        else PlainUNet(layout="v2", norm=norm)
    )
    made = builder.build(spec(**sizes))
    for name, parameter in made.named_parameters():
        if "norm" in name:
            torch.nn.init.uniform_(parameter, 0.5, 1.5)
    for tensor in made.buffers():
        if tensor.is_floating_point():
            torch.nn.init.uniform_(tensor, 0.5, 1.0)
    size = {2: (16, 16), 3: (8, 16, 16)}[sizes.get("dimensions", 3)]
    with torch.inference_mode():
        logits = made.eval()(torch.randn(1, sizes.get("channels", 1), *size))[0]
        made.heads[-1].bias -= logits.mean(dim=(0, *range(2, logits.ndim)))  # no class wins all
    return made


def checkpoint(state, name="3d_fullres", **changes):
    """Return what v2 saves of a training, for a state dict under our names."""
    content = {
        "network_weights": to_v2(state),
        "optimizer_state": {"state": {0: {"momentum_buffer": torch.zeros(3)}}},
        "grad_scaler_state": None,
        "logging": {"mean_fg_dice": [0.5]},
        "_best_ema": 0.5,
        "current_epoch": 10,
        "init_args": {"configuration": name, "fold": 0, "device": torch.device("cpu")},
        "trainer_name": "nnUNetTrainer",
        "inference_allowed_mirroring_axes": (0, 1, 2),
        **changes,
    }
    return {key: value for key, value in content.items() if value is not ...}


def write(folder, plans_, dataset_, folds, file="checkpoint_final.pth"):
    """Write a folder of v2; `folds` are {name: content of its checkpoint}."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "plans.json").write_text(json.dumps(plans_))
    if dataset_ is not None:
        (folder / "dataset.json").write_text(json.dumps(dataset_))
    for name, content in folds.items():
        (folder / f"fold_{name}").mkdir(exist_ok=True)
        torch.save(content, folder / f"fold_{name}" / file)
    return folder
