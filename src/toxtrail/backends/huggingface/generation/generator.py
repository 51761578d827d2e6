"""Generate continuations with a loaded variant: with the packed engine where the model supports it,
else with transformers' generate."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Sequence
from typing import TYPE_CHECKING, Any, Literal

from toxtrail.backends.compute.onednn_linear import OneDnnLinears
from toxtrail.backends.huggingface.generation import packed_forward
from toxtrail.backends.huggingface.generation.continuation_text import ContinuationDecoder
from toxtrail.backends.huggingface.generation.generate_engine import GenerateEngine
from toxtrail.backends.huggingface.generation.packed_engine import (
    EngineRequest,
    GenerationResult,
    PackedEngine,
)
from toxtrail.backends.huggingface.generation.packed_equivalence import (
    longest_packed,
    packed_mismatch,
)
from toxtrail.backends.huggingface.weights.chat_template import (
    MARKER,
    ChatTemplate,
    template_variables,
)
from toxtrail.backends.huggingface.weights.pretrained import embedding_rows
from toxtrail.backends.protocols import Completion, Decoding, EncodedPrompt
from toxtrail.errors import BackendError, ConfigError
from toxtrail.records.thought import opens_thought, undeclared_opening
from toxtrail.text_escaping import escape_control_chars, truncate_text

if TYPE_CHECKING:
    from peft import PeftModel
    from transformers import PreTrainedConfig, PreTrainedModel, PreTrainedTokenizerBase

    from toxtrail.records.rows import FinishReason, Role, Turn

TEMPLATE = "generation.template"
EngineName = Literal["packed", "plain"]


class HuggingFaceModel:
    """A model that continues prompts as set in `decoding`.

    The model's published generation settings (temperature, penalties, suppressed tokens) are
    ignored, except for its end-of-sequence tokens.
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
        batch_tokens: tokens computed together; changes the speed, not the rows.
        engine: auto uses `packed` if it gives the same logits as the model itself.
        tell: receives messages for the user: a batch that had to shrink, another engine.
        """
        from transformers import GenerationConfig

        inner = unwrap_peft(model)
        self._model = inner
        self._tokenizer = tokenizer
        self._decoding = decoding
        self._batch_tokens = batch_tokens
        self._tell = tell
        self._stops = stop_ids(inner, tokenizer)
        self.encoder = PromptEncoder(
            tokenizer, decoding, context_length(inner.config), embedding_rows(inner)
        )
        self._decoder = ContinuationDecoder(tokenizer, decoding.thought)
        inner.generation_config = GenerationConfig()  # type: ignore[no-untyped-call]
        self.attention = str(inner.config._attn_implementation)
        """The model's attention implementation, which `plain` uses."""
        self._linears = OneDnnLinears(inner)
        self.engine: EngineName = "plain" if engine == "plain" else self._choose_engine(engine)
        self.linear = self._linears.name if self.engine == "packed" else "torch"
        """Implementation of the linear layers."""

    def _choose_engine(self, setting: str) -> EngineName:
        """Choose the packed engine if it gives the same logits as the model."""
        problem = packed_mismatch(self._model, self._tokenizer, self._linears)
        if not problem:
            return "packed"
        if setting == "packed":
            raise BackendError(f"runtime.engine: packed cannot be used: {problem}. Use auto.")
        self._tell(f"The packed engine cannot be used ({problem}); using transformers' generate.")
        return "plain"

    def encode(self, text: str, earlier: Sequence[Turn] = ()) -> EncodedPrompt:
        """Tokenize a prompt; an empty one becomes the beginning-of-sequence token, if it exists.

        Raises:
            ConfigError: the chat template does not accept the prompt.
        """
        return self.encoder.encode(text, earlier)

    def complete(
        self, prompts: Sequence[EncodedPrompt], seeds: Sequence[int]
    ) -> Iterator[tuple[int, Completion]]:
        """Continue each prompt; yield each with its index as soon as it is finished.

        A row's sample depends only on its own prompt and seed.

        Raises:
            BackendError: a single prompt does not fit into the device's memory.
        """
        packable, others = list[EngineRequest](), list[EngineRequest]()
        limit = longest_packed(self._model) if self.engine == "packed" else 0
        for number, (prompt, seed) in enumerate(zip(prompts, seeds, strict=True)):
            if reason := prompt_problem(prompt):
                yield number, Completion((), "", "none", reason)
                continue
            total = len(prompt.token_ids) + self._decoding.max_new_tokens
            fits = limit is None or total <= limit
            (packable if fits else others).append(EngineRequest(number, prompt.token_ids, seed))
        for answer in self._answers(packable, others):
            yield answer.number, self._completion(answer)

    def _answers(
        self, packable: list[EngineRequest], others: list[EngineRequest]
    ) -> Iterator[GenerationResult]:
        settings = (self._stops, self._decoding, self._batch_tokens, self._tell)
        if packable:
            with packed_forward.packed_attention(self._model), self._linears.used():
                yield from PackedEngine(self._model, *settings).run(packable)
        if others:
            yield from GenerateEngine(self._model, self._pad, *settings).run(others)

    @property
    def _pad(self) -> int:
        """Return any token id of the model for padding; it is masked."""
        rows = embedding_rows(self._model)
        tokens = (self._tokenizer.pad_token_id, *self._stops)
        return next((token for token in tokens if token is not None and token < rows), 0)

    def _completion(self, answer: GenerationResult) -> Completion:
        if answer.failed_at is not None:
            return Completion(
                (), "", "none", f"non-finite logits at new token {answer.failed_at + 1}"
            )
        return completion_of(answer.tokens, self._stops, self._decoder)


