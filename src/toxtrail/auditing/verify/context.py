"""Inputs of a verification, read once, and its checks."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, Literal, NamedTuple, get_args

from toxtrail.auditing.verify.dvc_lock import Lock, parse_lock
from toxtrail.auditing.verify.hash_cache import HashCache
from toxtrail.auditing.verify.unsafe_outputs import is_refused
from toxtrail.backends import git
from toxtrail.backends.assets import AssetStore
from toxtrail.config.schema import Config
from toxtrail.errors import ToxtrailError, why_unread
from toxtrail.pipeline import StageRun
from toxtrail.provenance.embedded_manifest import read_embedded_manifest
from toxtrail.provenance.identity import Manifest
from toxtrail.storage.artifacts import ArtifactStore

Outcome = Literal["ok", "BROKEN", "unread", "absent", "weak"]
"""ok: checked, and as recorded. BROKEN: differs from the record. unread: exists and could not be
read, so it was not verified. absent: does not exist here and cannot be checked. weak: consistent,
but less is proved than a reader may expect."""
OUTCOMES: tuple[Outcome, ...] = get_args(Outcome)

DAMAGE_ERRORS = (
    ToxtrailError, ValueError, LookupError, TypeError, AttributeError, OSError, RuntimeError,
    MemoryError,
)  # fmt: skip
"""Exceptions for a file that was edited by hand, or that could not be read; `failed` and `problem`
distinguish the two."""

CHECK_CATEGORIES = (
    "pipeline",
    "dvc.lock",
    "git",
    "prompt set",
    "weights",
    "training data",
    "adapters",
    "model cards",
    "generations",
    "scorers",
    "scores",
    "posteriors",
    "comparisons",
    "report",
    "dvc cache",
    "executions",
    "receipts",
    "MLflow runs",
    "MLflow files",
    "MLflow values",
    "signatures",
    "files",
)
"""Categories of checks, in data-flow order."""


class Check(NamedTuple):
    """Result of one check."""

    link: str
    """One of CHECK_CATEGORIES."""
    name: str
    """Name of the checked object."""
    outcome: Outcome
    detail: str
    """The difference and how to fix it; empty if ok."""

    def to_json(self) -> dict[str, str]:
        return self._asdict()


@dataclass(frozen=True)
class VerifyContext:
    """Files of an experiment and their records."""

    store: ArtifactStore
    config: Config
    raw: dict[str, Any]
    """Return params.yaml as written."""
    lock: Lock
    lock_problem: str | None
    """Why dvc.lock could not be read; then `lock` is empty."""
    digests: HashCache
    assets: AssetStore
    asset_cache: Path
    dvc_cache: Path
    refused: Mapping[str, str] = field(default_factory=dict)
    """Path relative to the root -> why it is never opened."""
    manifests: dict[str, Manifest | None] = field(default_factory=dict)
    """SHA-256 of a file -> the manifest inside it, of the files read so far."""

    @property
    def root(self) -> Path:
        return self.store.root

    def path(self, name: str) -> Path:
        """Return the path of a recorded name; raise DataError if it leads out of the experiment."""
        return self.store.at(name)

    def manifest(self, path: Path) -> Manifest | None:
        """Return the manifest inside a file, read once for each content. See
        `read_embedded_manifest`."""
        digest = self.digests.of(path)
        if digest is None:
            return read_embedded_manifest(path)
        if digest.sha256 not in self.manifests:
            self.manifests[digest.sha256] = read_embedded_manifest(path)
        return self.manifests[digest.sha256]

    def sound(self, instances: Iterable[StageRun]) -> list[StageRun]:
        """Return the stage runs none of whose inputs and outputs is refused."""
        if not self.refused:
            return list(instances)
        return [
            instance
            for instance in instances
            if not any(is_refused(name, self.refused) for name in (*instance.outs, *instance.reads))
        ]

    @cached_property
    def committed(self) -> Lock:
        """dvc.lock at HEAD; empty if there is no readable one."""
        text = git.file_at(self.root, "HEAD", "dvc.lock")
        try:
            return parse_lock(text) if text else {}
        except ToxtrailError:
            return {}

    def older(self, path: str, md5: str) -> str | None:
        """Return the commit of an output's present content, if it differs from dvc.lock.

        None if no commit has it, or none has the content recorded in dvc.lock: then one of the two
        was edited.
        """
        recorded = {o.md5 for e in self.lock.values() for o in e.outs.values() if o.path == path}
        if md5 in recorded or not any(
            self.commit_of(path, recorded_md5) for recorded_md5 in recorded
        ):
            return None
        return self.commit_of(path, md5)

    def commit_of(self, path: str, md5: str) -> str | None:
        """Return a commit whose dvc.lock records this content of an output."""
        for version in self._versions:
            with suppress(ToxtrailError):
                lock = parse_lock(version.text) if md5 in version.text else {}
                md5s = (e.outs[path].md5 for e in lock.values() if path in e.outs)
                if md5 in md5s:
                    return version.commit
        return None

    @cached_property
    def _versions(self) -> list[git.FileVersion]:
        return git.versions(self.root, "dvc.lock")


def ok(link: str, name: str) -> Check:
    """Return a check that passed: as recorded."""
    return Check(link, name, "ok", "")


def broken(link: str, name: str, detail: str) -> Check:
    """Return a check that failed: not as recorded."""
    return Check(link, name, "BROKEN", detail)


def absent(link: str, name: str, detail: str) -> Check:
    """Return a check of something missing, which cannot be verified."""
    return Check(link, name, "absent", detail)


def weak(link: str, name: str, detail: str) -> Check:
    """Return a check that passed with a caveat."""
    return Check(link, name, "weak", detail)


def unread(link: str, name: str, why: str) -> Check:
    """Return a check of something present that could not be read, so it was not verified."""
    return Check(link, name, "unread", f"it could not be read, so it was not verified. {why}")


class Unread(NamedTuple):
    """Problem of an object: a part of it could not be read."""

    why: str


Problem = str | Unread


def problem(error: Exception, what: str) -> Problem:
    """Return the problem behind a read error: that the content could not be read, or `what` with
    the error's message."""
    if why := why_unread(error):
        return Unread(why)
    return f"{what}: {error if isinstance(error, ToxtrailError) else repr(error)}"


