"""Compare the NumPy and the tensor side of augmentation on one CPU thread, step by step and as a whole.

Usage: OMP_NUM_THREADS=1 python tests/benchmarks/compare_augmentation.py [--repeat 5] [--samples 40]

Each step is applied with the same drawn value on both sides, in turns; shown are medians in ms of one channel or sample.
"""

from __future__ import annotations

import argparse
import statistics
import time

import numpy as np
import torch
from nnunet_builtin.augmentation.decisions import Draw, Elastic
from scipy import ndimage

from nnunet_builtin.augmentation import cascade, intensity, spatial, spatial_torch, v2, v2_torch
from nnunet_core.data.plans import Configuration, NetworkSpec, Normalization

PATCHES = {"3D 40x56x40": (40, 56, 40), "3D 128x128x128": (128,) * 3, "2D 256x256": (256, 256)}


def configuration(patch: tuple[int, ...]) -> Configuration:
    dims = len(patch)
    network = NetworkSpec(
        dimensions=dims,
        input_channels=1,
        output_channels=4,
        pool_kernels=(),
        conv_kernels=((3,) * dims,),
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


def sample(size, seed=0):
    rng = np.random.default_rng(seed)
    image = ndimage.gaussian_filter(rng.normal(size=(1, *size)), (0,) + (1.5,) * len(size)) * 5
    blobs = ndimage.gaussian_filter(rng.normal(size=(1, *size)), (0,) + (3.0,) * len(size))
    label = np.digitize(blobs, np.quantile(blobs, [0.2, 0.7, 0.8, 0.9])).astype(np.int16) - 1
    return image.astype(np.float32), label


def draws(patch):
    dims = len(patch)
    noise = np.random.default_rng(1).random((dims, *patch), np.float32) * 2 - 1
    angles = (0.3, -0.4, 0.2) if dims == 3 else (-2.2,)
    return {
        "crop": Draw(),
        "rotation": Draw(angles=angles),
        "scaling": Draw(scale=1.2),
        "rotation, scaling": Draw(angles=angles, scale=0.8),
        "elastic": Draw(elastic=Elastic(noise, (10.0,) * dims, factor=100.0)),
        "noise": Draw(noise=noise[:1]),
        "blur": Draw(blur={0: 0.8}),
        "brightness": Draw(brightness={0: 0.8}),
        "contrast": Draw(contrast={0: 0.8}),
        "low resolution": Draw(zoom={0: 0.7}),
        "gamma": Draw(gamma={0: 0.8}),
        "inverted gamma": Draw(inverted_gamma={0: 0.8}),
        "mirror": Draw(mirrored=(0, 1)),
    }


def timed(sides, repeat):
    seconds = {name: [] for name in sides}
    for _ in range(repeat + 1):
        for name, call in sides.items():
            start = time.perf_counter()
            call()
            seconds[name].append(time.perf_counter() - start)
    return {name: 1e3 * statistics.median(values[1:]) for name, values in seconds.items()}


def row(name, sides, repeat):
    ms = timed(sides, repeat)
    ratio = ms["torch"] / ms["numpy"]
    print(f"| {name} | {ms['numpy']:.2f} | {ms['torch']:.2f} | {ratio:.2f} |", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeat", type=int, default=5)
    parser.add_argument("--samples", type=int, default=40)
    asked = parser.parse_args()
    torch.set_num_threads(1)
    for title, patch in PATCHES.items():
        print(f"\n## {title}\n\n| step | numpy ms | torch ms | ratio |\n|---|--:|--:|--:|")
        config = configuration(patch)
        images, label = sample(v2.AugmentationV2().generator_patch_size(config))
        tensors = torch.from_numpy(images), torch.from_numpy(label)
        for name, draw in draws(patch).items():
            sides = {
                "numpy": lambda: v2.apply(draw, images, label, config),
                "torch": lambda: v2_torch.apply(draw, *tensors, config),
            }
            row("whole sample with " + name, sides, asked.repeat)
        small = images[tuple([slice(0, 1), *(slice(0, n) for n in patch)])].copy()
        steps = {
            "blur": (lambda x: ndimage.gaussian_filter(x, 0.8), lambda x: v2_torch._blur(x, 0.8)),
            "brightness": (lambda x: x * np.float32(0.8), lambda x: x * 0.8),
            "contrast": (
                lambda x: intensity.adjust_contrast(x, 0.8),
                lambda x: v2_torch._adjust_contrast(x, 0.8),
            ),
            "gamma": (
                lambda x: intensity.adjust_gamma(x, 0.8),
                lambda x: v2_torch._adjust_gamma(x, 0.8),
            ),
            "low resolution": (
                lambda x: intensity.lower_resolution(x, 0.7),
                lambda x: v2_torch._lower_resolution(x, 0.7, False),
            ),
        }
        one = torch.from_numpy(small)[0]
        for name, (numpy, tensor) in steps.items():
            sides = {"numpy": lambda: numpy(small[0]), "torch": lambda: tensor(one)}
            row("step " + name, sides, asked.repeat)
        mask = label[0][tuple(slice(0, n) for n in patch)] == 3
        for operation in ("dilation", "closing"):
            sides = {
                "numpy": lambda: cascade.operate(mask, operation, 4.2),
                "torch": lambda: v2_torch.operate(torch.from_numpy(mask), operation, 4.2),
            }
            row("step " + operation, sides, asked.repeat)
        shape = images.shape[1:]
        matrix, offset = spatial.placement(draws(patch)["rotation"], shape, patch)
        where = spatial.points(matrix, offset, patch)
        points = torch.from_numpy(np.stack(np.broadcast_arrays(*where)).astype(np.float32))
        row(
            "step cubic",
            {
                "numpy": lambda: spatial.cubic(images, where),
                "torch": lambda: spatial_torch.cubic(tensors[0], points),
            },
            asked.repeat,
        )
        row(
            "step vote",
            {
                "numpy": lambda: spatial._moved_maps(label, where),
                "torch": lambda: spatial_torch._voted(tensors[1], points),
            },
            asked.repeat,
        )
        count = asked.samples if np.prod(patch) < 1e6 else max(4, asked.samples // 5)
        batch = {"images": images[None], "label": label[None]}
        arrays, on_tensors = v2.AugmentationV2(), v2_torch.AugmentationV2Torch()
        both = {"numpy": arrays, "torch": on_tensors}
        total = dict.fromkeys(both, 0.0)
        for seed in range(count):
            for name, augmentation in both.items():
                start = time.perf_counter()
                augmentation.augment(batch, config, seed)
                total[name] += time.perf_counter() - start
        a, b = (1e3 * total[name] / count for name in both)
        print(f"| pipeline, mean of {count} samples | {a:.2f} | {b:.2f} | {b / a:.2f} |", flush=True)


if __name__ == "__main__":
    main()
