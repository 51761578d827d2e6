"""Dependencies of a stage run, recorded at its start and compared before anything is published.

DVC reads parameters and hashes dependencies after a stage has ended. If they were edited during the
run, dvc.lock would record values that did not produce the outputs.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

import yaml

from toxtrail.errors import DataError
from toxtrail.pipeline import SOURCE, StageRun, expand_stages, value_at
from toxtrail.provenance.identity import canonical_json, sha256_file
from toxtrail.regular_files import name_in, read_text
from toxtrail.storage.atomic_writes import PREFIX

HASHED_BYTES = 64 << 20
"""Size above which a file is not hashed again; it counts as changed if its size, time or inode
is."""
SECTIONS = ("models", "finetunes", "variants", "families")


class FileState(NamedTuple):
    """State of a file at one time."""

    stat: tuple[int, ...]
    """Size, times and inode."""
    sha256: str | None
    """None if the file is too large."""


class Watched:
    """Parameters and dependencies of one stage run at the time of construction."""

    def __init__(self, root: Path, stage: str, key: str | None) -> None:
        self._root = root
        self._params_file = _state(root / "params.yaml")
        values = _values(root)
        self._instance = next(
            (run for run in _instances(values) if (run.stage.name, run.key) == (stage, key)), None
        )
        self._params = _flat(values, self._instance)
        self._files = {path: _state(path) for path in self._paths()}

    def refuse_changes(self) -> None:
        """Raise if parameters or files have changed since construction.

        Raises:
            DataError: names what changed; the result must not be published.
        """
        changed = [*self._changed_params(), *self._changed_files()]
        if changed:
            raise DataError(
                "\n  ".join(
                    [
                        "these changed while the stage ran, so nothing was published. Run again: "
                        "finished work that is still valid is kept.",
                        *changed,
                    ]
                )
            )

    def _changed_params(self) -> list[str]:
        path = self._root / "params.yaml"
        if self._instance is None or _same(path, self._params_file):
            return []
        now = _flat(_values(self._root), self._instance)
        was = self._params
        return [
            f"params.yaml: {name} was {was.get(name, 'not there')} and is "
            f"{now.get(name, 'not there')} now"
            for name in {**was, **now}
            if was.get(name) != now.get(name)
        ]

    def _changed_files(self) -> list[str]:
        paths = dict.fromkeys([*self._files, *self._paths()])
        return [
            f"{name_in(self._root, path)}: the file has changed since the stage started"
            for path in paths
            if not _same(path, self._files.get(path))
        ]

    def _paths(self) -> list[Path]:
        """Return every file that the stage depends on, including the source files that it runs."""
        if self._instance is None:
            return []
        deps = [self._root / dep for dep in self._instance.deps(self._root)]
        source = [SOURCE / entry for entry in self._instance.stage.code]
        return [file for path in dict.fromkeys([*deps, *source]) for file in _files_of(path)]


def _instances(values: Any) -> list[StageRun]:
    """Return the stage runs; none if params.yaml is invalid, which the stage itself reports."""
    with suppress(AttributeError, KeyError, TypeError):
        return expand_stages({name: values.get(name) or {} for name in SECTIONS})
    return []


def _values(root: Path) -> Any:
    try:
        return yaml.safe_load(read_text(root / "params.yaml"))
    except (DataError, OSError, UnicodeDecodeError, yaml.YAMLError):
        return {}


def _flat(values: Any, instance: StageRun | None) -> dict[str, str]:
    """Return name -> value of all parameters that the stage depends on."""
    flat: dict[str, str] = {}
    for key_path in instance.params if instance else ():
        flat |= _leaves(key_path, value_at(values, key_path))
    return flat


def _leaves(key_path: str, value: Any) -> dict[str, str]:
    if isinstance(value, Mapping) and value:
        return {
            k: v for name in value for k, v in _leaves(f"{key_path}.{name}", value[name]).items()
        }
    try:
        return {key_path: canonical_json(value)}
    except (TypeError, ValueError):
        return {key_path: repr(value)}


def _files_of(path: Path) -> list[Path]:
    if not path.is_dir():
        return [path]
    inside = (Path(folder) / name for folder, _, names in os.walk(path) for name in names)
    return sorted(file for file in inside if not _is_passing(file))


def _is_passing(file: Path) -> bool:
    """Return whether a file is compiled code, or a temporary file of another stage."""
    return any(part == "__pycache__" or part.startswith(PREFIX) for part in file.parts)


def _same(path: Path, was: FileState | None) -> bool:
    """Return whether a file is unchanged; a new time stamp alone is not a change."""
    if (stat := _stat(path)) is None or was is None:
        return stat is None and was is None
    if stat == was.stat:
        return True
    if was.sha256 is None:
        return stat[:3] == was.stat[:3]
    with suppress(OSError):
        return sha256_file(path) == was.sha256
    return False


def _state(path: Path) -> FileState | None:
    stat = _stat(path)
    if stat is None:
        return None
    with suppress(OSError):
        return FileState(stat, sha256_file(path) if stat[0] <= HASHED_BYTES else None)
    return None


def _stat(path: Path) -> tuple[int, ...] | None:
    with suppress(OSError):
        status = path.stat()
        return status.st_size, status.st_mtime_ns, status.st_ino, status.st_ctime_ns
    return None
