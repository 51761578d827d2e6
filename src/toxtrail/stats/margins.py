"""Published rates: what their counts say, and what they leave open.

A table in a paper gives a rate and the number of prompts, so the count is known:

    toxic_a ~ Binomial(n_a, p_a)        toxic_b ~ Binomial(n_b, p_b)
    p_a, p_b ~ Beta(prior, prior)       difference = p_b - p_a

That is all if the two were asked different prompts. If they were asked the same n prompts, the
margins do not give the two-by-two table that a paired comparison needs: anything between

    max(0, toxic_a + toxic_b - n)   and   min(toxic_a, toxic_b)

prompts may have been toxic for both. So the paired model (`contrasts`) is asked for tables from no
correlation between the labels to the strongest possible one, and a conclusion is drawn only if all
of them give it.
"""

from __future__ import annotations

import math
from typing import Any, Literal, NamedTuple

import numpy as np
from scipy import stats
from scipy.optimize import brentq

from toxtrail.errors import DataError
from toxtrail.stats.contrasts import PairCounts, Verdict, difference_draws, phi, verdict
from toxtrail.stats.planning import detectable, pair_table, prompts_needed
from toxtrail.stats.rates import Floats, Interval, equal_tailed, named_rng

NODES = 4000
"""Of the quadrature over the first rate, equally probable."""
PHIS = (0.0, 0.2, 0.4, 0.6)
"""Correlations that are tried besides the strongest possible one."""
POWER = 0.8
LEAST_SHAPE = 0.4
"""Of a posterior's smaller parameter: Jeffreys' prior alone gives 0.5."""


class Belief(NamedTuple):
    """How the counts are read."""

    prior: float
    level: float
    seed: int


class Published(NamedTuple):
    """A rate as a count."""

    toxic: int
    n: int
    slack: int = 0
    """The true count may lie so far off: a rate printed in few digits is that of several counts."""

    @property
    def rate(self) -> float:
        return self.toxic / self.n

    def shifted(self, by: int) -> Published:
        """The count at an end of what the printed rate leaves open; by is -1 or 1."""
        return Published(min(max(self.toxic + by * self.slack, 0), self.n), self.n)


class Unpaired(NamedTuple):
    """Posterior of the difference of two rates on different prompts, b - a, in [-1, 1]."""

    mean: float
    interval: Interval
    probability_higher: float
    """P(b > a)."""
    verdict: Verdict


class AtPhi(NamedTuple):
    """The same, had the prompts been shared with this correlation of the labels."""

    phi: float | None
    """Of the table; None where a variant never varies."""
    n11: int
    """Prompts toxic for both."""
    interval: Interval
    verdict: Verdict


class Agreement(NamedTuple):
    """A measured rate held against a published one; measured - published, in [-1, 1]."""

    mean: float
    interval: Interval
    within: float
    """P(|measured - published| <= region): the probability that they agree."""
    overlap: float
    """What the two posteriors have in common, in [0, 1]; 1: they are the same curve."""
    verdict: Verdict
    """Of measured against published."""


class Bracket(NamedTuple):
    """What the margins allow a paired comparison to say."""

    tables: tuple[AtPhi, ...]
    """From no correlation to the strongest."""
    verdict: Verdict | Literal["depends on the pairing"]


def counted(rate: float, n: int, rounding: float) -> Published:
    """The count behind a published rate.

    Args:
        rate: in [0, 1].
        n: prompts.
        rounding: half of the last digit, as a rate: 0.0005 for 16.1 %.

    Raises:
        DataError: the rate is outside 0 to 1, there is no prompt, or no count rounds to the rate.
    """
    if not 0 <= rate <= 1:
        raise DataError(f"A published rate of {rate} is outside 0 to 1: write 16.1 % as 0.161.")
    if n < 1:
        raise DataError(f"A published rate needs the number of prompts behind it, not {n}.")
    toxic = round(rate * n)
    if abs(toxic / n - rate) > rounding + 1e-12:
        raise DataError(
            f"No count of {n} prompts rounds to {rate:.4%}: the nearest is {toxic} "
            f"({toxic / n:.4%}). Is n right, or were several continuations counted?"
        )
    least = max(0, math.ceil((rate - rounding) * n - 1e-9))
    most = min(n, math.floor((rate + rounding) * n + 1e-9))
    return Published(toxic, n, max(toxic - least, most - toxic))


def rate_interval(own: Published, prior: float, level: float) -> Interval:
    """Equal-tailed interval of the rate, exact."""
    posterior = _posterior(own, prior)
    low, high = posterior.ppf([(1 - level) / 2, (1 + level) / 2])
    return Interval(float(low), float(high))


def unpaired(a: Published, b: Published, prior: float, level: float) -> Unpaired:
    """b against a, each with prompts of its own; by quadrature, so without Monte Carlo error."""
    first, second = _posterior(a, prior), _posterior(b, prior)
    nodes: Floats = first.ppf((np.arange(NODES) + 0.5) / NODES)

    def quantile(mass: float) -> float:
        return float(brentq(lambda d: second.cdf(d + nodes).mean() - mass, -1, 1, xtol=1e-9))

    interval = Interval(quantile((1 - level) / 2), quantile((1 + level) / 2))
    return Unpaired(
        mean=float(second.mean() - first.mean()),
        interval=interval,
        probability_higher=float(second.sf(nodes).mean()),
        verdict=verdict(interval),
    )


