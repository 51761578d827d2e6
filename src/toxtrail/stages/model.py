"""Model: identify the weights of a model, a file of texts that were generated elsewhere, or a name
on a server.

reads   the weights (and the adapter), or the file of texts, that `models.<key>` names
writes  models/<key>/model.json    the identity card
"""

from __future__ import annotations

from toxtrail.backends.huggingface.weights.model_identity import build_model_identity
from toxtrail.backends.openai_api.api_identity import build_api_identity
from toxtrail.backends.protocols import Assets, WeightsResolver, WeightsVerifier
from toxtrail.config.schema import ModelConfig, TextsConfig
from toxtrail.datasets.generated_texts.identity import build_texts_identity
from toxtrail.provenance.identity import ModelIdentity
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
    _write(store, card.model_copy(update={"probe": probe}))


def run_texts(
    store: ArtifactStore, key: str, config: ModelConfig, texts: TextsConfig, assets: Assets
) -> None:
    """Identify a file of texts and write its card; no weights are loaded."""
    _write(store, build_texts_identity(key, config, texts, assets))


def run_api(store: ArtifactStore, key: str, name: str) -> None:
    """Write the card of a model that is known by its name on a server only."""
    _write(store, build_api_identity(key, name))


def _write(store: ArtifactStore, card: ModelIdentity) -> None:
    with store.atomic_folder(store.model_dir(card.key)) as draft:
        store.write_json(draft / "model.json", card.to_json())
