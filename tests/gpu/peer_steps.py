"""Runs inside an environment with nnunetv2: times its training steps, size by size.

Usage: python peer_steps.py < SIZES
SIZES is a line of JSON per size: patch, batch, strides, kernels and features of the network, the
device, whether to compile, and the numbers of steps. A line of JSON is printed once nnunetv2 is
imported, and one per size as soon as it is measured, so a time limit keeps what came before it.
"""

from __future__ import annotations

import gc
import json
import os
import sys
import tempfile
from pathlib import Path
from typing import Any

import torch
from timing import allocated, milliseconds, peak_gigabytes, warm_up

DATASET, CONFIGURATION, IDENTIFIER = "Dataset001_Steps", "steps", "steps"
LABELS = {"background": 0, "edge": 1, "core": 2}


def architecture(asked: dict[str, Any]) -> dict[str, Any]:
    """Return the network in the words of its plans."""
    dimensions, stages = len(asked["patch"]), len(asked["features"])
    return {
        "network_class_name": "dynamic_network_architectures.architectures.unet.PlainConvUNet",
        "arch_kwargs": {
            "n_stages": stages,
            "features_per_stage": asked["features"],
            "conv_op": f"torch.nn.modules.conv.Conv{dimensions}d",
            "kernel_sizes": asked["kernels"],
            "strides": asked["strides"],
            "n_conv_per_stage": [2] * stages,
            "n_conv_per_stage_decoder": [2] * (stages - 1),
            "conv_bias": True,
            "norm_op": f"torch.nn.modules.instancenorm.InstanceNorm{dimensions}d",
            "norm_op_kwargs": {"eps": 1e-05, "affine": True},
            "dropout_op": None,
            "dropout_op_kwargs": None,
            "nonlin": "torch.nn.LeakyReLU",
            "nonlin_kwargs": {"inplace": True},
        },
        "_kw_requires_import": ["conv_op", "norm_op", "dropout_op", "nonlin"],
    }


def plans(asked: dict[str, Any]) -> dict[str, Any]:
    """Return plans with one configuration; what training steps do not ask for is left out."""
    configuration = {
        "data_identifier": IDENTIFIER,
        "batch_size": asked["batch"],
        "patch_size": asked["patch"],
        "spacing": [1.0] * len(asked["patch"]),
        "normalization_schemes": ["ZScoreNormalization"],
        "use_mask_for_norm": [False],
        "batch_dice": False,
        "architecture": architecture(asked),
    }
    return {
        "dataset_name": DATASET,
        "plans_name": "plans",
        "configurations": {CONFIGURATION: configuration},
        "label_manager": "LabelManager",
        "continue_training": False,  # what its own start adds
    }


def import_trainer(folder: Path) -> Any:
    """Return its class of trainers; what it reads and writes lies in a folder."""
    prepared = folder / "preprocessed" / DATASET / IDENTIFIER
    prepared.mkdir(parents=True)
    (prepared / "case.b2nd").touch()  # it looks at the endings of prepared cases
    for name in ("raw", "preprocessed", "results"):
        os.environ[f"nnUNet_{name}"] = str(folder / name)
    from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer

    return nnUNetTrainer


def make_trainer(asked: dict[str, Any], kind: Any) -> Any:
    """Return a trainer of that class that is ready for its first step."""
    os.environ["nnUNet_compile"] = str(asked["compiled"])  # noqa: SIM112
    document = {"channel_names": {"0": "MRI"}, "labels": LABELS, "file_ending": ".nii.gz"}
    device = torch.device(asked["device"])
    trainer = kind(plans(asked), CONFIGURATION, 0, document, device)
    trainer.initialize()
    trainer.network.train()
    return trainer


def one_batch(asked: dict[str, Any]) -> dict[str, Any]:
    """Return a batch as its loaders hand it over: images, and a label per resolution, pinned."""
    shape = (asked["batch"], 1, *asked["patch"])
    label = torch.zeros(shape, dtype=torch.int16)
    outer = tuple(slice(length // 4, 3 * length // 4) for length in asked["patch"])
    inner = tuple(slice(3 * length // 8, 5 * length // 8) for length in asked["patch"])
    label[(..., *outer)], label[(..., *inner)] = 1, 2
    images = label + torch.randn(shape, generator=torch.Generator().manual_seed(0))
    labels, factors = [], [1] * len(asked["patch"])
    for stride in asked["strides"][:-1]:
        factors = [factor * own for factor, own in zip(factors, stride, strict=True)]
        labels.append(label[(..., *(slice(None, None, factor) for factor in factors))].contiguous())
    if asked["device"] == "cuda":
        images, labels = images.pin_memory(), [own.pin_memory() for own in labels]
    return {"data": images, "target": labels}


def measure(asked: dict[str, Any], kind: Any) -> dict[str, Any]:
    """Return the time of a step, and the memory."""
    device = asked["device"]
    if device == "cuda":
        torch.backends.cudnn.benchmark = True  # as its command does
    else:
        torch.set_num_threads(1)  # a trial of the script, of tiny sizes
    others = allocated(device)
    trainer, batch = make_trainer(asked, kind), one_batch(asked)
    warm_up(lambda: trainer.train_step(batch), asked["warm_up"])
    taken = milliseconds(lambda: trainer.train_step(batch), asked["steps"], device)
    found = torch.get_autocast_dtype("cuda") if device == "cuda" else torch.float32
    return {
        "ms": taken,
        "gigabytes": peak_gigabytes(device, others),
        "precision": str(found).removeprefix("torch."),
    }


def answer(line: str, kind: Any) -> dict[str, Any]:
    """Return what is measured of a size, or the error; leave the card to the other side."""
    try:
        found = measure(json.loads(line), kind)
    except Exception as error:  # noqa: BLE001 (whatever it is, it is told)
        found = {"error": f"{type(error).__name__}: {error}"}
    gc.collect()
    torch.compiler.reset()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
    return found


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        kind = import_trainer(Path(folder))
        print('\n{"ready": true}', flush=True)
        for line in sys.stdin:
            print("\n" + json.dumps(answer(line, kind)), flush=True)


if __name__ == "__main__":
    main()
