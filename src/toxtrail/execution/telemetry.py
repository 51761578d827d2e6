"""Facts of one execution: time, host, commit, cost. They are not part of any identity."""

from __future__ import annotations

import getpass
import platform
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from toxtrail.backends.git import branch, changed_files, head_commit, origin, refusal
from toxtrail.backends.protocols import TrackingFacts
from toxtrail.console import echo
from toxtrail.execution.execution_records import write_record
from toxtrail.execution.memory import peak_mib
from toxtrail.provenance.identity import sha256_file
from toxtrail.records.run_tags import BRANCH_TAG, COMMIT_TAG, DIRTY_TAG, REPOSITORY_TAG
from toxtrail.redaction import redacted

if TYPE_CHECKING:
    from toxtrail.storage.artifacts import ArtifactStore


@contextmanager
def record_execution(
    store: ArtifactStore,
    stage: str,
    key: str,
    output: Path,
    settings: Mapping[str, Any],
    writes: bool = True,
) -> Iterator[dict[str, float]]:
    """Record the execution that produces `output`; the block may add its own numbers.

    Args:
        writes: false in all but one of the processes that share the work.
    """
    started, clock = datetime.now(UTC), time.monotonic()
    cost: dict[str, float] = {}
    yield cost
    if not writes:
        return
    cost["seconds"] = time.monotonic() - clock
    cost["peak_memory_mib"] = peak_mib()
    record = {
        "stage": stage,
        "key": key,
        "output_sha256": sha256_file(output),
        "started": started.isoformat(timespec="seconds"),
        "host": platform.node(),
        "machine": f"{platform.system()} {platform.machine()}",
        "commit": _commit(store.root),
        "dirty": bool(changed_files(store.root)),
        "settings": {k: redacted(v) if isinstance(v, str) else v for k, v in settings.items()},
        "cost": {name: round(value, 3) for name, value in cost.items()},
    }
    write_record(store, record)


def _commit(root: Path) -> str | None:
    """Return the commit; a refusal by git is not treated as a missing commit."""
    head = head_commit(root)
    if head is None and (problem := refusal(root)):
        echo(f"The commit is not recorded: {problem}", fg="yellow", err=True)
    return head


def _user() -> str:
    try:
        return getpass.getuser()
    except (OSError, KeyError):  # a container whose user has no name
        return "unknown"


def tracking_facts(root: Path) -> TrackingFacts:
    """Return the tags that the MLflow UI shows as user and source, and the hashes of the state.
    They are not part of the run's identity: two clones that publish one content share the run of
    the first."""
    lock, requirements = root / "dvc.lock", root / "requirements.txt"
    commit = _commit(root)
    source = {COMMIT_TAG: commit, BRANCH_TAG: branch(root), REPOSITORY_TAG: origin(root)}
    tags = {
        "mlflow.user": _user(),
        "mlflow.source.name": "toxtrail",
        "mlflow.source.type": "LOCAL",
        **{name: text for name, text in source.items() if text},
        DIRTY_TAG: str(bool(changed_files(root))).lower(),
    }
    hashes = {
        f"{name}_sha256": sha256_file(path)
        for name, path in (("dvc_lock", lock), ("requirements", requirements))
        if path.is_file()
    }
    return TrackingFacts(tags, hashes)