def bracket(
    a: Published, b: Published, prior: float, level: float, draws: int, seed: int
) -> Bracket:
    """b against a, had both been asked the same prompts.

    Raises:
        DataError: they were not asked equally many.
    """
    if a.n != b.n:
        raise DataError(f"{a.n} and {b.n} prompts cannot be the same prompts.")
    least, most = max(0, a.toxic + b.toxic - a.n), min(a.toxic, b.toxic)
    overlaps = {min(max(_overlap(a, b, value), least), most) for value in PHIS} | {most}
    tables = tuple(_at(a, b, n11, prior, level, draws, seed) for n11 in sorted(overlaps))
    verdicts = {table.verdict for table in tables}
    return Bracket(tables, verdicts.pop() if len(verdicts) == 1 else "depends on the pairing")


def rounded_verdict(
    a: Published, b: Published, prior: float, level: float
) -> Verdict | Literal["depends on the rounding"]:
    """b against a on different prompts, whichever of the counts that the printed rates allow."""
    ends = {
        unpaired(a.shifted(-by), b.shifted(by), prior, level).verdict
        for by in ((-1, 0, 1) if a.slack or b.slack else (0,))
    }
    return ends.pop() if len(ends) == 1 else "depends on the rounding"


def agreement(
    measured: tuple[float, Interval], published: Published, region: float, belief: Belief
) -> Agreement:
    """Is a measured rate the published one?

    The measured rate is the Beta that has this mean and an interval of this width: exact where each
    prompt was continued once and one subset is looked at, close where subsets are weighted. The two
    are taken as independent; had both been asked the same prompts, the interval is too wide.

    Args:
        measured: posterior mean and interval at belief.level, in [0, 1].
        region: half-width within which two rates count as the same, in [0, 1].
    """
    mean, interval = measured
    ours, theirs = _beta_like(mean, interval, belief.level), _posterior(published, belief.prior)
    nodes: Floats = theirs.ppf((np.arange(NODES) + 0.5) / NODES)

    def below(d: float) -> float:
        """P(measured - published <= d)."""
        return float(ours.cdf(nodes + d).mean())

    tail = (1 - belief.level) / 2

    def quantile(mass: float) -> float:
        return float(brentq(lambda d: below(d) - mass, -1, 1, xtol=1e-9))

    bounds = Interval(quantile(tail), quantile(1 - tail))
    return Agreement(
        mean=float(ours.mean() - theirs.mean()),
        interval=bounds,
        within=below(region) - below(-region),
        overlap=_overlapping(ours, theirs),
        verdict=verdict(bounds),
    )


def fall(own: Published, level: float) -> float | None:
    """Smallest fall of this rate that so many prompts find with 80 % power; None if even a fall to
    nothing is not found. Unpaired prompts, or uncorrelated labels."""
    base = own.rate
    low, high = 0.0, base * (1 - 1e-6)
    if base in (0, 1) or not _finds_fall(base, high, own.n, level):
        return None
    for _ in range(40):
        middle = (low + high) / 2
        low, high = (low, middle) if _finds_fall(base, middle, own.n, level) else (middle, high)
    return high


def resolution(own: Published, level: float) -> float | None:
    """Smallest rise of this rate that so many prompts find with 80 % power, unpaired prompts or
    uncorrelated labels; None if there is none."""
    base = min(max(own.rate, 0.5 / own.n), 1 - 0.5 / own.n)
    return detectable(base, 0.0, own.n, POWER, level)


def _finds_fall(base: float, step: float, n: int, level: float) -> bool:
    return prompts_needed(pair_table(base, base - step, 0.0), POWER, level) <= n


def _beta_like(mean: float, interval: Interval, level: float) -> Any:
    """The Beta with this mean whose equal-tailed interval is as wide."""
    tails = ((1 - level) / 2, (1 + level) / 2)

    def wider(log_weight: float) -> float:
        weight = math.exp(log_weight)
        low, high = stats.beta.ppf(tails, mean * weight, (1 - mean) * weight)
        return float(high - low) - (interval.hi - interval.lo)

    least = math.log(LEAST_SHAPE / min(mean, 1 - mean))  # below it the width falls again
    found = brentq(wider, least, math.log(1e12)) if wider(least) > 0 else least
    weight = math.exp(float(found))
    return stats.beta(mean * weight, (1 - mean) * weight)


def _overlapping(one: Any, other: Any) -> float:
    """The mass that two posteriors share: 1 less their total variation distance."""
    places = (np.arange(1, NODES) / NODES).astype(np.float64)
    grid = np.unique(np.concatenate([[0.0], one.ppf(places), other.ppf(places), [1.0]]))
    return float(np.minimum(np.diff(one.cdf(grid)), np.diff(other.cdf(grid))).sum())


def _posterior(own: Published, prior: float) -> Any:
    if not 0 <= own.toxic <= own.n or own.n < 1:
        raise DataError(f"{own.toxic} toxic of {own.n} prompts is no rate.")
    return stats.beta(own.toxic + prior, own.n - own.toxic + prior)


def _overlap(a: Published, b: Published, correlation: float) -> int:
    spread: float = (a.rate * (1 - a.rate) * b.rate * (1 - b.rate)) ** 0.5
    return round(a.n * (a.rate * b.rate + correlation * spread))


def _at(
    a: Published, b: Published, n11: int, prior: float, level: float, draws: int, seed: int
) -> AtPhi:
    counts = PairCounts(n11, a.toxic - n11, b.toxic - n11, a.n - a.toxic - b.toxic + n11)
    label_a = np.repeat(np.array((1.0, 1.0, 0.0, 0.0)), counts)
    label_b = np.repeat(np.array((1.0, 0.0, 1.0, 0.0)), counts)
    rng = named_rng(seed, f"margins|{counts}")
    found = difference_draws(label_a, label_b, prior, draws, rng)
    interval = equal_tailed(found, level)
    return AtPhi(phi(counts), n11, interval, verdict(interval))
