"""Load a scorer of params.yaml and check it on its golden texts."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Protocol, cast

from toxtrail.backends.openai_api.client import Client
from toxtrail.backends.protocols import Assets, Scorer
from toxtrail.backends.scorers.golden import check_golden
from toxtrail.config.scorer_kinds.base import ScorerConfig
from toxtrail.errors import ConfigError, did_you_mean


class ConnectedScorer(Protocol):
    """A scorer on a server."""

    @property
    def scorer(self) -> Scorer: ...

    @property
    def environment(self) -> dict[str, str]:
        """The server's metadata and the request format, for manifests."""
        ...

    @property
    def listing(self) -> str:
        """Whether the server's list of models has the name, as text."""
        ...


class ServedScorerModule(Protocol):
    """Interface of the module of a kind whose scorers run on a server."""

    def connect(
        self, config: Any, assets: Assets, client: Client, concurrency: int
    ) -> ConnectedScorer: ...


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
    _check(scorer, config)
    return scorer


def connect_scorer(
    config: ScorerConfig, assets: Assets, client: Client, concurrency: int
) -> ConnectedScorer:
    """Find a scorer on its server, and check it.

    Args:
        concurrency: number of parallel requests.

    Raises:
        ConfigError: the scorer has no head of the configured name, or the server has no such model.
        BackendError: the server cannot be used, or a golden text has another score.
    """
    module = cast(ServedScorerModule, config.code())
    connected = module.connect(config, assets, client, concurrency)
    _check(connected.scorer, config)
    return connected


def _check(scorer: Scorer, config: ScorerConfig) -> None:
    for head in config.required_heads:
        if head not in scorer.heads:
            raise ConfigError(
                f'{config.uri}: unknown head "{head}".{did_you_mean(head, list(scorer.heads))}'
            )
    check_golden(scorer, config)


def known_heads(config: ScorerConfig, folder: Path | None) -> tuple[str, ...]:
    """Return the heads that a scorer can have, without loading it; empty if unknown.

    Args:
        folder: folder of a Hugging Face classifier's files; None if they are not local.
    """
    return _module(config).known_heads(config, folder)


def _module(config: ScorerConfig) -> ScorerModule:
    return cast(ScorerModule, config.code())
