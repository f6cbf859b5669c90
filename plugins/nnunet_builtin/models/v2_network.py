"""The network of nnU-Net v2 that weights belong to: their names and shapes say nearly all of it."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from pydantic import ValidationError

from nnunet_core.data.metadata import first_problem
from nnunet_core.data.plans import NetworkSpec
from nnunet_core.errors import StorageError

if TYPE_CHECKING:
    from nnunet_builtin.models.foreign import State
    from nnunet_builtin.models.v2_plans import NetworkArguments

_EPSILON = 1e-5
_SLOPE = 0.01
_PARTS = re.compile(r"(encoder|decoder|upsampling|heads)\.(\d+)\.(?:(\d+)\.)?")


@dataclass(frozen=True)
class V2Network:
    """A network in the words of ours.

    Attributes:
        spec: Sizes.
        component: Reference of the builder, and its settings.
    """

    spec: NetworkSpec
    component: tuple[str, Mapping[str, Any]]


def network_of(weights: State, plans: NetworkArguments, source: str) -> V2Network:
    """Find the network of some weights.

    Features, kernels, strides, blocks, biases and the kind of norm are read off the tensors, so
    that a trainer that changed the network of the plans, or plans without one, need nothing more.

    Args:
        weights: Under the names of ours (`state_names.from_v2`).
        plans: What weights do not show: the activation, the order of norm and activation.
        source: The file, for messages.

    Raises:
        StorageError: They are of no U-Net of v2, or of one that is not built here: another
            activation, norm or stride; the message names it.
    """
    shapes = {name: tuple(tensor.shape) for name, tensor in weights.items()}
    try:
        return _described(_Layers(shapes), plans)
    except (KeyError, ValueError) as error:
        if isinstance(error, ValidationError):
            reason = first_problem(error)
        else:
            reason = f"no {error}" if isinstance(error, KeyError) else str(error)
        raise StorageError(f"{source}: the network cannot be built here: {reason}.") from error


class _Layers:
    """The layers that names and shapes of tensors show; d counts resolutions, the finest is 0."""

    def __init__(self, shapes: Mapping[str, tuple[int, ...]]) -> None:
        self.shapes = shapes
        self.residual = any(".second." in name for name in shapes)
        self._blocks: dict[tuple[str, int], set[str]] = {}
        for name in shapes:
            if match := _PARTS.match(name):
                self._blocks.setdefault((match[1], int(match[2])), set()).add(match[3])
        self.depth = sum(part == "upsampling" for part, _ in self._blocks)
        if self.depth == 0:
            raise ValueError("its weights are of no U-Net")

    def conv(self, stage: int) -> tuple[int, ...]:
        """Return the shape of the convolution that makes the features of a resolution."""
        first = int(self.residual and stage == 0)
        layer = "first.conv" if self.residual else "conv"
        return self.shapes[f"encoder.{stage}.{first}.{layer}.weight"]

    def stride(self, stage: int) -> tuple[int, ...]:
        """Return the step from the resolution before: the way back has it as its kernel."""
        return self.shapes[f"upsampling.{self.depth - stage}.weight"][2:]

    def blocks(self) -> tuple[int, ...]:
        """Return convolutions, or residual blocks, at every resolution of the encoder."""
        stem = int(self.residual)  # counted as the first block of the finest
        counts = [len(self._blocks["encoder", d]) for d in range(self.depth + 1)]
        return counts[0] - stem, *counts[1:]

    def decoder_convs(self) -> tuple[int, ...]:
        """Return the convolutions at every resolution but the coarsest."""
        return tuple(len(self._blocks["decoder", self.depth - 1 - d]) for d in range(self.depth))

    def has(self, name: str) -> bool:
        """Return whether the first convolution has a tensor."""
        return f"encoder.0.0.{name}" in self.shapes


def _described(layers: _Layers, plans: NetworkArguments) -> V2Network:
    stages = range(layers.depth + 1)
    features = tuple(layers.conv(d)[0] for d in stages)
    blocks, decoder = layers.blocks(), layers.decoder_convs()
    convs = 2 if layers.residual else blocks[0]
    stem = layers.shapes["encoder.0.0.conv.weight"]
    if len(stem) not in (4, 5):
        raise ValueError(f"a convolution of {len(stem) - 2} axes")
    spec = NetworkSpec(
        dimensions=2 if len(stem) == 4 else 3,
        input_channels=stem[1],
        output_channels=layers.shapes[f"heads.{layers.depth - 1}.weight"][0],
        pool_kernels=tuple(layers.stride(d) for d in stages[1:]),
        conv_kernels=tuple(layers.conv(d)[2:] for d in stages),
        base_features=features[0],
        max_features=max(features),
        convs_per_stage=convs,
    )
    settings = {"layout": "v2", **_style(layers, plans)}
    if features != tuple(spec.features(d) for d in stages):
        settings["features"] = list(features)
    usual = 1 if layers.residual else convs
    if set(decoder) != {usual}:
        settings["decoder_convs"] = list(decoder)
    if not layers.residual:
        if set(blocks) != {convs}:
            settings["convs"] = list(blocks)
        return V2Network(spec, ("builtin/plain_unet", settings))
    settings["blocks"] = list(blocks)
    if stem[0] != features[0]:
        settings["stem_features"] = stem[0]
    return V2Network(spec, ("builtin/residual_unet", settings))


def _style(layers: _Layers, plans: NetworkArguments) -> dict[str, Any]:
    """Return the settings of norm, activation and biases."""
    first = plans.strides if isinstance(plans.strides, int) else next(iter(plans.strides), 1)
    if any(step != 1 for step in (first if isinstance(first, tuple) else (first,))):
        raise ValueError(f"its first stride is {first}, and only 1 is built")
    style = {"norm": _norm(layers, plans), **activation(plans)}
    if not layers.has("conv.bias"):
        style["conv_bias"] = False
    if plans.nonlin_first:
        if layers.residual:
            raise ValueError("nonlin_first in a residual encoder")
        style["norm_last"] = True
    return style


def _norm(layers: _Layers, plans: NetworkArguments) -> str:
    name = (plans.norm_op or "").rpartition(".")[2]
    options = plans.norm_op_kwargs or {}
    if options.get("eps", _EPSILON) != _EPSILON:
        raise ValueError(f"a norm with eps {options['eps']}; {_EPSILON} is built")
    if not layers.has("norm.weight"):
        if name:
            raise ValueError(f"{name} without weights of its own")
        return "none"
    if name and not name.startswith(("InstanceNorm", "BatchNorm")):
        raise ValueError(f"the norm {name}; InstanceNorm and BatchNorm are built")
    if not layers.has("norm.running_mean"):
        return "instance"
    if options.get("track_running_stats") and name.startswith("InstanceNorm"):
        raise ValueError("an InstanceNorm with the statistics of its training")
    return "batch"  # also where a trainer put it into the place of the norm in the plans


def activation(plans: NetworkArguments) -> dict[str, Any]:
    """Return the settings of an activation; raises ValueError for one that is not built."""
    name = (plans.nonlin or "LeakyReLU").rpartition(".")[2]
    options = plans.nonlin_kwargs or {}
    if name == "LeakyReLU":
        return {"negative_slope": options.get("negative_slope", _SLOPE)}
    if name == "ReLU":
        return {"negative_slope": 0.0}
    known = {"GELU": "gelu", "Mish": "mish"}
    if name not in known or options.get("approximate", "none") != "none":
        raise ValueError(
            f"the activation {name} with {dict(options)}; LeakyReLU, ReLU, GELU and Mish are built"
        )
    return {"activation": known[name]}
