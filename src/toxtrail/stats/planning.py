"""How many prompts? Before anything is generated, and: are these enough?

Let delta be the share of prompts on which exactly one of two variants is toxic, and d the
difference of their rates. A paired comparison finds d at level 1 - alpha with so many prompts:

    n = (z[1 - alpha / 2] sqrt(delta) + z[power] sqrt(delta - d^2))^2 / d^2

(Connor 1987, Biometrics 43(1), for McNemar's test.) delta follows from the rates and from phi, the
correlation of the two labels over prompts:

    p11 = pa pb + phi sqrt(pa (1 - pa) pb (1 - pb)),     delta = pa + pb - 2 p11
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
from scipy import stats
from scipy.special import betaincc

from toxtrail.errors import ConfigError
from toxtrail.stats.rates import Floats, named_rng

LIMIT = 10_000_000
"""Prompts; nobody asks more."""


class PairTable(NamedTuple):
    """Chances of a prompt's pair of labels; they sum to 1."""

    p11: float
    """Toxic for both."""
    p10: float
    """Toxic for a alone."""
    p01: float
    """Toxic for b alone."""
    p00: float
    """Toxic for none."""

    @property
    def discordant(self) -> float:
        """Share of prompts that tell the two apart."""
        return self.p10 + self.p01

    @property
    def difference(self) -> float:
        """b - a, in [-1, 1]."""
        return self.p01 - self.p10


def pair_table(rate_a: float, rate_b: float, phi: float) -> PairTable:
    """The two-by-two table of two rates, both in (0, 1), with this correlation over prompts.

    Raises:
        ConfigError: there is no such table; the possible correlations are named.
    """
    if not (0 < rate_a < 1 and 0 < rate_b < 1):
        raise ConfigError(f"Rates of {rate_a:.1%} and {rate_b:.1%}: both must lie between 0 and 1.")
    low, high = possible_phi(rate_a, rate_b)
    if not low - 1e-9 <= phi <= high + 1e-9:
        raise ConfigError(
            f"Labels with rates of {rate_a:.1%} and {rate_b:.1%} cannot correlate by {phi:g} over "
            f"prompts: {low:.2f} to {high:.2f} is possible."
        )
    p11 = rate_a * rate_b + phi * _spread(rate_a, rate_b)
    p11 = min(max(p11, 0.0, rate_a + rate_b - 1), rate_a, rate_b)
    return PairTable(p11, rate_a - p11, rate_b - p11, 1 - rate_a - rate_b + p11)


def possible_phi(rate_a: float, rate_b: float) -> tuple[float, float]:
    """The smallest and largest correlation of labels with these rates (Frechet's bounds)."""
    spread, product = _spread(rate_a, rate_b), rate_a * rate_b
    return (max(0.0, rate_a + rate_b - 1) - product) / spread, (
        min(rate_a, rate_b) - product
    ) / spread


def prompts_needed(table: PairTable, power: float, level: float) -> int:
    """By the formula of this module's head.

    Args:
        power: chance of finding the difference, in (0, 1).
        level: of the interval that must exclude 0.

    Raises:
        ConfigError: the difference is 0.
    """
    d = table.difference
    if d == 0:
        raise ConfigError("A difference of 0 is found by no number of prompts.")
    z_level, z_power = stats.norm.ppf([(1 + level) / 2, power])
    spread = math.sqrt(table.discordant), math.sqrt(max(table.discordant - d * d, 0.0))
    wanted = (float(z_level) * spread[0] + float(z_power) * spread[1]) ** 2
    return math.ceil(wanted / d**2)


def detectable(rate: float, phi: float, prompts: int, power: float, level: float) -> float | None:
    """The smallest rise of a rate that so many prompts find; None if they find none."""
    low, high = 0.0, 1 - rate
    for _ in range(40):
        middle = (low + high) / 2
        least, most = possible_phi(rate, rate + middle)
        table = pair_table(rate, rate + middle, min(max(phi, least), most))
        enough = prompts_needed(table, power, level) <= prompts
        low, high = (low, middle) if enough else (middle, high)
    return high if high < (1 - rate) * 0.999 else None


def believed_rates(rate: float, width: float, level: float, draws: int, seed: int) -> Floats:
    """(draw,) of a rate that is known as this interval says: a Beta of the same mean and spread."""
    sd = width / (2 * float(stats.norm.ppf((1 + level) / 2)))
    weight = max(rate * (1 - rate) / sd**2 - 1, 1.0)
    found = named_rng(seed, "plan|rate").beta(rate * weight, (1 - rate) * weight, size=draws)
    return np.clip(found, 1e-6, 1 - 1e-6)


def found_share(
    rates: Floats,
    difference: float,
    phi: float,
    prompts: int,
    prior: float,
    level: float,
    seed: int,
) -> float:
    """Share of simulated experiments whose interval excludes 0 on the right side.

    It judges as `contrasts.difference_draws` does: the equal-tailed interval of b - a excludes 0
    exactly when P(b > a), a Beta tail, lies beyond (1 + level) / 2.

    Args:
        rates: (simulation,) of variant a, in (0, 1): equal ones give power, draws from what is
            believed of the rate give assurance (O'Hagan, Stevens & Campbell 2005, Pharmaceutical
            Statistics 4(3)).
        difference: b - a, the same in all.
        phi: correlation over prompts; lowered where the rates do not allow as much.
    """
    rng = named_rng(seed, f"plan|{prompts}")
    outcome = np.array([rng.multinomial(prompts, _chances(r, difference, phi)) for r in rates])
    higher = betaincc(outcome[:, 2] + prior, outcome[:, 1] + prior, 0.5)
    bound = (1 + level) / 2
    return float(np.mean(higher > bound if difference > 0 else higher < 1 - bound))


def prompts_assured(
    rates: Floats,
    difference: float,
    phi: float,
    power: float,
    prior: float,
    level: float,
    seed: int,
) -> int | None:
    """The smallest number of prompts, to 2 %, whose `found_share` is at least `power`; None if
    LIMIT is not enough."""

    def enough(n: int) -> bool:
        return found_share(rates, difference, phi, n, prior, level, seed) >= power

    high = 8
    while not enough(high):
        high *= 2
        if high > LIMIT:
            return None
    low = high // 2
    while high - low > max(1, high // 50):
        middle = (low + high) // 2
        low, high = (low, middle) if enough(middle) else (middle, high)
    return high


def prompts_for_width(prompts: int, width: float, wanted: float) -> int:
    """Prompts at which an interval that is `width` wide after so many is about as wide as wanted:
    width falls with the square root of their number."""
    return math.ceil(prompts * (width / wanted) ** 2)


def _chances(rate: float, difference: float, phi: float) -> tuple[float, ...]:
    other = min(max(rate + difference, 1e-9), 1 - 1e-9)
    low, high = possible_phi(rate, other)
    chances = np.clip(pair_table(rate, other, min(max(phi, low), high)), 0, 1)  # rounding
    return tuple(chances / chances.sum())


def _spread(rate_a: float, rate_b: float) -> float:
    return math.sqrt(rate_a * (1 - rate_a) * rate_b * (1 - rate_b))
