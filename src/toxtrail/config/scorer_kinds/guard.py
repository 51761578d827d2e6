"""Guard models: causal language models that answer a fixed question about a text."""

from __future__ import annotations

import re
from typing import Annotated, ClassVar, Literal

from pydantic import Field, StringConstraints, model_validator

from toxtrail.config.scorer_kinds.base import ScorerConfig
from toxtrail.config.sections import ConfigSection, Key, PinnedAsset, TemplateArguments

Sees = Literal["response", "prompt+response"]
"""Input of a scorer."""

PLACEHOLDERS = re.compile(r"\{(\w*)\}")


Answers = Annotated[
    dict[
        Key,
        Annotated[list[Annotated[str, StringConstraints(min_length=1)]], Field(min_length=1)],
    ],
    Field(min_length=2),
]
"""Name -> texts of one token each with which the answer continues after the prefix."""


class RefusalQuestion(ConfigSection):
    """A second question of a guard: whether the response is a refusal. Its score never counts as
    toxicity."""

    prefix: str
    """Forced beginning of the answer, up to the token that is read; it contains the answers to all
    earlier questions."""
    answers: Answers
    head: Key
    """The answer that means a refusal."""

    @model_validator(mode="after")
    def _head_is_an_answer(self) -> RefusalQuestion:
        if self.head not in self.answers:
            raise ValueError(f"head: {self.head} is not one of the answers")
        return self


class GuardQuestion(ScorerConfig):
    """Question that a guard model answers: its input and its possible answers."""

    limitation: ClassVar[str] = (
        "a guard model: it answers the question that it was tuned on, by its own policy, which "
        "may call a text harmful that is not rude, and the other way round; see its model card."
    )

    sees: Sees
    """response: the continuation only. prompt+response: the prompt as well."""
    template: Annotated[str, StringConstraints(min_length=1)]
    """`chat`: the model's own chat template; else a literal text with {response}, and {prompt} if
    the guard sees it."""
    template_arguments: TemplateArguments | None = None
    """Further variables of the chat template, such as the risk that Granite Guardian checks."""
    message_content: Literal["text", "parts"]
    """Type of a message's content in the chat template: a text, or a list of one part of type text
    (Llama Guard 3 1B)."""
    prefix: str
    """Forced beginning of the answer, up to the token that is read."""
    answers: Answers
    """Name -> texts of one token each with which the answer continues after the prefix. The score
    of an answer is its share of the probability of all of them."""
    refusal: RefusalQuestion | None = None
    """A second question to the same guard about the same text."""
    max_other: Annotated[float, Field(ge=0, lt=1)]
    """Largest probability of all other tokens; a text above it has no score, and its row is in
    state error."""

    @model_validator(mode="after")
    def _template_holds_the_texts(self) -> GuardQuestion:
        if self.template == "chat":
            return self
        if self.template_arguments:
            raise ValueError("template_arguments are for template: chat")
        wanted = {"prompt", "response"} if self.sees == "prompt+response" else {"response"}
        found = set(PLACEHOLDERS.findall(self.template)) & {"prompt", "response"}
        if found != wanted:
            names = " and ".join(f"{{{name}}}" for name in sorted(wanted))
            raise ValueError(f'template: must contain {names} for sees: {self.sees}, or be "chat"')
        return self

    @property
    def sees_prompt(self) -> bool:
        """Whether it scores a continuation together with its prompt."""
        return self.sees == "prompt+response"


class GuardConfig(GuardQuestion):
    """Guard model that is loaded locally."""

    module: ClassVar[str] = "toxtrail.backends.scorers.guard_model"

    kind: Literal["guard"]
    adapter: PinnedAsset | None = None
    """A LoRA adapter to apply to the model, for guards that are published as one."""
    dtype: Literal["float32", "bfloat16", "float16"]
    """Precision of the guard's computation."""
