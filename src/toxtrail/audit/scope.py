"""Which stage runs an experiment consists of."""

from __future__ import annotations

from toxtrail.config.schema import Config
from toxtrail.pipeline import Instance, instances


def stage_runs(config: Config) -> list[Instance]:
    """Every stage run that params.yaml asks for."""
    sections = config.model_dump(
        mode="json", include={"models", "finetunes", "variants", "families"}
    )
    return instances(sections)
