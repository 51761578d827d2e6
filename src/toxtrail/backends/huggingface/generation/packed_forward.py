"""Run one forward pass over many continuations, none of which affects another.

A step is one packed row of tokens, [1, token]: first one token of each running continuation, then
complete prompts to prefill. Linear layers see one long row; attention sees only the keys of the
same continuation, in a separate slot that starts at position 0. So no result depends on padding,
and matrix products give each row the same bits independent of the other rows, as long as rows come
in full blocks (devices.row_block).
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
"""Name under which the attention below is registered in transformers."""
BLOCK = 16
"""Keys are processed in multiples of this: those after a text's end add exact zeros, and no vector
instruction is split."""
GROWTH = 2 * BLOCK
"""Tokens by which the allocation of all slots grows. Our choice: growing copies the cache."""


@dataclass
class PrefillPrompt:
    """A prompt to prefill in a slot."""

    slot: int
    tokens: tuple[int, ...]


class PrefillGroup(NamedTuple):
    """Prompts of one length that are prefilled together: attention processes them as a batch."""

    slots: torch.Tensor
    """(prompt,)."""
    tokens: torch.Tensor
    """(prompt, token), indices into the packed row."""

    @property
    def length(self) -> int:
        return int(self.tokens.shape[1])


@dataclass
class PackedStep:
    """Input of one forward pass: a token for each of the first slots, then prompts to prefill in
    the next slots."""

    cache: SlotKVCache
    lengths: list[int]
    """Number of tokens in slot 0, 1, ...; each of these gets one more."""
    starts: list[PrefillPrompt]
    device: torch.device
    block: int
    """Rows are padded to multiples of this (devices.row_block)."""
    min_rows: int = 0
    """Smallest number of rows."""
    _bias_cache: dict[int | None, torch.Tensor] = field(default_factory=dict)
    _mask_cache: dict[tuple[int, int | None], torch.Tensor] = field(default_factory=dict)

    def __post_init__(self) -> None:
        import torch

        positions = list(self.lengths)
        self.last = list(range(len(positions)))
        """Index of each continuation's last token: running ones, then prefilled ones."""
        firsts: dict[int, list[tuple[int, int]]] = {}
        for start in self.starts:
            firsts.setdefault(len(start.tokens), []).append((start.slot, len(positions)))
            positions += range(len(start.tokens))
            self.last.append(len(positions) - 1)
        self.places = torch.tensor(positions, device=self.device)
        self.slots = torch.arange(self.decoded, device=self.device)
        self.groups = [self._group(length, entries) for length, entries in firsts.items()]
        longest = max([n + 1 for n in self.lengths] + [len(s.tokens) for s in self.starts])
        self.cache.grow(longest)

    @property
    def decoded(self) -> int:
        return len(self.lengths)

    def _group(self, length: int, entries: list[tuple[int, int]]) -> PrefillGroup:
        import torch

        slots, firsts = torch.tensor(entries, device=self.device).unbind(1)
        return PrefillGroup(slots, firsts[:, None] + torch.arange(length, device=self.device))

    def bias(self, window: int | None, dtype: torch.dtype) -> torch.Tensor:
        """Return (slot * key head, 1, key): 0 for visible keys, else -inf; shared by all layers."""
        import torch

        if window not in self._bias_cache:
            key = torch.arange(self.cache.extent, device=self.device)
            positions = self.places[: self.decoded, None]
            hidden = key > positions
            if window is not None:
                hidden |= key <= positions - window
            bias = torch.zeros(hidden.shape, dtype=dtype, device=self.device)
            bias = bias.masked_fill(hidden, -torch.inf)[:, None, None]
            heads = self.cache.heads
            self._bias_cache[window] = bias.expand(-1, heads, 1, -1).flatten(0, 1)
        return self._bias_cache[window]

    def visible(self, length: int, window: int | None) -> torch.Tensor:
        """Return (token, key): whether a prompt's token may attend to the key: itself and earlier
        ones, within its window."""
        import torch

        if (length, window) not in self._mask_cache:
            causal = torch.ones(length, length, dtype=torch.bool, device=self.device).tril()
            self._mask_cache[length, window] = causal if window is None else causal.triu(1 - window)
        return self._mask_cache[length, window]


