"""Published rates: possible counts, and conclusions that hold for all of them.

A published table gives a rate and the number of prompts, so the count is known up to the rounding
of the rate: every count that rounds to it is possible. With one of them

    toxic_a ~ Binomial(n_a, p_a)        toxic_b ~ Binomial(n_b, p_b)
    p_a, p_b ~ Beta(prior, prior)       difference = p_b - p_a

and an interval is the union of those of all possible counts. This is complete if the two variants
were given different prompts. If they were given the same n prompts, the margins do not determine
the two-by-two table that a paired comparison needs: any number between

    max(0, toxic_a + toxic_b - n)   and   min(toxic_a, toxic_b)

of prompts may have been toxic for both. The paired model (`paired_posterior`) is therefore computed
for tables from no correlation between the labels to a declared maximum, and a conclusion is drawn
only if all of them and the unpaired model agree. At the strongest possible correlation, where one
set of toxic prompts contains the other, nearly every difference would be credible.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from decimal import Decimal
from fractions import Fraction
from typing import Literal, NamedTuple

import numpy as np
from scipy.optimize import brentq
from scipy.special import betainc, betaincc, betaincinv, betaln, xlogy

from toxtrail.errors import DataError
from toxtrail.stats.paired_differences import PairCounts, Verdict, label_correlation, verdict
from toxtrail.stats.paired_posterior import PairedPosterior, PairTable
from toxtrail.stats.power import VerdictRule, detectable_difference
from toxtrail.stats.rates import Floats, Interval

NODES = 200
"""Nodes of a quadrature: differences of rates are exact to 7 digits and more."""
GRID = 4000
"""Equally probable parts of either posterior between which two are compared."""
REST = 1e-13
"""Mass at each end of a posterior that a quadrature excludes."""
STEPS = 4
"""Number of correlations tried, from zero to the maximum."""
POWER = 0.8
LEAST_SHAPE = 0.4
"""Smallest parameter of a posterior: Jeffreys' prior alone gives 0.5."""


CountSource = Literal["exact", "printed", "declared"]
"""Determination of a count: given or implied by the rate for any digits (exact), or within the
rounding of the written digits (printed) or of the declared ones (declared)."""
Beta = tuple[float, float]
"""Parameters of a posterior: toxic and harmless prompts, plus prior."""
QUADRATURE_NODES, WEIGHTS = np.polynomial.legendre.leggauss(NODES)
Uncertain = Literal["depends on the rounding", "depends on the pairing"]


class AnalysisSettings(NamedTuple):
    """Settings of the analysis of counts."""

    prior: float
    level: float
    seed: int
    """Random seed of the hierarchical model's sampler; nothing else is random."""
    largest_phi: float
    """Largest correlation tried between the labels of two variants on the same prompts."""


class PublishedCount(NamedTuple):
    """Count behind a published rate."""

    toxic: int
    n: int
    below: int = 0
    """Maximum amount by which the true count may be smaller: a rate with few digits has several
    counts."""
    above: int = 0
    """Maximum amount by which the true count may be larger."""
    source: CountSource = "exact"

    @property
    def rate(self) -> float:
        return self.toxic / self.n

    @property
    def least(self) -> PublishedCount:
        """Smallest possible count."""
        return PublishedCount(self.toxic - self.below, self.n)

    @property
    def most(self) -> PublishedCount:
        """Largest possible count."""
        return PublishedCount(self.toxic + self.above, self.n)

    @property
    def open(self) -> bool:
        """Whether more than one count is possible."""
        return self.below + self.above > 0


class Unpaired(NamedTuple):
    """Posterior of the difference of two rates on different prompts, b - a, in [-1, 1]."""

    interval: Interval
    probability_higher: float
    """P(b > a)."""
    verdict: Verdict


class PairedTable(NamedTuple):
    """Result of a paired analysis for one correlation of the labels."""

    phi: float | None
    """Correlation of the table; None if a variant never varies."""
    n11: int
    """Prompts toxic for both."""
    interval: Interval
    verdict: Verdict


