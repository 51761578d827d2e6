"""Outdated stage runs and the reasons: the answer of `dvc status`, without DVC.

`dvc status` takes minutes of CPU for hundreds of variants, holds DVC's lock during that time, so
that a running stage cannot be saved, and needs write access. This module locks nothing, and writes
only a cache of hashes, if permitted. By DVC's rules a file with unchanged size, time and inode is
unchanged; `toxtrail verify` does not rely on them.
"""

from __future__ import annotations

import json
import os
import stat
import time
from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

from toxtrail.auditing.verify.dvc_lock_parser import LockEntry, as_dvc_reads, read_entries
from toxtrail.auditing.verify.dvc_templates import Declared, at, declared_runs
from toxtrail.auditing.verify.hash_cache import dir_md5, hash_file
from toxtrail.backends.dvc import cache_folder
from toxtrail.errors import DataError
from toxtrail.regular_files import read_text

Why = list[Any]
"""Reason in the format of `dvc status --json`: {"changed deps": {path: state}}, {"changed outs":
...}, words."""
NEVER_RUN = LockEntry(None, {}, {}, None)
CACHE_MODE = 0o444
"""Mode of a cache object that DVC has checked."""
FRESH_S = 2.0
"""A file written later than this before it was hashed may be written again within one tick of the
file system's clock, so its hash is not cached."""


class Staleness(NamedTuple):
    """Stages that `toxtrail run` would run."""

    stages: dict[str, Why]
    """Stage runs that are outdated themselves."""
    others: list[str]
    """Stages of dvc.yaml that only DVC supports: use `dvc status NAME`."""


def staleness(root: Path) -> Staleness:
    """Determine the staleness of every stage run of an experiment.

    Raises:
        DataError: dvc.yaml, dvc.lock or params.yaml cannot be read.
    """
    params = as_dvc_reads(_read_required(root / "params.yaml"), "params.yaml")
    runs, others = declared_runs(
        as_dvc_reads(_read_required(root / "dvc.yaml"), "dvc.yaml"), params
    )
    lock_text = _read_required(root / "dvc.lock", missing="")
    recorded = read_entries(lock_text) if lock_text.strip() else {}
    files = Files(root)
    reasons: dict[str, Why] = {}
    for run in runs:
        if why := _reasons(run, recorded.get(run.name, NEVER_RUN), params, files):
            reasons[run.name] = why
    files.keep()
    return Staleness(reasons, others)


def _reasons(run: Declared, entry: LockEntry, params: Any, files: Files) -> Why:
    why: Why = []
    if not run.frozen:
        deps: dict[str, Any] = {}
        for path in run.deps:
            if state := files.state(path, entry.deps.get(path)):
                deps[path] = state
        if values := _changed_params(run, entry, params):
            deps["params.yaml"] = values
        if deps:
            why.append({"changed deps": deps})
    outs = {path: _out_state(path, cached, entry, files) for path, cached in run.outs.items()}
    if outs := {path: state for path, state in outs.items() if state}:
        why.append({"changed outs": outs})
    if entry is not NEVER_RUN and entry.cmd != run.cmd:
        why.append("changed command")
    return why


def _changed_params(run: Declared, entry: LockEntry, params: Any) -> dict[str, str] | str:
    if not run.params:
        return {}
    if entry.params is None:
        return "new"
    changed = {}
    for key_path in run.params:
        exists, value = at(params, key_path)
        if not exists:
            changed[key_path] = "deleted"
        elif key_path not in entry.params:
            changed[key_path] = "new"
        elif value != entry.params[key_path]:
            changed[key_path] = "modified"
    return changed


def _out_state(path: str, cached: bool, entry: LockEntry, files: Files) -> str | None:
    md5 = entry.outs.get(path)
    if cached and md5 is not None and not files.in_cache(md5):
        return "not in cache"
    return files.state(path, md5)


