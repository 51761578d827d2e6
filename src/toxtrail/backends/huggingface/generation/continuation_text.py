"""Decode continuations so that the markers of a thought remain in the text."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence
from typing import TYPE_CHECKING

from toxtrail.errors import ConfigError
from toxtrail.records.thought import ThoughtMarkers, begin_like

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


class ContinuationDecoder:
    """Decoder that leaves out special tokens, except those of the markers."""

    def __init__(self, tokenizer: PreTrainedTokenizerBase, markers: ThoughtMarkers | None) -> None:
        """Args:
        markers: of a thought; None: none are declared.

        Raises:
            ConfigError: the tokenizer changes a marker, so that it could not be found.
        """
        self._tokenizer = tokenizer
        self._end = markers.end if markers else None
        added = tokenizer.added_tokens_decoder.items()
        special = {number for number, token in added if token.special}
        special.update(tokenizer.all_special_ids)
        encoded = {marker: self._encode(marker) for marker in markers or ()}
        kept = {number for numbers in encoded.values() for number in numbers}
        kept.update(number for number, token in added if begin_like(token.content))
        self._keeps_special = bool(special & kept)
        self._left_out = special - kept if self._keeps_special else set()
        self.special_markers = [
            m for m, numbers in encoded.items() if special.intersection(numbers)
        ]
        """Markers with special tokens, which other decoders leave out."""
        for marker, numbers in encoded.items():
            if self.text(numbers).strip() != marker:
                raise ConfigError(
                    f"generation.thought: the tokenizer of {tokenizer.name_or_path} changes "
                    f"{marker!r} to {self.text(numbers)!r}, so this marker cannot be found. "
                    "Declare the marker as this model writes it."
                )

    def text(self, token_ids: Sequence[int]) -> str:
        """Decode a continuation."""
        tokens = [token for token in token_ids if token not in self._left_out]
        return str(
            self._tokenizer.decode(
                tokens,
                skip_special_tokens=not self._keeps_special,
                clean_up_tokenization_spaces=False,
            )
        )

    def thought_ends(self, token_ids: Sequence[int]) -> tuple[int, ...]:
        """Return for each end marker the number of tokens up to it."""
        if (end := self._end) is None:
            return ()
        lengths, total = range(len(token_ids) + 1), self.text(token_ids).count(end)
        return tuple(
            bisect_left(lengths, number, key=lambda n: self.text(token_ids[:n]).count(end))
            for number in range(1, total + 1)
        )

    def _encode(self, text: str) -> list[int]:
        return list(self._tokenizer(text, add_special_tokens=False)["input_ids"])