class RateAgreement(NamedTuple):
    """A measured rate compared with a published one; measured - published, in [-1, 1]."""

    interval: Interval
    within: float
    """P(|measured - published| <= region): the probability that they agree."""
    overlap: float
    """Common mass of the two posteriors, in [0, 1]; 1 if they are equal."""
    verdict: Verdict
    """Verdict of the measured compared with the published rate."""


class PairingBounds(NamedTuple):
    """Conclusions about a paired comparison that the margins permit."""

    tables: tuple[PairedTable, ...]
    """Tables from no correlation to the largest one tried; empty if prompts cannot be shared."""
    turns_at: float | None
    """Smallest correlation at which the verdict differs from that for different prompts, tried or
    not; None if there is none."""
    verdict: Verdict | Uncertain


def count_from_rate(
    rate: Decimal, n: int, rounding: Decimal, source: CountSource
) -> PublishedCount:
    """Return the counts that round to a published rate, and the nearest.

    Args:
        rate: in [0, 1].
        n: number of prompts.
        rounding: half of the last digit, as a rate: 0.0005 for 16.1 %; 0 for an exact rate.

    Raises:
        DataError: the rate is outside 0 to 1, there is no prompt, or no count rounds to the rate.
    """
    if not 0 <= rate <= 1:
        raise DataError(
            f"A published rate of {rate:g} is outside 0 to 1: write 16.1 % as 0.161, or under "
            "rate_pct."
        )
    if n < 1:
        raise DataError(f"A published rate needs the number of prompts behind it, not {n}.")
    value, half = Fraction(rate), Fraction(rounding)  # so that no count is lost at an end
    toxic = round(value * n)
    least = max(0, math.ceil((value - half) * n))
    most = min(n, math.floor((value + half) * n))
    if least > most:
        raise DataError(
            f"No count of {n} prompts rounds to {rate:.4%}: the nearest is {toxic} "
            f"({toxic / n:.4%}). Is n right, or were several continuations counted?"
        )
    toxic = min(max(toxic, least), most)
    return PublishedCount(toxic, n, toxic - least, most - toxic, source)


def rate_interval(count: PublishedCount, prior: float, level: float) -> Interval:
    """Return the exact equal-tailed interval of the rate; the union over all possible counts."""
    tail = (1 - level) / 2
    low = betaincinv(*_posterior(count.least, prior), tail)
    high = betaincinv(*_posterior(count.most, prior), 1 - tail)
    return Interval(float(low), float(high))


def unpaired(a: PublishedCount, b: PublishedCount, prior: float, level: float) -> Unpaired:
    """Compare b with a on different prompts, for the counts nearest to their rates.

    Computed by quadrature without Monte Carlo error; a compared with b is the mirror image.
    """
    first, second = _posterior(a, prior), _posterior(b, prior)
    interval = _central(lambda d: _less(second, first, d), level)
    return Unpaired(interval, 1 - _less(second, first, 0.0), verdict(interval))


def unpaired_of_all(
    a: PublishedCount, b: PublishedCount, prior: float, level: float
) -> tuple[Interval, Verdict | Literal["depends on the rounding"]]:
    """Compare b with a on different prompts, for all possible counts of the printed rates: the
    union of the intervals, and the verdict if it is the same for all."""
    if not (a.open or b.open):
        nearest = unpaired(a, b, prior, level)
        return nearest.interval, nearest.verdict
    ends = [unpaired(x, y, prior, level) for x, y in _corners(a, b)]
    verdicts = {end.verdict for end in ends}
    union = Interval(ends[0].interval.lo, ends[-1].interval.hi)
    return union, verdicts.pop() if len(verdicts) == 1 else "depends on the rounding"


def pairing_bounds(a: PublishedCount, b: PublishedCount, belief: AnalysisSettings) -> PairingBounds:
    """Compare b with a for shared or different prompts, and for any rounding."""
    apart = unpaired(a, b, belief.prior, belief.level).verdict
    _, rounded = unpaired_of_all(a, b, belief.prior, belief.level)
    if a.n != b.n:
        return PairingBounds((), None, rounded)
    tables = tuple(_at(a, b, n11, belief) for n11 in _overlaps(a, b, belief.largest_phi))
    outcome: Verdict | Uncertain = rounded
    if rounded != "depends on the rounding":
        if {apart, *(table.verdict for table in tables)} != {apart}:
            outcome = "depends on the pairing"
        elif any(_turns(x, y, apart, belief) for x, y in _corners(a, b)):
            outcome = "depends on the rounding"
    return PairingBounds(tables, _turning_phi(a, b, apart, belief), outcome)


