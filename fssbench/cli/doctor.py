"""``fssbench doctor``."""

from __future__ import annotations

import importlib
import importlib.metadata
import os
import platform
import shutil

import click

import fssbench
from fssbench import registry

_GOOD, _BAD, _NOTE = "ok", "PROBLEM", "note"


@click.command()
def doctor() -> int:
    """Check this installation and describe how to fix problems.

    Exit code 1 if there are problems.
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
        device = f"{torch.cuda.device_count()} GPU, {torch.cuda.get_device_name(0)}"
    else:
        from fssbench.runtime.device import emulates_bf16

        slow = ", bf16 emulated and slow" if emulates_bf16() else ""
        device = f"no GPU; {torch.get_num_threads()} CPU threads{slow}"
    return _GOOD, f"torch {torch.__version__}, {device}"


def _timm() -> tuple[str, str]:
    try:
        timm = importlib.import_module("timm")
    except Exception as error:
        versions = f"torch {_version('torch')}, torchvision {_version('torchvision')}"
        return _BAD, (
            f"timm cannot be imported ({' '.join(str(error).split())}) beside {versions}. "
            "torchvision must be built for the installed torch: a CPU-only torch beside a CUDA "
            "torchvision fails like this. Reinstall both together: pip install --upgrade "
            "--force-reinstall torch torchvision"
        )
    return _GOOD, f"timm {timm.__version__}, torchvision {_version('torchvision')}"


def _mamba() -> tuple[str, str]:
    try:
        from fssbench.nn import scan_in_use

        found = scan_in_use()
    except Exception as error:  # no torch; `_torch` reports it
        return _NOTE, f"selective scan: not available ({' '.join(str(error).split())})"
    if "the kernel of" in found or "no GPU" in found:
        return (_GOOD if "the kernel of" in found else _NOTE), found
    # Without this option pip builds mamba-ssm in an environment that lacks the torch it imports.
    how = "pip install --no-build-isolation mamba-ssm, after torch"
    return _NOTE, f"{found}; the kernel is optional and needs a GPU: {how}"


def _cache() -> tuple[str, str]:
    from fssbench.data.cache import cache_folder

    folder = cache_folder()
    existing = next(path for path in (folder, *folder.parents) if path.exists())
    home = os.path.expanduser("~")  # "~" for a user without a home folder
    shown = f"~/{folder.relative_to(home)}" if folder.is_relative_to(home) else str(folder)
    if not os.access(existing, os.W_OK):
        return _NOTE, (
            f"cache folder {shown} cannot be written: indexes are built at every start; set "
            "FSSBENCH_CACHE to a writable folder"
        )
    return _GOOD, f"cache folder {shown}, {shutil.disk_usage(existing).free / 2**30:.0f} GiB free"


def _plugins() -> list[tuple[str, str]]:
    infos = registry.registry().plugins.infos
    third = [info for info in infos if info.source != "built-in" and not info.error]
    broken = [f"plugin {i.name} ({i.source}) is broken: {i.error}" for i in infos if i.error]
    count = f"{len(infos)} plugins, {len(third)} of them not built in"
    return [(_GOOD, count), *((_BAD, text) for text in broken)]


def _version(name: str) -> str | None:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None
