"""Runs inside an environment with nnunet 1.7.1: makes the steps of v1's V2 trainer, writes what
they come to.

Usage: python peer_v1_training.py FIGURES.json

For each of `training_problems.PROBLEMS`: `shapes` of the weights, and for each precision the
`losses` of the steps, the `gradients` (their norms before clipping) and the L2 `norms` of the final
weights.
"""

import contextlib
import json
import sys
from pathlib import Path
from unittest import mock

with contextlib.redirect_stdout(None):
    import numpy as np
    import torch
    from nnunet.training.data_augmentation.downsampling import downsample_seg_for_ds_transform2
    from nnunet.training.loss_functions.deep_supervision import MultipleOutputLoss2
    from nnunet.training.network_training.nnUNetTrainerV2 import nnUNetTrainerV2

from training_problems import EPOCHS, PROBLEMS, STEPS, draw_batch, draw_weights


def make_trainer(problem):
    """Return v1's trainer with the network and the optimiser that it makes itself."""
    trainer = nnUNetTrainerV2("none", None, batch_dice=problem["batch_dice"], fp16=False)
    trainer.print_to_log_file = lambda *_: None
    trainer.max_num_epochs = EPOCHS
    trainer.threeD = len(problem["patch_size"]) == 3
    trainer.num_input_channels, trainer.num_classes = problem["input_channels"], problem["classes"]
    trainer.base_num_features, trainer.conv_per_stage = problem["base_features"], 2
    trainer.net_num_pool_op_kernel_sizes = problem["pool_kernels"]
    trainer.net_conv_kernel_sizes = problem["conv_kernels"]
    heads = len(problem["pool_kernels"])
    weights = np.array([0.5**head if head < heads - 1 else 0 for head in range(heads)])
    trainer.loss = MultipleOutputLoss2(trainer.loss, weights / weights.sum())
    trainer.initialize_network()
    trainer.initialize_optimizer_and_scheduler()
    return trainer


def batches(problem, dtype):
    steps = np.cumprod(
        np.vstack([np.ones(len(problem["patch_size"])), *problem["pool_kernels"][:-1]]), axis=0
    )
    for step in range(STEPS):
        images, label = draw_batch(problem, step)
        targets = downsample_seg_for_ds_transform2(
            label.astype(np.float32), [list(1 / row) for row in steps]
        )
        yield {
            "data": torch.from_numpy(images).to(dtype),
            "target": [torch.from_numpy(target) for target in targets],
        }


def train(problem, dtype):
    trainer = make_trainer(problem)
    network = trainer.network
    weights = draw_weights(
        problem, {name: tuple(tensor.shape) for name, tensor in network.state_dict().items()}
    )
    network.load_state_dict({name: torch.from_numpy(array) for name, array in weights.items()})
    network.to(dtype)
    clip, gradients = torch.nn.utils.clip_grad_norm_, []

    def measured(*arguments):
        gradients.append(float(clip(*arguments)))

    stream, losses = batches(problem, dtype), []
    with mock.patch("torch.nn.utils.clip_grad_norm_", measured):
        for step in range(STEPS):
            trainer.maybe_update_lr(step * EPOCHS // STEPS)
            losses.append(float(trainer.run_iteration(stream)))
    norms = {
        name: float(tensor.double().norm()) for name, tensor in sorted(network.state_dict().items())
    }
    return {"losses": losses, "gradients": gradients, "norms": norms}


def main(path):
    torch.set_num_threads(1)
    figures = {}
    with contextlib.redirect_stdout(None):
        for name, problem in PROBLEMS.items():
            shapes = {
                key: tuple(tensor.shape)
                for key, tensor in make_trainer(problem).network.state_dict().items()
            }
            runs = {kind: train(problem, getattr(torch, kind)) for kind in ("float32", "float64")}
            figures[name] = {"shapes": shapes, **runs}
    Path(path).write_text(json.dumps(figures))


if __name__ == "__main__":
    main(sys.argv[1])
