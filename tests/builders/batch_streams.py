"""The stream of batches of four prepared cases of noise."""

import numpy as np

from nnunet_builtin.augmentation.v2 import AugmentationV2
from nnunet_builtin.training.loading import BatchDataset, batches, steps_of
from nnunet_builtin.training.sampling import PatchSampler
from nnunet_core.data.cases import PreparedCase, PreparedGeometry
from nnunet_core.data.images import Geometry
from nnunet_core.data.plans import Configuration, NetworkSpec, Normalization
from nnunet_core.runtime.reporting import Silence
from nnunet_core.store.prepared import PreparedStore

SHAPE, PATCH = (14, 15, 16), (10, 12, 8)
CONFIGURATION = Configuration(
    preprocessor="default",
    transpose_forward=(0, 1, 2),
    spacing=(1, 1, 1),
    median_shape=SHAPE,
    patch_size=PATCH,
    batch_size=2,
    network=NetworkSpec(
        dimensions=3,
        input_channels=1,
        output_channels=3,
        pool_kernels=(),
        conv_kernels=((3, 3, 3),),
    ),
    dummy_2d_augmentation=False,
    batch_dice=False,
    normalization=(Normalization(scheme="zscore"),),
)


def drawn_store(folder) -> PreparedStore:
    """Write the cases, case_0 to case_3; return their store."""
    store = PreparedStore(folder)
    geometry = PreparedGeometry(
        Geometry(SHAPE), ((0, 14), (0, 15), (0, 16)), (0, 1, 2), SHAPE, (1.0, 1.0, 1.0)
    )
    for number in range(4):
        random = np.random.default_rng(number)
        images = random.normal(size=(1, *SHAPE)).astype(np.float32)
        label = random.integers(-1, 3, SHAPE).astype(np.int8)
        locations = {value: np.argwhere(label == value) for value in (1, 2)}
        store.write(
            PreparedCase(f"case_{number}", images, label, geometry, locations), "key", PATCH
        )
    return store


def stream(
    store,
    workers=0,
    *,
    augmentation=None,
    epochs=range(2),
    seed=3,
    names=("case_0", "case_1"),
    **changes,
):
    """Return the batches of some epochs, with what is named otherwise than a training has it."""

    def sampler(cases):
        return PatchSampler(store, cases, CONFIGURATION, CONFIGURATION.batch_size, 0.33, (1, 2))

    dataset = BatchDataset(
        training=sampler(names),
        validation=sampler(("case_2", "case_3")),
        augmentation=augmentation or AugmentationV2(),
        configuration=CONFIGURATION,
        seed=seed,
        positions=changes.pop("positions", None),
    )
    steps = steps_of(epochs, changes.pop("training_iterations", 4), 2, changes.pop("position", 0))
    return batches(dataset, steps, workers, changes.pop("report", Silence()), **changes)
