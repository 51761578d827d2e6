"""Schedule many continuations at once; packed.py computes them.

A finished continuation is removed and the next one takes its slot, so no slot waits for the longest
text of a batch. Equal prompts are prefilled once: greedy ones are continued once, samples share the
prefill. Since continuations do not affect each other (packed.py), the order of the work and the
number of slots change only the speed.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple

from toxtrail.backends.compute.devices import batch_alignment
from toxtrail.backends.huggingface.generation.packed_forward import (
    BLOCK,
    PackedStep,
    PrefillPrompt,
    SlotKVCache,
    forward,
)
from toxtrail.backends.huggingface.generation.sampling import sample_next_tokens
from toxtrail.backends.protocols import Decoding
from toxtrail.errors import BackendError

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel

START_TOKENS = 1024
"""Largest number of prompt tokens to prefill in one step (at least one prompt): they share the
step's memory with the running continuations. Our choice."""


THREAD_ELEMENTS = 32_768
"""Smallest number of elements of an activation that torch gives to a thread."""


class EngineRequest(NamedTuple):
    """A request for a continuation."""

    number: int
    """Identifies its answer."""
    tokens: tuple[int, ...]
    seed: int


class GenerationResult(NamedTuple):
    """The generated tokens of a request."""

    number: int
    tokens: tuple[int, ...]
    """New tokens, including the end-of-sequence token."""
    failed_at: int | None
    """The first step whose logits are unusable; None if there is none."""


@dataclass
class _Slot:
    """A running continuation."""

    members: list[EngineRequest]
    """The requests that it answers: several only if they need the same tokens."""
    length: int
    """Number of tokens in the cache: the prompt and all new tokens but the newest."""
    new_tokens: list[int] = field(default_factory=list)
    failed_at: int | None = None

    @property
    def newest(self) -> int:
        return self.new_tokens[-1]