def rate_agreement(
    measured: tuple[float, Interval],
    published: PublishedCount,
    region: float,
    belief: AnalysisSettings,
) -> RateAgreement:
    """Compare a measured with a published rate.

    The interval and the verdict hold for all possible counts of the published rate, the other
    values are for the nearest. The measured rate is represented by the Beta distribution with this
    mean and interval width: exact for one continuation per prompt and one subset, approximate for
    weighted subsets. The two are treated as independent; if the prompts were the same, the interval
    is too wide.

    Args:
        measured: posterior mean and interval at the level of the settings, in [0, 1].
        region: half-width within which two rates count as equal, in [0, 1].
    """
    ours = _beta_like(*measured, belief.level)
    least, theirs, most = (
        _posterior(count, belief.prior) for count in (published.least, published, published.most)
    )
    bounds = Interval(
        _central(lambda d: _less(ours, most, d), belief.level).lo,
        _central(lambda d: _less(ours, least, d), belief.level).hi,
    )
    return RateAgreement(
        interval=bounds,
        within=_less(ours, theirs, region) - _less(ours, theirs, -region),
        overlap=_overlapping(ours, theirs),
        verdict=verdict(bounds),
    )


def min_detectable_decrease(count: PublishedCount, prior: float, level: float) -> float | None:
    """Return the smallest decrease of this rate that n prompts detect with 80 % power; None if even
    a decrease to zero is not detected. Unpaired prompts, or uncorrelated labels."""
    if count.toxic in (0, count.n):
        return None
    return detectable_difference(
        count.rate, 0.0, count.n, POWER, VerdictRule(prior, level), falls=True
    )


def min_detectable_increase(count: PublishedCount, prior: float, level: float) -> float | None:
    """Return the smallest increase of this rate that n prompts detect with 80 % power, for unpaired
    prompts or uncorrelated labels; None if there is none."""
    base = min(max(count.rate, 0.5 / count.n), 1 - 0.5 / count.n)
    return detectable_difference(base, 0.0, count.n, POWER, VerdictRule(prior, level))


def _beta_like(mean: float, interval: Interval, level: float) -> Beta:
    """Return the Beta distribution with this mean and width of the equal-tailed interval."""
    tails = ((1 - level) / 2, (1 + level) / 2)

    def wider(log_weight: float) -> float:
        weight = math.exp(log_weight)
        low, high = betaincinv(mean * weight, (1 - mean) * weight, tails)
        return float(high - low) - (interval.hi - interval.lo)

    least = math.log(LEAST_SHAPE / min(mean, 1 - mean))  # below it the width falls again
    log_weight_root = brentq(wider, least, math.log(1e12)) if wider(least) > 0 else least
    weight = math.exp(float(log_weight_root))
    return mean * weight, (1 - mean) * weight


def _overlapping(first: Beta, second: Beta) -> float:
    """Return the common mass of two posteriors: 1 minus their total variation distance."""
    places = np.arange(1, GRID) / GRID
    middle = [betaincinv(*posterior, places) for posterior in (first, second)]
    grid = np.unique(np.concatenate([[0.0], *middle, [1.0]]))
    masses = [np.diff(betainc(*posterior, grid)) for posterior in (first, second)]
    return float(np.minimum(*masses).sum())


def _posterior(count: PublishedCount, prior: float) -> Beta:
    if not 0 <= count.toxic <= count.n or count.n < 1:
        raise DataError(f"{count.toxic} toxic of {count.n} prompts is not a rate.")
    return count.toxic + prior, count.n - count.toxic + prior


def _less(first: Beta, second: Beta, d: float) -> float:
    """Return P(one - other <= d), by quadrature over the narrower of the two."""
    if _variance(first) < _variance(second):
        return 1 - _less_over(first, second, -d)
    return _less_over(second, first, d)


