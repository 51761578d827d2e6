"""What a verification looks at, read once, and what it says of each thing."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, NamedTuple

from toxtrail.artifacts import Store
from toxtrail.audit.digests import Digests
from toxtrail.audit.lockfile import Lock
from toxtrail.backends.assets import AssetStore
from toxtrail.config import Config
from toxtrail.errors import ToxtrailError
from toxtrail.pipeline import Instance

Outcome = Literal["ok", "BROKEN", "absent", "weak"]
"""ok: looked at, and as recorded. BROKEN: it is not what was recorded. absent: it is not here, so
nothing can be said. weak: it stands, but less is proved than a reader may think."""

DAMAGE = (ToxtrailError, ValueError, KeyError, TypeError, AttributeError, OSError, RuntimeError)
"""What reading a file raises that was edited by hand or by a failing disk."""

LINKS = (
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
    "receipts",
    "MLflow runs",
    "MLflow files",
    "MLflow values",
    "signatures",
    "files",
)
"""Classes of links, in the order of the data."""


class Check(NamedTuple):
    """One thing looked at."""

    link: str
    """One of LINKS."""
    name: str
    """Which one, exactly."""
    outcome: Outcome
    detail: str
    """What was found and what to do; empty if ok."""

    def to_json(self) -> dict[str, str]:
        return self._asdict()


@dataclass(frozen=True)
class Evidence:
    """The files of an experiment and what is written about them."""

    store: Store
    config: Config
    raw: dict[str, Any]
    """params.yaml as it stands."""
    lock: Lock
    lock_problem: str | None
    """Why dvc.lock could not be read; then `lock` is empty."""
    digests: Digests
    assets: AssetStore
    asset_cache: Path
    dvc_cache: Path

    @property
    def root(self) -> Path:
        return self.store.root

    def path(self, name: str) -> Path:
        return self.root / name


def ok(link: str, name: str) -> Check:
    """Looked at, and as recorded."""
    return Check(link, name, "ok", "")


def broken(link: str, name: str, detail: str) -> Check:
    """Not what was recorded."""
    return Check(link, name, "BROKEN", detail)


def absent(link: str, name: str, detail: str) -> Check:
    """Not here, so nothing can be said."""
    return Check(link, name, "absent", detail)


def weak(link: str, name: str, detail: str) -> Check:
    """It stands, but less is proved than it seems."""
    return Check(link, name, "weak", detail)


def judged(link: str, name: str, problems: Sequence[str]) -> list[Check]:
    """One broken check for each problem, or one that is ok."""
    return [broken(link, name, problem) for problem in problems] or [ok(link, name)]


def of_stage(instances: Iterable[Instance], *names: str) -> list[Instance]:
    """Those of these stages."""
    return [one for one in instances if one.stage.name in names]
