"""What may be said of the largest of many differences.

The largest of m observed differences is large partly by luck, so its own interval says too much.
Here it is called credible only if its interval excludes 0 at the level 1 - (1 - level) / m
(Bonferroni; Dunn 1961, doi:10.1080/01621459.1961.10482090): all m such intervals hold together with
probability `level`, however the differences depend on each other, hence also the one that was
chosen. What is claimed of its size is the bound of that interval nearest to 0. How often it is
wrong, and by how much: `benchmarks/largest.py`.
"""

from __future__ import annotations

from collections.abc import Sequence


def simultaneous_level(level: float, differences: int) -> float:
    """Level of each of so many intervals that hold together at `level`.

    Args:
        level: in (0, 1).
        differences: at least 1.
    """
    return 1 - (1 - level) / differences


def expected_by_chance(level: float, differences: int) -> float:
    """How many of so many intervals exclude 0 if no variant differs from another."""
    return (1 - level) * differences


def expected_wrong_signs(directions: Sequence[float]) -> float:
    """How many of the differences that are called have the other sign, in expectation: the sum of
    their local false sign rates (Stephens 2017, doi:10.1093/biostatistics/kxw041).

    Args:
        directions: of each called difference, the probability of its direction.
    """
    return sum(1 - direction for direction in directions)
