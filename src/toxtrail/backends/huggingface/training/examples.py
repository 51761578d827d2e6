"""Convert instruction rows to token ids and labels for a fine-tune."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, NamedTuple

from toxtrail.backends.huggingface.weights.chat_template import ChatTemplate
from toxtrail.config.schema import FinetuneConfig
from toxtrail.errors import BackendError, DataError
from toxtrail.records.rows import InstructionExample, Turn

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedTokenizerBase

PLACEHOLDER = "This message stands for another one: 7f3a91c2."
"""Placeholder text that occurs in no conversation."""
IGNORE_INDEX = -100
"""Label of a token that is not learned (torch's cross-entropy ignores it)."""


class TrainingText(NamedTuple):
    """One example as text."""

    prompt: str
    completion: str
    special_tokens: bool
    """Whether the tokenizer must add special tokens (a chat template already contains them)."""
    context: tuple[tuple[int, int], ...] = ()
    """(start, end) of the prompt's characters that are never learned."""


class EncodedExample(NamedTuple):
    """One example as tokens."""

    input_ids: list[int]
    labels: list[int]
    """input_ids, with IGNORED for tokens that are not learned."""
    cut: bool
    """Whether it was longer than max_length."""


def chat_template(
    tokenizer: PreTrainedTokenizerBase, recipe: FinetuneConfig
) -> ChatTemplate | None:
    """Return the parent's chat template, if the recipe uses it.

    Raises:
        ConfigError: the parent has none, or it cannot be used.
    """
    return ChatTemplate(tokenizer, "finetunes.template") if recipe.template == "chat" else None


def encode_examples(
    examples: Sequence[InstructionExample],
    tokenizer: PreTrainedTokenizerBase,
    recipe: FinetuneConfig,
) -> list[EncodedExample]:
    """Format and tokenize every example, in order.

    Raises:
        ConfigError: the template is `chat`, and the model's is missing or loses a turn.
        DataError: no examples, or one with nothing to learn within max_length.
        BackendError: the tokenizer has no end-of-sequence token or no character offsets.
    """
    if not examples:
        raise DataError(f"{recipe.data.uri} has no examples: there is nothing to train on.")
    if not tokenizer.is_fast or tokenizer.eos_token_id is None:
        raise BackendError(
            f"{type(tokenizer).__name__} has no character offsets or no end-of-sequence token; "
            "both are needed to separate prompt and response. Choose a parent with tokenizer.json."
        )
    chat = chat_template(tokenizer, recipe)
    encoded = [encode_example(example, tokenizer, recipe, chat) for example in examples]
    empty = [i for i, row in enumerate(encoded) if set(row.labels[1:]) <= {IGNORE_INDEX}]
    if empty:
        raise DataError(
            f"{recipe.data.uri}: {len(empty)} example(s) have nothing to learn within max_length "
            f"= {recipe.max_length} tokens, the first is row {empty[0]}. Raise max_length, or "
            "remove them."
        )
    return encoded


def encode_example(
    example: InstructionExample,
    tokenizer: PreTrainedTokenizerBase,
    recipe: FinetuneConfig,
    chat: ChatTemplate | None,
) -> EncodedExample:
    """Tokenize prompt and response together, append EOS, then truncate at max_length.

    A token that overlaps the response belongs to the response.

    Args:
        chat: the model's chat template, if the recipe uses it.
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
    labels = [token if yes else IGNORE_INDEX for token, yes in zip(ids, learned, strict=True)]
    limit = recipe.max_length
    return EncodedExample(ids[:limit], labels[:limit], len(ids) > limit)


def refuse_unknown_tokens(
    encoded: Sequence[EncodedExample], embeddings: int, recipe: FinetuneConfig
) -> None:
    """Raise if an example has a token for which the model has no embedding."""
    for index, example in enumerate(encoded):
        if (largest := max(example.input_ids)) >= embeddings:
            raise BackendError(
                f"{recipe.data.uri}: example {index} has token {largest}, but {recipe.parent} has "
                f"only {embeddings:,} embeddings: its tokenizer does not match its weights. "
                "Choose another parent, or remove the example."
            )


def training_text(
    example: InstructionExample,
    tokenizer: PreTrainedTokenizerBase,
    recipe: FinetuneConfig,
    chat: ChatTemplate | None,
) -> TrainingText:
    """Format an example with the recipe's template."""
    before, _, after = ("", "", "") if chat else recipe.template.partition("{response}")

    def render_turns(turns: Sequence[Turn]) -> str:
        *earlier, last = turns
        if chat:
            return chat.render(last.text, earlier)
        return _format_conversation(earlier, last.text, before, after)

    instruction = with_context(example, recipe.context_template)
    turns = (*example.earlier, Turn("user", instruction, example.learn_instruction))
    prompt = render_turns(turns)
    context = tuple(_context_spans(turns, prompt, render_turns)) if recipe.loss_on == "all" else ()
    has_bos = bool(tokenizer.bos_token) and prompt.startswith(str(tokenizer.bos_token))
    return TrainingText(prompt, example.response + after, not (chat or has_bos), context)


def _context_spans(
    turns: Sequence[Turn], prompt: str, render_turns: Callable[[Sequence[Turn]], str]
) -> Iterator[tuple[int, int]]:
    """Locate the messages in the prompt that are context only: each is replaced with a placeholder,
    and the rest of the prompt must not change.

    Raises:
        DataError: the rest changes, so the message has no unique position.
    """
    for number, turn in enumerate(turns):
        if turn.learned or not turn.text:
            continue
        rendered = render_turns(
            [*turns[:number], turn._replace(text=PLACEHOLDER), *turns[number + 1 :]]
        )
        if rendered.count(PLACEHOLDER) != 1 or rendered.replace(PLACEHOLDER, turn.text) != prompt:
            raise DataError(
                f"Message {number + 1} of a conversation must not be learned (weight: 0 or train: "
                "false), but the template changes it, so its position in the text is unknown. Use "
                "loss_on: response, or another template."
            )
        start = rendered.index(PLACEHOLDER)
        yield start, start + len(turn.text)


def _format_conversation(earlier: Sequence[Turn], instruction: str, before: str, after: str) -> str:
    """Format a conversation up to its next answer: each question and answer in the template,
    separated by an empty line; a system message precedes the first question."""
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


def with_context(example: InstructionExample, template: str | None) -> str:
    """Join the instruction and the material it refers to."""
    if not example.context:
        return example.instruction
    if template is None:
        return f"{example.instruction}\n\n{example.context}"
    return f"{example.instruction}\n{template.replace('{context}', example.context)}"


def collate(batch: Sequence[EncodedExample], pad: int) -> dict[str, torch.Tensor]:
    """Convert examples to (row, token) tensors, padded on the right to the longest of the batch."""
    import torch

    width = max(len(example.input_ids) for example in batch)

    def padded(values: Sequence[list[int]], filler: int) -> torch.Tensor:
        return torch.tensor([row + [filler] * (width - len(row)) for row in values])

    return {
        "input_ids": padded([example.input_ids for example in batch], pad),
        "attention_mask": padded([[1] * len(example.input_ids) for example in batch], 0),
        "labels": padded([example.labels for example in batch], IGNORE_INDEX),
    }
