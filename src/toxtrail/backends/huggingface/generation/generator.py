"""A loaded variant that continues prompts: the packed engine where the model allows it, else
transformers' own generate."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, Literal

from toxtrail.backends.compute.onednn_linear import Linears
from toxtrail.backends.huggingface.generation import packed_forward
from toxtrail.backends.huggingface.generation.generate_engine import Plain
from toxtrail.backends.huggingface.generation.packed_engine import Answer, Ask, Engine
from toxtrail.backends.huggingface.generation.packed_equivalence import (
    longest_packed,
    packed_agrees,
)
from toxtrail.backends.huggingface.weights.chat_template import MARKER, ChatTemplate
from toxtrail.backends.huggingface.weights.pretrained import embedding_rows
from toxtrail.backends.protocols import Completion, Decoding, EncodedPrompt
from toxtrail.errors import BackendError, ConfigError
from toxtrail.text_escaping import clipped, visible

if TYPE_CHECKING:
    from peft import PeftModel
    from transformers import PreTrainedConfig, PreTrainedModel, PreTrainedTokenizerBase

EngineName = Literal["packed", "plain"]


class HuggingFaceModel:
    """Continues prompts as `decoding` says, and as nothing in the model's own files says.

    The model's published generation settings (temperature, penalties, suppressed tokens) are
    replaced: only its end-of-sequence tokens are kept.
    """

    def __init__(
        self,
        model: PreTrainedModel | PeftModel,
        tokenizer: PreTrainedTokenizerBase,
        decoding: Decoding,
        batch_tokens: int,
        engine: Literal["auto", "packed", "plain"] = "auto",
        tell: Callable[[str], None] = lambda text: None,
    ) -> None:
        """Args:
        batch_tokens: tokens computed together; it changes the speed, not a row.
        engine: auto takes `packed` if it gives the logits that the model itself gives.
        tell: told what a person should know: a batch that had to shrink, another engine.
        """
        from transformers import GenerationConfig

        inner = without_wrapper(model)
        self._model = inner
        self._tokenizer = tokenizer
        self._decoding = decoding
        self._batch_tokens = batch_tokens
        self._tell = tell
        self._stops = stop_ids(inner, tokenizer)
        self._encoder = PromptEncoder(
            tokenizer, decoding, window(inner.config), embedding_rows(inner)
        )
        inner.generation_config = GenerationConfig()  # type: ignore[no-untyped-call]
        self.attention = str(inner.config._attn_implementation)
        """How the model attends on its own; what `plain` uses."""
        self._linears = Linears(inner)
        self.engine: EngineName = "plain" if engine == "plain" else self._packed(engine)
        self.linear = self._linears.name if self.engine == "packed" else "torch"
        """What multiplies in linear layers."""

    def _packed(self, wish: str) -> EngineName:
        """The packed engine, if it is proved to compute what the model computes."""
        problem = packed_agrees(self._model, self._tokenizer, self._linears)
        if not problem:
            return "packed"
        if wish == "packed":
            raise BackendError(f"runtime.engine: packed cannot be used: {problem}. Write auto.")
        self._tell(f"The packed engine cannot be used ({problem}): transformers' generate is.")
        return "plain"

    def encode(self, text: str) -> EncodedPrompt:
        """A prompt's tokens; for an empty prompt the beginning-of-sequence token, if there is one.

        Raises:
            ConfigError: the chat template takes no such prompt.
        """
        return self._encoder.encode(text)

    def complete(
        self, prompts: Sequence[EncodedPrompt], seeds: Sequence[int]
    ) -> Iterator[tuple[int, Completion]]:
        """Continue each prompt; each is yielded with its number as soon as it is done.

        A row's draw depends on its own prompt and seed alone.

        Raises:
            BackendError: one prompt alone does not fit the device's memory.
        """
        packable, others = list[Ask](), list[Ask]()
        limit = longest_packed(self._model) if self.engine == "packed" else 0
        for number, (prompt, seed) in enumerate(zip(prompts, seeds, strict=True)):
            if reason := refusal(prompt):
                yield number, Completion((), "", "none", reason)
                continue
            total = len(prompt.token_ids) + self._decoding.max_new_tokens
            fits = limit is None or total <= limit
            (packable if fits else others).append(Ask(number, prompt.token_ids, seed))
        for answer in self._answers(packable, others):
            yield answer.number, self._completion(answer)

    def _answers(self, packable: list[Ask], others: list[Ask]) -> Iterator[Answer]:
        own = (self._stops, self._decoding, self._batch_tokens, self._tell)
        if packable:
            with packed_forward.by_slots(self._model), self._linears.used():
                yield from Engine(self._model, *own).run(packable)
        if others:
            yield from Plain(self._model, self._pad, *own).run(others)

    @property
    def _pad(self) -> int:
        """Any token that the model has will do: it is masked."""
        rows = embedding_rows(self._model)
        tokens = (self._tokenizer.pad_token_id, *self._stops)
        return next((token for token in tokens if token is not None and token < rows), 0)

    def _completion(self, answer: Answer) -> Completion:
        if answer.failed_at is not None:
            return Completion(
                (), "", "none", f"non-finite logits at new token {answer.failed_at + 1}"
            )
        tokens = answer.tokens
        end = next((i for i, token in enumerate(tokens) if token in self._stops), None)
        own = tokens if end is None else tokens[:end]
        text = self._tokenizer.decode(
            list(own), skip_special_tokens=True, clean_up_tokenization_spaces=False
        )
        finish = "length" if end is None else "stop" if own else "none"
        return Completion(own, text, finish, "")  # type: ignore[arg-type]


def without_wrapper(model: PreTrainedModel | PeftModel) -> PreTrainedModel:
    """The transformers model itself; an attached adapter stays inside it."""
    from peft import PeftModel

    inner: Any = model.get_base_model() if isinstance(model, PeftModel) else model
    return inner.eval()  # type: ignore[no-any-return]


class PromptEncoder:
    """Turns prompts into tokens, for a model that is loaded here or served elsewhere."""

    def __init__(
        self,
        tokenizer: PreTrainedTokenizerBase,
        decoding: Decoding,
        window: int | None,
        embeddings: int | None,
    ) -> None:
        """Args:
        window: longest text in tokens, prompt and continuation together; None: no limit.
        embeddings: rows of the model's embedding; None if they are not known.

        Raises:
            ConfigError: `chat` is asked of a model whose template is missing or cannot be used.
        """
        self._tokenizer = tokenizer
        self._decoding = decoding
        self._window = window
        self._embeddings = embeddings
        field = "generation.template"
        self._chat = ChatTemplate(tokenizer, field) if decoding.template == "chat" else None
        if self._chat and (unknown := self.encode(MARKER).unknown_token) is not None:
            raise ConfigError(
                f'{field}: "chat", but the chat template writes {tokenizer.decode([unknown])!r}, '
                f"token {unknown}, and the model has embeddings for {embeddings} tokens only. Its "
                "files do not belong together: write another template, or take another model."
            )

    def encode(self, text: str) -> EncodedPrompt:
        """A prompt's tokens, and whether they leave room in the window for the continuation."""
        if self._chat:
            ids = self._tokenizer(self._chat.render(text), add_special_tokens=False)["input_ids"]
        else:
            ids = self._tokenizer(text)["input_ids"]
        if not ids and self._tokenizer.bos_token_id is not None:
            ids = [self._tokenizer.bos_token_id]
        room = self._window is None or len(ids) + self._decoding.max_new_tokens <= self._window
        return EncodedPrompt(tuple(ids), room, unknown_token(ids, self._embeddings))