class Files:
    """Files of an experiment and of DVC's cache, hashed at most once."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self._cache = cache_folder(root) / "files" / "md5"
        self._ignored = _ignore_matcher(root)
        self._memory = root / ".toxtrail" / "hashes.json"
        self._remembered: dict[str, list[Any]] = _read_memory(self._memory)
        self._new: dict[str, list[Any]] = {}
        self._states: dict[tuple[str, str | None], str | None] = {}
        self._objects: dict[str, bool] = {}

    def state(self, path: str, md5: str | None) -> str | None:
        """Return None if the file or folder is as recorded, else `deleted` or `modified`."""
        if (path, md5) not in self._states:
            self._states[path, md5] = self._state(path, md5)
        return self._states[path, md5]

    def in_cache(self, md5: str) -> bool:
        """Return whether DVC's cache has the object, and for a folder all of its files."""
        if md5 not in self._objects:
            self._objects[md5] = self._has_object(md5)
        return self._objects[md5]

    def keep(self) -> None:
        """Write the hashes to the cache, if permitted."""
        if self._new == self._remembered:
            return
        with suppress(OSError):
            draft = self._memory.with_suffix(f".{os.getpid()}")
            draft.write_text(json.dumps(self._new), encoding="utf-8")
            draft.replace(self._memory)

    def _state(self, path: str, md5: str | None) -> str | None:
        target = self._root / path
        if not target.exists() or self._ignored(path):
            return "deleted"
        return None if self._md5(target) == md5 else "modified"

    def _md5(self, path: Path) -> str:
        if not path.is_dir():
            return self._hash(path)
        return dir_md5({file.relative_to(path).as_posix(): self._hash(file)
                        for file in self._files_of(path)})  # fmt: skip

    def _files_of(self, folder: Path) -> Iterator[Path]:
        for parent, folders, names in os.walk(folder):
            inside = Path(parent).relative_to(self._root).as_posix()
            folders[:] = [name for name in folders if not self._ignored(f"{inside}/{name}/")]
            yield from (Path(parent, n) for n in names if not self._ignored(f"{inside}/{n}"))

    def _hash(self, path: Path) -> str:
        name = str(path.relative_to(self._root) if path.is_relative_to(self._root) else path)
        status = path.stat()
        if not stat.S_ISREG(status.st_mode):
            raise DataError(f"{name} is neither a file nor a folder. Delete it, and run again.")
        mark = [status.st_size, status.st_mtime_ns, status.st_ino]
        remembered = self._remembered.get(name)
        if remembered is None or remembered[:-1] != mark:
            remembered = [*mark, hash_file(path).md5]
        if time.time() - status.st_mtime > FRESH_S:
            self._new[name] = remembered
        md5: str = remembered[-1]
        return md5

    def _has_object(self, md5: str) -> bool:
        path = self._cache / md5[:2] / md5[2:]
        try:
            mode = stat.S_IMODE(path.stat().st_mode)
        except OSError:
            return False
        if mode != CACHE_MODE and self._hash(path) != md5.removesuffix(".dir"):
            return False
        if not md5.endswith(".dir"):
            return True
        try:
            rows = json.loads(read_text(path))
            return all(self.in_cache(row["md5"]) for row in rows)
        except (ValueError, TypeError, KeyError):
            return False


def _ignore_matcher(root: Path) -> Any:
    """Return a function that tells whether .dvcignore excludes a path."""
    from pathspec import GitIgnoreSpec

    lines = [".hg/", ".git/", ".git", ".dvc/"]  # DVC's own
    with suppress(OSError):
        lines += read_text(root / ".dvcignore").splitlines()
    return GitIgnoreSpec.from_lines(lines).match_file


def _read_memory(path: Path) -> dict[str, list[Any]]:
    with suppress(DataError, OSError, ValueError):
        values = json.loads(read_text(path))
        if isinstance(values, Mapping) and all(
            isinstance(v, list) and len(v) == 4 for v in values.values()
        ):
            return dict(values)
    return {}


def _read_required(path: Path, missing: str | None = None) -> str:
    try:
        return read_text(path)
    except FileNotFoundError:
        if missing is not None:
            return missing
        raise DataError(f"{path} does not exist. Is this folder an experiment?") from None
    except UnicodeDecodeError as error:
        raise DataError(f"{path} is not UTF-8 text ({error}).") from None
