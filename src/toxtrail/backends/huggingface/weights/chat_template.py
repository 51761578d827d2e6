"""Render a model's chat template, independently of the date, and check that it loses no text."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from toxtrail.backends.huggingface.weights.template_process import Rendering, RenderingError
from toxtrail.errors import ConfigError
from toxtrail.records.rows import Turn
from toxtrail.text_escaping import escape_control_chars, truncate_text

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

_DATE = {
    "%d": "26", "%b": "Jul", "%B": "July", "%m": "07", "%Y": "2024", "%y": "24",
    "%A": "Friday", "%a": "Fri", "%H": "12", "%M": "00", "%S": "00",
}  # fmt: skip
"""The date that templates see. Some (Llama 3.2) read the clock, which would change the prompt every
day; this is the default date of Llama 3.1's template."""

_STOPPED_CLOCK = (
    "{%- macro strftime_now(format) -%}{{- format"
    + "".join(f" | replace('{code}', '{value}')" for code, value in _DATE.items())
    + " -}}{%- endmacro -%}"
)
"""Macro that replaces the function of the same name that transformers provides to templates."""

MARKER = (
    "mIxed Case \"double\" 'single' `back` <b>bold</b> &amp; [x](y) {{ a }} {% b %} # $1 %s \\n\n"
    "\n\ttab,  two  spaces\u00a0and a r\u00e9sum\u00e9, \u00dfe\u0301, \u65e5\u672c, \U0001f600; "
    "https://example.org/a?b=1&c=2 eNd"
)
"""Text that templates are known to change: case, quotes, markup, white space, other scripts."""
LONG = " ".join(str(number) for number in range(2000))
"""A prompt that a truncating template would truncate."""
CURE = "Use another template."
MAX_EXCERPT = 300
"""Largest number of characters of a rendered text in a message."""
SWITCHES = re.compile(r"/no_think|/think|/system_override")
"""Commands in a system message that templates (SmolLM3, Qwen3) execute and remove."""


class ChatTemplate:
    """A chat template that was checked to lose no part of a conversation."""

    def __init__(
        self,
        tokenizer: PreTrainedTokenizerBase,
        field: str,
        arguments: Mapping[str, Any] | None = None,
    ) -> None:
        """Args:
        tokenizer: of the model.
        field: the key in params.yaml that selects the chat template, for error messages.
        arguments: further variables of the template: JSON values by name.

        Raises:
            ConfigError: the model has no chat template, or one that loses the prompt, fails, or
                does not terminate.
        """
        self._place = f'{field}: "chat", but'
        self._source = _source_name(tokenizer)
        self._arguments = dict(arguments or {})
        template = template_text(tokenizer, field)
        self._rendering = Rendering(template, tokenizer.special_tokens_map)
        self._check()

    def render(self, text: str, earlier: Sequence[Turn] = ()) -> str:
        """Render a user message after the earlier turns, up to the start of the model's answer.

        Raises:
            ConfigError: the template does not accept the conversation, or loses a part of it.
        """
        return self._render_whole([*earlier, Turn("user", text)])

    def check_earlier(self, earlier: Sequence[Turn], field: str) -> None:
        """Check that the template accepts and keeps messages before a prompt: their roles with
        difficult texts, each of which must be rendered once; and their own texts.

        Args:
            field: the key in params.yaml that sets the messages, for error messages.

        Raises:
            ConfigError: it does not.
        """
        roles = [*(turn.role for turn in earlier), "user"]
        marked = [Turn(role, f"({n}) {MARKER}") for n, role in enumerate(roles)]
        cure = f"Remove {field}, or use another model."
        rendered = self._render_whole(marked, cure)
        self._render_whole([*earlier, Turn("user", MARKER)], cure)
        if repeated := [turn for turn in marked if rendered.count(turn.text) > 1]:
            raise ConfigError(
                f"{self._place} {self._source} renders the text of {_roles(repeated)} more than "
                f"once. {cure}"
            )

    def _render_whole(self, turns: Sequence[Turn], cure: str = CURE) -> str:
        rendered = self._render(turns, cure)
        if lost := list(lost_turns(rendered, turns)):
            raise ConfigError(
                f"{self._place} {self._source} changes or drops the text of: "
                f"{_roles(lost)}. It rendered a conversation of {_roles(turns)} "
                f"({sum(len(t.text) for t in turns):,} characters) as {len(rendered):,} "
                f"characters. {cure}"
            )
        return rendered

    def _check(self) -> None:
        """Render difficult texts, before a long run."""
        renderings = []
        for text in (MARKER, LONG):
            turns = [Turn("user", text)]
            rendered = self._render(turns)
            if list(lost_turns(rendered, turns)) or rendered.count(text) > 1:
                raise ConfigError(
                    f"{self._place} {self._source} loses or repeats the prompt: it rendered "
                    f'"{_excerpt(text)}" as "{_excerpt(rendered)}", which must contain the prompt '
                    "once and unchanged. Use another template."
                )
            renderings.append(rendered)
        if self._render([Turn("user", MARKER)]) != renderings[0]:
            raise ConfigError(
                f"{self._place} {self._source} renders the same prompt differently "
                "each time. Use another template."
            )

    def _render(self, turns: Sequence[Turn], cure: str = CURE) -> str:
        messages = [{"role": turn.role, "content": turn.text} for turn in turns]
        try:
            return self._rendering.render(messages, self._arguments)
        except RenderingError as error:
            raise ConfigError(
                f"{self._place} {self._source} fails on a conversation of "
                f"{_roles(turns)}: {error}. {cure}"
            ) from None


