"""SCORER_KINDS: the kinds of scorers, by their name in params.yaml; plug-ins add others."""

from __future__ import annotations

from toxtrail.config.plugins import SCORERS, installed_plugins, plugin_named
from toxtrail.config.scorer_kinds.base import ScorerConfig
from toxtrail.config.scorer_kinds.detoxify import DetoxifyConfig
from toxtrail.config.scorer_kinds.guard import GuardConfig
from toxtrail.config.scorer_kinds.hf_classifier import HuggingFaceClassifierConfig
from toxtrail.config.scorer_kinds.jigsaw_bilstm import JigsawBilstmConfig
from toxtrail.config.scorer_kinds.plugin import MissingPluginConfig, PluginScorerConfig
from toxtrail.config.scorer_kinds.served_guard import ServedGuardConfig

SCORER_KINDS: dict[str, type[ScorerConfig]] = {
    "jigsaw-bilstm": JigsawBilstmConfig,
    "detoxify": DetoxifyConfig,
    "hf": HuggingFaceClassifierConfig,
    "guard": GuardConfig,
    "served-guard": ServedGuardConfig,
}


def scorer_class(kind: str, pinned: bool) -> type[ScorerConfig] | None:
    """Return the class of a kind of toxtrail or of an installed plug-in; None if there is none.

    Args:
        pinned: whether the entry has the pin of a plug-in, which may be missing here.

    Raises:
        ConfigError: the plug-in cannot be imported, or several have this kind.
    """
    if kind in SCORER_KINDS:
        return SCORER_KINDS[kind]
    if plugin := plugin_named(SCORERS, kind):
        return plugin.load_options(PluginScorerConfig)
    return MissingPluginConfig if pinned else None


def kind_names() -> list[str]:
    """Return the names of all kinds, those of plug-ins last."""
    return list(dict.fromkeys([*SCORER_KINDS, *(p.name for p in installed_plugins(SCORERS))]))
