"""Published scorers with the options that params.yaml needs: presets/scorers/<name>.yaml."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import yaml
from pydantic import Field, SerializeAsAny

from toxtrail.config.schema import Threshold
from toxtrail.config.scorer_kinds.base import ScorerConfig
from toxtrail.config.sections import ConfigSection
from toxtrail.errors import ConfigError, did_you_mean

FOLDER = Path(__file__).resolve().parents[1] / "presets" / "scorers"


class ScorerPreset(ConfigSection):
    """A published scorer."""

    summary: str
    """Scored property, and the supported languages."""
    license: str
    gated: bool
    """Whether its license must be accepted on the Hub before it can be downloaded."""
    parameters: Annotated[int, Field(ge=1)]
    """Number of weights, rounded."""
    card: str
    """URL of its model card."""
    threshold: Threshold
    """Its entry in posterior.threshold: 0.5 for a classifier or guard whose answers are two."""
    entry: SerializeAsAny[ScorerConfig]
    """Its entry in scoring.scorers, without pins."""

    @property
    def sees(self) -> str:
        """Input of the scorer."""
        return "prompt+response" if self.entry.sees_prompt else "response"

    @property
    def is_measured(self) -> bool:
        """Whether the scores of its golden texts are known."""
        return all(golden.score is not None for golden in self.entry.golden)


def scorer_presets() -> dict[str, ScorerPreset]:
    """Read the presets as name -> preset, sorted by name."""
    return {
        path.stem: ScorerPreset.model_validate(yaml.safe_load(path.read_text("utf-8")))
        for path in sorted(FOLDER.glob("*.yaml"))
    }


def scorer_preset(name: str) -> ScorerPreset:
    """Read one preset.

    Raises:
        ConfigError: there is none of this name.
    """
    presets = scorer_presets()
    if name not in presets:
        raise ConfigError(f'Unknown scorer "{name}".{did_you_mean(name, list(presets))}')
    return presets[name]


def entry_values(entry: ScorerConfig) -> dict[str, Any]:
    """Return an entry for params.yaml: without absent options, but with golden texts whose scores
    are null."""
    values = entry.plain()
    values["golden"] = [
        golden.model_dump(mode="json", exclude_none=True) | {"score": golden.score}
        for golden in entry.golden
    ]
    return values
