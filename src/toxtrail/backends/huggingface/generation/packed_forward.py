"""One forward pass over many continuations at once, none of which can tell that it has neighbours.

A step is one packed row of tokens, [1, token]: first one token of each continuation under way, then
whole prompts that start. Linear layers see one long row whatever it is made of; attention sees each
continuation's own keys alone, in a slot of its own that starts at position 0. So there is no
padding on which a result could depend, and matrix products give each row the same bits whatever
else is multiplied beside it, as long as rows come in whole blocks (devices.row_block).
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel

NAME = "toxtrail"
"""Under which transformers knows the attention below."""
BLOCK = 16
"""Keys are attended to in multiples of this: what lies behind a text's end adds exact zeros, and
no vector instruction is cut in two."""
GROWTH = 2 * BLOCK
"""Tokens by which the room of all slots grows. Our choice: growing copies what is there."""


@dataclass
class Start:
    """A prompt that starts in a slot."""

    slot: int
    tokens: tuple[int, ...]


class Group(NamedTuple):
    """Prompts of one length that start together: attention takes them side by side."""

    slots: torch.Tensor
    """(prompt,)."""
    tokens: torch.Tensor
    """(prompt, token), places in the packed row."""

    @property
    def length(self) -> int:
        return int(self.tokens.shape[1])


@dataclass
class Step:
    """What one forward pass computes: a token in each of the first slots, then prompts that start
    in the slots behind them."""

    cache: SlotCache
    lengths: list[int]
    """Tokens already in slot 0, 1, ...; each of these gets one more."""
    starts: list[Start]
    device: torch.device
    block: int
    """Rows come in multiples of this (devices.row_block)."""
    fewest: int = 0
    """Rows, at least."""
    _biases: dict[int | None, torch.Tensor] = field(default_factory=dict)
    _views: dict[tuple[int, int | None], torch.Tensor] = field(default_factory=dict)

    def __post_init__(self) -> None:
        import torch

        positions = list(self.lengths)
        self.last = list(range(len(positions)))
        """Index of the token after which each continuation goes on: decoded ones, then starts."""
        firsts: dict[int, list[tuple[int, int]]] = {}
        for start in self.starts:
            firsts.setdefault(len(start.tokens), []).append((start.slot, len(positions)))
            positions += range(len(start.tokens))
            self.last.append(len(positions) - 1)
        self.places = torch.tensor(positions, device=self.device)
        self.slots = torch.arange(self.decoded, device=self.device)
        self.groups = [self._group(length, own) for length, own in firsts.items()]
        longest = max([n + 1 for n in self.lengths] + [len(s.tokens) for s in self.starts])
        self.cache.grow(longest)

    @property
    def decoded(self) -> int:
        return len(self.lengths)

    def _group(self, length: int, own: list[tuple[int, int]]) -> Group:
        import torch

        slots, firsts = torch.tensor(own, device=self.device).unbind(1)
        return Group(slots, firsts[:, None] + torch.arange(length, device=self.device))

    def bias(self, window: int | None, dtype: torch.dtype) -> torch.Tensor:
        """(slot * key head, 1, key): 0 where a slot may look, -inf elsewhere; shared by layers."""
        import torch

        if window not in self._biases:
            key = torch.arange(self.cache.extent, device=self.device)
            own = self.places[: self.decoded, None]
            hidden = key > own
            if window is not None:
                hidden |= key <= own - window
            bias = torch.zeros(hidden.shape, dtype=dtype, device=self.device)
            bias = bias.masked_fill(hidden, -torch.inf)[:, None, None]
            heads = self.cache.heads
            self._biases[window] = bias.expand(-1, heads, 1, -1).flatten(0, 1)
        return self._biases[window]

    def visible(self, length: int, window: int | None) -> torch.Tensor:
        """(token, key): whether a prompt's token may look there: at itself and back, as far as its
        window."""
        import torch

        if (length, window) not in self._views:
            causal = torch.ones(length, length, dtype=torch.bool, device=self.device).tril()
            self._views[length, window] = causal if window is None else causal.triu(1 - window)
        return self._views[length, window]


class SlotCache:
    """Keys and values of every slot, layer by layer; made when a layer first shows their shape.

    Each has room for as many tokens as the longest text has needed so far, and no more: products
    with a part of a longer room would copy that part first.
    """

    def __init__(self, slots: int, capacity: int) -> None:
        self.slots = slots
        self.capacity = capacity
        """Tokens in a slot, at most."""
        self.extent = 0
        """Tokens in a slot, for which there is room."""
        self.heads = 0
        """Key heads; known after the first layer."""
        self._keys: dict[int, torch.Tensor] = {}
        self._values: dict[int, torch.Tensor] = {}
        """Layer -> (slot, head, token, dimension)."""
        self.step: Step | None = None

    def update(
        self, key: torch.Tensor, value: torch.Tensor, layer: int, *_: object, **__: object
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Called by the model's attention with [1, head, token, dimension]; nothing is joined."""
        assert self.step is not None
        self.heads = key.shape[1]
        self._make_room(layer, key, value)
        step, n = self.step, self.step.decoded
        keys, values = self._keys[layer], self._values[layer]
        if n:
            slots, place = step.slots, step.places[:n]
            keys[slots, :, place] = key[0, :, :n].transpose(0, 1)
            values[slots, :, place] = value[0, :, :n].transpose(0, 1)
        for group in step.groups:
            keys[group.slots, :, : group.length] = key[0][:, group.tokens].transpose(0, 1)
            values[group.slots, :, : group.length] = value[0][:, group.tokens].transpose(0, 1)
        return key, value

    def grow(self, tokens: int) -> None:
        """Have room for texts of this length from the next step on."""
        wanted = min(-(-tokens // GROWTH) * GROWTH, self.capacity)
        self.extent = max(self.extent, wanted)

    def _make_room(self, layer: int, key: torch.Tensor, value: torch.Tensor) -> None:
        old = self._keys.get(layer)
        if old is not None and old.shape[2] == self.extent:
            return
        shape = (self.slots, self.heads)
        keys = key.new_zeros((*shape, self.extent, key.shape[3]))
        values = value.new_zeros((*shape, self.extent, value.shape[3]))
        if old is not None:
            keys[:, :, : old.shape[2]] = old
            values[:, :, : old.shape[2]] = self._values[layer]
        self._keys[layer], self._values[layer] = keys, values

    def of(self, layer: int, slots: int) -> tuple[torch.Tensor, torch.Tensor]:
        """(slot * head, dimension, key) and (slot * head, key, dimension) of the first slots."""
        keys, values = self._keys[layer][:slots], self._values[layer][:slots]
        return keys.flatten(0, 1).transpose(1, 2), values.flatten(0, 1)

    def copy(self, source: int, target: int, tokens: int) -> None:
        """Copy what a slot holds into a free one: a moved continuation, or a second sample."""
        for layer in self._keys:
            self._keys[layer][target, :, :tokens] = self._keys[layer][source, :, :tokens]
            self._values[layer][target, :, :tokens] = self._values[layer][source, :, :tokens]

    def clear(self, slot: int) -> None:
        """Free a slot: its keys and values become zeros.

        A mask hides what lies behind a text's end only if it is finite (0 * NaN is NaN), so that a
        continuation whose numbers overflowed would spoil each later one in its slot.
        """
        for state in (*self._keys.values(), *self._values.values()):
            state[slot] = 0


def attention(
    module: Any,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: object = None,
    scaling: float | None = None,
    dropout: float = 0.0,
    sliding_window: int | None = None,
    softcap: float | None = None,
    packed: Step | None = None,
    **unknown: object,
) -> tuple[torch.Tensor, None]:
    """Attention as transformers asks for it, over a packed step.

    Args:
        query: (1, head, token, dimension); key and value alike with their own number of heads.
        packed: which token belongs to which slot.

    Returns:
        (1, token, head, dimension).
    """
    assert packed is not None
    scale = query.shape[-1] ** -0.5 if scaling is None else scaling
    outcome = query.new_zeros((query.shape[2], query.shape[1], value.shape[3]))
    if packed.decoded:
        newest = query[0, :, : packed.decoded].transpose(0, 1)
        bias = packed.bias(sliding_window, query.dtype)
        outcome[: packed.decoded] = _decode(module.layer_idx, newest, packed, scale, softcap, bias)
    for group in packed.groups:
        own = [state[0][:, group.tokens].transpose(0, 1) for state in (query, key, value)]
        said = _start(own[0], own[1], own[2], packed, scale, softcap, sliding_window)
        outcome[group.tokens.flatten()] = said.transpose(1, 2).flatten(0, 1)
    return outcome[None], None


def _decode(
    layer: int,
    query: torch.Tensor,
    step: Step,
    scale: float,
    softcap: float | None,
    bias: torch.Tensor,
) -> torch.Tensor:
    """(slot, head, dimension): each slot's one token over the slot's own keys."""
    import torch

    keys, values = step.cache.of(layer, step.decoded)
    grouped = query.reshape(keys.shape[0], -1, keys.shape[1])
    if softcap:
        scores = torch.tanh(torch.bmm(grouped, keys) * scale / softcap) * softcap + bias
    else:
        scores = torch.baddbmm(bias, grouped, keys, alpha=scale)
    shares = scores.softmax(-1, dtype=torch.float32).to(values.dtype)
    return torch.bmm(shares, values).view(query.shape[0], query.shape[1], -1)


def _start(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    step: Step,
    scale: float,
    softcap: float | None,
    window: int | None,
) -> torch.Tensor:
    """(prompt, head, token, dimension): whole prompts of one length, each over itself."""
    import torch
    from torch.nn.functional import scaled_dot_product_attention

    groups, length = query.shape[1] // key.shape[1], query.shape[2]
    if groups > 1:
        key, value = (state.repeat_interleave(groups, 1) for state in (key, value))
    if softcap:
        scores = torch.tanh(query @ key.transpose(2, 3) * scale / softcap) * softcap
        scores = scores.masked_fill(~step.visible(length, window), -torch.inf)
        return scores.softmax(-1, dtype=torch.float32).to(value.dtype) @ value
    mask = step.visible(length, window) if window is not None and length > window else None
    return scaled_dot_product_attention(
        query, key, value, attn_mask=mask, is_causal=mask is None, scale=scale
    )


@contextmanager
def by_slots(model: PreTrainedModel) -> Iterator[None]:
    """Let a model attend by slots for a while.

    Raises:
        ValueError: transformers cannot exchange its attention.
    """
    from transformers import AttentionInterface

    own = model.config._attn_implementation
    AttentionInterface.register(NAME, attention)
    model.set_attn_implementation(NAME)
    try:
        yield
    finally:
        model.set_attn_implementation(own)


def _filled(rows: int, step: Step) -> int:
    """Rows and those that fill them up."""
    rows = max(rows, step.fewest)
    return -(-rows // step.block) * step.block


def forward(model: PreTrainedModel, step: Step, tokens: list[int]) -> torch.Tensor:
    """(continuation, vocabulary) logits of what comes next, in the order of `step.last`.

    To be called in inference mode.

    Args:
        tokens: the step's tokens: the newest of each slot, then those of the prompts.
    """
    import torch

    missing = _filled(len(tokens), step) - len(tokens)
    ids = torch.tensor([tokens + [0] * missing], device=step.device)
    places = torch.cat([step.places, step.places.new_zeros(missing)])[None]
    wanted = step.last + [0] * (_filled(len(step.last), step) - len(step.last))
    step.cache.step = step
    logits: torch.Tensor = model(
        input_ids=ids,
        position_ids=places,
        past_key_values=step.cache,
        use_cache=True,
        logits_to_keep=torch.tensor(wanted, device=step.device),
        packed=step,
    ).logits
    return logits[0, : len(step.last)]
