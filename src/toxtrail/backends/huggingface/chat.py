"""A model's own chat template, rendered the same on every day."""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING

from toxtrail.errors import ConfigError

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

TODAY = datetime(2024, 7, 26)
"""The date that templates see: some (Llama 3.2) read the clock, which would make each day another
prompt. This is the date that Llama 3.1's own template falls back on."""


def render_chat(tokenizer: PreTrainedTokenizerBase, text: str, field: str) -> str:
    """One user message, up to where the model's answer starts.

    Args:
        field: where params.yaml asks for the chat template, for the error message.

    Raises:
        ConfigError: the model has no chat template.
    """
    if tokenizer.chat_template is None:
        raise ConfigError(
            f'{field}: "chat", but {type(tokenizer).__name__} of this model has no chat '
            "template (base models rarely do). Write another template, or leave the model out."
        )
    rendered = tokenizer.apply_chat_template(
        [{"role": "user", "content": text}],
        add_generation_prompt=True,
        tokenize=False,
        strftime_now=TODAY.strftime,
    )
    return str(rendered)