def completion_of(
    tokens: tuple[int, ...], stops: Collection[int], decoder: ContinuationDecoder
) -> Completion:
    """Return the continuation that new tokens are: those before the first end-of-sequence token."""
    end = next((i for i, token in enumerate(tokens) if token in stops), None)
    new_tokens = tokens if end is None else tokens[:end]
    finish: FinishReason = "length" if end is None else "stop" if new_tokens else "none"
    ends = decoder.thought_ends(new_tokens)
    return Completion(new_tokens, decoder.text(new_tokens), finish, "", ends)


def unwrap_peft(model: PreTrainedModel | PeftModel) -> PreTrainedModel:
    """Return the transformers model; an attached adapter stays inside it."""
    from peft import PeftModel

    inner: Any = model.get_base_model() if isinstance(model, PeftModel) else model
    return inner.eval()  # type: ignore[no-any-return]


class PromptEncoder:
    """Tokenizer of prompts, for a loaded or a served model."""

    def __init__(
        self,
        tokenizer: PreTrainedTokenizerBase,
        decoding: Decoding,
        window: int | None,
        embeddings: int | None,
    ) -> None:
        """Args:
        window: longest text in tokens, including the continuation; None: no limit.
        embeddings: rows of the model's embedding; None if unknown.

        Raises:
            ConfigError: the template is `chat`, and the model's is missing, cannot be used, or
                opens a thought although no markers are declared.
        """
        self._tokenizer = tokenizer
        self._decoding = decoding
        self._window = window
        self._embeddings = embeddings
        self._checked_roles: set[tuple[Role, ...]] = {()}
        self._chat: ChatTemplate | None = None
        if decoding.template == "chat":
            self._chat = ChatTemplate(tokenizer, TEMPLATE, decoding.template_arguments)
            self._check_earlier(self._chat)
        if self._chat and (unknown := self.encode(MARKER).unknown_token) is not None:
            raise ConfigError(
                f'{TEMPLATE}: "chat", but the chat template contains '
                f"{tokenizer.decode([unknown])!r}, "
                f"token {unknown}, and the model has only {embeddings} embeddings: its files do "
                "not match. Use another template or another model."
            )
        if decoding.thought is None:
            _refuse_undeclared_thought(self.prompt_format() or "")

    def _check_earlier(self, chat: ChatTemplate) -> None:
        earlier = self._decoding.earlier
        if earlier and earlier[0].role == "system":
            chat.check_earlier(earlier[:1], "generation.system")
        if len(earlier) > 1:
            chat.check_earlier(earlier, "generation.turns")

    def _check_roles(self, chat: ChatTemplate, earlier: Sequence[Turn]) -> None:
        """Check the template once for each sequence of roles in the prompts."""
        roles = tuple(turn.role for turn in earlier)
        if roles not in self._checked_roles:
            chat.check_earlier((*self._decoding.earlier, *earlier), "these prompts")
            self._checked_roles.add(roles)

    def template_variables(self) -> frozenset[str]:
        """Return the names of the variables that the chat template reads."""
        return template_variables(self._tokenizer, TEMPLATE)

    def prompt_format(self) -> str | None:
        """Return the input of the model with {prompt} in place of a prompt, and {user} and
        {assistant} in place of earlier turns; None: the prompt alone.

        It shows what the template adds, such as a system message of its own.
        """
        if self._chat is None:
            return None
        names = {f"({n}) {MARKER}": turn for n, turn in enumerate(self._decoding.earlier)}
        earlier = [t if t.role == "system" else t._replace(text=m) for m, t in names.items()]
        rendered = self._chat.render(MARKER, earlier)
        for marker, turn in names.items():
            rendered = rendered.replace(marker, f"{{{turn.role}}}")
        return rendered.replace(MARKER, "{prompt}")

    def encode(self, text: str, earlier: Sequence[Turn] = ()) -> EncodedPrompt:
        """Tokenize a prompt, and check that the continuation fits into the context window."""
        prompt = text
        if self._chat:
            self._check_roles(self._chat, earlier)
            prompt = self._chat.render(text, (*self._decoding.earlier, *earlier))
        ids = self._tokenizer(prompt, add_special_tokens=not self._chat)["input_ids"]
        if not ids and self._tokenizer.bos_token_id is not None:
            ids = [self._tokenizer.bos_token_id]
        room = self._window is None or len(ids) + self._decoding.max_new_tokens <= self._window
        opens = opens_thought(prompt, self._decoding.thought)
        return EncodedPrompt(tuple(ids), room, unknown_token(ids, self._embeddings), opens)


