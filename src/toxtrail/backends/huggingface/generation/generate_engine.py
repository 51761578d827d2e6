"""Generate with transformers' generate, for models that the packed engine does not support.

Rows of similar length form a batch, padded on the left, up to a budget of padded tokens. Here a
row's last bits may depend on the other rows of its batch (near ties may resolve differently), so
the batches are recorded with the execution.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING

from toxtrail.backends.huggingface.generation.packed_engine import (
    EngineRequest,
    GenerationResult,
    is_out_of_memory,
)
from toxtrail.backends.huggingface.generation.sampling import SeededSampler
from toxtrail.backends.protocols import Decoding
from toxtrail.backends.silence import silence_libraries
from toxtrail.errors import BackendError

if TYPE_CHECKING:
    import torch
    from transformers import GenerationConfig, PreTrainedModel


class GenerateEngine:
    """Generator that continues prompts batch by batch."""

    def __init__(
        self,
        model: PreTrainedModel,
        pad: int,
        stops: Sequence[int],
        decoding: Decoding,
        batch_tokens: int,
        tell: Callable[[str], None],
    ) -> None:
        """Args:
        pad: any token; it is masked.
        batch_tokens: padded tokens in one batch.
        tell: receives a message when the batch had to shrink.
        """
        self._model = model
        self._pad = pad
        self._stops = stops
        self._decoding = decoding
        self._budget = batch_tokens
        self._tell = tell

    def run(self, asks: Sequence[EngineRequest]) -> Iterator[GenerationResult]:
        """Yield every answer, batch by batch, the longest prompts first.

        Raises:
            BackendError: not even one continuation fits into memory.
        """
        for batch in length_sorted_batches(asks, self._decoding.max_new_tokens, self._budget):
            yield from self._batch(batch)

    def _batch(self, batch: Sequence[EngineRequest]) -> Iterator[GenerationResult]:
        """Generate a batch; halve it if it does not fit into memory."""
        try:
            yield from self._generate_answers(batch)
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error):
                raise
            where = f"the memory of {self._model.device}"
            if len(batch) == 1:
                raise BackendError(
                    f"One prompt of {len(batch[0].tokens)} tokens and its continuation do not fit "
                    f"into {where}. Use shorter prompts or a device with more memory."
                ) from error
            self._tell(f"{len(batch)} prompts do not fit into {where}: continuing with half.")
            middle = len(batch) // 2
            yield from self._batch(batch[:middle])
            yield from self._batch(batch[middle:])

    def _generate_answers(self, batch: Sequence[EngineRequest]) -> list[GenerationResult]:
        ids, mask = self._padded(batch)
        decoding = self._decoding
        seeds = [ask.seed for ask in batch]
        draws = SeededSampler(ids.shape[1], seeds, decoding.temperature, decoding.top_p)
        tokens = self._generate(ids, mask, draws)[:, ids.shape[1] :].tolist()
        return [
            self._answer(ask, row_tokens, draws.failed.get(row))
            for row, (ask, row_tokens) in enumerate(zip(batch, tokens, strict=True))
        ]

    def _answer(
        self, ask: EngineRequest, tokens: list[int], failed_at: int | None
    ) -> GenerationResult:
        """Cut a row at the end of its text; the rest is padding."""
        end = next((i for i, token in enumerate(tokens) if token in self._stops), None)
        failure = failed_at if end is None or (failed_at is not None and failed_at <= end) else None
        return GenerationResult(
            ask.number, tuple(tokens if end is None else tokens[: end + 1]), failure
        )

    def _padded(self, batch: Sequence[EngineRequest]) -> tuple[torch.Tensor, torch.Tensor]:
        """Return (row, token) ids and mask, padded on the left, so that all rows end together."""
        import torch

        width = max(len(ask.tokens) for ask in batch)
        gaps = [width - len(ask.tokens) for ask in batch]
        rows = [[self._pad] * gap + list(a.tokens) for gap, a in zip(gaps, batch, strict=True)]
        mask = [[0] * gap + [1] * (width - gap) for gap in gaps]
        device = self._model.device
        return torch.tensor(rows, device=device), torch.tensor(mask, device=device)

    def _generate(
        self, ids: torch.Tensor, mask: torch.Tensor, draws: SeededSampler
    ) -> torch.Tensor:
        import torch
        from transformers import LogitsProcessorList

        with torch.inference_mode(), silence_libraries():
            produced: torch.Tensor = self._model.generate(  # type: ignore[operator]
                input_ids=ids,
                attention_mask=mask,
                generation_config=self._settings(),
                logits_processor=LogitsProcessorList([draws]),
            )
        return produced

    def _settings(self) -> GenerationConfig:
        """Return settings for greedy search: RowDraws gives the chosen token the top score."""
        from transformers import GenerationConfig

        return GenerationConfig(  # type: ignore[no-untyped-call]
            do_sample=False,
            num_beams=1,
            use_cache=True,
            max_new_tokens=self._decoding.max_new_tokens,
            eos_token_id=list(self._stops) or None,
            pad_token_id=self._pad,
        )


def length_sorted_batches(
    asks: Sequence[EngineRequest], max_new_tokens: int, budget: int
) -> list[list[EngineRequest]]:
    """Batch rows by length, longest first, each batch within a budget of padded tokens."""
    result: list[list[EngineRequest]] = []
    room = 0
    for ask in sorted(asks, key=lambda ask: (-len(ask.tokens), ask.tokens, ask.seed)):
        if room == 0:
            result.append([])
            room = max(1, budget // (len(ask.tokens) + max_new_tokens))
        result[-1].append(ask)
        room -= 1
    return result
