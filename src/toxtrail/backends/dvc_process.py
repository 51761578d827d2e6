"""Run DVC's command line in this process, with five changes for `toxtrail run`:

- it waits for its locks: a concurrent `dvc status` does not fail a finished stage;
- dvc.lock is replaced, not overwritten: a kill leaves the old one or the new one;
- a stage whose parameters or dependencies changed while its command ran is not recorded: dvc.lock
  would record values that did not produce the outputs;
- a list of file locks that a kill left damaged is deleted: DVC would never run again;
- a text in YAML is parsed once: DVC parses params.yaml and dvc.lock several times for each stage.
  It reads dvc.lock without the parser that keeps comments, because DVC writes none and that parser
  changes the last digit of some numbers.

The patched names are DVC's internals; `tests/backends/test_dvc_process.py` fails when an upgrade
moves them.
"""

from __future__ import annotations

import io
import json
import logging
import os
import pickle
import re
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

from toxtrail.console import has_escapes
from toxtrail.regular_files import read_text
from toxtrail.storage import atomic_writes

POLL_S = 0.5
KEPT_TEXTS = 32
"""Parsed texts that are kept."""


def run_dvc(arguments: Sequence[str], tell: Callable[[str], None]) -> int:
    """Run DVC's command line; return its exit code. While another DVC command uses a file that this
    one needs, wait, tell the user, and start again."""
    from dvc.cli import main as dvc

    if not has_escapes(sys.stderr):
        logging.getLogger("dvc.progress").setLevel(logging.CRITICAL)  # no bars
    blockers: set[int] = set()
    _patch_dvc(blockers)
    code = int(dvc(list(arguments)))
    while code != 0 and blockers:
        tell(
            "Another DVC command is using files that this one needs (process "
            f"{', '.join(map(str, sorted(blockers)))}). Waiting for it to finish."
        )
        _wait_for(blockers)
        blockers.clear()
        code = int(dvc(list(arguments)))
    return code


def heal_file_locks(folder: Path) -> bool:
    """Delete DVC's list of locked files if it cannot be read; return whether it was deleted.

    Args:
        folder: .dvc/tmp.
    """
    import zc.lockfile  # type: ignore[import-untyped]

    path = folder / "rwlock"
    if file_locks(path) is not None:
        return False
    try:
        guard = zc.lockfile.LockFile(str(folder / "rwlock.lock"))
    except zc.lockfile.LockError:
        return False  # a DVC command is writing it
    try:
        if file_locks(path) is not None:
            return False
        path.unlink(missing_ok=True)
    finally:
        guard.close()
    return True


def file_locks(path: Path) -> dict[str, Any] | None:
    """Read DVC's list of locked files: {"read": ..., "write": ...}; None if it is damaged."""
    try:
        locks = json.loads(read_text(path))
    except FileNotFoundError:
        return {}
    except ValueError:
        return None
    return locks if isinstance(locks, dict) else None


def write_atomically(path: Path, text: str) -> None:
    """Replace a file's content atomically, following links and keeping its mode."""
    target = Path(os.path.realpath(path))
    with atomic_writes.file(target) as draft:
        draft.write_text(text, encoding="utf-8", newline="")
        with suppress(OSError):  # none yet, or another user's
            draft.chmod(target.stat().st_mode & 0o7777)


def _patch_dvc(blockers: set[int]) -> None:
    import dvc.rwlock
    from dvc import dvcfile
    from dvc.lock import make_lock
    from dvc.stage import Stage, run
    from dvc.utils import strictyaml
    from dvc.utils.serialize import _common, _yaml

    dvc.rwlock.make_lock = partial(make_lock, wait=True)
    dvc.rwlock._check_blockers = partial(_record_blockers, dvc.rwlock._check_blockers, blockers)
    parsed: dict[str, bytes] = {}
    _common._dump_data = _yaml._dump_data = partial(_dump, _common._dump_data, parsed)
    parse = partial(_parse, _yaml.parse_yaml, parsed)
    _yaml.parse_yaml = strictyaml.parse_yaml = parse
    _yaml.parse_yaml_for_update = partial(_parse_for_update, _yaml.parse_yaml_for_update, parse)
    assert dvcfile.modify_yaml is _yaml.modify_yaml
    started: dict[str, dict[str, Any]] = {}
    run.cmd_run = partial(_cmd_run, run.cmd_run, started)
    original_save_deps = Stage.save_deps

    def save_deps(stage: Any, allow_missing: bool = False) -> None:
        original_save_deps(stage, allow_missing)
        _refuse_changed(stage, started.pop(stage.addressing, None))

    Stage.save_deps = save_deps


