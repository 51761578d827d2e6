"""Many continuations at once: who starts, who goes on, who has ended. The mathematics is packed's.

A continuation leaves as soon as it ends and the next one takes its slot, so no slot waits for the
longest text of a batch. Equal prompts are read once: greedy ones are continued once, samples share
their beginning. Since no continuation can tell its neighbours (packed.py), the order of the work
and the number of slots change nothing but the speed.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple

from toxtrail.backends.compute.devices import row_block
from toxtrail.backends.huggingface.generation.packed_forward import (
    BLOCK,
    SlotCache,
    Start,
    Step,
    forward,
)
from toxtrail.backends.huggingface.generation.sampling import choose
from toxtrail.backends.protocols import Decoding
from toxtrail.errors import BackendError

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel

START_TOKENS = 1024
"""Prompt tokens that start in one step, at most (one prompt at least): they share the step's memory
with what is under way. Our choice."""


THREAD_ELEMENTS = 32_768
"""Of an activation, that torch gives to a thread at least."""


class Ask(NamedTuple):
    """A continuation to be made."""

    number: int
    """By which its answer is known."""
    tokens: tuple[int, ...]
    seed: int


class Answer(NamedTuple):
    """What was drawn."""

    number: int
    tokens: tuple[int, ...]
    """New ones, the end-of-sequence token included."""
    failed_at: int | None
    """The first step whose logits could not be used; None if all could."""


@dataclass
class _Slot:
    """A continuation under way."""

    members: list[Ask]
    """The asks that it answers: several only if all want the same tokens."""
    length: int
    """Tokens that the model has read: the prompt and all but the newest drawn."""
    drawn: list[int] = field(default_factory=list)
    failed_at: int | None = None

    @property
    def newest(self) -> int:
        return self.drawn[-1]


class Engine:
    """Continues prompts with a model that attends by slots (`packed.by_slots`)."""

    def __init__(
        self,
        model: PreTrainedModel,
        stops: Sequence[int],
        decoding: Decoding,
        batch_tokens: int,
        tell: Callable[[str], None],
    ) -> None:
        """Args:
        batch_tokens: tokens that all slots hold together.
        tell: told when the batch had to shrink.
        """
        self._model = model
        self._stops = frozenset(stops)
        self._decoding = decoding
        self._budget = batch_tokens
        self._tell = tell

    def run(self, asks: Sequence[Ask]) -> Iterator[Answer]:
        """Every answer, as it is ready.

        Raises:
            BackendError: not even one continuation fits into memory.
        """
        pending = deque(self._groups(asks))
        while pending:
            capacity = self._capacity(pending[0])
            lane = deque[list[Ask]]()
            while pending and self._capacity(pending[0]) * 2 > capacity:
                lane.append(pending.popleft())
            yield from self._lane(lane, capacity)

    def _capacity(self, group: list[Ask]) -> int:
        """Tokens of a slot in which it fits."""
        total = len(group[0].tokens) + self._decoding.max_new_tokens
        return -(-total // BLOCK) * BLOCK

    def _groups(self, asks: Sequence[Ask]) -> list[list[Ask]]:
        """Asks of one prompt together, the longest prompts first."""
        groups: dict[tuple[int, ...], list[Ask]] = {}
        for ask in asks:
            groups.setdefault(ask.tokens, []).append(ask)
        return [groups[tokens] for tokens in sorted(groups, key=lambda t: (-len(t), t))]

    def _lane(self, groups: deque[list[Ask]], capacity: int) -> Iterator[Answer]:
        """Prompts of like length, with as many slots as memory allows."""
        open_asks = {ask.number: ask for group in groups for ask in group}
        slots = self._slots(groups, capacity)
        while open_asks:
            try:
                for answer in self._pass(self._groups(list(open_asks.values())), slots, capacity):
                    del open_asks[answer.number]
                    yield answer
            except (RuntimeError, MemoryError) as error:
                if not is_out_of_memory(error):
                    raise
                slots = self._fewer(slots, capacity, error)

    def _slots(self, groups: Collection[list[Ask]], capacity: int) -> int:
        """As many as the budget allows; on a CPU no more than are wanted: elsewhere their number
        chooses the kernels (`_fewest`), so it must not depend on the prompts."""
        slots, block = max(1, self._budget // capacity), row_block()
        if self._model.device.type == "cpu":
            greedy = self._decoding.temperature == 0
            wanted = len(groups) if greedy else sum(map(len, groups))
            slots = min(slots, -(-wanted // block) * block)
        return slots - (slots % block if slots > block else 0)

    def _fewer(self, slots: int, capacity: int, error: Exception) -> int:
        if slots == 1:
            raise BackendError(
                f"One prompt and its continuation ({capacity} tokens) do not fit the memory of "
                f"{self._model.device}. Take shorter prompts, a smaller generation.max_new_tokens, "
                "or a device with more memory."
            ) from error
        self._tell(
            f"{slots} continuations of {capacity} tokens do not fit the memory of "
            f"{self._model.device}: going on with {slots // 2} at a time."
        )
        return slots // 2

    def _pass(self, groups: list[list[Ask]], slots: int, capacity: int) -> Iterator[Answer]:
        import torch

        cache = SlotCache(slots, capacity)
        waiting, active = deque(groups), list[_Slot]()
        while waiting or active:
            with torch.inference_mode():
                self._step(cache, waiting, active)
                ended = self._leave(cache, active)
            for slot in ended:
                for ask in slot.members:
                    yield Answer(ask.number, tuple(slot.drawn), slot.failed_at)

    def _step(self, cache: SlotCache, waiting: deque[list[Ask]], active: list[_Slot]) -> None:
        """One token more for all, and the first one for those that start."""
        lengths = [slot.length for slot in active]
        new = self._admit(waiting, cache.slots - len(active))
        starts, place = list[Start](), len(active)
        for started in new:
            starts.append(Start(place, started[0].members[0].tokens))
            place += len(started)
        tokens = [slot.newest for slot in active] + [t for s in starts for t in s.tokens]
        fewest = _fewest(self._model, cache)
        step = Step(cache, lengths, starts, self._model.device, row_block(), fewest)
        logits = forward(self._model, step, tokens)
        for slot in active:
            slot.length += 1
        rows = list(range(len(active)))
        for row, (start, started) in enumerate(zip(starts, new, strict=True), len(active)):
            rows += [row] * len(started)
            for offset in range(1, len(started)):
                cache.copy(start.slot, start.slot + offset, len(start.tokens))
            active += started
        self._draw(logits, rows, active)

    def _admit(self, waiting: deque[list[Ask]], free: int) -> list[list[_Slot]]:
        """The slots of each prompt that starts now; samples that find no slot wait."""
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

    def _draw(self, logits: torch.Tensor, rows: list[int], active: list[_Slot]) -> None:
        """Each slot's next token.

        Args:
            rows: of the logits, one for each slot.
        """
        seeds = [slot.members[0].seed for slot in active]
        steps = [len(slot.drawn) for slot in active]
        own = self._decoding
        scores = logits if rows == list(range(len(logits))) else logits[rows]
        tokens, usable = choose(scores, seeds, steps, own.temperature, own.top_p)
        for slot, token, fine, step in zip(active, tokens, usable, steps, strict=True):
            slot.drawn.append(token)
            if not fine:
                slot.failed_at = step

    def _leave(self, cache: SlotCache, active: list[_Slot]) -> list[_Slot]:
        """Take those that have ended out, and close the gaps with the last ones."""
        ended: list[_Slot] = []
        for place in reversed(range(len(active))):
            if not self._has_ended(active[place]):
                continue
            ended.append(active[place])
            last = active.pop()
            if last is not ended[-1]:
                cache.clear(place)
                cache.copy(len(active), place, last.length)
                active[place] = last
            cache.clear(len(active))
        return ended

    def _has_ended(self, slot: _Slot) -> bool:
        full = len(slot.drawn) == self._decoding.max_new_tokens
        return full or slot.newest in self._stops or slot.failed_at is not None


def _fewest(model: PreTrainedModel, cache: SlotCache) -> int:
    """Rows of a step, at least.

    Elsewhere than on a CPU the kernel depends on their number, and a few more cost nothing while
    the weights are read: always as many as there are slots. On a CPU of many cores there must be
    so many that all threads take part in every activation: they then share whole rows.
    """
    import torch

    if model.device.type != "cpu":
        return cache.slots
    threads = torch.get_num_threads()
    width = getattr(model.config.get_text_config(), "intermediate_size", None)
    return 0 if threads <= 2 else threads * THREAD_ELEMENTS // (width or model.config.hidden_size)


def is_out_of_memory(error: Exception) -> bool:
    """torch has a class for it on CUDA and only a text on the CPU."""
    import torch

    texts = ("can't allocate memory", "out of memory")
    own = isinstance(error, (torch.OutOfMemoryError, MemoryError))
    return own or any(text in str(error).lower() for text in texts)
