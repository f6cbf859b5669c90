"""Start a training from the weights of another model, and keep parts of the network as they are."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

import torch

from nnunet_builtin.networks.weights import check_finite, read_weights
from nnunet_builtin.training.foreign_checkpoint import read_foreign_weights
from nnunet_core.errors import TrainingError, UsageError
from nnunet_core.runtime import files
from nnunet_core.store.models import FILE, WEIGHTS

#: Names of weights files: here, of nnU-Net v2, of v1.
_NAMES = (WEIGHTS, "checkpoint_final.pth", "model_final_checkpoint.model")
_ENDINGS = tuple(Path(name).suffix for name in _NAMES)


def find_weights(path: Path) -> Path:
    """Return the weights file that a path stands for: itself, that of a fold folder, or of a
    model's first trained fold.

    Models of nnU-Net v1 and v2 are folders of folds, too, with checkpoints (`.model`, `.pth`) in
    them.

    Raises:
        UsageError: There are none, or the file is of another kind.
    """
    path = path.expanduser().absolute()
    if path.is_file():
        if path.suffix not in _ENDINGS:
            raise UsageError(
                f"{path} is no file of weights: those end with {', '.join(_ENDINGS)}. Unpack "
                "archives first."
            )
        return path
    places = [
        path,
        *sorted(path.glob("fold_*")),
        path / "all",
    ]  # the last is v1's fold of all cases
    candidates = [place / name for name in _NAMES for place in places]
    found = next((candidate for candidate in candidates if candidate.is_file()), None)
    if found is None:
        raise UsageError(
            f"There are no weights in {path}. Give a model folder (it holds {FILE}), a fold "
            f"folder, a {WEIGHTS} file, or a checkpoint of nnU-Net v1 or v2; 'nnunet models list' "
            "shows the trained ones."
        )
    return found


@dataclass(frozen=True)
class Transfer:
    """What became of the tensors of a network.

    Attributes:
        loaded: Names that were taken over.
        skipped: {name: why it keeps its initial values}.
        unused: Names of the file that the network does not have.
    """

    loaded: tuple[str, ...]
    skipped: dict[str, str]
    unused: tuple[str, ...]

    def lines(self) -> list[str]:
        """Return the report for people: one line, and one more per skipped tensor."""
        total = len(self.loaded) + len(self.skipped)
        first = f"pretrained weights: {len(self.loaded)} of {total} tensors loaded"
        unused = [f"  not used: {', '.join(self.unused)}"] if self.unused else []
        return [
            first,
            *(f"  initialised anew: {name} ({why})" for name, why in self.skipped.items()),
            *unused,
        ]


def transfer(network: torch.nn.Module, found: Mapping[str, torch.Tensor], path: Path) -> Transfer:
    """Copy every tensor whose name and shape the network has.

    Heads differ with the number of classes, the first convolution with the number of channels; they
    keep their initial values then.

    Args:
        network: To change.
        found: Tensors under the names of the network.
        path: Where they come from, for messages.

    Raises:
        TrainingError: No tensor fits.
    """
    own = network.state_dict()
    skipped = {name: _difference(tensor, found.get(name)) for name, tensor in own.items()}
    skipped = {name: why for name, why in skipped.items() if why}
    loaded = tuple(name for name in own if name not in skipped)
    if not loaded:
        examples = "; ".join(f"{name}: {why}" for name, why in list(skipped.items())[:3])
        raise TrainingError(
            f"No tensor of {path} fits this network ({examples}). Use the plans of the pretrained "
            "model, so that pooling and kernels are equal: --planner copied --set "
            "planner.source=MODEL."
        )
    network.load_state_dict({name: found[name] for name in loaded}, strict=False)
    return Transfer(loaded, skipped, tuple(sorted(set(found) - set(own))))


def check_unchanged(path: Path, digest: str) -> None:
    """Check that pretrained weights are those that were chosen.

    Raises:
        TrainingError: The file is missing, or has another digest.
    """
    try:
        same = files.file_digest(path) == digest
    except OSError as error:
        raise TrainingError(f"The pretrained weights {path} cannot be read: {error}") from error
    if not same:
        raise TrainingError(
            f"{path} has changed since it was chosen as pretrained weights. Choose it again."
        )


def read_initial_weights(path: Path) -> Mapping[str, torch.Tensor]:
    """Return the tensors of a `weights.safetensors` file, or of a checkpoint of nnU-Net v1
    (`.model`) or v2 (`.pth`), under the names of our networks.

    Raises:
        TrainingError: It holds no weights of a U-Net.
        StorageError: It is damaged, see `networks.weights.read_weights`.
    """
    if path.suffix == ".safetensors":
        return read_weights(path)
    found = read_foreign_weights(path)
    check_finite(found, path, "Use an intact copy.")
    return found


def freeze(network: torch.nn.Module, part: str, initial: Collection[str]) -> tuple[str, ...]:
    """Keep what was loaded of a part of the network as it is.

    Args:
        network: To change.
        part: Name of a child module.
        initial: Tensors of the network that have initial values; the layers that they belong to are
            trained.

    Returns:
        Names of the frozen parameters.

    Raises:
        TrainingError: The network has no such part, or nothing of it was loaded.
    """
    child = getattr(network, part, None)
    if not isinstance(child, torch.nn.Module):
        names = [name for name, child in network.named_children() if list(child.parameters())]
        raise TrainingError(
            f"This network has no part '{part}' that can be frozen. Its parts: {', '.join(names)}."
        )
    own = [name for name, _ in network.named_parameters() if name.startswith(f"{part}.")]
    new = {_layer(name) for name in initial}
    frozen = tuple(name for name in own if _layer(name) not in new)
    if not frozen:
        raise TrainingError(
            f"No tensor of the {part} was loaded, so there is nothing to freeze: leave out "
            "--freeze."
        )
    freeze_parameters(network, frozen)
    return frozen


def freeze_parameters(network: torch.nn.Module, names: Iterable[str]) -> None:
    """Train no parameter of these names."""
    for name in names:
        network.get_parameter(name).requires_grad_(False)


def hold_frozen_layers(network: torch.nn.Module) -> None:
    """Let the layers without a parameter that is trained be in evaluation: a frozen batch norm
    keeps its statistics.
    """
    for layer in network.modules():
        parameters = list(layer.parameters(recurse=False))
        if parameters and not any(parameter.requires_grad for parameter in parameters):
            layer.eval()


def _layer(name: str) -> str:
    return name.rpartition(".")[0]


def _difference(own: torch.Tensor, found: torch.Tensor | None) -> str:
    if found is None:
        return "no weights for it"
    if own.shape != found.shape:
        return f"shape {tuple(found.shape)} in the file, {tuple(own.shape)} here"
    return ""
