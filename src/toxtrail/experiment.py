"""The experiment that a command uses: its root, config and files."""

from __future__ import annotations

from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from toxtrail.config.load import load_config
from toxtrail.config.schema import Config
from toxtrail.errors import ConfigError, did_you_mean

if TYPE_CHECKING:
    from toxtrail.config.schema import VariantConfig
    from toxtrail.storage.artifacts import ArtifactStore


class Experiment:
    """An experiment, located from a folder; everything is read on first access."""

    def __init__(self, start: Path) -> None:
        self._start = start.resolve()

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
        """Return the validated params.yaml."""
        return load_config(self.root / "params.yaml")

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

    def families(self, keys: tuple[str, ...]) -> list[str]:
        """Return the named families, or all."""
        for key in keys:
            if key not in self.config.families:
                raise ConfigError(
                    f'"{key}" is not a family.{did_you_mean(key, self.config.families)}'
                )
        return list(keys or self.config.families)
