"""A report for tests that keeps what is said."""

from nnunet_core.runtime.reporting import Silence


class Listener(Silence):
    """Keeps what a run says."""

    def __init__(self) -> None:
        self.messages: list[str] = []
        self.warnings: list[str] = []

    def message(self, text: str) -> None:
        self.messages.append(text)

    def warning(self, text: str) -> None:
        self.warnings.append(text)
