"""Turn a prompt and a response into a guard model's input, up to the first token of its answer.

A guard model is a causal language model that was tuned to answer a fixed question about a text
("Is this response harmful? yes/no"). Its input is its own chat template, rendered with the texts,
or a literal text with {prompt} and {response}; then a forced beginning of the answer.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from toxtrail.backends.huggingface.weights.chat_template import MARKER, template_text
from toxtrail.backends.huggingface.weights.template_process import Rendering, RenderingError
from toxtrail.errors import BackendError, ConfigError

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

    from toxtrail.config.scorer_kinds.guard import GuardQuestion

OVERLAP_SHARE = 4
"""A quarter of each window of a response overlaps with the window before, as for classifiers."""
MIN_ROOM = 8
"""Tokens of a response that a window must have room for. Our choice."""
NO_ROOM = "the prompt leaves no room for a response within the guard's context window"
CONTROL_TOKENS = "the prompt or the response contains control tokens of the guard model"
NEUTRAL = ("A prompt.", "A response.")
"""Prompt and response without control tokens."""
PROBES = ("The train leaves at nine.", "The train leaves at nine tomorrow, I am told by a friend.")
"""Responses scored at load time with and without padding, with torch and with oneDNN, or sent to
find a server's request format."""
PLACEHOLDER = re.compile(r"\{(prompt|response)\}")


class GuardInput(NamedTuple):
    """One window of one text."""

    token_ids: list[int]
    text: int
    """Index of the text that the window belongs to."""


class RefusalPrompt(NamedTuple):
    """The question of a guard about refusal."""

    prompt: GuardPrompt
    head: str
    """The answer that means a refusal."""


def refusal_prompt(
    tokenizer: PreTrainedTokenizerBase, options: GuardQuestion, window: int, name: str
) -> RefusalPrompt | None:
    """Return the question of a guard about refusal; None if it has none. See GuardPrompt."""
    question = options.refusal
    if question is None:
        return None
    asked = options.model_copy(update={"prefix": question.prefix, "answers": question.answers})
    prompt = GuardPrompt(tokenizer, asked, window, f"{name}: refusal")
    return RefusalPrompt(prompt, question.head)


