"""A model's own chat template: rendered the same on every day, and held to render what was said."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from toxtrail.backends.huggingface.weights.template_process import Rendering, RenderingError
from toxtrail.errors import ConfigError
from toxtrail.records.rows import Turn
from toxtrail.text_escaping import clipped, visible

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

MARKER = (
    "mIxed Case \"double\" 'single' `back` <b>bold</b> &amp; [x](y) {{ a }} {% b %} # $1 %s \\n\n"
    "\n\ttab,  two  spaces\u00a0and a r\u00e9sum\u00e9, \u00dfe\u0301, \u65e5\u672c, \U0001f600; "
    "https://example.org/a?b=1&c=2 eNd"
)
"""What templates have been seen to change: case, quotes, markup, white space, other scripts."""
LONG = " ".join(str(number) for number in range(2000))
"""A prompt that a template which cuts would cut."""
SHOWN = 300
"""Characters shown of what a template made."""
SWITCHES = re.compile(r"/no_think|/think|/system_override")
"""Words in a system's message that templates (SmolLM3, Qwen3) obey and leave out."""


class ChatTemplate:
    """Renders conversations, after it has been shown to lose nothing of them."""

    def __init__(self, tokenizer: PreTrainedTokenizerBase, field: str) -> None:
        """Args:
        tokenizer: of the model.
        field: where params.yaml asks for the chat template, for error messages.

        Raises:
            ConfigError: the model has no chat template, or one that loses the prompt, fails, or
                does not end.
        """
        self._field = field
        self._where = f"the chat template of {tokenizer.name_or_path or type(tokenizer).__name__}"
        template = self._template(tokenizer)
        clock = _STOPPED_CLOCK if "strftime_now" in template else ""
        self._rendering = Rendering(clock + template, tokenizer.special_tokens_map)
        self._prove()

    def render(self, text: str, earlier: Sequence[Turn] = ()) -> str:
        """One user message after what was said before, up to where the model's answer starts.

        Raises:
            ConfigError: the template takes no such conversation, or loses a part of it.
        """
        turns = [*earlier, Turn("user", text)]
        rendered = self._rendered(turns)
        if lost := [turn.role for turn in lost_turns(rendered, turns)]:
            raise ConfigError(
                f'{self._field}: "chat", but {self._where} loses what the {" and the ".join(lost)} '
                f"said: of a conversation of {_roles(turns)} ({sum(len(t.text) for t in turns):,} "
                f"characters) it made a text of {len(rendered):,} in which that does not stand "
                "unchanged. Write another template."
            )
        return rendered

    def _template(self, tokenizer: PreTrainedTokenizerBase) -> str:
        template: object = tokenizer.chat_template
        if template is None:
            raise ConfigError(
                f'{self._field}: "chat", but {type(tokenizer).__name__} of this model has no chat '
                "template (base models rarely do). Write another template, or leave the model out."
            )
        if isinstance(template, dict):
            if "default" not in template:
                raise ConfigError(
                    f'{self._field}: "chat", but {self._where} is several, and none of them is '
                    f"named default: {', '.join(map(repr, template))}. Write another template."
                )
            template = template["default"]
        if not isinstance(template, str):
            raise ConfigError(
                f'{self._field}: "chat", but {self._where} is no text: '
                f"{clipped(visible(repr(template)), SHOWN)}. Write another template."
            )
        return template

    def _prove(self) -> None:
        """Render texts that are hard to keep, before a long run."""
        made = []
        for text in (MARKER, LONG):
            turns = [Turn("user", text)]
            rendered = self._rendered(turns)
            if list(lost_turns(rendered, turns)):
                raise ConfigError(
                    f'{self._field}: "chat", but {self._where} loses the prompt: of '
                    f'"{_shown(text)}" it made "{_shown(rendered)}". The prompt must stand in it '
                    "unchanged. Write another template."
                )
            made.append(rendered)
        if self._rendered([Turn("user", MARKER)]) != made[0]:
            raise ConfigError(
                f'{self._field}: "chat", but {self._where} makes another text of the same prompt '
                "each time. Write another template."
            )

    def _rendered(self, turns: Sequence[Turn]) -> str:
        try:
            return self._rendering.render([{"role": t.role, "content": t.text} for t in turns])
        except RenderingError as error:
            raise ConfigError(
                f'{self._field}: "chat", but {self._where} fails on a conversation of '
                f"{_roles(turns)}: {error}. Write another template."
            ) from None


def lost_turns(rendered: str, turns: Sequence[Turn]) -> Iterator[Turn]:
    """The turns whose text does not stand in what a template made of them, unchanged and in order.

    White space around a text may go. A system's message may stand anywhere (Mistral puts it before
    the last question), without the switches in it; of an earlier answer its thoughts may be left
    out (what comes before `</think>`).
    """
    place = 0
    for turn in turns:
        if turn.role == "system":
            if not all(part.strip() in rendered for part in SWITCHES.split(turn.text)):
                yield turn
            continue
        text = turn.text.strip()
        found = rendered.find(text, place)
        if found < 0 and turn.role == "assistant":
            text = text.rpartition("</think>")[2].strip()
            found = rendered.find(text, place)
        if found < 0:
            yield turn
        else:
            place = found + len(text)


def _roles(turns: Sequence[Turn]) -> str:
    return ", ".join(turn.role for turn in turns)


def _shown(text: str) -> str:
    return clipped(visible(text), SHOWN)
