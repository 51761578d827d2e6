"""Model: identify the weights of a model.

reads   the weights (and the adapter) that `models.<key>` names
writes  models/<key>/model.json    the identity card
"""

from __future__ import annotations

from toxtrail.backends.huggingface.weights.model_identity import build_model_identity
from toxtrail.backends.protocols import WeightsResolver, WeightsVerifier
from toxtrail.config.schema import ModelConfig
from toxtrail.storage.artifacts import ArtifactStore


def run(
    store: ArtifactStore,
    key: str,
    config: ModelConfig,
    weights: WeightsResolver,
    verifier: WeightsVerifier,
) -> None:
    """Identify the weights, verify that they load, and write the card."""
    card = build_model_identity(key, config, weights)
    probe = verifier.prove(card, store.model_dir(key))
    with store.atomic_folder(store.model_dir(key)) as draft:
        store.write_json(draft / "model.json", card.model_copy(update={"probe": probe}).to_json())
