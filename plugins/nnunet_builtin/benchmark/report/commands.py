"""`nnunet benchmark report`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from nnunet_builtin.benchmark.opening import Opened, opened
from nnunet_builtin.benchmark.records import log_tail
from nnunet_builtin.benchmark.report.cases import WORST, case_section, choose
from nnunet_builtin.benchmark.report.content import Content
from nnunet_builtin.benchmark.report.page import MOST_BYTES, report_page
from nnunet_cli import options as o
from nnunet_cli.reporter import make_reporter, out