def _refuse_undeclared_thought(prompt_format: str) -> None:
    """Raise if the chat template opens a thought, which would be scored as the answer."""
    if begin := undeclared_opening(prompt_format):
        end = f"{begin[0]}/{begin[1:]}"
        raise ConfigError(
            f'{TEMPLATE}: "chat", but the chat template opens a thought ({begin}), and without '
            "its markers the thought would be scored as the answer. Add to generation: thought: "
            f"{{begin: '{begin}', end: '{end}'}} (as this model writes them), or, if the template "
            "can turn thoughts off, template_arguments (enable_thinking: false for many)."
        )


def unknown_token(ids: Sequence[int], embeddings: int | None) -> int | None:
    """Return the first token id without an embedding; None if all have one."""
    return next((token for token in ids if embeddings is not None and token >= embeddings), None)


def prompt_problem(prompt: EncodedPrompt) -> str:
    """Explain why a prompt cannot be continued; empty if it can."""
    if not prompt.token_ids:
        return "the prompt has no tokens and the model has no beginning-of-sequence token"
    if prompt.unknown_token is not None:
        return f"the prompt has token {prompt.unknown_token}, which the model has no embedding for"
    return "" if prompt.fits else "the prompt and its continuation do not fit the model's window"


def stop_ids(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> tuple[int, ...]:
    """List the end-of-sequence tokens of the published generation settings and the tokenizer."""
    settings = model.generation_config
    published = settings.eos_token_id if settings is not None else None
    return ends_of(published, tokenizer)


def ends_of(published: object, tokenizer: PreTrainedTokenizerBase) -> tuple[int, ...]:
    """List the end-of-sequence tokens: the published ones and the tokenizer's.

    Raises:
        BackendError: the published ones are not token ids.
    """
    ids = published if isinstance(published, list) else [published]
    if not all(token is None or type(token) is int for token in ids):
        text = escape_control_chars(truncate_text(repr(published), 60))
        raise BackendError(
            f"The model's generation_config.json has eos_token_id = {text}; expected a token id "
            "or a list of them. Correct it in a copy of the folder, or choose another revision."
        )
    return tuple(sorted({token for token in (*ids, tokenizer.eos_token_id) if token is not None}))


def context_length(config: PreTrainedConfig) -> int | None:
    """Return the longest text in tokens, including the continuation; None if there is no limit."""
    length = getattr(config.get_text_config(), "max_position_embeddings", None)
    return length if isinstance(length, int) and length > 0 else None
