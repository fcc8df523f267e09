"""``fssbench doctor``."""

from __future__ import annotations

import importlib
import importlib.metadata
import os
import platform
import shutil
from pathlib import Path

import click

import fssbench
from fssbench import registry
from fssbench.cli.options import plugin_option

_GOOD, _BAD, _NOTE = "ok", "PROBLEM", "note"


@click.command()
@plugin_option
def doctor() -> int:
    """Say what of this installation works, and what to do about the rest.

    Exit code 1 when something is wrong.
    """
    findings = [
        (_GOOD, f"fssbench {fssbench.__version__}, Python {platform.python_version()}"),
        _torch(),
        _timm(),
        _mamba(),
        _cache(),
        *_plugins(),
    ]
    for kind, text in findings:
        click.echo(f"{kind:>7}  {text}")
    return 1 if any(kind == _BAD for kind, _ in findings) else 0


def _torch() -> tuple[str, str]:
    try:
        import torch
    except Exception as error:
        return _BAD, f"torch cannot be imported ({error}): pip install --force-reinstall torch"
    if torch.cuda.is_available():
        where = f"{torch.cuda.device_count()} GPU, {torch.cuda.get_device_name(0)}"
    else:
        where = f"no GPU; {torch.get_num_threads()} CPU threads"
    return _GOOD, f"torch {torch.__version__}, {where}"


def _timm() -> tuple[str, str]:
    try:
        timm = importlib.import_module("timm")
    except Exception as error:
        reason = " ".join(str(error).split())
        versions = ", ".join(
            f"{name} {version}" for name in ("torch", "torchvision") if (version := _version(name))
        )
        return _BAD, (
            f"timm cannot be imported ({reason}) beside {versions}. torchvision must be built for "
            "the very torch that is installed: a CPU-only torch beside a CUDA torchvision fails "
            "like this. Install both anew, together: pip install --upgrade --force-reinstall "
            "torch torchvision"
        )
    return _GOOD, f"timm {timm.__version__}, torchvision {_version('torchvision')}"


def _mamba() -> tuple[str, str]:
    try:
        from fssbench.nn import scan_in_use

        found = scan_in_use()
    except Exception as error:  # without a torch there is no scan; that is said above
        return _NOTE, f"selective scan: not to be had ({' '.join(str(error).split())})"
    if _version("mamba-ssm") is None:
        return _NOTE, f"{found}; its kernel is optional, for GPUs: pip install fssbench[mamba]"
    return (_GOOD if "the kernel of" in found else _NOTE), found


def _cache() -> tuple[str, str]:
    from fssbench.data.cache import cache_folder

    folder = cache_folder()
    existing = next(path for path in (folder, *folder.parents) if path.exists())
    free = shutil.disk_usage(existing).free / 2**30
    if not os.access(existing, os.W_OK):
        return _NOTE, (
            f"cache folder {_home(folder)} cannot be written: indexes are built at every start; "
            "set FSSBENCH_CACHE to a folder of yours"
        )
    return _GOOD, f"cache folder {_home(folder)}, {free:.0f} GiB free"


def _plugins() -> list[tuple[str, str]]:
    infos = registry.registry().plugins.infos
    third = [info for info in infos if info.source != "built-in" and not info.error]
    found = [(_GOOD, f"{len(infos)} plugins, {len(third)} of them not built in")]
    for info in infos:
        if info.error:
            found.append((_BAD, f"plugin {info.name} ({info.source}) is broken: {info.error}"))
    return found


def _version(name: str) -> str | None:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None


def _home(path: Path) -> str:
    home = Path.home()
    return f"~/{path.relative_to(home)}" if path.is_relative_to(home) else str(path)
