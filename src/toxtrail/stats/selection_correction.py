"""Claims about the largest of many differences.

The largest of m observed differences is large partly by chance, so its own interval is too
optimistic. It is called credible only if its interval excludes 0 at the level 1 - (1 - level) / m
(Bonferroni; Dunn 1961, doi:10.1080/01621459.1961.10482090): all m such intervals cover together
with probability `level` for any dependence between the differences, hence also the selected one.
Its stated size is the bound of that interval nearest to 0. `benchmarks/largest.py` measures how
often and by how much this is wrong.
"""

from __future__ import annotations

from collections.abc import Sequence


def simultaneous_level(level: float, differences: int) -> float:
    """Return the level of each of m intervals that cover together at `level`.

    Args:
        level: in (0, 1).
        differences: at least 1.
    """
    return 1 - (1 - level) / differences


def expected_by_chance(level: float, differences: int) -> float:
    """Return the expected number of intervals that exclude 0 if no variant differs from another."""
    return (1 - level) * differences


def expected_wrong_signs(directions: Sequence[float]) -> float:
    """Return the expected number of called differences with the opposite sign: the sum of their
    local false sign rates (Stephens 2017, doi:10.1093/biostatistics/kxw041).

    Args:
        directions: for each called difference, the probability of its direction.
    """
    return sum(1 - direction for direction in directions)
