"""The wheel holds exactly the three packages, and declares its command and its plugin."""

import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent.parent


IGNORED = (".git", ".venv", "*.egg-info", "build", "dist", "nnunet_workspace", ".*_cache")
PAGES = "nnunet_builtin/pages"


@pytest.mark.slow
def test_wheel_contents(tmp_path):
    source = tmp_path / "source"
    shutil.copytree(ROOT, source, ignore=shutil.ignore_patterns(*IGNORED))
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
    # what report pages draw with, and its licences
    for name in ("bundles/plotly.js", "bundles/niivue.js", "bundles/LICENSES.txt"):
        assert f"{PAGES}/{name}" in names
    for name in ("templates/page.html.jinja", "templates/page.js", "package-lock.json", ".npmrc"):
        assert f"{PAGES}/{name}" in names
    assert "nnunet = nnunet_cli.main:main" in entries
    assert "builtin = nnunet_builtin.plugin" in entries


@pytest.mark.slow
def test_without_npm_no_wheel_is_made_and_the_reason_is_told(tmp_path):
    source = tmp_path / "source"
    shutil.copytree(ROOT, source, ignore=shutil.ignore_patterns(*IGNORED, "bundles", "tests"))
    command = [sys.executable, "setup.py", "--quiet", "build_py", "--build-lib", str(tmp_path)]
    done = subprocess.run(
        command, cwd=source, env={"PATH": ""}, capture_output=True, text=True, check=False
    )
    assert done.returncode != 0
    assert "the wheel would lack what report pages draw with" in done.stderr
    assert "Install Node.js" in done.stderr
    assert not (tmp_path / "nnunet_builtin").exists()
