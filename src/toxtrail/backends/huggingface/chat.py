"""A model's own chat template, rendered the same on every day."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from toxtrail.errors import ConfigError
from toxtrail.records import Turn

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

_DATE = {
    "%d": "26", "%b": "Jul", "%B": "July", "%m": "07", "%Y": "2024", "%y": "24",
    "%A": "Friday", "%a": "Fri", "%H": "12", "%M": "00", "%S": "00",
}  # fmt: skip
"""The day that templates see. Some (Llama 3.2) read the clock, which would make each day another
prompt; this is the date that Llama 3.1's own template falls back on."""

_STOPPED_CLOCK = (
    "{%- macro strftime_now(format) -%}{{- format"
    + "".join(f" | replace('{code}', '{value}')" for code, value in _DATE.items())
    + " -}}{%- endmacro -%}"
)
"""Hides the function of the same name that transformers gives to templates."""


def render_chat(
    tokenizer: PreTrainedTokenizerBase, text: str, field: str, earlier: Sequence[Turn] = ()
) -> str:
    """One user message after what was said before, up to where the model's answer starts.

    Args:
        tokenizer: of the model.
        text: the message.
        field: where params.yaml asks for the chat template, for the error message.

    Raises:
        ConfigError: the model has no chat template, or it takes no such conversation.
    """
    from jinja2 import TemplateError

    if tokenizer.chat_template is None:
        raise ConfigError(
            f'{field}: "chat", but {type(tokenizer).__name__} of this model has no chat '
            "template (base models rarely do). Write another template, or leave the model out."
        )
    template = str(tokenizer.get_chat_template())
    turns = [*earlier, Turn("user", text)]
    try:
        rendered = tokenizer.apply_chat_template(
            [{"role": turn.role, "content": turn.text} for turn in turns],
            chat_template=(_STOPPED_CLOCK if "strftime_now" in template else "") + template,
            add_generation_prompt=True,
            tokenize=False,
        )
    except TemplateError as error:
        raise ConfigError(
            f'{field}: "chat", but the template of this model refuses a conversation of '
            f"{', '.join(turn.role for turn in turns)}: {error}. Write another template."
        ) from None
    return str(rendered)
