"""Samples to augment, volumes, thick slices and planes, and the decisions that augmentations make
about them.
"""

from dataclasses import replace

import numpy as np
import torch
from scipy import ndimage

from nnunet_builtin.augmentation.spatial import Motion
from nnunet_builtin.augmentation.v2 import AugmentationV2
from nnunet_core.contracts.augmentation import Sample
from nnunet_core.data.plans import Configuration, NetworkSpec, Normalization

VOLUME, THICK, PLANE = (18, 24, 20), (6, 24, 20), (40, 32)
KINDS = {"volume": (VOLUME, False), "dummy 2D": (THICK, True), "plane": (PLANE, False)}
#: Foreground classes of `patches`.
CLASSES = 3


def configuration(patch=VOLUME, dummy_2d=False, use_mask=(False, False)) -> Configuration:
    dimensions = len(patch)
    return Configuration(
        preprocessor="default",
        transpose_forward=(0, 1, 2),
        spacing=(1, 1, 1),
        median_shape=(30, 30, 30),
        patch_size=patch,
        batch_size=2,
        network=NetworkSpec(
            dimensions=dimensions,
            input_channels=len(use_mask),
            output_channels=4,
            pool_kernels=(),
            conv_kernels=((3,) * dimensions,),
        ),
        dummy_2d_augmentation=dummy_2d,
        batch_dice=False,
        normalization=tuple(Normalization(scheme="zscore", use_mask=mask) for mask in use_mask),
    )


def patches(config, seed=0, samples=2) -> dict[str, np.ndarray]:
    """Return a batch of generator patches: smooth images, labels -1 to 3 in blobs of all sizes."""
    rng = np.random.default_rng(seed)
    size = AugmentationV2().generator_patch_size(config)
    spatial = (0, 0) + (1.5,) * len(size)
    images = (
        ndimage.gaussian_filter(rng.normal(size=(samples, 2, *size)), spatial).astype(np.float32)
        * 5
    )
    blobs = ndimage.gaussian_filter(rng.normal(size=(samples, 1, *size)), spatial)
    label = np.digitize(blobs, np.quantile(blobs, [0.2, 0.5, 0.7, 0.9])).astype(np.int16) - 1
    return {"images": images, "label": label, "names": ["a", "b"]}


def sample(config, seed=0) -> tuple[np.ndarray, np.ndarray]:
    batch = patches(config, seed)
    return batch["images"][0], batch["label"][0]


def whole(config, images, label, previous=None):
    """Return a sample of arrays."""
    tensors = [
        None if array is None else torch.from_numpy(array) for array in (images, label, previous)
    ]
    return Sample(tensors[0], tensors[1], config, tensors[2])


def applied(images, label, config, previous=None, augmentation=None, **decisions):
    """Return images and label after the crop and steps that are decided, by name."""
    decided = {"spatial": Motion(), **decisions}
    done = (augmentation or AugmentationV2()).replay(
        whole(config, images, label, previous), {**decided, **masked(config)}
    )
    return done.images.numpy(), done.label.numpy()


def masked(config):
    """Return the decision of the mask, in which nothing is random."""
    channels = [c for c, scheme in enumerate(config.normalization) if scheme.use_mask]
    return {"mask": tuple(channels)} if channels else {}


def drawn(augmentation, rng, config, channels, times):
    """Return the decisions about so many samples of zeros, as {name: decision}; nothing is applied
    but the crop.
    """
    size = config.patch_size
    sample = Sample(torch.zeros(channels, *size), torch.zeros(1, *size, dtype=torch.int16), config)
    if config.network.input_channels > channels:
        sample = replace(sample, previous=sample.label)
    return [
        {name: step.draw(rng, sample) for name, step in augmentation.ordered} for _ in range(times)
    ]


def cascade(kind="volume", classes=CLASSES):
    """Return a configuration whose network sees the classes of a previous stage, too."""
    config = configuration(*KINDS[kind])
    network = config.network.model_copy(update={"input_channels": 2 + classes})
    return config.model_copy(update={"network": network})


def with_previous(config, seed=0):
    """Return a batch whose previous stage has found its label."""
    batch = patches(config, seed)
    return {**batch, "previous": np.maximum(batch["label"], 0)}
