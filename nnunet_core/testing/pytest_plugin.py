"""The plugin for pytest: fixtures for tests of plugins. Importing it imports nothing heavy."""

from __future__ import annotations

import importlib
import os
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from nnunet_core.registry.discovery import Registry
    from nnunet_core.testing.toys import Toys

_METADATA = "Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n"


@pytest.fixture(scope="session")
def toy_datasets() -> Toys:
    """Small datasets by name (`toys.NAMES`): `toy_datasets.folder("3d")` is one to run; made once.

    Do not change what lies in these folders.
    """
    from nnunet_core.testing.toys import shared_toys

    return shared_toys()


@pytest.fixture
def blocked_discovery(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody's plugins but our own and those of `tmp_plugin` are loaded, in this process and in
    those that it starts.
    """
    # a list of allowed plugins may not be empty; no plugin can have this name
    monkeypatch.setenv("NNUNET_PLUGINS", "-")
    monkeypatch.delenv("NNUNET_DISABLE_PLUGINS", raising=False)


@pytest.fixture
def tmp_plugin(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Callable[..., Registry]]:
    """Make plugins active for one test, in this process and in those that it starts: call it as
    `TmpPlugins.__call__` says.
    """
    installer = TmpPlugins(tmp_path / "tmp_plugins", monkeypatch)
    yield installer
    installer.forget()


class TmpPlugins:
    """Installs plugins into a folder on the path, as pip would, until `forget`.

    Args:
        folder: For the packages.
        monkeypatch: Sets path and environment, and takes that back.
    """

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.folder, self.monkeypatch = folder, monkeypatch
        self.modules: set[str] = set()

    def __call__(
        self,
        plugin: str,
        files: Mapping[str, str] | None = None,
        *,
        name: str | None = None,
        version: str = "0.0.1",
    ) -> Registry:
        """Make a plugin active; return a registry that has it.

        Args:
            plugin: What its entry point names: `mypkg.plugin`, a module that can be imported.
            files: {path: code} to write before, where the module does not exist yet:
                `{"mypkg/__init__.py": "", "mypkg/plugin.py": ...}`.
            name: Of plugin and distribution; None is the top-level name of the module.
            version: Of the distribution.
        """
        from nnunet_core.registry.discovery import Registry

        top = plugin.partition(":")[0].partition(".")[0]
        name = name or top
        for path, code in (files or {}).items():
            self._write(self.folder / path, code)
            self.modules.add(Path(path).parts[0].removesuffix(".py"))
        record = self.folder / f"{name.replace('-', '_')}-{version}.dist-info"
        self._write(record / "METADATA", _METADATA.format(name=name, version=version))
        self._write(record / "entry_points.txt", f"[nnunet_plugins]\n{name} = {plugin}\n")
        self._write(record / "top_level.txt", f"{top}\n")
        self._allow(name)
        self._onto_path()
        return Registry.discover()

    def forget(self) -> None:
        """Forget the modules that were written."""
        for name in [n for n in sys.modules if n.partition(".")[0] in self.modules]:
            del sys.modules[name]
        importlib.invalidate_caches()

    def _write(self, path: Path, text: str) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")

    def _allow(self, name: str) -> None:
        if allowed := os.environ.get("NNUNET_PLUGINS"):
            self.monkeypatch.setenv("NNUNET_PLUGINS", f"{allowed},{name}")

    def _onto_path(self) -> None:
        if str(self.folder) not in sys.path:
            self.monkeypatch.syspath_prepend(str(self.folder))
            self.monkeypatch.setenv("PYTHONPATH", str(self.folder), prepend=os.pathsep)
        importlib.invalidate_caches()
