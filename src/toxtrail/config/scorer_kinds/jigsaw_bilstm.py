"""The small Jigsaw classifier of tox-block."""

from __future__ import annotations

from typing import ClassVar, Literal

from toxtrail.config.scorer_kinds.base import ScorerConfig
from toxtrail.config.sections import PinnedAsset


class JigsawBilstmConfig(ScorerConfig):
    """A BiLSTM with the six Jigsaw labels."""

    module: ClassVar[str] = "toxtrail.backends.scorers.jigsaw_bilstm"
    limitation: ClassVar[str] = (
        "small and lexical (Jigsaw comments). On RealToxicityPrompts it follows Perspective (AUC "
        ".94); on HateCheck it is no better than chance (AUC .50): it sees no implicit or negated "
        "hate, and single words can trigger it. English only."
    )

    kind: Literal["jigsaw-bilstm"]
    base: PinnedAsset | None = None
    """Its vocabulary, which is required and must be pinned."""
