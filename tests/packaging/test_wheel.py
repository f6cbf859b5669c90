"""The wheel holds exactly the three packages, and declares its command and its plugin."""

import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent.parent


@pytest.mark.slow
def test_wheel_contents(tmp_path):
    source = tmp_path / "source"
    ignored = shutil.ignore_patterns(
        ".git", ".venv", "*.egg-info", "build", "dist", "nnunet_workspace", ".*_cache"
    )
    shutil.copytree(ROOT, source, ignore=ignored)
    command = [
        sys.executable,
        "-m",
        "pip",
        "wheel",
        "--quiet",
        "--no-deps",
        "--no-build-isolation",
        "-w",
        str(tmp_path),
        str(source),
    ]
    subprocess.run(command, check=True)
    (wheel,) = tmp_path.glob("nnunet_core-*.whl")
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
        entries = archive.read(next(n for n in names if n.endswith("entry_points.txt"))).decode()
    tops = {name.partition("/")[0] for name in names if ".dist-info" not in name}
    assert tops == {"nnunet_core", "nnunet_cli", "nnunet_builtin"}
    assert "nnunet = nnunet_cli.main:main" in entries
    assert "builtin = nnunet_builtin.plugin" in entries
