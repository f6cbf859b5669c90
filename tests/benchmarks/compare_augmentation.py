"""Compare the built-in steps of augmentation with batchgenerators' on one CPU thread, step by step
and as a whole.

Usage: OMP_NUM_THREADS=1 python tests/benchmarks/compare_augmentation.py [--repeat 5] [--samples 40]

Shown are milliseconds of processor time per sample of one channel: medians of a step that happens,
in turns, and the mean of the whole pipeline with its default probabilities.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable

import numpy as np
import torch
from scipy import ndimage

from nnunet_builtin.augmentation.spatial import Motion
from nnunet_builtin.augmentation.v1 import Batchgenerators
from nnunet_builtin.augmentation.v2 import AugmentationV2
from nnunet_core.contracts.augmentation import Sample
from nnunet_core.data.plans import Configuration, NetworkSpec, Normalization

PATCHES = {"3D 40x56x40": (40, 56, 40), "3D 128x128x128": (128,) * 3, "2D 256x256": (256, 256)}
ANGLES = {3: (0.3, -0.4, 0.2), 2: (-2.2,)}
PER_CHANNEL = ("blur", "brightness", "contrast", "low_resolution", "inverted_gamma", "gamma")


def configuration(patch: tuple[int, ...]) -> Configuration:
    network = NetworkSpec(
        dimensions=len(patch),
        input_channels=1,
        output_channels=4,
        pool_kernels=(),
        conv_kernels=((3,) * len(patch),),
    )
    return Configuration(
        preprocessor="default",
        transpose_forward=(0, 1, 2),
        spacing=(1, 1, 1),
        median_shape=(30, 30, 30),
        patch_size=patch,
        batch_size=2,
        network=network,
        dummy_2d_augmentation=False,
        batch_dice=False,
        normalization=(Normalization(scheme="zscore", use_mask=True),),
    )


def batch_of(size: tuple[int, ...]) -> dict[str, np.ndarray]:
    """Return one generator patch: a smooth image, labels -1 to 3 in blobs."""
    rng = np.random.default_rng(0)
    image = ndimage.gaussian_filter(rng.normal(size=size), 1.5).astype(np.float32) * 5
    blobs = ndimage.gaussian_filter(rng.normal(size=size), 3.0)
    label = np.digitize(blobs, np.quantile(blobs, [0.2, 0.7, 0.8, 0.9])).astype(np.int16) - 1
    return {"images": image[None, None], "label": label[None, None]}


def median(call: Callable[[], object], repeat: int) -> float:
    times = []
    for _ in range(repeat + 1):
        start = time.process_time()
        call()
        times.append(time.process_time() - start)
    return 1e3 * statistics.median(times[1:])


def row(name: str, ours: float, theirs: float) -> None:
    print(f"| {name} | {ours:.2f} | {theirs:.2f} | {theirs / ours:.1f} |", flush=True)


def compare(patch: tuple[int, ...], repeat: int, samples: int) -> None:
    """Print the rows of a patch size."""
    config, ours, theirs = configuration(patch), AugmentationV2(), Batchgenerators()
    batch = batch_of(ours.generator_patch_size(config))
    tensors = [torch.from_numpy(batch[key][0]) for key in ("images", "label")]
    large = Sample(*tensors, config)
    small = dict(ours.ordered)["spatial"].apply(large, Motion())
    steps, others = dict(ours.ordered), dict(theirs.ordered)
    motion = Motion(ANGLES[len(patch)], 0.8)
    decisions = {"spatial": motion, **{name: {0: 0.8} for name in PER_CHANNEL}}
    for name, decision in decisions.items():
        given, other = (large if name == "spatial" else small), others[name]
        # the transforms of the library decide themselves: take a seed with which they do it
        seed = next(s for s in range(500) if happened(other, given, s))
        mine = median(lambda: steps[name].apply(given, decision), repeat)  # noqa: B023
        row(name, mine, median(lambda: other.apply(given, seed), repeat))  # noqa: B023
    seconds = []
    for augmentation in (ours, theirs):
        start = time.process_time()
        for seed in range(samples):
            augmentation.augment(batch, config, seed)
        seconds.append(1e3 * (time.process_time() - start) / samples)
    row(f"mean of {samples} samples", *seconds)


def happened(step, sample: Sample, seed: int) -> bool:
    found = step.apply(sample, seed)
    if found.images.shape != sample.images.shape:
        middle = dict(AugmentationV2().ordered)["spatial"].apply(sample, Motion())
        return not torch.equal(found.images, middle.images)
    return not torch.equal(found.images, sample.images)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeat", type=int, default=5)
    parser.add_argument("--samples", type=int, default=40)
    asked = parser.parse_args()
    torch.set_num_threads(1)
    for title, patch in PATCHES.items():
        print(f"\n{title}\n\n| step | ours: ms | batchgenerators: ms | ratio |\n|---|--:|--:|--:|")
        few = asked.samples if np.prod(patch) < 1e6 else max(4, asked.samples // 5)
        compare(patch, asked.repeat, few)


if __name__ == "__main__":
    main()
