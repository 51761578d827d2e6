"""Paths of outputs that are never opened: links that lead elsewhere, pipes, sockets, devices, and
files far larger than recorded."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from toxtrail.pipeline import StageRun
from toxtrail.regular_files import irregular, link_target

SMALL = 64 << 20
"""Size in bytes below which a file is read regardless of its recorded size."""


def refused_places(
    root: Path, instances: Sequence[StageRun], sizes: Mapping[str, int] | None = None
) -> dict[str, str]:
    """Return path relative to the root -> why it is not opened.

    Args:
        sizes: output -> size in bytes in dvc.lock.

    A folder above the outputs may be a link: `data` may be on another disk. An output, or a file in
    one, may be a link to an object of DVC's cache only.
    """
    outs = {out for instance in instances for out in instance.outs}
    deps = {dep for instance in instances for dep in instance.deps(root)} - outs
    most = {out: max(SMALL, (sizes or {}).get(out, 1 << 62)) for out in outs}
    reasons = dict(item for out in sorted(outs) for item in _in_output(root, out, most[out]))
    for name in sorted(deps):
        if kind := irregular(root / name):
            reasons[name] = f"it is {kind}, not a file"
    return reasons


def refused_below(root: Path) -> dict[str, str]:
    """Return the same for a folder of untrusted content, where no links are permitted."""
    return {
        path.relative_to(root).as_posix(): reason
        for path in _walk(root)
        if (reason := _reason(path, links=True))
    }


def is_refused(name: str, refused: Mapping[str, str]) -> bool:
    """Return whether a path is one of these, is in one, or contains one."""
    return any(
        name == path or name.startswith(f"{path}/") or path.startswith(f"{name}/")
        for path in refused
    )


def _in_output(root: Path, name: str, most: int) -> Iterator[tuple[str, str]]:
    top = root / name
    if reason := _reason(top) or _too_large(top, most):
        yield name, reason
        return
    for path in _walk(top):
        if reason := _reason(path) or _too_large(path, most):
            yield path.relative_to(root).as_posix(), reason


def _walk(folder: Path) -> Iterator[Path]:
    """Yield everything below a folder; links are yielded and not followed."""
    for parent, folders, files in os.walk(folder):
        for name in sorted((*folders, *files)):
            yield Path(parent, name)


def _too_large(path: Path, most: int) -> str | None:
    """Return whether a file is far larger than recorded: a sparse file takes hours to read."""
    try:
        size = path.stat().st_size
    except OSError:
        return None
    return f"it has {size:,} bytes, more than dvc.lock records" if size > most else None


def _reason(path: Path, links: bool = False) -> str | None:
    target = str(path.readlink()) if links and path.is_symlink() else link_target(path)
    if target is not None:
        return f"it is a symbolic link to {target}, not a file of a stage"
    kind = irregular(path)
    return f"it is {kind}, not a file" if kind else None
