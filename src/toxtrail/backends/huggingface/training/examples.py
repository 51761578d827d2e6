"""Instruction rows -> token ids and labels for a fine-tune."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, NamedTuple

from toxtrail.backends.huggingface.weights.chat_template import ChatTemplate
from toxtrail.config.schema import FinetuneConfig
from toxtrail.errors import BackendError, DataError
from toxtrail.records.rows import Example, Turn

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedTokenizerBase

STAND_IN = "This message stands for another one: 7f3a91c2."
"""Text that is in no conversation."""
IGNORED = -100
"""Label of a token that is read but not learned (torch's cross-entropy skips it)."""


class TrainingText(NamedTuple):
    """One example as text."""

    prompt: str
    completion: str
    special_tokens: bool
    """Whether the tokenizer still has to add its own (a chat template has them already)."""
    context: tuple[tuple[int, int], ...] = ()
    """Characters of the prompt, from and to, that are never learned."""


class EncodedExample(NamedTuple):
    """One example as tokens."""

    input_ids: list[int]
    labels: list[int]
    """input_ids, with IGNORED where nothing is learned."""
    cut: bool
    """Whether it was longer than max_length."""


def chat_template(
    tokenizer: PreTrainedTokenizerBase, recipe: FinetuneConfig
) -> ChatTemplate | None:
    """The parent's own template, where the recipe asks for it.

    Raises:
        ConfigError: there is none, or it cannot be used.
    """
    return ChatTemplate(tokenizer, "finetunes.template") if recipe.template == "chat" else None


def encode_examples(
    examples: Sequence[Example], tokenizer: PreTrainedTokenizerBase, recipe: FinetuneConfig
) -> list[EncodedExample]:
    """Form and tokenize every example, in order.

    Raises:
        ConfigError: `chat` is asked of a model whose template is missing or loses a turn.
        DataError: no examples, or one with nothing to learn within max_length.
        BackendError: the tokenizer has no end-of-sequence token or no character offsets.
    """
    if not examples:
        raise DataError(f"{recipe.data.uri} has no examples: there is nothing to train on.")
    if not tokenizer.is_fast or tokenizer.eos_token_id is None:
        raise BackendError(
            f"{type(tokenizer).__name__} has no character offsets or no end-of-sequence token; "
            "both are needed to tell prompt from response. Choose a parent with a tokenizer.json."
        )
    chat = chat_template(tokenizer, recipe)
    encoded = [encode_example(example, tokenizer, recipe, chat) for example in examples]
    barren = [row for row, one in enumerate(encoded) if set(one.labels[1:]) <= {IGNORED}]
    if barren:
        raise DataError(
            f"{recipe.data.uri}: {len(barren)} example(s) have nothing to learn within max_length "
            f"= {recipe.max_length} tokens, the first is row {barren[0]}. Raise it or drop them."
        )
    return encoded


def encode_example(
    example: Example,
    tokenizer: PreTrainedTokenizerBase,
    recipe: FinetuneConfig,
    chat: ChatTemplate | None,
) -> EncodedExample:
    """Tokenize prompt and response together, end with EOS, then cut at max_length.

    A token that reaches into the response belongs to the response.

    Args:
        chat: the model's own template, if the recipe asks for it.
    """
    text = training_text(example, tokenizer, recipe, chat)
    encoding = tokenizer(
        text.prompt + text.completion,
        add_special_tokens=text.special_tokens,
        return_offsets_mapping=True,
    )
    ids = list(encoding["input_ids"])
    learned = [
        (recipe.loss_on == "all" or end > len(text.prompt))
        and not any(start < last and end > first for first, last in text.context)
        for start, end in encoding["offset_mapping"]
    ]
    if ids[-1:] != [tokenizer.eos_token_id]:
        ids, learned = [*ids, tokenizer.eos_token_id], [*learned, True]
    labels = [token if yes else IGNORED for token, yes in zip(ids, learned, strict=True)]
    limit = recipe.max_length
    return EncodedExample(ids[:limit], labels[:limit], len(ids) > limit)


def refuse_unknown_tokens(
    encoded: Sequence[EncodedExample], embeddings: int, recipe: FinetuneConfig
) -> None:
    """Raise if an example has a token that the model has no embedding for."""
    for row, one in enumerate(encoded):
        if (largest := max(one.input_ids)) >= embeddings:
            raise BackendError(
                f"{recipe.data.uri}: example {row} has token {largest}, and {recipe.parent} has "
                f"embeddings for {embeddings:,} tokens only: its tokenizer and weights do not "
                "belong together. Choose another parent, or leave the example out."
            )


def training_text(
    example: Example,
    tokenizer: PreTrainedTokenizerBase,
    recipe: FinetuneConfig,
    chat: ChatTemplate | None,
) -> TrainingText:
    """Put an example into the recipe's template."""
    before, _, after = ("", "", "") if chat else recipe.template.partition("{response}")

    def formed(turns: Sequence[Turn]) -> str:
        *earlier, last = turns
        if chat:
            return chat.render(last.text, earlier)
        return _said_before(earlier, last.text, before, after)

    instruction = with_context(example, recipe.context_template)
    turns = (*example.earlier, Turn("user", instruction, example.learn_instruction))
    prompt = formed(turns)
    context = tuple(_spans(turns, prompt, formed)) if recipe.loss_on == "all" else ()
    has_bos = bool(tokenizer.bos_token) and prompt.startswith(str(tokenizer.bos_token))
    return TrainingText(prompt, example.response + after, not (chat or has_bos), context)


def _spans(
    turns: Sequence[Turn], prompt: str, formed: Callable[[Sequence[Turn]], str]
) -> Iterator[tuple[int, int]]:
    """Where in the prompt the messages stand that are context alone: another text is put in the
    place of one, and all else must stay the same.

    Raises:
        DataError: the template changes more than that, so the message has no one place.
    """
    for number, turn in enumerate(turns):
        if turn.learned or not turn.text:
            continue
        made = formed([*turns[:number], turn._replace(text=STAND_IN), *turns[number + 1 :]])
        if made.count(STAND_IN) != 1 or made.replace(STAND_IN, turn.text) != prompt:
            raise DataError(
                f"Message {number + 1} of a conversation is not to be learned (weight: 0 or train: "
                "false), but the template changes it, so its place in the text is not known. Use "
                "loss_on: response, or another template."
            )
        start = made.index(STAND_IN)
        yield start, start + len(turn.text)


def _said_before(earlier: Sequence[Turn], instruction: str, before: str, after: str) -> str:
    """A conversation up to its next answer: each question and answer in the template, with an empty
    line between; a system's message stands before the first question."""
    system, written = "", ""
    for turn in (*earlier, Turn("user", instruction)):
        if turn.role == "system":
            system = f"{turn.text}\n\n"
        elif turn.role == "user":
            written += before.replace("{instruction}", system + turn.text)
            system = ""
        else:
            written += f"{turn.text}{after}\n\n"
    return written


def with_context(example: Example, template: str | None) -> str:
    """The instruction and the material it refers to."""
    if not example.context:
        return example.instruction
    if template is None:
        return f"{example.instruction}\n\n{example.context}"
    return f"{example.instruction}\n{template.replace('{context}', example.context)}"


def collate(batch: Sequence[EncodedExample], pad: int) -> dict[str, torch.Tensor]:
    """Examples -> (row, token) tensors, padded on the right to the longest of the batch."""
    import torch

    width = max(len(one.input_ids) for one in batch)

    def padded(values: Sequence[list[int]], filler: int) -> torch.Tensor:
        return torch.tensor([row + [filler] * (width - len(row)) for row in values])

    return {
        "input_ids": padded([one.input_ids for one in batch], pad),
        "attention_mask": padded([[1] * len(one.input_ids) for one in batch], 0),
        "labels": padded([one.labels for one in batch], IGNORED),
    }