class SlotKVCache:
    """Keys and values of every slot, layer by layer; allocated at a layer's first update.

    The allocation grows with the longest text so far: products with a part of a larger tensor would
    copy that part first.
    """

    def __init__(self, slots: int, capacity: int) -> None:
        self.slots = slots
        self.capacity = capacity
        """Largest number of tokens in a slot."""
        self.extent = 0
        """Number of allocated tokens in a slot."""
        self.heads = 0
        """Key heads; known after the first layer."""
        self._keys: dict[int, torch.Tensor] = {}
        self._values: dict[int, torch.Tensor] = {}
        """Layer -> (slot, head, token, dimension)."""
        self.step: PackedStep | None = None

    def update(
        self, key: torch.Tensor, value: torch.Tensor, layer: int, *_: object, **__: object
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Store keys and values, [1, head, token, dimension]; called by the model's attention."""
        assert self.step is not None
        self.heads = key.shape[1]
        self._make_room(layer, key, value)
        step, n = self.step, self.step.decoded
        keys, values = self._keys[layer], self._values[layer]
        if n:
            slots, positions = step.slots, step.places[:n]
            keys[slots, :, positions] = key[0, :, :n].transpose(0, 1)
            values[slots, :, positions] = value[0, :, :n].transpose(0, 1)
        for group in step.groups:
            keys[group.slots, :, : group.length] = key[0][:, group.tokens].transpose(0, 1)
            values[group.slots, :, : group.length] = value[0][:, group.tokens].transpose(0, 1)
        return key, value

    def grow(self, tokens: int) -> None:
        """Allocate for texts of this length from the next step on."""
        needed = min(-(-tokens // GROWTH) * GROWTH, self.capacity)
        self.extent = max(self.extent, needed)

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
        """Return (slot * head, dimension, key) and (slot * head, key, dimension) of some slots."""
        keys, values = self._keys[layer][:slots], self._values[layer][:slots]
        return keys.flatten(0, 1).transpose(1, 2), values.flatten(0, 1)

    def copy(self, source: int, target: int, tokens: int) -> None:
        """Copy a slot's content into a free one: a moved continuation, or a second sample."""
        for layer in self._keys:
            self._keys[layer][target, :, :tokens] = self._keys[layer][source, :, :tokens]
            self._values[layer][target, :, :tokens] = self._values[layer][source, :, :tokens]

    def clear(self, slot: int) -> None:
        """Free a slot: set its keys and values to zero.

        A mask hides values after a text's end only if they are finite (0 * NaN is NaN), so a
        continuation with overflows would invalidate each later one in its slot.
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
    packed: PackedStep | None = None,
    **unknown: object,
) -> tuple[torch.Tensor, None]:
    """Compute attention over a packed step, with transformers' interface.

    Args:
        query: (1, head, token, dimension); key and value likewise with their own number of heads.
        packed: the step, which maps tokens to slots.

    Returns:
        (1, token, head, dimension).
    """
    assert packed is not None
    scale = query.shape[-1] ** -0.5 if scaling is None else scaling
    output = query.new_zeros((query.shape[2], query.shape[1], value.shape[3]))
    if packed.decoded:
        newest = query[0, :, : packed.decoded].transpose(0, 1)
        bias = packed.bias(sliding_window, query.dtype)
        output[: packed.decoded] = _decode_attention(
            module.layer_idx, newest, packed, scale, softcap, bias
        )
    for group in packed.groups:
        states = [state[0][:, group.tokens].transpose(0, 1) for state in (query, key, value)]
        result = _prefill_attention(
            states[0], states[1], states[2], packed, scale, softcap, sliding_window
        )
        output[group.tokens.flatten()] = result.transpose(1, 2).flatten(0, 1)
    return output[None], None


def _decode_attention(
    layer: int,
    query: torch.Tensor,
    step: PackedStep,
    scale: float,
    softcap: float | None,
    bias: torch.Tensor,
) -> torch.Tensor:
    """Return (slot, head, dimension): attention of each slot's newest token to the slot's keys."""
    import torch

    keys, values = step.cache.of(layer, step.decoded)
    grouped = query.reshape(keys.shape[0], -1, keys.shape[1])
    if softcap:
        scores = torch.tanh(torch.bmm(grouped, keys) * scale / softcap) * softcap + bias
    else:
        scores = torch.baddbmm(bias, grouped, keys, alpha=scale)
    shares = scores.softmax(-1, dtype=torch.float32).to(values.dtype)
    return torch.bmm(shares, values).view(query.shape[0], query.shape[1], -1)


def _prefill_attention(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    step: PackedStep,
    scale: float,
    softcap: float | None,
    window: int | None,
) -> torch.Tensor:
    """Return (prompt, head, token, dimension): self-attention of complete prompts of one length."""
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
def packed_attention(model: PreTrainedModel) -> Iterator[None]:
    """Use packed attention in a model inside the block.

    Raises:
        ValueError: transformers cannot replace its attention.
    """
    from transformers import AttentionInterface

    original = model.config._attn_implementation
    AttentionInterface.register(NAME, attention)
    model.set_attn_implementation(NAME)
    try:
        yield
    finally:
        model.set_attn_implementation(original)


def _padded_rows(rows: int, step: PackedStep) -> int:
    """Return the number of rows after padding."""
    rows = max(rows, step.min_rows)
    return -(-rows // step.block) * step.block


def forward(model: PreTrainedModel, step: PackedStep, tokens: list[int]) -> torch.Tensor:
    """Return (continuation, vocabulary) logits of the next token, in the order of `step.last`.

    Must be called in inference mode.

    Args:
        tokens: the step's tokens: the newest of each slot, then those of the prompts.
    """
    import torch

    missing = _padded_rows(len(tokens), step) - len(tokens)
    ids = torch.tensor([tokens + [0] * missing], device=step.device)
    places = torch.cat([step.places, step.places.new_zeros(missing)])[None]
    indices = step.last + [0] * (_padded_rows(len(step.last), step) - len(step.last))
    step.cache.step = step
    logits: torch.Tensor = model(
        input_ids=ids,
        position_ids=places,
        past_key_values=step.cache,
        use_cache=True,
        logits_to_keep=torch.tensor(indices, device=step.device),
        packed=step,
    ).logits
    return logits[0, : len(step.last)]
