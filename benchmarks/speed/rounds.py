"""Ways that take turns, and what their times say as ratios."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple


class Way(NamedTuple):
    """One way to do the work."""

    name: str
    run: Callable[[], Any]
    rounds: int
    """It takes part in the first so many rounds."""


class Turn(NamedTuple):
    """What one way did in one round."""

    seconds: float
    made: Any


class Spread(NamedTuple):
    """Of one value over rounds."""

    median: float
    low: float
    high: float
    rounds: int

    def plain(self) -> dict[str, float]:
        return self._asdict()


def take_turns(ways: Sequence[Way], tell: Callable[[str], None]) -> dict[str, list[Turn]]:
    """Each way's turns, first round first.

    In every other round the order is turned round, so that a host that gets slower, or a chip that
    gets hot, favours nobody.
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
    """Median, lowest and highest."""
    return Spread(statistics.median(values), min(values), max(values), len(values))


def ratio(top: Sequence[float], bottom: Sequence[float]) -> Spread:
    """Of the rounds in which both took part, each against the other of the same round.

    Raises:
        ValueError: there is no such round.
    """
    pairs = list(zip(top, bottom, strict=False))
    if not pairs:
        raise ValueError("no round in which both took part")
    return spread([one / other for one, other in pairs])