def template_text(tokenizer: PreTrainedTokenizerBase, field: str) -> str:
    """Return a model's chat template, with the clock stopped.

    Args:
        field: the key in params.yaml that selects the chat template, for error messages.

    Raises:
        ConfigError: the model has no chat template, or several and none of them is the default.
    """
    template: object = tokenizer.chat_template
    if template is None:
        raise ConfigError(
            f'{field}: "chat", but {type(tokenizer).__name__} of this model has no chat '
            "template (base models rarely do). Use another template, or leave the model out."
        )
    if isinstance(template, dict):
        if "default" not in template:
            raise ConfigError(
                f'{field}: "chat", but {_source_name(tokenizer)} has several templates, none '
                f"named default: {', '.join(map(repr, template))}. Use another template."
            )
        template = template["default"]
    if not isinstance(template, str):
        raise ConfigError(
            f'{field}: "chat", but {_source_name(tokenizer)} is not a string: '
            f"{truncate_text(escape_control_chars(repr(template)), MAX_EXCERPT)}. "
            "Use another template."
        )
    return (_STOPPED_CLOCK if "strftime_now" in template else "") + template


def template_variables(tokenizer: PreTrainedTokenizerBase, field: str) -> frozenset[str]:
    """Return the names of the variables that a model's chat template reads.

    Args:
        field: the key in params.yaml that selects the chat template, for error messages.

    Raises:
        ConfigError: there is no chat template, or it is not valid Jinja.
    """
    rendering = Rendering(template_text(tokenizer, field), tokenizer.special_tokens_map)
    try:
        return rendering.variables()
    except RenderingError as error:
        raise ConfigError(
            f'{field}: "chat", but {_source_name(tokenizer)} cannot be parsed: {error}. {CURE}'
        ) from None


def _source_name(tokenizer: PreTrainedTokenizerBase) -> str:
    return f"the chat template of {tokenizer.name_or_path or type(tokenizer).__name__}"


def lost_turns(rendered: str, turns: Sequence[Turn]) -> Iterator[Turn]:
    """Yield the turns whose text is not in the rendered text, unchanged and in order.

    White space around a text may be removed. A system message may be anywhere (Mistral puts it
    before the last question), without its commands; from an earlier answer, its reasoning (before
    `</think>`) may be left out.
    """
    position = 0
    for turn in turns:
        if turn.role == "system":
            if not all(part.strip() in rendered for part in SWITCHES.split(turn.text)):
                yield turn
            continue
        text = turn.text.strip()
        index = rendered.find(text, position)
        if index < 0 and turn.role == "assistant":
            text = text.rpartition("</think>")[2].strip()
            index = rendered.find(text, position)
        if index < 0:
            yield turn
        else:
            position = index + len(text)


def _roles(turns: Sequence[Turn]) -> str:
    return ", ".join(turn.role for turn in turns)


def _excerpt(text: str) -> str:
    return truncate_text(escape_control_chars(text), MAX_EXCERPT)
