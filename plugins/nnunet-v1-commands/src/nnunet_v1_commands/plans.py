"""The plans of a task, which the number of GPUs and the list of configurations depend on."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from nnunet_core.data.plans import Plans


def plans_of(task: str, words: Sequence[str]) -> Plans:
    """Return the plans that options make, see `plans_file_of`."""
    return Plans.read(plans_file_of(task, words))


def plans_file_of(task: str, words: Sequence[str]) -> Path:
    """Return the file of the plans that options make; they are made if they are not there.

    Args:
        task: Name.
        words: --variant, --planner, --network and --set.
    """
    from nnunet_cli.options import parse_assignments
    from nnunet_cli.reporter import make_reporter
    from nnunet_core.registry.discovery import Registry
    from nnunet_core.run import Request, opened
    from nnunet_v1_commands.running import workspace

    pairs = list(zip(words[::2], words[1::2], strict=True))
    settings = parse_assignments([value for flag, value in pairs if flag == "--set"])
    chosen = {flag.removeprefix("--"): value for flag, value in pairs if flag != "--set"}
    variant = chosen.pop("variant", "default")
    request = Request(task, variant, chosen, settings)
    report = make_reporter(quiet=True)
    with opened(request, Registry.discover(), workspace(), report) as steps:
        return steps.plans[1]
