"""The settings that apply to generation rows, as their manifest records them."""

from __future__ import annotations

from typing import Any

from toxtrail.config.schema import GenerationConfig, TextsConfig, VariantConfig


def generation_params(
    config: GenerationConfig, api_name: str | None, variant_config: VariantConfig
) -> dict[str, Any]:
    """Return the settings of rows that are generated, for their manifest.

    Args:
        api_name: name on a server, of a model that is known by it only.
    """
    if api_name is not None:
        return _api_params(config, api_name)
    name = variant_config.served_model_name
    served = {} if name is None else {"served_model_name": name}
    return {"generation": config.plain(), **served}


def _api_params(config: GenerationConfig, name: str) -> dict[str, Any]:
    """Return the settings that apply to these rows: all but the precision and the engine.

    Args:
        name: of the model on the server.
    """
    settings = {k: v for k, v in config.plain().items() if k not in ("dtype", "engine")}
    return {"generation": settings, "api_model": name}


def texts_params(config: GenerationConfig, texts: TextsConfig) -> dict[str, Any]:
    """Return the settings that apply to rows from a file; the other generation settings do not."""
    applied = {"samples", "max_error_share", "thought"}
    settings = {k: v for k, v in config.plain().items() if k in applied}
    return {"generation": settings, "texts": texts.plain()}
