"""Extra arrays of prepared cases in training batches: `arrays` {name: (B, K, *patch)} and `like`
{name: image or label}.

Both keys are there only if the prepared cases have extra arrays.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from nnunet_core.contracts.abilities import UsesArrays, ability
from nnunet_core.errors import TrainingError, UsageError, nearest

if TYPE_CHECKING:
    from nnunet_core.contracts.trainer import TrainingTask
    from nnunet_core.store.prepared import StoredCase

#: Type of an array in a batch: {like: type}; on disk it may be a smaller one.
TYPES = {"image": np.float32, "label": np.int16}
_MAPS = ("images", "label", "previous")


def check_arrays(task: TrainingTask) -> None:
    """Raise UsageError where the loss needs an extra array that a prepared case does not have."""
    loss = ability(task.loss, UsesArrays)
    if loss is None:
        return
    if isinstance(loss.arrays, str):
        raise UsageError(
            f"The loss {type(task.loss).__name__} has arrays = {loss.arrays!r}; it must be a tuple "
            f"of names: ({loss.arrays!r},)."
        )
    for case in (*task.training, *task.validation):
        there = task.store.record(case).like
        for name in loss.arrays:
            if name not in there:
                raise UsageError(
                    f"The loss {type(task.loss).__name__} needs the extra array '{name}', which "
                    f"the prepared case {case} does not have.{nearest(name, there)} It has: "
                    f"{', '.join(there) or 'none'}. Use a preprocessor that adds it "
                    "(--preprocessor; see 'Extra data for a loss' in the documentation)."
                )


def empty_arrays(case: StoredCase, count: int, patch_size: Sequence[int]) -> dict[str, Any]:
    """Return `arrays` and `like` of a batch whose cases have the arrays of `case`; all zeros. Empty
    if it has none.
    """
    if not case.arrays:
        return {}
    arrays = {
        name: np.zeros((count, array.shape[0], *patch_size), TYPES[case.like[name]])
        for name, array in case.arrays.items()
    }
    return {"arrays": arrays, "like": dict(case.like)}


def check_same(case: StoredCase, batch: Mapping[str, Any]) -> None:
    """Raise TrainingError where a case has other extra arrays than its batch."""
    found = {name: (case.like[name], array.shape[0]) for name, array in case.arrays.items()}
    arrays, like = batch.get("arrays", {}), batch.get("like", {})
    expected = {name: (like[name], array.shape[1]) for name, array in arrays.items()}
    if found != expected:
        raise TrainingError(
            f"Case {case.name} has the extra arrays {_described(found)}, another case of its batch "
            f"{_described(expected)}. A preprocessor must return the same arrays, with the same "
            "number of channels, for every case."
        )


def one_sample(batch: Mapping[str, Any], index: int) -> dict[str, Any]:
    """Return one sample of a batch, with what augmentations see of it."""
    part = slice(index, index + 1)
    sample: dict[str, Any] = {key: batch[key][part] for key in _MAPS if key in batch}
    if "arrays" in batch:
        sample["arrays"] = {name: array[part] for name, array in batch["arrays"].items()}
        sample["like"] = batch["like"]
    return sample


def joined(
    samples: Sequence[Mapping[str, Any]],
    batch: Mapping[str, Any],
    augmentation: object,
    concatenate: Callable[[list[Any]], Any] = np.concatenate,
) -> dict[str, Any]:
    """Return the batch that augmented samples make up.

    Args:
        samples: With a batch axis of 1.
        batch: What they were before.
        augmentation: For messages.
        concatenate: Of arrays, or of tensors.

    Raises:
        TrainingError: The batch had extra arrays, and the augmentation left them out or as they
            were.
    """
    result: dict[str, Any] = {
        key: concatenate([sample[key] for sample in samples]) for key in ("images", "label")
    }
    if "arrays" in batch:
        patch = result["images"].shape[2:]
        for sample in samples:
            moved = sample.get("arrays", {})
            if any(name not in moved or moved[name].shape[2:] != patch for name in batch["arrays"]):
                raise cannot_move(augmentation, batch)
        result["arrays"] = {
            name: concatenate([sample["arrays"][name] for sample in samples])
            for name in batch["arrays"]
        }
        result["like"] = batch["like"]
    return {**result, "names": batch["names"], "seeds": batch["seeds"]}


def cannot_move(augmentation: object, batch: Mapping[str, Any]) -> TrainingError:
    """Return the error of an augmentation that does not know extra arrays."""
    return TrainingError(
        f"The augmentation {type(augmentation).__name__} cannot move the extra arrays of the "
        f"prepared cases ({', '.join(batch['arrays'])}) with the image. Use another one "
        "(--augmentation none leaves patches as they are), or a preprocessor without them."
    )


def _described(arrays: Mapping[str, tuple[str, int]]) -> str:
    parts = [
        f"{name} (like {like}, {channels} channels)" for name, (like, channels) in arrays.items()
    ]
    return ", ".join(parts) or "none"