class PackedEngine:
    """Generator for a model with packed attention (`packed.by_slots`)."""

    def __init__(
        self,
        model: PreTrainedModel,
        stops: Sequence[int],
        decoding: Decoding,
        batch_tokens: int,
        tell: Callable[[str], None],
    ) -> None:
        """Args:
        batch_tokens: total number of tokens of all slots.
        tell: receives a message when the batch had to shrink.
        """
        self._model = model
        self._stops = frozenset(stops)
        self._decoding = decoding
        self._budget = batch_tokens
        self._tell = tell

    def run(self, asks: Sequence[EngineRequest]) -> Iterator[GenerationResult]:
        """Yield every answer when it is ready.

        Raises:
            BackendError: not even one continuation fits into memory.
        """
        pending = deque(self._groups(asks))
        while pending:
            capacity = self._capacity(pending[0])
            lane = deque[list[EngineRequest]]()
            while pending and self._capacity(pending[0]) * 2 > capacity:
                lane.append(pending.popleft())
            yield from self._run_length_group(lane, capacity)

    def _capacity(self, group: list[EngineRequest]) -> int:
        """Return the tokens of a slot in which the group fits."""
        total = len(group[0].tokens) + self._decoding.max_new_tokens
        return -(-total // BLOCK) * BLOCK

    def _groups(self, asks: Sequence[EngineRequest]) -> list[list[EngineRequest]]:
        """Group requests by prompt, the longest prompts first."""
        groups: dict[tuple[int, ...], list[EngineRequest]] = {}
        for ask in asks:
            groups.setdefault(ask.tokens, []).append(ask)
        return [groups[tokens] for tokens in sorted(groups, key=lambda t: (-len(t), t))]

    def _run_length_group(
        self, groups: deque[list[EngineRequest]], capacity: int
    ) -> Iterator[GenerationResult]:
        """Process prompts of similar length, with as many slots as memory allows."""
        open_asks = {ask.number: ask for group in groups for ask in group}
        slots = self._slot_count(groups, capacity)
        while open_asks:
            try:
                for answer in self._run_slots(
                    self._groups(list(open_asks.values())), slots, capacity
                ):
                    del open_asks[answer.number]
                    yield answer
            except (RuntimeError, MemoryError) as error:
                if not is_out_of_memory(error):
                    raise
                slots = self._halve_slots(slots, capacity, error)

    def _slot_count(self, groups: Collection[list[EngineRequest]], capacity: int) -> int:
        """Return the number of slots that the budget allows; on a CPU no more than are needed. On
        other devices their number chooses the kernels (`_min_rows`), so it must not depend on the
        prompts."""
        slots, block = max(1, self._budget // capacity), batch_alignment()
        if self._model.device.type == "cpu":
            greedy = self._decoding.temperature == 0
            needed = len(groups) if greedy else sum(map(len, groups))
            slots = min(slots, -(-needed // block) * block)
        return slots - (slots % block if slots > block else 0)

    def _halve_slots(self, slots: int, capacity: int, error: Exception) -> int:
        if slots == 1:
            raise BackendError(
                f"One prompt and its continuation ({capacity} tokens) do not fit into the memory "
                f"of {self._model.device}. Use shorter prompts, a smaller "
                "generation.max_new_tokens, or a device with more memory."
            ) from error
        self._tell(
            f"{slots} continuations of {capacity} tokens do not fit into the memory of "
            f"{self._model.device}: continuing with {slots // 2} at a time."
        )
        return slots // 2

    def _run_slots(
        self, groups: list[list[EngineRequest]], slots: int, capacity: int
    ) -> Iterator[GenerationResult]:
        import torch

        cache = SlotKVCache(slots, capacity)
        waiting, active = deque(groups), list[_Slot]()
        while waiting or active:
            with torch.inference_mode():
                self._step(cache, waiting, active)
                ended = self._remove_finished(cache, active)
            for slot in ended:
                for ask in slot.members:
                    yield GenerationResult(ask.number, tuple(slot.new_tokens), slot.failed_at)

    def _step(
        self, cache: SlotKVCache, waiting: deque[list[EngineRequest]], active: list[_Slot]
    ) -> None:
        """Generate one more token for all, and the first one for new continuations."""
        lengths = [slot.length for slot in active]
        new = self._fill_free_slots(waiting, cache.slots - len(active))
        starts, slot_index = list[PrefillPrompt](), len(active)
        for started in new:
            starts.append(PrefillPrompt(slot_index, started[0].members[0].tokens))
            slot_index += len(started)
        tokens = [slot.newest for slot in active] + [t for s in starts for t in s.tokens]
        fewest = _min_rows(self._model, cache)
        step = PackedStep(cache, lengths, starts, self._model.device, batch_alignment(), fewest)
        logits = forward(self._model, step, tokens)
        for slot in active:
            slot.length += 1
        rows = list(range(len(active)))
        for row, (start, started) in enumerate(zip(starts, new, strict=True), len(active)):
            rows += [row] * len(started)
            for offset in range(1, len(started)):
                cache.copy(start.slot, start.slot + offset, len(start.tokens))
            active += started
        self._sample(logits, rows, active)

    def _fill_free_slots(self, waiting: deque[list[EngineRequest]], free: int) -> list[list[_Slot]]:
        """Return the slots of each prompt to prefill now; samples without a free slot wait."""
        new: list[list[_Slot]] = []
        room = START_TOKENS
        while waiting and free and (room >= len(waiting[0][0].tokens) or not new):
            group = waiting.popleft()
            length = len(group[0].tokens)
            parts = [group] if self._decoding.temperature == 0 else [[ask] for ask in group]
            if len(parts) > free:
                waiting.appendleft(group[free:])
            new.append([_Slot(part, length) for part in parts[:free]])
            free -= len(new[-1])
            room -= length
        return new

    def _sample(self, logits: torch.Tensor, rows: list[int], active: list[_Slot]) -> None:
        """Sample each slot's next token.

        Args:
            rows: index into the logits for each slot.
        """
        seeds = [slot.members[0].seed for slot in active]
        steps = [len(slot.new_tokens) for slot in active]
        decoding = self._decoding
        scores = logits if rows == list(range(len(logits))) else logits[rows]
        tokens, usable = sample_next_tokens(
            scores, seeds, steps, decoding.temperature, decoding.top_p
        )
        for slot, token, fine, step in zip(active, tokens, usable, steps, strict=True):
            slot.new_tokens.append(token)
            if not fine:
                slot.failed_at = step

    def _remove_finished(self, cache: SlotKVCache, active: list[_Slot]) -> list[_Slot]:
        """Remove finished continuations, and move the last ones into the gaps."""
        ended: list[_Slot] = []
        for index in reversed(range(len(active))):
            if not self._has_ended(active[index]):
                continue
            ended.append(active[index])
            last = active.pop()
            if last is not ended[-1]:
                cache.clear(index)
                cache.copy(len(active), index, last.length)
                active[index] = last
            cache.clear(len(active))
        return ended

    def _has_ended(self, slot: _Slot) -> bool:
        full = len(slot.new_tokens) == self._decoding.max_new_tokens
        return full or slot.newest in self._stops or slot.failed_at is not None


def _min_rows(model: PreTrainedModel, cache: SlotKVCache) -> int:
    """Return the smallest number of rows of a step.

    On devices other than a CPU the kernel depends on their number, and more rows cost nothing while
    the weights are read: always the number of slots. On a CPU with many cores there must be enough
    rows for all threads to take part in every activation: they then share full rows.
    """
    import torch

    if model.device.type != "cpu":
        return cache.slots
    threads = torch.get_num_threads()
    width = getattr(model.config.get_text_config(), "intermediate_size", None)
    return 0 if threads <= 2 else threads * THREAD_ELEMENTS // (width or model.config.hidden_size)


def is_out_of_memory(error: Exception) -> bool:
    """Return whether memory ran out; torch has a class for it on CUDA, only a text on the CPU."""
    import torch

    texts = ("can't allocate memory", "out of memory")
    by_class = isinstance(error, (torch.OutOfMemoryError, MemoryError))
    return by_class or any(text in str(error).lower() for text in texts)
