"""DVC's command line in this process, changed in four places for `toxtrail run`:

- it waits for its locks: a `dvc status` at the wrong moment does not fail a finished stage;
- dvc.lock is replaced, not overwritten: a kill leaves the old one or the new one;
- a stage whose parameters or dependencies changed while its command ran is not recorded: dvc.lock
  would name values that did not make the outputs;
- a damaged list of file locks, as a kill leaves it, is deleted: DVC would refuse for ever.

The names that are replaced are DVC's own; `tests/backends/test_dvc_process.py` notices when an
upgrade moves them.
"""

from __future__ import annotations

import io
import json
import os
import re
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

from toxtrail.regular_files import read_text
from toxtrail.storage import atomic_writes

POLL_S = 0.5


def run_dvc(arguments: Sequence[str], tell: Callable[[str], None]) -> int:
    """DVC's command line; its exit code. While another DVC command works on a file that this one
    needs, it waits, says so, and starts again."""
    from dvc.cli import main as dvc

    blockers: set[int] = set()
    _prepare(blockers)
    code = int(dvc(list(arguments)))
    while code != 0 and blockers:
        tell(
            "Another DVC command works on files that this one needs (process "
            f"{', '.join(map(str, sorted(blockers)))}). Waiting until it has ended."
        )
        _wait_for(blockers)
        blockers.clear()
        code = int(dvc(list(arguments)))
    return code


def heal_file_locks(folder: Path) -> bool:
    """Delete DVC's list of locked files if it cannot be read; whether that was done.

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
        return False  # a DVC command writes it at this moment
    try:
        if file_locks(path) is not None:
            return False
        path.unlink(missing_ok=True)
    finally:
        guard.close()
    return True


def file_locks(path: Path) -> dict[str, Any] | None:
    """What DVC's list of locked files says: {"read": ..., "write": ...}; None if it is damaged."""
    try:
        found = json.loads(read_text(path))
    except FileNotFoundError:
        return {}
    except ValueError:
        return None
    return found if isinstance(found, dict) else None


def write_atomically(path: Path, text: str) -> None:
    """Replace a file's content as one step, through links, with its mode kept."""
    target = Path(os.path.realpath(path))
    with atomic_writes.file(target) as draft:
        draft.write_text(text, encoding="utf-8", newline="")
        with suppress(OSError):  # none yet, or another user's
            draft.chmod(target.stat().st_mode & 0o7777)


def _prepare(blockers: set[int]) -> None:
    import dvc.rwlock
    from dvc import dvcfile
    from dvc.lock import make_lock
    from dvc.stage import Stage, run
    from dvc.utils.serialize import _common, _yaml

    dvc.rwlock.make_lock = partial(make_lock, wait=True)
    dvc.rwlock._check_blockers = partial(_noting_blockers, dvc.rwlock._check_blockers, blockers)
    dump = partial(_dump, _common._dump_data)
    _common._dump_data = _yaml._dump_data = dump
    assert dvcfile.modify_yaml is _yaml.modify_yaml
    started: dict[str, dict[str, Any]] = {}
    run.cmd_run = partial(_cmd_run, run.cmd_run, started)
    saved = Stage.save_deps

    def save_deps(stage: Any, allow_missing: bool = False) -> None:
        saved(stage, allow_missing)
        _refuse_changed(stage, started.pop(stage.addressing, None))

    Stage.save_deps = save_deps


def _dump(
    plain: Callable[..., None], path: Any, data: Any, dumper: Any, fs: Any = None, **how: Any
) -> None:
    """`dvc.utils.serialize._dump_data`, atomic for dvc.lock."""
    if Path(path).name != "dvc.lock" or (fs is not None and fs.protocol != "local"):
        plain(path, data, dumper, fs, **how)
        return
    text = io.StringIO()
    dumper(data, text, **how)
    write_atomically(Path(path), text.getvalue())


def _cmd_run(
    plain: Callable[..., None],
    started: dict[str, dict[str, Any]],
    stage: Any,
    *rest: Any,
    **how: Any,
) -> None:
    """`dvc.stage.run.cmd_run`, after noting what the stage depends on at its start."""
    started[stage.addressing] = _dependencies(stage)
    plain(stage, *rest, **how)


def _dependencies(stage: Any) -> dict[str, Any]:
    """Place -> hash; values of params.yaml by their names. As DVC last saved them."""
    found: dict[str, Any] = {}
    for dep in stage.deps:
        value = dep.hash_info.value
        if isinstance(value, dict):
            found |= {f"{dep.def_path}: {name}": json.dumps(v, sort_keys=True, default=str)
                      for name, v in value.items()}  # fmt: skip
        else:
            found[dep.def_path] = value
    return found


def _refuse_changed(stage: Any, before: dict[str, Any] | None) -> None:
    from dvc.exceptions import DvcException

    if before is None:
        return
    now = _dependencies(stage)
    if changed := [name for name in {**before, **now} if before.get(name) != now.get(name)]:
        raise DvcException(
            f"{', '.join(changed)} changed while {stage.addressing} ran, so its result is not "
            "recorded. Run again: what is finished and still fits is kept."
        )


def _noting_blockers(
    plain: Callable[..., None], blockers: set[int], *given: Any, **how: Any
) -> None:
    """`dvc.rwlock._check_blockers`, noting the processes that it names."""
    from dvc.lock import LockError

    try:
        plain(*given, **how)
    except LockError as error:
        blockers |= set(_processes(str(error)))
        raise


def _processes(message: str) -> Iterator[int]:
    yield from (int(pid) for pid in re.findall(r"\(PID (\d+)\)", message))


def _wait_for(pids: set[int]) -> None:
    import psutil

    sys.stdout.flush()
    while any(psutil.pid_exists(pid) for pid in pids):
        time.sleep(POLL_S)
