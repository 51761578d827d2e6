"""Identity of the weights that params.yaml names."""

from __future__ import annotations

from toxtrail.backends.protocols import WeightsResolver
from toxtrail.config.schema import ModelConfig
from toxtrail.provenance.identity import ModelIdentity


def build_model_identity(key: str, config: ModelConfig, weights: WeightsResolver) -> ModelIdentity:
    """Fetch, verify and hash existing weights."""
    base = weights.describe(config.uri, config.sha256)
    if config.adapter is None:
        return ModelIdentity(key=key, base=base, adapters=())
    adapter = weights.describe_adapter(key, config.adapter.uri, config.adapter.sha256, base)
    return ModelIdentity(key=key, base=base, adapters=(adapter,))
