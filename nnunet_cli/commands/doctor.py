"""`nnunet doctor`: what is installed, what computes, where files go, what is broken."""

from __future__ import annotations

import os
import platform
import shutil

import typer

from nnunet_cli import options as o
from nnunet_core.contracts.trainer import Runtime
from nnunet_core.registry.provenance import library_versions


def doctor(context: typer.Context, workspace: o.WorkspaceOption = None) -> None:
    """Show versions, devices, folders and problems of this installation; exit code 1 when a plugin
    is broken.
    """
    registry, space = o.registry_of(context), o.workspace_of(workspace)
    typer.echo(
        f"python     {platform.python_version()} on {platform.platform()}, {os.cpu_count()} cores"
    )
    for name, version in library_versions().items():
        typer.echo(f"{name:<10} {version}")
    typer.echo(f"device     {_device()}")
    for name in ("raw", "preprocessed", "results"):
        folder = getattr(space, name)
        existing = next(parent for parent in (folder, *folder.parents) if parent.exists())
        free = shutil.disk_usage(existing).free / 1e9
        state = "" if folder.exists() else "  (made on first writing)"
        writable = "" if os.access(existing, os.W_OK) else "  NOT WRITABLE"
        typer.echo(f"{name:<12} {folder}  {free:.1f} GB free{writable}{state}")
    broken = [info for info in registry.plugins() if info.status == "broken"]
    for info in registry.plugins():
        origin = f"{info.distribution} {info.version}" if info.distribution else info.module
        typer.echo(f"plugin     {info.name} ({origin}): {info.status} {info.error}".rstrip())
    if broken:
        raise typer.Exit(1)


def _device() -> str:
    from nnunet_builtin.computing.devices import resolve

    runtime = resolve(Runtime())
    precision = str(runtime.dtype).removeprefix("torch.")
    return f"{runtime.device}, {precision}, {runtime.threads} threads, {runtime.workers} loaders"
