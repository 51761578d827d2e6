"""Load a scorer of params.yaml and check it on its golden texts."""

from __future__ import annotations

from importlib import import_module
from pathlib import Path
from typing import Any, Protocol, cast

from toxtrail.backends.protocols import Assets, Scorer
from toxtrail.backends.scorers.golden import check_golden
from toxtrail.config.scorer_kinds.base import ScorerConfig
from toxtrail.errors import ConfigError, did_you_mean


class ScorerModule(Protocol):
    """Interface of a scorer kind's module; `config` is an instance of the kind's class."""

    def load(self, config: Any, assets: Assets, device: str, batch_size: int) -> Scorer: ...

    def known_heads(self, config: Any, folder: Path | None) -> tuple[str, ...]: ...


def load_scorer(config: ScorerConfig, assets: Assets, device: str, batch_size: int) -> Scorer:
    """Load and check a scorer.

    Args:
        batch_size: windows in one forward pass.

    Raises:
        ConfigError: the scorer has no head of the configured name.
        BackendError: an asset is missing or differs from its pin, or a golden text has another
            score.
    """
    scorer = _module(config).load(config, assets, device, batch_size)
    for head in config.required_heads:
        if head not in scorer.heads:
            raise ConfigError(
                f'{config.uri}: unknown head "{head}".{did_you_mean(head, list(scorer.heads))}'
            )
    check_golden(scorer, config)
    return scorer


def known_heads(config: ScorerConfig, folder: Path | None) -> tuple[str, ...]:
    """Return the heads that a scorer can have, without loading it; empty if unknown.

    Args:
        folder: folder of a Hugging Face classifier's files; None if they are not local.
    """
    return _module(config).known_heads(config, folder)


def _module(config: ScorerConfig) -> ScorerModule:
    return cast(ScorerModule, import_module(config.module))
