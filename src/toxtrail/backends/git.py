"""Read from git: the commit of the work tree, and old versions of a file."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from toxtrail.redaction import redacted

REMOTE_URL = re.compile(
    r"(?P<scheme>(?:https?|ssh|git|git\+ssh|file)://)(?:[^\s/]*@)?(?P<location>[^\s?#@]+)(?:[?#][^\s@]*)?"
)
SCP_ADDRESS = re.compile(r"(?P<scheme>)(?:[^\s@:/]+@)?(?P<location>[\w.-]+:(?![:/]{2})[^\s@?#]+)")
"""USER@HOST:PATH."""

OWNERSHIP_SETTING = b"safe.directory"
"""Text in git's refusal to read another user's repository, in every language."""


class FileVersion(NamedTuple):
    """A file at one commit."""

    commit: str
    """40 hex digits."""
    date: str
    """Commit date, ISO 8601."""
    subject: str
    """First line of the message."""
    text: str


def refusal(root: Path) -> str | None:
    """Explain why git does not read the repository of a folder, with what to do; None if it reads
    it, or if there is no repository.
    """
    done = _run_git(root, "rev-parse", "--git-dir")
    if done is None:
        return "git is not installed. Install it: results are traced to their commit with git."
    if done.returncode == 0 or OWNERSHIP_SETTING not in done.stderr:
        return None
    folder = next((f for f in (root, *root.parents) if (f / ".git").exists()), root)
    return (
        f"git refuses to read {folder}, because another user owns it (dubious ownership). If you "
        f"trust its owner: git config --global --add safe.directory {shlex.quote(str(folder))}"
    )


def head_commit(root: Path) -> str | None:
    """Return the 40-hex commit of HEAD; None outside a repository or before the first commit."""
    return resolve(root, "HEAD")


def branch(root: Path) -> str | None:
    """Return the name of the current branch; None for a detached HEAD or without a repository."""
    return _git_text(root, "symbolic-ref", "--quiet", "--short", "HEAD")


def origin(root: Path) -> str | None:
    """Return the address of the remote `origin` without credentials; None if there is none, or if
    its form is unknown, so that it cannot be decided whether it contains a secret."""
    address = _git_text(root, "config", "--get", "remote.origin.url")
    return None if address is None else without_credentials(address.strip())


def without_credentials(address: str) -> str | None:
    """Return the address of a repository without user, password, query and fragment; None for an
    unknown form."""
    if remote := REMOTE_URL.fullmatch(address) or SCP_ADDRESS.fullmatch(address):
        return redacted(f"{remote['scheme']}{remote['location']}")
    is_path = address.startswith(("/", "./", "../", "~")) and "@" not in address
    return redacted(address) if is_path else None


def resolve(root: Path, revision: str) -> str | None:
    """Resolve a revision to its 40-hex commit; None if there is none."""
    if revision.startswith("-"):
        return None
    return _git_text(root, "rev-parse", "--verify", "--quiet", f"{revision}^{{commit}}")


def is_inside(folder: Path) -> bool:
    """Return whether a folder, which need not exist yet, is in a repository."""
    existing = next(path for path in (folder, *folder.parents) if path.is_dir())
    return _git_text(existing, "rev-parse", "--is-inside-work-tree") == "true"


def init(root: Path) -> bool:
    """Run `git init`; return whether it succeeded."""
    return _git_output(root, "init", "--quiet") is not None


def commit_all(root: Path, message: str) -> bool:
    """Commit everything that is not ignored; return whether it succeeded."""
    added = _git_output(root, "add", "--all") is not None
    return added and _git_output(root, "commit", "--quiet", "--message", message) is not None


def commit_file(root: Path, name: str, message: str) -> bool:
    """Commit one tracked file of a repository whose top folder is `root`; return whether it was
    committed. The index and other repositories are unchanged."""
    top = _git_text(root, "rev-parse", "--show-toplevel")
    if top is None or Path(top).resolve() != root.resolve():
        return False
    return _git_output(root, "commit", "--quiet", "--message", message, "--", name) is not None


def changed_files(root: Path) -> list[str]:
    """List tracked files that differ from HEAD, and new files that git does not ignore.

    dvc.lock and the execution records are left out: a run itself writes them, and neither changes
    a result.
    """
    written_by_runs = [":(top,exclude,glob)**/dvc.lock", ":(exclude)data/records"]
    status = _git_text(root, "status", "--porcelain=v1", "--", ":/", *written_by_runs) or ""
    return [line[3:] for line in status.splitlines()]


def uncommitted(root: Path, name: str) -> list[str]:
    """List the files below a folder that are new or changed since HEAD; none if git ignores it."""
    status = _git_text(
        root, "status", "--porcelain=v1", "--untracked-files=all", "--no-renames", "--", name
    )
    return [line[3:] for line in (status or "").splitlines()]


def unmerged(root: Path, *names: str) -> list[str]:
    """List those of the files that have an unresolved merge conflict."""
    listed = _git_text(root, "ls-files", "--unmerged", "-z", "--", *names) or ""
    paths = [entry.partition("\t")[2] for entry in listed.split("\0") if entry]
    return list(dict.fromkeys(paths))


def stage_file(root: Path, name: str) -> bool:
    """Add a file to the index; return whether it succeeded."""
    return _git_output(root, "add", "--", name) is not None


def setting(root: Path, key: str) -> str | None:
    """Return a value of git's configuration; None if it is not set."""
    return _git_text(root, "config", "--get", key)


