"""dvc.lock (schema 2.0): inputs and outputs of each stage. Parsed strictly.

DVC does not validate this file; an audit must.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from functools import lru_cache
from typing import Annotated, Any, Literal, NamedTuple

import yaml
from pydantic import AfterValidator, BaseModel, Field, ValidationError

from toxtrail.auditing.verify.dvc_lock_parser import split_entries
from toxtrail.config.yaml_text import by_yaml_12
from toxtrail.errors import DataError
from toxtrail.pipeline import PIPELINE
from toxtrail.regular_files import leads_out

SCHEMA = "2.0"
OWN_STAGES = frozenset(stage.name for stage in PIPELINE)
MD5 = re.compile(r"[0-9a-f]{32}(\.dir)?")

_BASE: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


class UniqueKeyLoader(_BASE):  # type: ignore[misc]
    """Loader of plain values as in DVC: `language: no` is the text that was quoted in params.yaml.

    A duplicate key is an error; PyYAML would silently keep the last.
    """

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        keys = [key.value for key, _ in node.value if isinstance(key, yaml.ScalarNode)]
        if len(set(keys)) < len(keys):
            twice = next(key for key in keys if keys.count(key) > 1)
            mark = node.start_mark
            raise yaml.constructor.ConstructorError(None, None, f"{twice!r} is a duplicate", mark)
        values: dict[Any, Any] = super().construct_mapping(node, deep)
        return values


by_yaml_12(UniqueKeyLoader)


def _inside(path: str) -> str:
    if leads_out(path):
        raise ValueError("it leads out of the experiment, and was not opened")
    return path


class Recorded(BaseModel, frozen=True, extra="forbid", strict=True):
    """File or folder in dvc.lock."""

    path: Annotated[str, AfterValidator(_inside)]
    hash: Literal["md5"]
    md5: Annotated[str, Field(pattern=f"^{MD5.pattern}$")]
    """MD5 of the content; for a folder, of the list of its files, with the suffix `.dir`."""
    size: int
    nfiles: int | None = None
    """Number of files of a folder."""
    isexec: bool = False


def _once(rows: list[Recorded] | None) -> list[Recorded] | None:
    if rows and len({row.path for row in rows}) < len(rows):
        raise ValueError("a path occurs twice")
    return rows


Rows = Annotated[list[Recorded] | None, AfterValidator(_once)]


class StoredEntry(BaseModel, extra="forbid", strict=True):
    """One stage run, as stored."""

    cmd: Any = None
    deps: Rows = None
    params: dict[Literal["params.yaml"], dict[str, Any] | None] | None = None
    outs: Rows = None


class LockEntry(NamedTuple):
    """Entry of one stage run."""

    name: str
    """`stage` or `stage@key`."""
    cmd: str
    deps: Mapping[str, Recorded]
    outs: Mapping[str, Recorded]
    params: Mapping[str, Any]
    """Key path in params.yaml -> value."""

    @property
    def stage(self) -> str:
        return self.name.partition("@")[0]

    @property
    def key(self) -> str | None:
        return self.name.partition("@")[2] or None


Lock = Mapping[str, LockEntry]
"""Stage name -> its entry, in the file's order."""


def parse_lock(text: str, name: str = "dvc.lock", by_entry: bool = False) -> Lock:
    """Parse every entry.

    Args:
        by_entry: parse entries separately, and equal ones once: faster for many versions of one
            file.

    Raises:
        DataError: invalid YAML, another schema, or a field that DVC does not write, with its
            position.
    """
    try:
        values = (by_entry and _load_by_entry(text)) or yaml.load(text, Loader=UniqueKeyLoader)
    except yaml.YAMLError as error:
        raise DataError(f"{name} is not valid YAML: {' '.join(str(error).split())}") from None
    if not isinstance(values, dict) or set(values) - {"schema", "stages"}:
        raise DataError(f"{name} is not as DVC writes it: top-level keys {_describe_keys(values)}.")
    if values.get("schema") != SCHEMA:
        raise DataError(f"{name} has schema {values.get('schema')!r}; this version reads {SCHEMA}.")
    stages = values.get("stages") or {}
    if not isinstance(stages, dict):
        raise DataError(f"{name}: stages is not a mapping.")
    return {str(stage): _parse_entry(name, str(stage), entry) for stage, entry in stages.items()}


def is_own(stage: str) -> bool:
    """Return whether an entry belongs to a stage of toxtrail, not to one that a user added."""
    return stage.partition("@")[0] in OWN_STAGES


def _load_by_entry(text: str) -> dict[str, Any] | None:
    """Parse a text that has DVC's layout; None for another layout."""
    entries = split_entries(text)
    if entries is None:
        return None
    stages: dict[str, Any] = {}
    for entry in entries:
        try:
            values = _load_entry(entry)
        except yaml.YAMLError:
            return None
        if not isinstance(values, dict) or len(values) != 1:
            return None
        stages |= values
    return {"schema": SCHEMA, "stages": stages}


@lru_cache(maxsize=8192)
def _load_entry(text: str) -> object:
    return yaml.load(text, Loader=UniqueKeyLoader)


def outputs(lock: Lock) -> Iterator[tuple[LockEntry, Recorded]]:
    """Yield every output with its stage."""
    for entry in lock.values():
        for out in entry.outs.values():
            yield entry, out


def _parse_entry(name: str, stage: str, entry: object) -> LockEntry:
    if not is_own(stage):
        return _parse_foreign_entry(stage, entry)
    try:
        stored = StoredEntry.model_validate(entry)
    except ValidationError as error:
        detail = error.errors(include_url=False)[0]
        location = ": ".join((name, stage, ".".join(map(str, detail["loc"])))).rstrip(": ")
        raise DataError(
            f"{location} is not as DVC writes it ({detail['msg']}): {detail['input']!r}."
        ) from None
    deps, outs = ({row.path: row for row in rows or ()} for rows in (stored.deps, stored.outs))
    params = (stored.params or {}).get("params.yaml") or {}
    return LockEntry(stage, str(stored.cmd), deps, outs, params)


def _parse_foreign_entry(stage: str, entry: object) -> LockEntry:
    """Parse an entry of a user's own stage, which may have fields that toxtrail's stages do not
    have."""
    values = entry if isinstance(entry, dict) else {}
    outs = [row for row in values.get("outs") or [] if isinstance(row, dict)]
    recorded = {
        path: Recorded.model_construct(path=path, hash="md5", md5=str(row.get("md5", "")), size=0)
        for row in outs
        if (path := str(row.get("path")))
    }
    return LockEntry(stage, str(values.get("cmd")), {}, recorded, {})


def _describe_keys(value: object) -> str:
    return ", ".join(map(str, value)) if isinstance(value, dict) else type(value).__name__
