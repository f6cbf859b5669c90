"""Configurations of plans, put together from what was chosen (spec: planning, section 9)."""

from __future__ import annotations

from typing import Any

import numpy as np

from nnunet_builtin.planning.architecture import Topology
from nnunet_builtin.planning.spacings import ANISOTROPY
from nnunet_builtin.planning.target import Stage, Target
from nnunet_core.data.plans import Configuration, NetworkSpec, Normalization

#: Of the networks that are built (spec: planning, section 1).
MAX_FEATURES = {2: 480, 3: 320}


def network_spec(
    target: Target, found: Topology, base_features: int, max_features: int, convs: int
) -> NetworkSpec:
    """Return what the network builder is given."""
    return NetworkSpec(
        dimensions=2 if target.dimensions == 2 else 3,
        input_channels=target.inputs,
        output_channels=target.labels.outputs,
        pool_kernels=found.pools,
        conv_kernels=found.kernels,
        base_features=base_features,
        max_features=max_features,
        convs_per_stage=convs,
    )


def configuration_of(
    target: Target,
    stage: Stage,
    network: NetworkSpec,
    *,
    normalization: tuple[Normalization, ...],
    preprocessor: str,
    max_batch_size: int | None,
    batch_dice: bool,
) -> Configuration:
    """Return a configuration, with the notes that say why it is as it is."""
    patch_size, batch_size = stage.found.patch_size, stage.batch_size
    notes = [target.note, *stage.notes]
    flat = len(patch_size) == 3 and max(patch_size) / patch_size[0] > ANISOTROPY
    if flat:
        notes.append(
            f"the patch is more than {ANISOTROPY} times longer than thick: it is rotated in plane "
            "only"
        )
    if max_batch_size is not None and max_batch_size < batch_size:
        notes.append(
            f"planner.max_batch_size lowers the batch size from {batch_size} to {max_batch_size}"
        )
        batch_size = max_batch_size
    return Configuration(
        preprocessor=preprocessor,
        transpose_forward=target.transpose,
        spacing=_three(stage.spacing),
        median_shape=_three(stage.shape),
        patch_size=patch_size,
        batch_size=batch_size,
        network=network,
        dummy_2d_augmentation=flat,
        batch_dice=batch_dice,
        normalization=normalization,
        notes=tuple(note for note in notes if note),
    )


def cascade_of(fullres: Configuration, foreground: int) -> Configuration:
    """Return the second stage of a cascade: full resolution, and a channel per foreground class of
    the first (section 8).
    """
    inputs = fullres.network.input_channels + foreground
    network = fullres.network.model_copy(update={"input_channels": inputs})
    return fullres.model_copy(update={"previous": "3d_lowres", "network": network})


def _three(values: np.ndarray) -> tuple[Any, Any, Any]:
    first, second, third = values.tolist()
    return first, second, third
