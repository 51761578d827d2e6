"""What all kinds of scorers have in common."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Any, ClassVar, Self

from pydantic import (
    AfterValidator,
    Field,
    ModelWrapValidatorHandler,
    PositiveFloat,
    model_validator,
)
from pydantic_core import PydanticKnownError

from toxtrail.config.sections import ConfigSection, PinnedAsset


class GoldenText(ConfigSection):
    """Text with a known score."""

    text: str
    score: Annotated[float, Field(ge=0, le=1)]


def _registered(kind: str) -> str:
    from toxtrail.config.scorer_kinds.registry import SCORER_KINDS

    if kind not in SCORER_KINDS:
        *others, last = (f"'{name}'" for name in SCORER_KINDS)
        expected = f"{', '.join(others)} or {last}"
        raise PydanticKnownError("literal_error", {"expected": expected})
    return kind


class ScorerConfig(PinnedAsset):
    """One frozen classifier; `kind` selects the subclass, which holds the options of that kind."""

    module: ClassVar[str]
    """Imported to load it: see `toxtrail.backends.scorers.load.ScorerModule`."""
    limitation: ClassVar[str]
    """What the kind is known not to detect; printed wherever its numbers leave the project."""
    is_classifier_folder: ClassVar[bool] = False
    """Whether `uri` is a Hugging Face folder with safetensors weights, which `check` looks into."""

    kind: Annotated[str, AfterValidator(_registered)]
    head: str
    """The head used as toxicity."""
    golden: list[GoldenText]
    """Texts that are scored first; another score means that the scorer is not the pinned one."""
    golden_tolerance: PositiveFloat

    @classmethod
    def class_for(cls, values: object) -> type[Self]:
        """Return the class of the values' kind; this one if there is none."""
        from toxtrail.config.scorer_kinds.registry import SCORER_KINDS

        kind = values.get("kind") if isinstance(values, dict) else None
        registered = SCORER_KINDS.get(kind) if isinstance(kind, str) else None
        return registered if registered and issubclass(registered, cls) else cls

    @model_validator(mode="wrap")
    @classmethod
    def _of_its_kind(cls, values: Any, handler: ModelWrapValidatorHandler[Self]) -> Self:
        kind = cls.class_for(values)
        return handler(values) if kind is cls else kind.model_validate(values)

    @classmethod
    def limitations(cls, uri: str) -> str:
        """Return what a scorer of this kind, of this address, is known not to detect."""
        return cls.limitation

    def assets(self) -> Iterator[tuple[str, PinnedAsset]]:
        """Yield the options that are assets, besides the scorer itself."""
        for name in type(self).model_fields:
            if isinstance(value := getattr(self, name), PinnedAsset):
                yield name, value
