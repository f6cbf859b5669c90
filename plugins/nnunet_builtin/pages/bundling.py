"""The programs that pages draw with, from the npm registry into `bundles/`, with their licences.

    python -m nnunet_builtin.pages.bundling

A wheel holds them. This file needs Python alone: building a wheel runs it before anything else is
installed.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

ROOM = Path(__file__).resolve().parent
BUNDLES = ROOM / "bundles"
COMMAND = "python -m nnunet_builtin.pages.bundling"
PLOTLY, NIIVUE, LICENSES = "plotly.js", "niivue.js", "LICENSES.txt"
#: {file of ours: file of a package}
_FILES = {
    PLOTLY: "plotly.js-cartesian-dist-min/plotly-cartesian.min.js",
    NIIVUE: "@niivue/niivue/dist/niivue.umd.js",
}
_LOCK, _NPM_SECONDS = "package-lock.json", 300
#: Their packages hold no licence file; this is the one of their repositories.
_MISSING_LICENSES = {"@niivue/niivue": "niivue_license.txt"}


class BundlingError(Exception):
    """The bundles cannot be had."""


def are_current() -> bool:
    """Return whether the bundles are there, in the versions of the lock file."""
    wanted = [*_FILES, LICENSES]
    if not all((BUNDLES / name).is_file() for name in wanted):
        return False
    lock = BUNDLES / _LOCK
    return lock.is_file() and lock.read_bytes() == (ROOM / _LOCK).read_bytes()


def fetch() -> None:
    """Install the packages of the lock file, which names the digest of each, and keep what pages
    need of them; nothing is done where it is there.

    Raises:
        BundlingError: There is no npm, or it fails; the message says what to do.
    """
    if are_current():
        return
    npm = shutil.which("npm")
    if npm is None:
        raise BundlingError(
            "npm, which fetches the plot and volume viewer of report pages, is not installed. "
            f"Install Node.js 18 or newer (https://nodejs.org), then run: {COMMAND}"
        )
    with tempfile.TemporaryDirectory() as made:
        folder = Path(made)
        for name in ("package.json", _LOCK, ".npmrc"):
            shutil.copy(ROOM / name, folder)
        _run([npm, "ci", "--ignore-scripts", "--omit=optional", "--no-audit", "--no-fund"], folder)
        _keep(folder / "node_modules")


def _run(command: list[str], folder: Path) -> None:
    try:
        done = subprocess.run(
            command,
            cwd=folder,
            capture_output=True,
            text=True,
            timeout=_NPM_SECONDS,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise BundlingError(f"'npm ci' cannot be run: {error}") from error
    if done.returncode:
        said = "\n".join((done.stderr or done.stdout).splitlines()[-12:])
        raise BundlingError(
            f"'npm ci' failed, exit code {done.returncode}. It needs the npm registry (npm config "
            f"get registry). It said:\n{said}\nThen run again: {COMMAND}"
        )


def _keep(modules: Path) -> None:
    """Copy files and licences; the lock file, which says that all is there, comes last."""
    BUNDLES.mkdir(exist_ok=True)
    (BUNDLES / _LOCK).unlink(missing_ok=True)
    for name, source in _FILES.items():
        shutil.copy(modules / source, BUNDLES / name)
    (BUNDLES / LICENSES).write_text("\n\n".join(_licenses(modules)) + "\n", encoding="utf-8")
    shutil.copy(ROOM / _LOCK, BUNDLES / _LOCK)


def _licenses(modules: Path) -> list[str]:
    """Return name, version and licence text of every package that a bundle may hold parts of.

    Raises:
        BundlingError: A package has no licence text.
    """
    found = []
    for place, package in json.loads((ROOM / _LOCK).read_text())["packages"].items():
        name = place.rpartition("node_modules/")[2]
        if not name or package.get("optional"):
            continue
        own = [path for path in (modules / name).iterdir() if path.stem.lower() == "license"]
        if name in _MISSING_LICENSES:
            own = own or [ROOM / _MISSING_LICENSES[name]]
        if not own:
            raise BundlingError(f"The npm package {name} {package['version']} holds no licence.")
        text = own[0].read_text(encoding="utf-8").strip()
        found.append(f"{name} {package['version']} ({package['license']})\n\n{text}")
    return found


if __name__ == "__main__":
    try:
        fetch()
    except BundlingError as problem:
        sys.exit(f"error: {problem}")
    print(BUNDLES)  # noqa: T201 - a script
