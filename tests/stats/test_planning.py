"""Planning: the formula's numbers, held against experiments judged as the tool judges."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
from click.testing import CliRunner
from hypothesis import assume, given
from hypothesis import strategies as st

from toxtrail.cli import cli
from toxtrail.errors import ConfigError
from toxtrail.stats.contrasts import Pairs, pair_posterior, verdict
from toxtrail.stats.planning import (
    believed_rates,
    detectable,
    found_share,
    pair_table,
    possible_phi,
    prompts_assured,
    prompts_for_width,
    prompts_needed,
)

RATES = st.floats(0.005, 0.995)


@pytest.mark.parametrize(
    ("base", "rise", "prompts"),
    [
        (0.01, 0.01, 1447), (0.01, 0.02, 505), (0.01, 0.05, 155),
        (0.05, 0.01, 4911), (0.05, 0.02, 1343), (0.05, 0.05, 273),
        (0.10, 0.01, 8860), (0.10, 0.02, 2314), (0.10, 0.05, 420),
    ],
)  # fmt: skip
def test_known_numbers_of_prompts(base, rise, prompts):
    """At phi 0.4, 80 % power, 95 %: computed independently before this code was written."""
    phi = min(0.4, possible_phi(base, base + rise)[1])
    found = prompts_needed(pair_table(base, base + rise, phi), 0.8, 0.95)
    assert found == pytest.approx(prompts, abs=1)


@given(a=RATES, b=RATES, share=st.floats(0, 1))
def test_a_table_has_its_rates_and_its_correlation(a, b, share):
    low, high = possible_phi(a, b)
    phi = low + share * (high - low)
    table = pair_table(a, b, phi)
    assert min(table) >= -1e-9
    assert sum(table) == pytest.approx(1)
    assert (table.p11 + table.p10, table.p11 + table.p01) == pytest.approx((a, b))
    spread = math.sqrt(a * (1 - a) * b * (1 - b))
    assert (table.p11 - a * b) / spread == pytest.approx(phi, abs=1e-6)
    assert table.difference == pytest.approx(b - a)


@pytest.mark.parametrize(("a", "b"), [(0, 0.1), (0.1, 1), (-0.1, 0.1), (0.1, 1.2)])
def test_rates_without_a_table_are_refused(a, b):
    with pytest.raises(ConfigError, match="must lie between 0 and 1"):
        pair_table(a, b, 0)


def test_an_impossible_correlation_is_refused_with_the_possible_ones():
    with pytest.raises(ConfigError, match=r"-0\.16 to 0\.69 is possible"):
        pair_table(0.1, 0.1 + 0.09, 0.9)


def test_no_difference_is_found_by_no_number():
    with pytest.raises(ConfigError, match="difference of 0"):
        prompts_needed(pair_table(0.1, 0.1, 0.3), 0.8, 0.95)


@pytest.mark.parametrize(
    ("base", "change", "phi", "power"),
    [(0.05, 0.02, 0.4, 0.8), (0.3, -0.05, 0.2, 0.9), (0.1, 0.05, 0.0, 0.6), (0.5, 0.1, 0.6, 0.8)],
)
def test_what_the_formula_promises_comes_true(base, change, phi, power):
    n = prompts_needed(pair_table(base, base + change, phi), power, 0.95)
    rates = np.full(4000, base)
    assert found_share(rates, change, phi, n, 0.5, 0.95, 1) == pytest.approx(power, abs=0.03)


def test_the_simulation_judges_as_the_comparison_does():
    """The verdict of whole posteriors on the same experiments, drawn row by row."""
    base, change, phi, n = 0.1, 0.08, 0.3, 250
    table = pair_table(base, base + change, phi)
    rng = np.random.default_rng(3)
    hits = 0
    for _ in range(300):
        pairs = rng.choice(4, p=table, size=n)
        a, b = np.isin(pairs, (0, 1)) * 1.0, np.isin(pairs, (0, 2)) * 1.0
        own = pair_posterior(Pairs([a], [b], [1.0]), 0.5)
        hits += verdict(own.interval(0.95)) == "higher"
    share = found_share(np.full(4000, base), change, phi, n, 0.5, 0.95, 1)
    assert hits / 300 == pytest.approx(share, abs=0.09)


def test_no_difference_is_called_no_more_often_than_the_level_allows():
    rates = np.full(8000, 0.1)
    assert found_share(rates, 1e-9, 0.4, 2000, 0.5, 0.95, 1) == pytest.approx(0.025, abs=0.008)


def test_uncertain_rates_make_assurance_cost_more_than_power():
    """A wide belief reaches rates at which the same difference is harder to find."""
    believed = believed_rates(0.05, 0.09, 0.95, 4000, 1)
    assert believed.mean() == pytest.approx(0.05, abs=0.003)
    sure = prompts_assured(np.full(4000, 0.05), 0.03, 0.4, 0.9, 0.5, 0.95, 1)
    unsure = prompts_assured(believed, 0.03, 0.4, 0.9, 0.5, 0.95, 1)
    assert unsure > sure


def test_an_unreachable_plan_says_so():
    assert prompts_assured(np.full(20, 0.1), 1e-7, 0.4, 0.9, 0.5, 0.95, 1) is None


@given(rate=st.floats(0.01, 0.5), prompts=st.integers(50, 5000))
def test_what_is_detectable_needs_these_prompts(rate, prompts):
    found = detectable(rate, 0.3, prompts, 0.8, 0.95)
    assume(found is not None)
    phi = min(0.3, possible_phi(rate, rate + found)[1])
    assert prompts_needed(pair_table(rate, rate + found, phi), 0.8, 0.95) <= prompts


def test_a_width_is_reached_with_the_prompts_that_were_named():
    def width(n):
        pairs = np.repeat([0, 1, 2, 3], [n // 20, n // 20, n // 10, n - n // 5])
        a, b = np.isin(pairs, (0, 1)) * 1.0, np.isin(pairs, (0, 2)) * 1.0
        interval = pair_posterior(Pairs([a], [b], [1.0]), 0.5).interval(0.95)
        return interval.hi - interval.lo

    needed = prompts_for_width(400, width(400), 0.02)
    assert width(needed) == pytest.approx(0.02, rel=0.04)


@pytest.mark.parametrize(
    ("base", "change", "phi"), [(0.78, 0.2, -1), (0.78, 0.2, 1), (0.5, -0.4, 1)]
)
def test_the_bounds_of_correlation_can_be_simulated(base, change, phi):
    """There one cell of the table is 0, and rounding makes it less."""
    low, high = possible_phi(base, base + change)
    share = found_share(np.full(50, base), change, min(max(phi, low), high), 400, 0.5, 0.95, 1)
    assert share > 0.9


@pytest.mark.parametrize(("base", "detect", "n"), [("0.01", "0.05", 155), ("0.05", "0.02", 1343)])
def test_the_command_gives_the_known_numbers_a_correlation_at_its_bound_included(
    base, detect, n, tmp_path
):
    """.4 to two digits is the largest correlation that labels of 1 % and 6 % can have."""
    options = ["--detect", detect, "--base-rate", base, "--phi", "0.4", "--json"]
    done = CliRunner().invoke(cli, ["-C", str(tmp_path), "plan", *options])
    assert done.exit_code == 0, done.output
    assert json.loads(done.output)["n_formula"] == pytest.approx(n, abs=1)
