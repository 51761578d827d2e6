"""A model's own chat template, rendered the same on every day."""

from __future__ import annotations

from typing import TYPE_CHECKING

from toxtrail.errors import ConfigError

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


def render_chat(tokenizer: PreTrainedTokenizerBase, text: str, field: str) -> str:
    """One user message, up to where the model's answer starts.

    Args:
        tokenizer: of the model.
        text: the message.
        field: where params.yaml asks for the chat template, for the error message.

    Raises:
        ConfigError: the model has no chat template.
    """
    if tokenizer.chat_template is None:
        raise ConfigError(
            f'{field}: "chat", but {type(tokenizer).__name__} of this model has no chat '
            "template (base models rarely do). Write another template, or leave the model out."
        )
    template = str(tokenizer.get_chat_template())
    rendered = tokenizer.apply_chat_template(
        [{"role": "user", "content": text}],
        chat_template=(_STOPPED_CLOCK if "strftime_now" in template else "") + template,
        add_generation_prompt=True,
        tokenize=False,
    )
    return str(rendered)