def _dump(
    original: Callable[..., None],
    parsed: dict[str, bytes],
    path: Any,
    data: Any,
    dumper: Any,
    fs: Any = None,
    **kwargs: Any,
) -> None:
    """Replace `dvc.utils.serialize._dump_data`; write dvc.lock atomically."""
    if Path(path).name != "dvc.lock" or (fs is not None and fs.protocol != "local"):
        original(path, data, dumper, fs, **kwargs)
        return
    text = io.StringIO()
    dumper(data, text, **kwargs)
    write_atomically(Path(path), text.getvalue())
    _keep(parsed, text.getvalue(), data)


def _parse(
    original: Callable[..., Any], parsed: dict[str, bytes], text: str, path: Any, typ: str = "safe"
) -> Any:
    """Replace `dvc.utils.serialize.parse_yaml`; return a new copy of what is known."""
    if typ != "safe":
        return original(text, path, typ)
    if text not in parsed:
        _keep(parsed, text, original(text, path))
    return pickle.loads(parsed[text])  # this process wrote it


def _keep(parsed: dict[str, bytes], text: str, data: Any) -> None:
    if len(parsed) == KEPT_TEXTS:
        del parsed[next(iter(parsed))]
    parsed[text] = pickle.dumps(data)


def _parse_for_update(
    original: Callable[[str, Any], Any], parse: Callable[[str, Any], Any], text: str, path: Any
) -> Any:
    """Replace `dvc.utils.serialize.parse_yaml_for_update`."""
    return (parse if Path(path).name == "dvc.lock" else original)(text, path)


def _cmd_run(
    original: Callable[..., None],
    started: dict[str, dict[str, Any]],
    stage: Any,
    *args: Any,
    **kwargs: Any,
) -> None:
    """Record the stage's dependencies at its start, then call `dvc.stage.run.cmd_run`."""
    started[stage.addressing] = _dependencies(stage)
    original(stage, *args, **kwargs)


def _dependencies(stage: Any) -> dict[str, Any]:
    """Map each path to its hash, and each parameter to its value, as DVC last saved them."""
    hashes: dict[str, Any] = {}
    for dep in stage.deps:
        value = dep.hash_info.value
        if isinstance(value, dict):
            hashes |= {f"{dep.def_path}: {name}": json.dumps(v, sort_keys=True, default=str)
                      for name, v in value.items()}  # fmt: skip
        else:
            hashes[dep.def_path] = value
    return hashes


def _refuse_changed(stage: Any, before: dict[str, Any] | None) -> None:
    from dvc.exceptions import DvcException

    if before is None:
        return
    now = _dependencies(stage)
    if changed := [name for name in {**before, **now} if before.get(name) != now.get(name)]:
        raise DvcException(
            f"{', '.join(changed)} changed while {stage.addressing} ran, so its result is not "
            "recorded. Run again: finished rows that are still valid are kept."
        )


def _record_blockers(
    original: Callable[..., None], blockers: set[int], *args: Any, **kwargs: Any
) -> None:
    """Call `dvc.rwlock._check_blockers`, and record the processes that it names."""
    from dvc.lock import LockError

    try:
        original(*args, **kwargs)
    except LockError as error:
        blockers |= set(_process_ids(str(error)))
        raise


def _process_ids(message: str) -> Iterator[int]:
    yield from (int(pid) for pid in re.findall(r"\(PID (\d+)\)", message))


def _wait_for(pids: set[int]) -> None:
    import psutil

    sys.stdout.flush()
    while any(psutil.pid_exists(pid) for pid in pids):
        time.sleep(POLL_S)
