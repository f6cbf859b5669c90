"""Whether weights are those of the network that a model describes, found without its memory."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import torch

from nnunet_builtin.networks.weights import shapes_of
from nnunet_core.contracts.abilities import built
from nnunet_core.errors import NnunetError, StorageError, listed
from nnunet_core.registry.discovery import Registry
from nnunet_core.runtime.reporting import Silence
from nnunet_core.store.models import FILE, Model


def check_fit(
    model: Model, weights: Mapping[str, torch.Tensor], path: Path, registry: Registry
) -> None:
    """Compare the shapes of weights with those of the network; nothing of its size is allocated,
    however large model.json says it is.

    A network of a plugin that is not installed, or of code that no plugin registers, is not built.

    Args:
        model: Which network.
        weights: Read from `path`.
        path: For messages.
        registry: Where its builder is.

    Raises:
        StorageError: They are of another network.
    """
    try:
        builder = built(model.component(registry, "network", Silence()))
        expected = shapes_of(builder, model.document.configuration.network)
    except NnunetError:
        return  # prediction says what is missing
    except Exception as error:
        raise StorageError(
            f"The network that {path.parents[1] / FILE} describes cannot be built: "
            f"{type(error).__name__}: {error}. Get an intact copy of the model."
        ) from error
    found = {name: tuple(tensor.shape) for name, tensor in weights.items()}
    if expected != found:
        odd = sorted(n for n in {*expected, *found} if expected.get(n) != found.get(n))
        raise StorageError(
            f"The weights {path} are of another network than {FILE} describes: "
            f"{listed([_difference(n, expected.get(n), found.get(n)) for n in odd])}. Get an "
            "intact copy of the model."
        )


def _difference(name: str, expected: tuple[int, ...] | None, found: tuple[int, ...] | None) -> str:
    return f"{name} has {found or 'no values'} instead of {expected or 'none'}"