def unknown_token(ids: Sequence[int], embeddings: int | None) -> int | None:
    """The first token that a model with so many embeddings does not have."""
    return next((token for token in ids if embeddings is not None and token >= embeddings), None)


def refusal(prompt: EncodedPrompt) -> str:
    """Why a prompt cannot be continued; empty if it can."""
    if not prompt.token_ids:
        return "the prompt has no tokens and the model has no beginning-of-sequence token"
    if prompt.unknown_token is not None:
        return f"the prompt has token {prompt.unknown_token}, which the model has no embedding for"
    return "" if prompt.fits else "the prompt and its continuation do not fit the model's window"


def stop_ids(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> tuple[int, ...]:
    """Every token that ends a text: of the published generation settings and of the tokenizer."""
    settings = model.generation_config
    published = settings.eos_token_id if settings is not None else None
    return ends_of(published, tokenizer)


def ends_of(published: object, tokenizer: PreTrainedTokenizerBase) -> tuple[int, ...]:
    """Every token that ends a text: the published ones, and the tokenizer's.

    Raises:
        BackendError: what is published are no token ids.
    """
    ids = published if isinstance(published, list) else [published]
    if not all(token is None or type(token) is int for token in ids):
        shown = visible(clipped(repr(published), 60))
        raise BackendError(
            f"generation_config.json of the model has eos_token_id = {shown}: it must be a token "
            "id or a list of them. Correct it in a copy of the folder, or choose another revision."
        )
    return tuple(sorted({token for token in (*ids, tokenizer.eos_token_id) if token is not None}))


def window(config: PreTrainedConfig) -> int | None:
    """Longest text in tokens, prompt and continuation together; None if the model has no limit."""
    length = getattr(config.get_text_config(), "max_position_embeddings", None)
    return length if isinstance(length, int) and length > 0 else None
