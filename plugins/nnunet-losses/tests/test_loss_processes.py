"""Several processes that share a batch learn what one learns from all of it."""

import numpy as np
import pytest
import torch
from test_loss_formulas import LOSSES, Batch
from torch import distributed

CASES = [(name, regions, dice) for name in LOSSES for regions in (0, 1) for dice in (0, 1)]


def gradient(name, regions, batch_dice, samples=slice(None)):
    """Value and gradient of a part of the batch; of the other samples the gradient is 0."""
    whole = Batch(bool(regions), ignored=0.3, samples=3)
    part = Batch(bool(regions), ignored=0.3, samples=3)
    for key in ("label", "seen", "outside", "masks", "tubes", "distances"):
        setattr(part, key, getattr(whole, key)[samples])
    logits = torch.from_numpy(whole.logits).requires_grad_()
    value = part.value(LOSSES[name], bool(batch_dice), logits=logits[samples])
    value.backward()
    return torch.cat([value.detach()[None], logits.grad.flatten()])


def in_process(rank, folder):
    distributed.init_process_group("gloo", f"file://{folder}/meeting", rank=rank, world_size=2)
    own = slice(0, 1) if rank == 0 else slice(1, 3)
    found = [gradient(*case, own) for case in CASES]
    for tensor in found:
        distributed.all_reduce(tensor)
    torch.save(found, f"{folder}/rank{rank}.pt")
    distributed.destroy_process_group()


@pytest.mark.slow
def test_the_mean_gradient_of_two_processes_is_that_of_the_joined_batch(tmp_path):
    torch.multiprocessing.spawn(in_process, (str(tmp_path),), nprocs=2)
    found = torch.load(tmp_path / "rank0.pt", weights_only=True)
    for case, tensor in zip(CASES, found, strict=True):
        expected = gradient(*case)
        np.testing.assert_allclose(tensor[1:] / 2, expected[1:], atol=1e-9, err_msg=str(case))
        assert expected[1:].abs().max() > 1e-4
