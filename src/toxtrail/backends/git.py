"""What git tells: the commit of the work tree, and old versions of a file."""

from __future__ import annotations

import os
import shlex
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

OWNERSHIP = b"safe.directory"
"""What git's refusal to read another user's repository names, in every language."""


class Version(NamedTuple):
    """A file as one commit has it."""

    commit: str
    """40 hex digits."""
    date: str
    """When it was committed, ISO 8601."""
    subject: str
    """First line of the message."""
    text: str


def refusal(root: Path) -> str | None:
    """Why git does not read the repository that a folder lies in, with what to do; None if it
    does, or if there is no repository.
    """
    done = _done(root, "rev-parse", "--git-dir")
    if done is None:
        return "git is not installed. Install it: it tells which commit made a result."
    if done.returncode == 0 or OWNERSHIP not in done.stderr:
        return None
    folder = next((f for f in (root, *root.parents) if (f / ".git").exists()), root)
    return (
        f"git refuses to read {folder}, because another user owns it (dubious ownership). If you "
        f"trust its owner: git config --global --add safe.directory {shlex.quote(str(folder))}"
    )


def commit(root: Path) -> str | None:
    """The 40-hex commit of HEAD; None outside a repository or before the first commit."""
    return resolve(root, "HEAD")


def resolve(root: Path, revision: str) -> str | None:
    """The 40-hex commit that a revision means; None if there is none."""
    if revision.startswith("-"):
        return None
    return _git(root, "rev-parse", "--verify", "--quiet", f"{revision}^{{commit}}")


def is_inside(folder: Path) -> bool:
    """Whether a folder, which need not exist yet, lies in a repository."""
    existing = next(path for path in (folder, *folder.parents) if path.is_dir())
    return _git(existing, "rev-parse", "--is-inside-work-tree") == "true"


def init(root: Path) -> bool:
    """`git init`; whether it worked."""
    return _run(root, "init", "--quiet") is not None


def commit_all(root: Path, message: str) -> bool:
    """Commit everything that is not ignored; whether it worked."""
    added = _run(root, "add", "--all") is not None
    return added and _run(root, "commit", "--quiet", "--message", message) is not None


def changed_files(root: Path) -> list[str]:
    """Tracked files that differ from HEAD, and new ones that git does not ignore.

    dvc.lock is left out: DVC rewrites it while the pipeline runs, and its own hash is recorded.
    """
    status = _git(root, "status", "--porcelain=v1") or ""
    names = [line[3:] for line in status.splitlines()]
    return [name for name in names if Path(name).name != "dvc.lock"]


def is_shallow(root: Path) -> bool:
    """Whether older commits were left out when it was cloned."""
    return _git(root, "rev-parse", "--is-shallow-repository") == "true"


def show(root: Path, revision: str, name: str) -> str | None:
    """A file's text at a commit; None if it has none. `name` is relative to `root`."""
    done = _run(root, "show", f"{revision}:./{name}")
    return done.decode("utf-8", "replace") if done is not None else None


def versions(root: Path, name: str) -> list[Version]:
    """Every version of a file in all of the history, the newest first."""
    log = _git(root, "log", "--all", "--format=%H%x00%cI%x00%s", "--", name)
    rows = [line.split("\0") for line in (log or "").splitlines()]
    prefix = _git(root, "rev-parse", "--show-prefix") or ""
    texts = _contents(root, [f"{row[0]}:{prefix}{name}" for row in rows])
    return [
        Version(sha, date, subject, text)
        for (sha, date, subject), text in zip(rows, texts, strict=True)
        if text is not None
    ]


def _contents(root: Path, objects: list[str]) -> list[str | None]:
    """Many objects with one process."""
    if not objects:
        return []
    asked = "".join(f"{one}\n" for one in objects).encode()
    answer = _run(root, "cat-file", "--batch", given=asked) or b""
    return list(_parsed(answer, len(objects)))


def _parsed(answer: bytes, count: int) -> Iterator[str | None]:
    start = 0
    for _ in range(count):
        end = answer.find(b"\n", start)
        header, start = answer[start:end].split(b" "), end + 1
        if header[-1] == b"missing" or len(header) != 3:
            yield None
            continue
        size = int(header[2])
        yield answer[start : start + size].decode("utf-8", "replace")
        start += size + 1


def _git(root: Path, *arguments: str) -> str | None:
    done = _run(root, *arguments)
    return done.decode("utf-8", "replace").rstrip("\n") if done is not None else None


def _run(root: Path, *arguments: str, given: bytes | None = None) -> bytes | None:
    done = _done(root, *arguments, given=given)
    return done.stdout if done is not None and done.returncode == 0 else None


def _done(
    root: Path, *arguments: str, given: bytes | None = None
) -> subprocess.CompletedProcess[bytes] | None:
    """None if there is no git. To look at a repository writes nothing into it."""
    try:
        return subprocess.run(
            ["git", "-C", str(root), *arguments],
            capture_output=True,
            input=given,
            check=False,
            env={**os.environ, "GIT_OPTIONAL_LOCKS": "0"},
        )
    except (FileNotFoundError, PermissionError):
        return None
