"""SCORER_KINDS: the kinds of scorers, by their name in params.yaml."""

from __future__ import annotations

from toxtrail.config.scorer_kinds.base import ScorerConfig
from toxtrail.config.scorer_kinds.detoxify import DetoxifyConfig
from toxtrail.config.scorer_kinds.guard import GuardConfig
from toxtrail.config.scorer_kinds.hf_classifier import HuggingFaceClassifierConfig
from toxtrail.config.scorer_kinds.jigsaw_bilstm import JigsawBilstmConfig
from toxtrail.config.scorer_kinds.served_guard import ServedGuardConfig

SCORER_KINDS: dict[str, type[ScorerConfig]] = {
    "jigsaw-bilstm": JigsawBilstmConfig,
    "detoxify": DetoxifyConfig,
    "hf": HuggingFaceClassifierConfig,
    "guard": GuardConfig,
    "served-guard": ServedGuardConfig,
}
