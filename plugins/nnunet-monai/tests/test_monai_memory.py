"""What the networks say of their memory: equal to what a forward pass keeps, and never less for a
larger patch.
"""

import itertools
import random

import pytest
import torch
from torch.profiler import ProfilerActivity, profile

from nnunet_core.data.plans import NetworkSpec
from nnunet_monai.dynunet import DynUNet
from nnunet_monai.memory import count
from nnunet_monai.segresnet import SegResNet, SegResNetDS
from nnunet_monai.swinunetr import SwinUNETR
from nnunet_monai.unetr import UNETR

SMALL = {
    "segresnet": SegResNet(init_filters=8),
    "segresnet_ds": SegResNetDS(init_filters=8, blocks_down=(1, 1, 1), dsdepth=2),
    "dynunet": DynUNet(),
    "dynunet_residual": DynUNet(res_block=True, filters=(8, 16, 24, 32)),
    "unetr": UNETR(feature_size=4, hidden_size=24, mlp_dim=48, num_heads=2),
    "swinunetr": SwinUNETR(feature_size=12, depths=(1, 2, 1, 1), num_heads=(1, 1, 2, 2)),
}
CASES = [(name, dimensions) for name in SMALL for dimensions in (2, 3)]
#: Windows that are smaller than a window of 7 have a bias of their own, which no term stands for.
EXACT = {"swinunetr": 2e-3}


def spec_of(dimensions, waits=0):
    """Return the specification of three poolings; the first axis waits for the first of them."""
    pools = [tuple(1 if axis < (n < waits) else 2 for axis in range(dimensions)) for n in range(3)]
    return NetworkSpec(
        dimensions=dimensions,
        input_channels=2,
        output_channels=3,
        pool_kernels=pools,
        conv_kernels=((3,) * dimensions,) * 4,
        base_features=8,
    )


def patches(builder, spec, number):
    """Return patches of one to six divisors along each axis; never one voxel after all poolings."""
    drawn = random.Random(str(builder))
    divisor = builder.divisor(spec)
    found = []
    while len(found) < number:
        factors = [drawn.randint(1, 6) for _ in divisor]
        if max(factors) > 1:
            found.append(tuple(n * step for n, step in zip(factors, divisor, strict=True)))
    return found


@pytest.mark.parametrize(("name", "dimensions"), CASES)
def test_memory_is_what_a_forward_pass_keeps(name, dimensions):
    builder, spec = SMALL[name], spec_of(dimensions)
    for patch in patches(builder, spec, 2):
        expected = count(builder, spec, patch)
        assert builder.memory(spec, patch) == pytest.approx(expected, rel=EXACT.get(name, 1e-9))


@pytest.mark.parametrize(("name", "dimensions"), CASES)
def test_the_count_is_what_pytorch_allocates(name, dimensions):
    """The profiler hears of every allocation on the CPU; what is left after a forward pass waits
    for the gradients.
    """
    builder, spec = SMALL[name], spec_of(dimensions)
    patch = tuple(2 * step for step in builder.divisor(spec))
    network = builder.build(spec.model_copy(update={"patch_size": patch})).train()
    images = torch.zeros(1, 2, *patch)
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as measured:
        logits = network(images)
    kept = sum(event.self_cpu_memory_usage for event in measured.key_averages())
    del logits
    kept += images.nbytes  # was there before
    assert count(builder, spec, patch) == pytest.approx(kept, rel=0.03)


@pytest.mark.parametrize(("name", "dimensions"), CASES)
def test_a_longer_patch_needs_more(name, dimensions):
    builder, spec = SMALL[name], spec_of(dimensions)
    divisor = builder.divisor(spec)
    for factors in itertools.product((1, 2, 3, 7, 16), repeat=dimensions):
        patch = [n * step for n, step in zip(factors, divisor, strict=True)]
        for axis in range(dimensions):
            longer = list(patch)
            longer[axis] += divisor[axis]
            assert builder.memory(spec, longer) > builder.memory(spec, patch)


def test_counting_draws_no_random_numbers():
    torch.manual_seed(0)
    state = torch.get_rng_state()
    builder = SwinUNETR(feature_size=24, num_heads=(1, 1, 2, 2))
    assert count(builder, spec_of(3), (64, 32, 32)) > 0
    assert torch.get_rng_state().equal(state)
