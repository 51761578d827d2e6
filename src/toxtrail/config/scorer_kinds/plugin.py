"""Scorers of plug-ins."""

from __future__ import annotations

from types import ModuleType
from typing import ClassVar

from pydantic import ConfigDict

from toxtrail.config.plugins import PluginPin, import_code
from toxtrail.config.scorer_kinds.base import ScorerConfig


class PluginScorerConfig(ScorerConfig):
    """Base class of the options of a plug-in's scorer kind."""

    limitation: ClassVar[str] = "a scorer of a plug-in: see its documentation."

    plugin: PluginPin | None = None
    """Distribution and code; `toxtrail pin` writes it."""

    def code(self) -> ModuleType:
        """Import its module."""
        return import_code(self.module, self.kind, self.plugin)


class MissingPluginConfig(PluginScorerConfig):
    """Scorer of a pinned plug-in that is not installed: its results can be read, and it cannot
    score."""

    model_config = ConfigDict(extra="allow")

    module: ClassVar[str] = ""

    kind: str
