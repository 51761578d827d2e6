"""Methods that alternate in rounds, and the ratios of their times."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple


class Way(NamedTuple):
    """One method."""

    name: str
    run: Callable[[], Any]
    rounds: int
    """It takes part in the first so many rounds."""


class Turn(NamedTuple):
    """Result of one method in one round."""

    seconds: float
    made: Any


class Spread(NamedTuple):
    """Distribution of one value over rounds."""

    median: float
    low: float
    high: float
    rounds: int

    def plain(self) -> dict[str, float]:
        return self._asdict()


def take_turns(ways: Sequence[Way], tell: Callable[[str], None]) -> dict[str, list[Turn]]:
    """Return each method's turns, first round first.

    Every other round has the reverse order, so that a host that becomes slower, or a chip that
    becomes hot, favours no method.
    """
    found: dict[str, list[Turn]] = {way.name: [] for way in ways}
    for number in range(max(way.rounds for way in ways)):
        present = [way for way in ways if number < way.rounds]
        for way in present if number % 2 == 0 else present[::-1]:
            start = time.perf_counter()
            made = way.run()
            found[way.name].append(Turn(time.perf_counter() - start, made))
            tell(f"round {number + 1}: {way.name}: {found[way.name][-1].seconds:.2f} s")
    return found


def spread(values: Sequence[float]) -> Spread:
    """Return median, lowest and highest value."""
    return Spread(statistics.median(values), min(values), max(values), len(values))


def ratio(top: Sequence[float], bottom: Sequence[float]) -> Spread:
    """Return the ratio over the rounds in which both took part, each within the same round.

    Raises:
        ValueError: there is no such round.
    """
    pairs = list(zip(top, bottom, strict=False))
    if not pairs:
        raise ValueError("no round in which both took part")
    return spread([one / other for one, other in pairs])
