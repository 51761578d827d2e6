"""The context in which a reference is resolved, and the result of resolving it."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import NamedTuple

from toxtrail.auditing.lineage.lineage import LineageBuilder, LineageNode
from toxtrail.auditing.lineage.lock_history import (
    LockVersion,
    RecordedLocation,
    lock_history,
    recorded_locations,
)
from toxtrail.auditing.verify.context import DAMAGE_ERRORS
from toxtrail.auditing.verify.hash_cache import Digest
from toxtrail.backends.dvc import cache_folder
from toxtrail.backends.mlflow.run_files import (
    LocalRunFiles,
    damage_error,
    damaged_runs,
    tracked_runs,
)
from toxtrail.config.schema import Config
from toxtrail.errors import BackendError, why_unread
from toxtrail.pipeline import StageRun
from toxtrail.provenance.identity import ModelIdentity
from toxtrail.storage.artifacts import ArtifactStore


class AuditTarget(NamedTuple):
    """Resolved reference."""

    kind: str
    """variant, family, run, file, hash, generation or number."""
    link: LineageNode
    targets: tuple[str, ...]
    """Stage runs of this experiment to verify."""
    path: Path | None = None
    """Path of the file, if the reference is one."""
    locations: tuple[RecordedLocation, ...] = ()
    """Other locations where its content is recorded."""


@dataclass(frozen=True)
class AuditContext:
    """Context for resolving references: an experiment, or none."""

    start_folder: Path
    """Base folder of relative paths."""
    store: ArtifactStore | None
    config: Config | None
    instances: Sequence[StageRun] = ()

    @cached_property
    def chain(self) -> LineageBuilder:
        return LineageBuilder(self.store)

    @cached_property
    def runs(self) -> list[LocalRunFiles]:
        """The project's runs; empty for a server that does not respond (`mlflow_error` gives the
        reason)."""
        return [run for run in self.runs_of_all_projects if self.is_own(run)]

    @property
    def runs_of_all_projects(self) -> list[LocalRunFiles]:
        """All runs in the MLflow experiment."""
        return self._run_lookup[0]

    def is_own(self, run: LocalRunFiles) -> bool:
        """Return whether a run is of this experiment's project."""
        return self.config is not None and run.project == self.config.tracking.project

    @property
    def mlflow_error(self) -> str | None:
        """Why the MLflow server could not be read, if it was queried."""
        return self._run_lookup[1] if "_run_lookup" in vars(self) else None

    def unsearched(self) -> list[str]:
        """Return the runs that could not be read, with the reasons."""
        if self.store is None or "_run_lookup" not in vars(self):
            return []
        problems = [
            f"{run.name} ({run.run_id[:8]}): {why}" for run in self.runs if (why := run.unread)
        ]
        folders = {run.files.folder for run in self.runs_of_all_projects}
        for folder in damaged_runs(self.store.root, folders):
            if why := why_unread(damage_error(folder)):
                problems.append(f"run {folder.parent.name[:8]}: {why}")
        return problems

    @cached_property
    def _run_lookup(self) -> tuple[list[LocalRunFiles], str | None]:
        if self.store is None or self.config is None:
            return [], None
        try:
            return tracked_runs(self.store.root, self.config.tracking.experiment), None
        except BackendError as error:
            return [], str(error)

    @cached_property
    def locks(self) -> list[LockVersion]:
        return lock_history(self.store.root) if self.store else []

    @cached_property
    def cards(self) -> list[ModelIdentity]:
        """Model cards of the models and fine-tunes that exist locally."""
        if self.store is None or self.config is None:
            return []
        keys = [*self.config.models, *self.config.finetunes]
        present_keys = [k for k in keys if (self.store.model_dir(k) / "model.json").is_file()]
        model_cards = []
        for key in present_keys:
            with suppress(*DAMAGE_ERRORS):  # verification names it
                model_cards.append(self.store.read_card(key))
        return model_cards

    def recorded_locations(self, digest: Digest) -> tuple[RecordedLocation, ...]:
        """Return where a content is recorded: in the history and among the runs."""
        if self.store is None:
            return ()
        cache = cache_folder(self.store.root)
        return tuple(recorded_locations(digest, self.locks, cache, self.runs))
