"""What decides configurations from a dataset."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from nnunet_core.contracts.network import NetworkBuilder
    from nnunet_core.data.dataset import Dataset
    from nnunet_core.data.fingerprint import Fingerprint
    from nnunet_core.data.plans import Plans
    from nnunet_core.runtime.workers import Workers


class Planner(Protocol):
    """Decides configurations from a dataset's fingerprint. Deterministic: equal inputs give equal
    plans.
    """

    def fingerprint(
        self, dataset: Dataset, workers: Workers, progress: Callable[[str], None] | None = None
    ) -> Fingerprint:
        """Read every training case once and describe it; must not depend on settings.

        The result is kept, for every planner that has or inherits this method, until the file that
        defines it changes. Images are read in the processes of `workers`; `progress` is called with
        the name of each finished case.
        """
        ...

    def plan(self, dataset: Dataset, fingerprint: Fingerprint, network: NetworkBuilder) -> Plans:
        """Return the plans; the network builder is asked for the memory and the divisor of
        candidate architectures.
        """
        ...
