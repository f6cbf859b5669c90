"""What builds networks."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Protocol, runtime_checkable

from nnunet_core.errors import PluginError

if TYPE_CHECKING:
    import torch

    from nnunet_core.data.plans import NetworkSpec


class NetworkBuilder(Protocol):
    """Builds a network, and knows how much memory one takes and which patch sizes fit it."""

    def build(self, spec: NetworkSpec) -> torch.nn.Module:
        """Return a network: images (B, input_channels, *patch) -> logits.

        It returns logits (B, output_channels, *patch), or a list or tuple of logits (B,
        output_channels, *resolution), the full resolution first. A resolution is one that every
        n-th voxel of the patch makes, n a whole number for each axis. There may be as many as it
        likes, others in training than in evaluation; trainers decide what they weigh. What can
        leave out all but the first is a `DeepSupervision`. One that uses other weights from batch
        to batch has `module.graph_changes = True`: several processes that train together look in
        every batch for those that were used.
        """
        ...

    def memory(self, spec: NetworkSpec, patch_size: Sequence[int]) -> float:
        """Return the bytes that training on one patch (voxels per axis) takes; planners compare
        them with their budget.
        """
        ...

    def divisor(self, spec: NetworkSpec) -> tuple[int, ...]:
        """Return the number of voxels, per axis, that patch sizes must be multiples of."""
        ...


@runtime_checkable
class DeepSupervision(Protocol):
    """A network of several resolutions that can return the full one alone.

    Attributes:
        deep_supervision: True as it is built. Where it is set to False, the network returns one
            tensor, of the full resolution. A network that was built with False is left as it is.
    """

    deep_supervision: bool


def divisor_of(network: NetworkBuilder, spec: NetworkSpec) -> tuple[int, ...]:
    """Return what the sizes of a patch must be multiples of, one number per axis.

    Raises:
        PluginError: The builder says something else.
    """
    divisor = network.divisor(spec)
    numbers = isinstance(divisor, Sequence) and all(isinstance(n, int) and n > 0 for n in divisor)
    if not numbers or len(divisor) != spec.dimensions:
        raise PluginError(
            f"The divisor of the network {type(network).__name__} is {divisor!r}; it must be a "
            f"tuple of {spec.dimensions} positive whole numbers, one for each axis of the patch."
        )
    return tuple(divisor)
