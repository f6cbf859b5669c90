"""Weights of another model that a training starts from."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict


class InitialWeights(BaseModel):
    """What a training starts from instead of random weights.

    Attributes:
        path: The file.
        digest: Of its content; a file of another content is another training, one at another place
            is not.
        frozen: Parts of the network (names of its children) that keep what is loaded.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    path: str
    digest: str
    frozen: tuple[str, ...] = ()

    def identity(self) -> list[object]:
        """Return what decides whether two trainings start alike."""
        return [self.digest, sorted(self.frozen)]
