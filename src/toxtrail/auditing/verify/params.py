"""Values of params.yaml compared with those in the manifests of the files.

params.yaml and dvc.lock can be edited together, but not the manifests in the files.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from toxtrail.config.schema import Config
from toxtrail.config.sections import PinnedAsset
from toxtrail.execution.generation_params import generation_params, texts_params
from toxtrail.execution.score_rows import score_params
from toxtrail.pipeline import StageRun
from toxtrail.provenance.identity import Manifest, ModelIdentity, canonical_json


def other_params(config: Config, instance: StageRun, manifest: Manifest) -> Iterator[str]:
    """Return parameters with which a file was created that differ from params.yaml."""
    expected = _manifest_params(config, instance)
    if expected is None:
        return
    key = instance.key or ""
    for name in {**expected, **manifest.params}:
        key_path = _key_path(name, key)
        was, now = manifest.params.get(name), expected.get(name)
        for changed, old, new in changes(key_path, was, now):
            yield f"{changed}: it was created with {old}, params.yaml has {new}"


def other_model(config: Config, card: ModelIdentity) -> Iterator[str]:
    """Return how a model card differs from the model in params.yaml."""
    model = config.models.get(card.key)
    if model is None:
        return  # a fine-tune: its recipe is on the card
    key_path = f"models.{card.key}"
    yield from _other_source(key_path, model, card.base.uri, card.base.sha256)
    reader = model.texts.plain() if model.texts else None
    was = card.texts.reader if card.texts else None
    for changed, old, new in changes(f"{key_path}.texts", was, reader):
        yield f"{changed}: the card has {old}, params.yaml has {new}"
    if (model.adapter is None) != (not card.adapters):
        has = "an adapter" if card.adapters else "no adapter"
        yield f"{key_path}.adapter: the card has {has}, unlike params.yaml"
    elif model.adapter is not None:
        last = card.adapters[-1]
        yield from _other_source(f"{key_path}.adapter", model.adapter, last.uri, last.sha256)


def changes(key_path: str, was: Any, now: Any) -> Iterator[tuple[str, str, str]]:
    """Yield (key path, old, new) leaf by leaf; 1, 1.0 and true are different values, unlike in
    DVC."""
    if isinstance(was, dict) and isinstance(now, dict):
        for name in {**was, **now}:
            yield from changes(f"{key_path}.{name}", was.get(name), now.get(name))
    elif canonical_json(was) != canonical_json(now):
        yield key_path, canonical_json(was), canonical_json(now)


def _other_source(
    key_path: str, source: PinnedAsset, uri: str | None, sha256: str
) -> Iterator[str]:
    if source.uri != uri:
        yield f"{key_path}.uri: the card is of {uri}, params.yaml has {source.uri}"
    if source.sha256 not in (None, sha256):
        yield f"{key_path}.sha256: the card is of {sha256}, params.yaml has {source.sha256}"


def _manifest_params(config: Config, instance: StageRun) -> dict[str, Any] | None:
    """Return the parameters that a stage run's manifest must contain; None for stages with a model
    card."""
    makers = {
        "prompts": _of_prompts,
        "generate": _of_generations,
        "score": _of_scores,
        "posterior": _of_posterior,
        "pool": _of_pool,
        "compare": _of_comparison,
        "report": _of_report,
    }
    make = makers.get(instance.stage.name)
    return None if make is None else make(config, instance.key or "")


def _of_prompts(config: Config, _: str) -> dict[str, Any]:
    return {"prompts": config.prompts.plain()}


def _of_generations(config: Config, key: str) -> dict[str, Any]:
    if texts := config.texts_of(key):
        return texts_params(config.generation, texts)
    return generation_params(config.generation, config.api_name_of(key), config.variants[key])


def _of_scores(config: Config, _: str) -> dict[str, Any]:
    return score_params(config.scoring)


def _of_posterior(config: Config, key: str) -> dict[str, Any]:
    return {**_of_statistics(config), "variant": config.variants[key].plain()}


def _of_pool(config: Config, key: str) -> dict[str, Any]:
    pooling = config.pooling.plain() if config.pooling else None
    return {**_of_comparison(config, key), "pooling": pooling}


def _of_comparison(config: Config, key: str) -> dict[str, Any]:
    return {**_of_statistics(config), "family": config.families[key].plain()}


def _of_statistics(config: Config) -> dict[str, Any]:
    return {"posterior": config.posterior.plain(), "primary": config.scoring.primary}


def _of_report(config: Config, _: str) -> dict[str, Any]:
    return {"families": list(config.families)}


def _key_path(name: str, key: str) -> str:
    """Return the key path in params.yaml of a manifest's parameter."""
    key_paths: Mapping[str, str] = {
        "served_model_name": f"variants.{key}.served_model_name",
        "api_model": f"models.{key}.uri",
        "texts": f"models.{key}.texts",
        "scorers": "scoring.scorers",
        "max_error_share": "scoring.max_error_share",
        "primary": "scoring.primary",
        "variant": f"variants.{key}",
        "family": f"families.{key}",
    }
    return key_paths.get(name, name)