def failed(link: str, name: str, error: Exception, what: str) -> Check:
    """Return the check for a read error: unread or broken."""
    return checks_of(link, name, [problem(error, what)])[0]


def checks_of(link: str, name: str, problems: Sequence[Problem]) -> list[Check]:
    """Return one check for each problem, or one that is ok."""
    return [
        unread(link, name, item.why) if isinstance(item, Unread) else broken(link, name, item)
        for item in problems
    ] or [ok(link, name)]


def compare_files(
    digests: HashCache,
    present: Mapping[str, Path],
    recorded: Mapping[str, str],
    listing: str,
    algorithm: Literal["sha256", "md5"] = "sha256",
) -> Iterator[tuple[str, list[Problem]]]:
    """Compare files with the hashes of a list; yield each name and what is wrong with its file.

    Args:
        present: name -> file.
        recorded: name -> hash.
        listing: what lists the hashes.
    """
    for name in sorted(recorded.keys() | present.keys()):
        try:
            digest = digests.of(present[name]) if name in present else None
        except (OSError, MemoryError) as error:
            yield name, [problem(error, "it cannot be read")]
            continue
        actual = getattr(digest, algorithm) if digest else None
        if name not in recorded:
            yield name, [f"an extra file that {listing} does not list: it was added later"]
        elif actual is None:
            yield name, ["the file is missing"]
        elif actual != recorded[name]:
            change = f"{algorithm} {actual}, {listing} has {recorded[name]}"
            yield name, [f"it was changed: {change}"]
        else:
            yield name, []


def unread_only(link: str, name: str, error: Exception) -> list[Check]:
    """Return an unread check if the error means that; other errors are reported by another
    check."""
    why = why_unread(error)
    return [unread(link, name, why)] if why else []


def runs_of_stage(instances: Iterable[StageRun], *names: str) -> list[StageRun]:
    """Return the stage runs of these stages."""
    return [instance for instance in instances if instance.stage.name in names]


def catch_damage(link: str, name: str, part: Iterable[Check]) -> list[Check]:
    """Collect checks; a damaged or unreadable file ends this part only."""
    checks: list[Check] = []
    try:
        for check in part:
            checks.append(check)
    except DAMAGE_ERRORS as error:
        checks.append(failed(link, name, error, "a damaged file ended it"))
    return checks