class GuardPrompt:
    """Renders and tokenizes the inputs of one guard model."""

    def __init__(
        self,
        tokenizer: PreTrainedTokenizerBase,
        options: GuardQuestion,
        window: int,
        name: str,
    ) -> None:
        """Args:
        tokenizer: of the guard model; a fast one, so that the place of each token is known.
        window: the longest input in tokens.
        name: the scorer's name in error messages.

        Raises:
            ConfigError: the template fails or loses a text, or an answer is not a single token.
        """
        self._tokenizer, self._options = tokenizer, options
        self._window, self._name = window, name
        self._chat: Rendering | None = None
        if options.template == "chat":
            template = template_text(tokenizer, f"{name}: template")
            self._chat = Rendering(template, tokenizer.special_tokens_map)
        self._check_texts()
        added = tokenizer.added_tokens_decoder.items()
        special = {token_id for token_id, token in added if token.special}
        self._control_tokens = special - {tokenizer.unk_token_id}
        self._template_tokens = self._count_control_tokens(self._encode(*NEUTRAL))
        self.answers = self._answer_tokens()

    def inputs(self, responses: Sequence[str], prompts: Sequence[str] | None) -> list[GuardInput]:
        """Return the windows of each text, in order; a response that does not fit is split into
        overlapping windows, each with the complete prompt. A text that cannot be scored has no
        window; `problem` gives the reason.

        Args:
            prompts: of each response; None for a guard that sees the response only.
        """
        windows = []
        for number, response in enumerate(responses):
            prompt = prompts[number] if prompts is not None else ""
            for part in self._parts(prompt, response):
                windows.append(GuardInput(self._encode(prompt, part), number))
        return windows

    def probes(self) -> list[GuardInput]:
        """Return inputs with PROBES as prompts and responses.

        Raises:
            BackendError: they do not fit.
        """
        inputs = self.inputs(PROBES, PROBES[::-1])
        if len({one.text for one in inputs}) < len(PROBES):
            raise BackendError(
                f"{self._name}: its context window of {self._window} tokens has no room for the "
                "template and a short prompt and response. Choose a shorter template, or another "
                "guard model."
            )
        return inputs

    def problem(self, prompt: str, response: str) -> str:
        """Return why a text without a window cannot be scored."""
        is_clean = self._keeps_template(self._encode(prompt, response))
        return NO_ROOM if is_clean else CONTROL_TOKENS

    def _keeps_template(self, token_ids: Sequence[int]) -> bool:
        """Return whether all control tokens of an input are those of the template. Others come from
        the texts: they could end the response, and answer in place of the guard."""
        return self._count_control_tokens(token_ids) == self._template_tokens

    def _count_control_tokens(self, token_ids: Sequence[int]) -> int:
        return sum(token_id in self._control_tokens for token_id in token_ids)

    def _parts(self, prompt: str, response: str) -> list[str]:
        """Split a response so that each part fits into the window; empty if it cannot be scored."""
        token_ids = self._encode(prompt, response)
        if not self._keeps_template(token_ids):
            return []
        if len(token_ids) <= self._window:
            return [response]
        room = self._window - len(self._encode(prompt, ""))
        encoded = self._tokenizer(response, add_special_tokens=False, return_offsets_mapping=True)
        offsets = encoded["offset_mapping"]
        while room >= MIN_ROOM:
            overlap = room // OVERLAP_SHARE
            starts = range(0, max(len(offsets) - overlap, 1), room - overlap)
            parts = [
                response[offsets[i][0] : offsets[min(i + room, len(offsets)) - 1][1]]
                for i in starts
            ]
            if all(len(self._encode(prompt, part)) <= self._window for part in parts):
                return parts
            room -= OVERLAP_SHARE  # a part may have more tokens alone than inside the text
        return []

    def _encode(self, prompt: str, response: str) -> list[int]:
        """Tokenize up to the first token of the answer."""
        return self._tokenize(self._render(prompt, response) + self._options.prefix)

    def _tokenize(self, text: str) -> list[int]:
        clean = text.encode("utf-8", "replace").decode("utf-8")
        # a chat template writes the special tokens itself
        encoded = self._tokenizer(clean, add_special_tokens=self._chat is None)
        return [int(token) for token in encoded["input_ids"]]

    def _render(self, prompt: str, response: str) -> str:
        if self._chat is None:
            texts = {"prompt": prompt, "response": response}
            return PLACEHOLDER.sub(lambda match: texts[match[1]], self._options.template)
        try:
            return self._chat.render(self._messages(prompt, response), self._arguments())
        except RenderingError as error:
            raise ConfigError(
                f"{self._name}: the chat template fails on a "
                f"{self._options.sees.replace('+', ' and a ')}: {error}. Check "
                "template_arguments, or give a literal template."
            ) from None

    def _arguments(self) -> Mapping[str, Any]:
        return self._options.template_arguments or {}

    def _messages(self, prompt: str, response: str) -> list[dict[str, Any]]:
        if self._options.sees == "response":
            return [{"role": "user", "content": self._content(response)}]
        return [
            {"role": "user", "content": self._content(prompt)},
            {"role": "assistant", "content": self._content(response)},
        ]

    def _content(self, text: str) -> object:
        if self._options.message_content == "text":
            return text
        return [{"type": "text", "text": text}]

    def _check_texts(self) -> None:
        """Raise ConfigError if the template loses the prompt or the response."""
        response = MARKER.swapcase()
        rendered = self._render(MARKER, response)
        texts = {"prompt": MARKER, "response": response}
        if self._options.sees == "response":
            del texts["prompt"]
        for what, text in texts.items():
            if text.strip() not in rendered:
                raise ConfigError(
                    f"{self._name}: the template loses or changes the {what}: its rendered text "
                    f"does not contain the {what} of a test. Use another template."
                )

    def _answer_tokens(self) -> dict[str, list[int]]:
        """Return the token ids of each answer.

        Raises:
            ConfigError: an answer is not one token after the prefix, or two are the same token.
        """
        before = self._encode(*NEUTRAL)
        text = self._render(*NEUTRAL) + self._options.prefix
        tokens: dict[str, list[int]] = {}
        owners: dict[int, str] = {}
        for name, answers in self._options.answers.items():
            for answer in answers:
                after = self._tokenize(text + answer)
                if after[:-1] != before:
                    extra = self._tokenizer.convert_ids_to_tokens(after[_common(before, after) :])
                    raise ConfigError(
                        f"{self._name}: answers.{name}: {answer!r} is not a single token after "
                        f"the prefix {self._options.prefix!r}: its tokens are {extra}. Give the "
                        "first token of the answer, and move what precedes it to the prefix."
                    )
                token = after[-1]
                if token in owners:
                    raise ConfigError(
                        f"{self._name}: answers.{name} and answers.{owners[token]} have the same "
                        f"token, {answer!r}. Each token belongs to one answer."
                    )
                owners[token] = name
                tokens.setdefault(name, []).append(token)
        return tokens


def _common(left: Sequence[int], right: Sequence[int]) -> int:
    """Return the length of the common beginning."""
    for number, (a, b) in enumerate(zip(left, right, strict=False)):
        if a != b:
            return number
    return min(len(left), len(right))
