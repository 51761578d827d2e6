"""A loaded variant that continues prompts: LanguageModel on transformers' generate."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from toxtrail.backends.base import Completion, Decoding, EncodedPrompt
from toxtrail.backends.huggingface.chat import render_chat
from toxtrail.backends.huggingface.sampling import RowDraws
from toxtrail.backends.quiet import quiet
from toxtrail.errors import BackendError

if TYPE_CHECKING:
    import torch
    from peft import PeftModel
    from transformers import GenerationConfig, PreTrainedModel, PreTrainedTokenizerBase


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
    ) -> None:
        from transformers import GenerationConfig

        inner = without_wrapper(model)
        self._model = inner
        self._tokenizer = tokenizer
        self._decoding = decoding
        self._stops = stop_ids(inner, tokenizer)
        self._window = window(inner)
        inner.generation_config = GenerationConfig()  # type: ignore[no-untyped-call]

    def encode(self, text: str) -> EncodedPrompt:
        """A prompt's tokens; for an empty prompt the beginning-of-sequence token, if there is one.

        Raises:
            ConfigError: `chat` is asked of a model without a chat template.
        """
        if self._decoding.template == "chat":
            rendered = render_chat(self._tokenizer, text, "generation.template")
            ids = self._tokenizer(rendered, add_special_tokens=False)["input_ids"]
        else:
            ids = self._tokenizer(text)["input_ids"]
        if not ids and self._tokenizer.bos_token_id is not None:
            ids = [self._tokenizer.bos_token_id]
        room = self._window is None or len(ids) + self._decoding.max_new_tokens <= self._window
        return EncodedPrompt(tuple(ids), room)

    def complete(self, prompts: Sequence[EncodedPrompt], seeds: Sequence[int]) -> list[Completion]:
        """Continue each prompt, in order. A row's draw depends on its own seed alone.

        Raises:
            BackendError: the batch does not fit the device's memory.
        """
        refused = [refusal(prompt) for prompt in prompts]
        rows = [i for i, reason in enumerate(refused) if not reason]
        made = self._continue([prompts[i] for i in rows], [seeds[i] for i in rows]) if rows else []
        answers = iter(made)
        return [
            Completion((), "", "none", reason) if reason else next(answers) for reason in refused
        ]

    def _continue(self, prompts: list[EncodedPrompt], seeds: list[int]) -> list[Completion]:
        ids, mask = self._padded(prompts)
        draws = RowDraws(ids.shape[1], seeds, self._decoding.temperature, self._decoding.top_p)
        tokens = self._generate(ids, mask, draws)[:, ids.shape[1] :].tolist()
        return [self._completion(own, draws.failed.get(row)) for row, own in enumerate(tokens)]

    def _padded(self, prompts: list[EncodedPrompt]) -> tuple[torch.Tensor, torch.Tensor]:
        """(row, token) ids and mask, padded on the left: every row ends at the same place."""
        import torch

        width = max(len(prompt.token_ids) for prompt in prompts)
        gaps = [width - len(prompt.token_ids) for prompt in prompts]
        rows = [[self._pad] * gap + list(p.token_ids) for gap, p in zip(gaps, prompts, strict=True)]
        mask = [[0] * gap + [1] * (width - gap) for gap in gaps]
        device = self._model.device
        return torch.tensor(rows, device=device), torch.tensor(mask, device=device)

    def _generate(self, ids: torch.Tensor, mask: torch.Tensor, draws: RowDraws) -> torch.Tensor:
        import torch
        from transformers import LogitsProcessorList

        try:
            with torch.inference_mode(), quiet():
                produced: torch.Tensor = self._model.generate(  # type: ignore[operator]
                    input_ids=ids,
                    attention_mask=mask,
                    generation_config=self._settings(),
                    logits_processor=LogitsProcessorList([draws]),
                )
        except torch.OutOfMemoryError as error:
            raise BackendError(
                f"{ids.shape[0]} prompts of {ids.shape[1]} tokens do not fit the memory of "
                f"{self._model.device}. Lower runtime.batch_tokens."
            ) from error
        return produced

    def _settings(self) -> GenerationConfig:
        """Greedy: RowDraws has already put the chosen token on top."""
        from transformers import GenerationConfig

        return GenerationConfig(  # type: ignore[no-untyped-call]
            do_sample=False,
            num_beams=1,
            use_cache=True,
            max_new_tokens=self._decoding.max_new_tokens,
            eos_token_id=list(self._stops) or None,
            pad_token_id=self._pad,
        )

    @property
    def _pad(self) -> int:
        """Any token will do: it is masked."""
        pad = self._tokenizer.pad_token_id
        return pad if pad is not None else next(iter(self._stops), 0)

    def _completion(self, tokens: list[int], failed_at: int | None) -> Completion:
        end = next((i for i, token in enumerate(tokens) if token in self._stops), None)
        if failed_at is not None and (end is None or failed_at <= end):
            return Completion((), "", "none", f"non-finite logits at new token {failed_at + 1}")
        own = tuple(tokens if end is None else tokens[:end])
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


def refusal(prompt: EncodedPrompt) -> str:
    """Why a prompt cannot be continued; empty if it can."""
    if not prompt.token_ids:
        return "the prompt has no tokens and the model has no beginning-of-sequence token"
    return "" if prompt.fits else "the prompt and its continuation do not fit the model's window"


def stop_ids(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> tuple[int, ...]:
    """Every token that ends a text: of the published generation settings and of the tokenizer."""
    settings = model.generation_config
    published = settings.eos_token_id if settings is not None else None
    ids = [published] if isinstance(published, int) else list(published or ())
    if tokenizer.eos_token_id is not None:
        ids.append(tokenizer.eos_token_id)
    return tuple(sorted(set(ids)))


def window(model: PreTrainedModel) -> int | None:
    """Longest text in tokens, prompt and continuation together; None if the model has no limit."""
    length = getattr(model.config.get_text_config(), "max_position_embeddings", None)
    return length if isinstance(length, int) and length > 0 else None