def set_setting(root: Path, key: str, value: str) -> bool:
    """Write a value into the repository's own configuration; return whether it succeeded."""
    return _git_output(root, "config", "--local", key, value) is not None


def is_shallow(root: Path) -> bool:
    """Return whether the repository is a shallow clone."""
    return _git_text(root, "rev-parse", "--is-shallow-repository") == "true"


def file_at(root: Path, revision: str, name: str) -> str | None:
    """Return a file's text at a commit; None if it does not exist. `name` is relative to `root`."""
    done = _git_output(root, "show", f"{revision}:./{name}")
    return done.decode("utf-8", "replace") if done is not None else None


def versions(root: Path, name: str) -> list[FileVersion]:
    """List every version of a file in the history of all branches, newest first."""
    log = _git_text(root, "log", "--all", "--format=%H%x00%cI%x00%s", "--", name)
    rows = [line.split("\0") for line in (log or "").splitlines()]
    prefix = _git_text(root, "rev-parse", "--show-prefix") or ""
    texts = _read_objects(root, [f"{row[0]}:{prefix}{name}" for row in rows])
    return [
        FileVersion(sha, date, subject, text)
        for (sha, date, subject), text in zip(rows, texts, strict=True)
        if text is not None
    ]


def _read_objects(root: Path, objects: list[str]) -> list[str | None]:
    """Read many objects with one process."""
    if not objects:
        return []
    requests = "".join(f"{name}\n" for name in objects).encode()
    output = _git_output(root, "cat-file", "--batch", stdin=requests) or b""
    return list(_parse_batch(output, len(objects)))


def _parse_batch(output: bytes, count: int) -> Iterator[str | None]:
    start = 0
    for _ in range(count):
        end = output.find(b"\n", start)
        header, start = output[start:end].split(b" "), end + 1
        if header[-1] == b"missing" or len(header) != 3:
            yield None
            continue
        size = int(header[2])
        yield output[start : start + size].decode("utf-8", "replace")
        start += size + 1


def _git_text(root: Path, *arguments: str) -> str | None:
    done = _git_output(root, *arguments)
    return done.decode("utf-8", "replace").rstrip("\n") if done is not None else None


def _git_output(root: Path, *arguments: str, stdin: bytes | None = None) -> bytes | None:
    done = _run_git(root, *arguments, stdin=stdin)
    return done.stdout if done is not None and done.returncode == 0 else None


def _run_git(
    root: Path, *arguments: str, stdin: bytes | None = None
) -> subprocess.CompletedProcess[bytes] | None:
    """Run git without optional locks, so that nothing is written; None if git is missing."""
    try:
        return subprocess.run(
            ["git", "-C", str(root), *arguments],
            capture_output=True,
            input=stdin,
            check=False,
            env={**os.environ, "GIT_OPTIONAL_LOCKS": "0"},
        )
    except (FileNotFoundError, PermissionError):
        return None
