"""Common options of all kinds of scorers."""

from __future__ import annotations

from collections.abc import Iterator
from importlib import import_module
from types import ModuleType
from typing import Annotated, Any, ClassVar, Self

from pydantic import (
    AfterValidator,
    Field,
    ModelWrapValidatorHandler,
    PositiveFloat,
    model_validator,
)
from pydantic_core import PydanticKnownError

from toxtrail.config.sections import ConfigSection, Language, PinnedAsset


class GoldenText(ConfigSection):
    """Text with a known score."""

    text: str
    prompt: str | None = None
    """Prompt of the text, for a scorer that sees it."""
    score: Annotated[float, Field(ge=0, le=1)] | None
    """Expected score; null if it was not measured yet, in which case the scorer is not compared
    with it."""


HeadName = Annotated[str, Field(min_length=1)]
HeadNames = Annotated[list[HeadName], Field(min_length=2)]


class HeadCombination(ConfigSection):
    """Combination of several heads to one score in [0, 1], computed in each window of a text."""

    any: HeadNames | None = None
    """Probability of at least one of these heads, taken as independent."""
    max: HeadNames | None = None
    """Largest of these heads."""
    sum: HeadNames | None = None
    """Sum of these heads, for heads that exclude each other (softmax)."""
    one_minus: HeadName | None = None
    """One minus this head, for example `neutral` of a classifier of kinds of toxicity."""

    @model_validator(mode="after")
    def _is_one_rule(self) -> HeadCombination:
        given = [name for name, value in self if value is not None]
        if len(given) != 1:
            raise ValueError("Give exactly one of any, max, sum and one_minus")
        if len(set(self.parts)) < len(self.parts):
            raise ValueError(f"{given[0]}: each head once")
        return self

    @property
    def rule(self) -> str:
        """Name of the rule: any, max, sum or one_minus."""
        return next(name for name, value in self if value is not None)

    @property
    def parts(self) -> tuple[str, ...]:
        """Names of the heads that are combined."""
        value = getattr(self, self.rule)
        return (value,) if isinstance(value, str) else tuple(value)

    @property
    def label(self) -> str:
        """Name of the combined head in the rows of scores."""
        if self.rule == "one_minus":
            return f"1 - {self.one_minus}"
        return f"{self.rule}({', '.join(self.parts)})"


def head_label(head: object) -> str:
    """Return the name of a head, or of a combination, as in a manifest.

    Args:
        head: a string, or the JSON of a HeadCombination.
    """
    return head if isinstance(head, str) else HeadCombination.model_validate(head).label


def _registered(kind: str) -> str:
    from toxtrail.config.scorer_kinds.registry import kind_names

    if kind not in (names := kind_names()):
        *others, last = (f"'{name}'" for name in names)
        expected = f"{', '.join(others)} or {last}"
        raise PydanticKnownError("literal_error", {"expected": expected})
    return kind


class ScorerConfig(PinnedAsset):
    """One frozen classifier; `kind` selects the subclass with the options of that kind."""

    module: ClassVar[str]
    """Module that loads it: see `toxtrail.backends.scorers.load.ScorerModule`."""
    limitation: ClassVar[str]
    """Known limitation of the kind; printed wherever its numbers are published."""
    is_classifier_folder: ClassVar[bool] = False
    """Whether `uri` is a Hugging Face folder with safetensors weights, which `check` inspects."""
    is_served: ClassVar[bool] = False
    """Whether it runs on a server, whose address is in `runtime.servers`."""

    kind: Annotated[str, AfterValidator(_registered)]
    head: str | HeadCombination
    """The head used as toxicity, or a combination of heads."""
    golden: list[GoldenText]
    """Texts that are scored first; another score means that the scorer is not the pinned one."""
    golden_tolerance: PositiveFloat
    languages: Annotated[list[Language], Field(min_length=1)] | None = None
    """Languages of its training texts as BCP 47 tags, to count the texts in another one. It changes
    no score."""

    @property
    def head_name(self) -> str:
        """Name of the head used as toxicity in the rows of scores."""
        return self.head if isinstance(self.head, str) else self.head.label

    @property
    def combination(self) -> HeadCombination | None:
        """The combination used as toxicity; None if it is a head of the scorer."""
        return None if isinstance(self.head, str) else self.head

    @property
    def required_heads(self) -> tuple[str, ...]:
        """Heads that the scorer must have."""
        return (self.head,) if isinstance(self.head, str) else self.head.parts

    @property
    def sees_prompt(self) -> bool:
        """Whether it scores a continuation together with its prompt."""
        return False

    @classmethod
    def class_for(cls, values: object) -> type[Self]:
        """Return the class of the values' kind; this one if there is none."""
        from toxtrail.config.scorer_kinds.registry import scorer_class

        kind, pin = (
            values.get(k) if isinstance(values, dict) else None for k in ("kind", "plugin")
        )
        registered = scorer_class(kind, isinstance(pin, dict)) if isinstance(kind, str) else None
        return registered if registered and issubclass(registered, cls) else cls

    @model_validator(mode="wrap")
    @classmethod
    def _of_its_kind(cls, values: Any, handler: ModelWrapValidatorHandler[Self]) -> Self:
        kind = cls.class_for(values)
        return handler(values) if kind is cls else kind.model_validate(values)

    def code(self) -> ModuleType:
        """Import its module."""
        return import_module(self.module)

    @classmethod
    def limitations(cls, uri: str) -> str:
        """Return the known limitations of a scorer of this kind and URI."""
        return cls.limitation

    def assets(self) -> Iterator[tuple[str, PinnedAsset]]:
        """Yield the options that are assets, besides the scorer itself."""
        for name in type(self).model_fields:
            if isinstance(value := getattr(self, name), PinnedAsset):
                yield name, value
