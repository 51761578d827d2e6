"""Model: identify the weights of a model.

reads   the weights (and the adapter) that `models.<key>` names
writes  models/<key>/model.json    the identity card
"""

from __future__ import annotations

from toxtrail.backends.protocols import WeightsResolver, WeightsVerifier
from toxtrail.config.schema import ModelConfig
from toxtrail.provenance.identity import ModelIdentity
from toxtrail.storage.artifacts import ArtifactStore


def build_model_identity(key: str, config: ModelConfig, weights: WeightsResolver) -> ModelIdentity:
    """Fetch, verify and hash existing weights."""
    base = weights.describe(config.uri, config.sha256)
    if config.adapter is None:
        return ModelIdentity(key=key, base=base, adapters=())
    adapter = weights.describe_adapter(key, config.adapter.uri, config.adapter.sha256, base)
    return ModelIdentity(key=key, base=base, adapters=(adapter,))


def run(
    store: ArtifactStore,
    key: str,
    config: ModelConfig,
    weights: WeightsResolver,
    prover: WeightsVerifier,
) -> None:
    """Identify the weights, verify that they load, and write the card."""
    card = build_model_identity(key, config, weights)
    probe = prover.prove(card, store.model_dir(key))
    with store.atomic_folder(store.model_dir(key)) as draft:
        store.write_json(draft / "model.json", card.model_copy(update={"probe": probe}).to_json())
