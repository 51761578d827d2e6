"""The experiment that a command uses: its root, config and files."""

from __future__ import annotations

import os
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from toxtrail.config.load import load_config
from toxtrail.config.schema import Config
from toxtrail.console import warn
from toxtrail.errors import ConfigError, did_you_mean
from toxtrail.provenance.experiment_version import older_version_note, require_not_newer

if TYPE_CHECKING:
    from toxtrail.config.schema import VariantConfig
    from toxtrail.storage.artifacts import ArtifactStore

NO_VARIANTS = (
    "params.yaml has no variants yet. Add a base with `toxtrail variants add ADDRESS --base "
    "--family NAME` and its fine-tunes with `toxtrail variants add ADDRESS --parent BASE`; or "
    "files of texts with `toxtrail texts add FILE --variant NAME --family NAME`."
)


OLDER_SETTINGS = (
    "Settings have other names or forms since then. Correct them in params.yaml; `toxtrail init "
    "NEW_FOLDER` writes a complete params.yaml of this version, with comments, to compare with."
)
"""Advice for an invalid params.yaml of an older version."""


class Experiment:
    """An experiment, located from a folder; everything is read on first access."""

    def __init__(self, start: Path) -> None:
        self._start = start.resolve()
        self.selected_project: str | None = None
        """The project of --project."""
        self.all_projects = False
        """Whether --all-projects was given."""
        self.reports_older_version = True
        """Whether a note is to be printed if an older toxtrail made the experiment."""
        self._replaced_experiment: str | None = None
        """tracking.experiment of params.yaml, until its replacement is reported."""

    @property
    def exists(self) -> bool:
        """Whether there is an experiment; an audit of a file needs none."""
        return self._root() is not None

    @cached_property
    def root(self) -> Path:
        """The nearest folder upwards with a params.yaml."""
        if found := self._root():
            return found
        raise ConfigError(
            f"No params.yaml in {self._start} or above it. Go to an experiment's folder, or name "
            "one: toxtrail -C FOLDER ..."
        )

    def _root(self) -> Path | None:
        folders = (self._start, *self._start.parents)
        return next((folder for folder in folders if (folder / "params.yaml").is_file()), None)

    @cached_property
    def config(self) -> Config:
        """Return the validated params.yaml. MLFLOW_EXPERIMENT_NAME takes precedence over
        `tracking.experiment`, as MLFLOW_TRACKING_URI does over the local store.

        Raises:
            ConfigError: params.yaml is invalid, or the experiment is of a newer toxtrail.
        """
        config = self._load_config()
        name = os.environ.get("MLFLOW_EXPERIMENT_NAME")
        if not name or name == config.tracking.experiment:
            return config
        self._replaced_experiment = config.tracking.experiment
        tracking = config.tracking.model_copy(update={"experiment": name})
        return config.model_copy(update={"tracking": tracking})

    def _load_config(self) -> Config:
        """Read params.yaml; print a note, and extend the error of an invalid file, if an older
        toxtrail made the experiment."""
        require_not_newer(self.root)
        note = older_version_note(self.root)
        if note and self.reports_older_version:
            self.reports_older_version = False
            warn(note)
        try:
            return load_config(self.root / "params.yaml")
        except ConfigError as error:
            raise ConfigError(f"{error}\n{OLDER_SETTINGS}") if note else error from None

    def warn_of_replaced_experiment(self) -> None:
        """Print once that MLFLOW_EXPERIMENT_NAME takes precedence over params.yaml."""
        name, replaced = self.config.tracking.experiment, self._replaced_experiment
        if replaced is not None:
            self._replaced_experiment = None
            warn(
                f'MLflow experiment: "{name}", from MLFLOW_EXPERIMENT_NAME, instead of '
                f'"{replaced}" of params.yaml.'
            )

    @property
    def project(self) -> str | None:
        """The project whose runs are read; None for those of all projects. It is the experiment's
        own, unless an option selects others."""
        if self.selected_project is not None or self.all_projects:
            return self.selected_project
        return self.config.tracking.project if self.exists else None

    @property
    def reads_own_results(self) -> bool:
        """Whether results are those of this experiment, so that its files can be read instead of
        MLflow runs."""
        return self.exists and self.project == self.config.tracking.project

    @cached_property
    def store(self) -> ArtifactStore:
        """The files of the pipeline."""
        from toxtrail.storage.artifacts import ArtifactStore

        return ArtifactStore(self.root)

    def watch(self, stage: str, key: str | None) -> None:
        """Prevent `store` from publishing if a dependency of this stage run has changed."""
        from toxtrail.storage.artifacts import ArtifactStore
        from toxtrail.storage.input_guard import Watched

        self.store = ArtifactStore(self.root, Watched(self.root, stage, key).refuse_changes)

    def variant(self, key: str) -> VariantConfig:
        """Return the variant of this name.

        Raises:
            ConfigError: there is none; the message contains the nearest name.
        """
        if key not in self.config.variants:
            raise ConfigError(f'"{key}" is not a variant.{did_you_mean(key, self.config.variants)}')
        return self.config.variants[key]

    def require_variants(self) -> None:
        """Raise if there is nothing to measure.

        Raises:
            ConfigError: params.yaml has no variants; the message has the commands that add them.
        """
        if not self.config.variants:
            raise ConfigError(NO_VARIANTS)

    def families(self, keys: tuple[str, ...]) -> list[str]:
        """Return the named families, or all."""
        for key in keys:
            if key not in self.config.families:
                raise ConfigError(
                    f'"{key}" is not a family.{did_you_mean(key, self.config.families)}'
                )
        return list(keys or self.config.families)
