"""Many installed distributions with plugins, as pip leaves them in one folder; some of them are
trouble.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path

DICE = "nnunet_builtin.losses.dice_ce:DiceCE"
_HOOKS = """
from nnunet_core import Component, Variant, hookimpl

@hookimpl
def nnunet_losses():
    return [{losses}]
"""
_OWN_CODE = "from nnunet_builtin.losses.dice_ce import DiceCE as Loss\n"


def put(
    folder: Path,
    name: str,
    hooks: str,
    *,
    plugin: str = "",
    version: str = "1.0",
    requires: Iterable[str] = (),
    modules: Mapping[str, str] | None = None,
) -> None:
    """Write a distribution with one plugin into a folder that is on the path.

    Args:
        folder: As site-packages.
        name: Of the distribution, and of its package.
        hooks: Code of its hook module, NAME/plugin.py.
        plugin: Name of the plugin; that of the distribution if empty.
        version: Of the distribution.
        requires: Its requirements.
        modules: {name: code} of further modules of the package.
    """
    package, info = folder / name, folder / f"{name}-{version}.dist-info"
    package.mkdir(parents=True)
    info.mkdir()
    files = {"__init__": "", "plugin": hooks, **(modules or {})}
    for module, code in files.items():
        (package / f"{module}.py").write_text(code)
    lines = ["Metadata-Version: 2.1", f"Name: {name}", f"Version: {version}"]
    lines += [f"Requires-Dist: {text}" for text in requires]
    (info / "METADATA").write_text("\n".join(lines) + "\n")
    (info / "RECORD").write_text("".join(f"{name}/{module}.py,,\n" for module in files))
    (info / "top_level.txt").write_text(f"{name}\n")
    entry = f"[nnunet_plugins]\n{plugin or name} = {name}.plugin\n"
    (info / "entry_points.txt").write_text(entry)


def losses(*records: str) -> str:
    """Return the code of a hook module that registers losses: arguments of Component."""
    return _HOOKS.format(losses=", ".join(f"Component({record})" for record in records))


def put_healthy(folder: Path, count: int, components: int = 5) -> None:
    """Write distributions healthy000, healthy001, ... with losses of their own code."""
    for number in range(count):
        name = f"healthy{number:03d}"
        records = [f"'loss{number}_{i}', '{name}.code:Loss'" for i in range(components)]
        put(folder, name, losses(*records), modules={"code": _OWN_CODE})


def put_troubled(folder: Path, sleep: float = 2.0, components: int = 5) -> None:
    """Write one distribution of every kind of trouble, each with so many losses.

    Args:
        folder: As site-packages.
        sleep: Seconds that the import of `sleepy` takes.
        components: Of each.
    """

    def records(name: str, *first: str) -> str:
        usual = [f"'{name}_{i}', '{DICE}'" for i in range(components - len(first))]
        return losses(*first, *usual)

    put(folder, "broken", "import no_such_module_anywhere\n" + records("broken"))
    put(folder, "sleepy", f"import time\ntime.sleep({sleep})\n" + records("sleepy"))
    hanging = {"code": "import time\ntime.sleep(1000)\n"}
    put(folder, "hanging", records("hanging", "'stuck', 'hanging.code:Loss'"), modules=hanging)
    dying = {"code": "import os\nos._exit(7)\n"}
    put(folder, "dying", records("dying", "'deadly', 'dying.code:Loss'"), modules=dying)
    for name in ("twin_a", "twin_b"):
        put(folder, name, records(name), plugin="twin")
    for name in ("rival_a", "rival_b"):
        put(folder, name, records(name, f"'rival', '{DICE}'"))
    put(folder, "shadow", records("shadow", f"'dice_ce', '{DICE}'"))
    misspelt = records("misspelt").replace("nnunet_losses", "nnunet_loses")
    put(folder, "misspelt", misspelt)
    needs = "requires=('no-such-distribution>=2',)"
    put(folder, "needy", records("needy", f"'wanting', '{DICE}', {needs}"))
    put(folder, "future", records("future", f"'later', '{DICE}', api=99"))
    put(folder, "clashing", records("clashing"), requires=["pluggy<1", "missing-thing"])
    put(folder, "content", records("content"), requires=["pluggy>=1", "dicom; extra == 'x'"])
