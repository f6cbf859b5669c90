"""TensorBoard: event files in the folder `tensorboard` of the fold."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from nnunet_builtin.observers.observer import Observer, facts

if TYPE_CHECKING:
    from pathlib import Path

    from nnunet_core.registry.records import FoldRecord

FOLDER = "tensorboard"


class TensorBoardLog:
    """Event files of one fold; those of a training that went on lie side by side, and are shown as
    one.

    Args:
        library: `torch.utils.tensorboard`.
        record: What is trained.
        folder: Of the fold.
    """

    def __init__(self, library: Any, record: FoldRecord, folder: Path) -> None:
        self.library = library
        self.record = record
        self.folder = folder
        self._writer: Any = None
        self._epoch = 0

    def write(self, values: Mapping[str, float], epoch: int) -> None:
        """Add a point to each curve; points that a killed training left at this epoch or later are
        hidden.
        """
        writer, self._epoch = self._opened(epoch), epoch
        for name, value in values.items():
            writer.add_scalar(name, value, epoch)
        writer.flush()

    def finish(self, values: Mapping[str, float]) -> None:
        """Write the validation scores at the last epoch."""
        writer = self._opened(None)
        for name, value in values.items():
            writer.add_scalar(name, value, self._epoch)
        writer.close()

    def _opened(self, epoch: int | None) -> Any:
        if self._writer is None:
            self._writer = self.library.SummaryWriter(str(self.folder / FOLDER), purge_step=epoch)
            self._writer.add_text(
                "run", f"```json\n{json.dumps(facts(self.record), indent=1)}\n```", epoch or 0
            )
        return self._writer


plugin = Observer(
    "tensorboard", "torch.utils.tensorboard", TensorBoardLog, install="nnunet-core[tensorboard]"
)