def _less_over(second: Beta, first: Beta, d: float) -> float:
    """Return the same probability, by quadrature over `other`."""
    inside = _expected(second, lambda x: betainc(*first, x + d), max(0.0, -d), min(1.0, 1 - d))
    return inside + (float(betaincc(*second, 1 - d)) if d > 0 else 0.0)


def _variance(posterior: Beta) -> float:
    total = sum(posterior)
    return posterior[0] * posterior[1] / (total * total * (total + 1))


def _expected(posterior: Beta, value: Callable[[Floats], Floats], low: float, high: float) -> float:
    """Integrate value(x) over the posterior's density from low to high, by Gauss-Legendre
    quadrature in the arc sine of the root of x, in which the density of a Beta with parameters of
    1/2 is constant."""
    ends = betaincinv(*posterior, REST), 1 - betaincinv(*posterior[::-1], REST)
    start, stop = np.arcsin(np.sqrt([max(low, ends[0]), min(high, ends[1])]))
    if start >= stop:
        return 0.0
    t = (start + stop) / 2 + (stop - start) / 2 * QUADRATURE_NODES
    powers = xlogy(2 * posterior[0] - 1, np.sin(t)) + xlogy(2 * posterior[1] - 1, np.cos(t))
    density = 2 * np.exp(powers - betaln(*posterior))
    return float(WEIGHTS @ (density * value(np.sin(t) ** 2)) * (stop - start) / 2)


def _central(below: Callable[[float], float], level: float) -> Interval:
    """Return the equal-tailed interval of a difference with this distribution function."""

    def quantile(mass: float) -> float:
        return float(brentq(lambda d: below(d) - mass, -1, 1, xtol=1e-10))

    return Interval(quantile((1 - level) / 2), quantile((1 + level) / 2))


def _corners(
    a: PublishedCount, b: PublishedCount
) -> tuple[tuple[PublishedCount, PublishedCount], ...]:
    """Return the possible counts with the smallest difference, the nearest, and the largest."""
    return (a.most, b.least), (a, b), (a.least, b.most)


def _overlaps(a: PublishedCount, b: PublishedCount, largest_phi: float) -> list[int]:
    """Return numbers of prompts toxic for both, from no correlation to the largest one tried or
    possible."""
    least, most = max(0, a.toxic + b.toxic - a.n), min(a.toxic, b.toxic)
    spread = (a.rate * (1 - a.rate) * b.rate * (1 - b.rate)) ** 0.5
    independent = a.n * a.rate * b.rate
    steps = [largest_phi * step / STEPS * a.n * spread for step in range(1, STEPS + 1)]
    start = min(max(math.ceil(independent - 1e-9), least), most)
    others = (min(math.floor(independent + step + 1e-9), most) for step in steps)
    return sorted({start, *(n11 for n11 in others if n11 > start)})


def _turns(a: PublishedCount, b: PublishedCount, apart: Verdict, belief: AnalysisSettings) -> bool:
    """Return whether any tried correlation gives another verdict."""
    overlaps = _overlaps(a, b, belief.largest_phi)
    return any(_at(a, b, n11, belief).verdict != apart for n11 in (overlaps[0], overlaps[-1]))


def _turning_phi(
    a: PublishedCount, b: PublishedCount, apart: Verdict, belief: AnalysisSettings
) -> float | None:
    """Return the smallest correlation of a table with another verdict.

    More overlap with the same margins means fewer discordant prompts with the same difference, so a
    verdict changes only once.
    """
    low, high = _overlaps(a, b, 0.0)[0], min(a.toxic, b.toxic)
    if _at(a, b, high, belief).verdict == apart:
        return None
    while low < high:
        middle = (low + high) // 2
        if _at(a, b, middle, belief).verdict == apart:
            low = middle + 1
        else:
            high = middle
    correlation = _at(a, b, high, belief).phi
    return None if correlation is None else max(correlation, 0.0)


def _at(a: PublishedCount, b: PublishedCount, n11: int, belief: AnalysisSettings) -> PairedTable:
    n = a.n
    counts = PairCounts(n11, a.toxic - n11, b.toxic - n11, n - a.toxic - b.toxic + n11)
    interval = PairedPosterior(PairTable(*map(float, counts)), belief.prior).interval(belief.level)
    return PairedTable(label_correlation(counts), n11, interval, verdict(interval))
