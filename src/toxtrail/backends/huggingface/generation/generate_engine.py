"""transformers' own generate, for models that the packed engine cannot run.

Rows of like length stand in one batch, padded on the left, and batches are as large as a budget of
padded tokens allows. Here a row's last bits may depend on its neighbours (near ties can fall
otherwise), so the plan is recorded with the execution.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING

from toxtrail.backends.huggingface.generation.packed_engine import Answer, Ask, is_out_of_memory
from toxtrail.backends.huggingface.generation.sampling import RowDraws
from toxtrail.backends.protocols import Decoding
from toxtrail.backends.silence import quiet
from toxtrail.errors import BackendError

if TYPE_CHECKING:
    import torch
    from transformers import GenerationConfig, PreTrainedModel


class Plain:
    """Continues prompts batch by batch."""

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
        tell: told when the batch had to shrink.
        """
        self._model = model
        self._pad = pad
        self._stops = stops
        self._decoding = decoding
        self._budget = batch_tokens
        self._tell = tell

    def run(self, asks: Sequence[Ask]) -> Iterator[Answer]:
        """Every answer, batch by batch, the longest prompts first.

        Raises:
            BackendError: not even one continuation fits into memory.
        """
        for batch in batches(asks, self._decoding.max_new_tokens, self._budget):
            yield from self._batch(batch)

    def _batch(self, batch: Sequence[Ask]) -> Iterator[Answer]:
        """A batch that does not fit into memory is halved."""
        try:
            yield from self._made(batch)
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error):
                raise
            where = f"the memory of {self._model.device}"
            if len(batch) == 1:
                raise BackendError(
                    f"One prompt of {len(batch[0].tokens)} tokens and its continuation do not fit "
                    f"{where}. Take shorter prompts or a device with more memory."
                ) from error
            self._tell(f"{len(batch)} prompts do not fit {where}: going on with half of them.")
            middle = len(batch) // 2
            yield from self._batch(batch[:middle])
            yield from self._batch(batch[middle:])

    def _made(self, batch: Sequence[Ask]) -> list[Answer]:
        ids, mask = self._padded(batch)
        own = self._decoding
        seeds = [ask.seed for ask in batch]
        draws = RowDraws(ids.shape[1], seeds, own.temperature, own.top_p)
        tokens = self._generate(ids, mask, draws)[:, ids.shape[1] :].tolist()
        return [
            self._answer(ask, drawn, draws.failed.get(row))
            for row, (ask, drawn) in enumerate(zip(batch, tokens, strict=True))
        ]

    def _answer(self, ask: Ask, drawn: list[int], failed_at: int | None) -> Answer:
        """Up to the end of the text; what comes after it is padding."""
        end = next((i for i, token in enumerate(drawn) if token in self._stops), None)
        spoilt = failed_at if end is None or (failed_at is not None and failed_at <= end) else None
        return Answer(ask.number, tuple(drawn if end is None else drawn[: end + 1]), spoilt)

    def _padded(self, batch: Sequence[Ask]) -> tuple[torch.Tensor, torch.Tensor]:
        """(row, token) ids and mask, padded on the left: every row ends at the same place."""
        import torch

        width = max(len(ask.tokens) for ask in batch)
        gaps = [width - len(ask.tokens) for ask in batch]
        rows = [[self._pad] * gap + list(a.tokens) for gap, a in zip(gaps, batch, strict=True)]
        mask = [[0] * gap + [1] * (width - gap) for gap in gaps]
        device = self._model.device
        return torch.tensor(rows, device=device), torch.tensor(mask, device=device)

    def _generate(self, ids: torch.Tensor, mask: torch.Tensor, draws: RowDraws) -> torch.Tensor:
        import torch
        from transformers import LogitsProcessorList

        with torch.inference_mode(), quiet():
            produced: torch.Tensor = self._model.generate(  # type: ignore[operator]
                input_ids=ids,
                attention_mask=mask,
                generation_config=self._settings(),
                logits_processor=LogitsProcessorList([draws]),
            )
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


def batches(asks: Sequence[Ask], max_new_tokens: int, budget: int) -> list[list[Ask]]:
    """Rows of like length together, longest first, each batch within a budget of padded tokens."""
    made: list[list[Ask]] = []
    room = 0
    for ask in sorted(asks, key=lambda ask: (-len(ask.tokens), ask.tokens, ask.seed)):
        if room == 0:
            made.append([])
            room = max(1, budget // (len(ask.tokens) + max_new_tokens))
        made[-1].append(ask)
        room -= 1
    return made
