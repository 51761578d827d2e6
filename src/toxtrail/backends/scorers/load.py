"""Load a scorer of params.yaml and check it on its golden texts."""

from __future__ import annotations

from toxtrail.backends.protocols import Assets, Scorer
from toxtrail.backends.scorers.golden import check_golden
from toxtrail.config.schema import ScorerConfig
from toxtrail.errors import ConfigError, did_you_mean


def load_scorer(config: ScorerConfig, assets: Assets, device: str, batch_size: int) -> Scorer:
    """Load and check a scorer.

    Args:
        batch_size: windows in one forward pass.

    Raises:
        ConfigError: the scorer has no head of the configured name.
        BackendError: an asset is missing or differs from its pin, or a golden text has another
            score.
    """
    scorer = _load_kind(config, assets, device, batch_size)
    if config.head not in scorer.heads:
        raise ConfigError(
            f'{config.uri}: unknown head "{config.head}".'
            f"{did_you_mean(config.head, list(scorer.heads))}"
        )
    check_golden(scorer, config)
    return scorer


def _load_kind(config: ScorerConfig, assets: Assets, device: str, batch_size: int) -> Scorer:
    if config.kind == "jigsaw-bilstm":
        from toxtrail.backends.scorers.jigsaw_bilstm import load

        return load(config, assets, device, batch_size)
    if config.kind == "detoxify":
        from toxtrail.backends.scorers import detoxify

        return detoxify.load(config, assets, device, batch_size)
    from toxtrail.backends.scorers import hf_classifier

    return hf_classifier.load(config, assets, device, batch_size)
