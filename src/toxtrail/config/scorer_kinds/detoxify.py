"""Checkpoints of the package detoxify."""

from __future__ import annotations

from typing import ClassVar, Literal

from toxtrail.config.scorer_kinds.base import ScorerConfig
from toxtrail.config.sections import PinnedAsset


class DetoxifyConfig(ScorerConfig):
    """A Detoxify checkpoint: published ones by name, custom ones by file."""

    module: ClassVar[str] = "toxtrail.backends.scorers.detoxify"
    limitation: ClassVar[str] = (
        "a transformer trained on Jigsaw comments. It rates swear words and names of groups high "
        "regardless of context, misses implied toxicity, and was trained on comments by people, "
        "not on a model's continuations."
    )

    kind: Literal["detoxify"]
    base: PinnedAsset
    """The encoder's config and tokenizer: a folder or a repo."""
