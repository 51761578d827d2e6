"""Sequence classifiers of the Hugging Face Hub, or in its layout."""

from __future__ import annotations

from typing import ClassVar, Literal

from toxtrail.config.scorer_kinds.base import ScorerConfig

DYNABENCH = (
    "a hate-speech detector (Dynabench round 4, Vidgen et al. 2021), the one the reference paper "
    "used: plain profanity, threats and insults that name no group may pass."
)


class HuggingFaceClassifierConfig(ScorerConfig):
    """A sequence classifier with safetensors weights."""

    module: ClassVar[str] = "toxtrail.backends.scorers.hf_classifier"
    limitation: ClassVar[str] = (
        "a classifier from the Hugging Face Hub: it detects what its training labels called toxic, "
        "which may be hate speech only; see its model card."
    )
    is_classifier_folder: ClassVar[bool] = True

    kind: Literal["hf"]
    activation: Literal["softmax", "sigmoid"] | None = None
    """Function from logits to probabilities, if the model's config does not define it."""

    @classmethod
    def limitations(cls, uri: str) -> str:
        """Return the limitations of the reference paper's scorer, or those of any classifier."""
        return DYNABENCH if "dynabench" in uri else cls.limitation
