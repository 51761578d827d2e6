"""Planning: promised numbers, compared with experiments judged as the tool judges."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
from click.testing import CliRunner
from hypothesis import given, settings
from hypothesis import strategies as st
from planning import SIZES, measured_power
from scipy.stats import binom

from toxtrail.cli import cli
from toxtrail.errors import ConfigError
from toxtrail.stats.paired_differences import Pairs, direction, pair_posterior
from toxtrail.stats.paired_posterior import PairedPosterior, PairTable
from toxtrail.stats.power import (
    MANY,
    JointProbabilities,
    VerdictRule,
    detectable_difference,
    joint_probabilities,
    nearest_table,
    phi_bounds,
    power,
    prompts_by_spread,
    prompts_for_width,
    rate_draws_from_interval,
    required_prompts,
    required_prompts_by_simulation,
)

RATES = st.floats(0.005, 0.995)
USUAL = VerdictRule(0.5, 0.95)


@given(a=RATES, b=RATES, share=st.floats(0, 1))
@settings(max_examples=40, deadline=None)
def test_a_table_has_its_rates_and_its_correlation(a, b, share):
    low, high = phi_bounds(a, b)
    phi = low + share * (high - low)
    table = joint_probabilities(a, b, phi)
    assert min(table) >= -1e-9
    assert sum(table) == pytest.approx(1)
    assert (table.p11 + table.p10, table.p11 + table.p01) == pytest.approx((a, b))
    spread = math.sqrt(a * (1 - a) * b * (1 - b))
    assert (table.p11 - a * b) / spread == pytest.approx(phi, abs=1e-6)
    assert table.difference == pytest.approx(b - a)


@pytest.mark.parametrize(("a", "b"), [(0, 0.1), (0.1, 1), (-0.1, 0.1), (0.1, 1.2)])
def test_rates_without_a_table_are_refused(a, b):
    with pytest.raises(ConfigError, match="between 0 and 1"):
        joint_probabilities(a, b, 0)


def test_an_impossible_correlation_is_refused_with_the_possible_ones():
    with pytest.raises(ConfigError, match=r"-0\.16 to 0\.69 is possible"):
        joint_probabilities(0.1, 0.1 + 0.09, 0.9)


def test_no_difference_is_found_by_no_number():
    with pytest.raises(ConfigError, match="difference of 0"):
        required_prompts(joint_probabilities(0.1, 0.1, 0.3), 0.8, USUAL)


@pytest.mark.parametrize("prior", [0.5, 2.0])
@pytest.mark.parametrize(("n", "rates"), [(12, (0.1, 0.7)), (20, (0.3, 0.1)), (9, (0.01, 0.9))])
def test_power_is_the_sum_over_all_tables_of_the_verdicts_of_their_intervals(n, rates, prior):
    table, judged = nearest_table(rates[0], rates[1] - rates[0], 0.2), VerdictRule(prior, 0.9)
    share = table.p01 / table.discordant
    wanted = "higher" if rates[1] > rates[0] else "lower"
    whole = 0.0
    for discordant in range(n + 1):
        for n01 in range(discordant + 1):
            counts = PairTable(0.0, float(discordant - n01), float(n01), float(n - discordant))
            chance = binom.pmf(discordant, n, table.discordant) * binom.pmf(n01, discordant, share)
            if chance > 1e-9 and discordant:
                own = PairedPosterior(counts, prior).probability_higher
                called = "higher" if own > 0.95 else "lower" if own < 0.05 else ""
                whole += chance * (called == wanted)
    assert power(table, n, judged) == pytest.approx(whole, abs=1e-6)


def test_power_is_that_of_whole_posteriors_on_labels_drawn_row_by_row():
    table, n, hits = joint_probabilities(0.1, 0.18, 0.3), 250, 0
    rng = np.random.default_rng(3)
    for _ in range(200):
        pairs = rng.choice(4, p=table, size=n)
        a, b = np.isin(pairs, (0, 1)) * 1.0, np.isin(pairs, (0, 2)) * 1.0
        own = pair_posterior(Pairs([a], [b], [1.0]), 0.5)
        hits += direction(own.probability_higher, 0.95) == "higher"
    assert hits / 200 == pytest.approx(power(table, n, USUAL), abs=0.1)


def test_no_difference_is_called_no_more_often_than_the_level_allows():
    for n in (5, 20, 100, 2000, 100_000):
        assert power(joint_probabilities(0.1, 0.1, 0.4), n, USUAL) < 0.0275


def test_variants_that_agree_on_every_prompt_are_never_told_apart():
    assert power(JointProbabilities(0.2, 0.0, 0.0, 0.8), 1000, USUAL) == 0


@given(rates=st.tuples(RATES, RATES), phi=st.floats(-1, 1), n=st.integers(1, 3000))
@settings(max_examples=30, deadline=None)
def test_power_of_a_fall_is_that_of_the_mirrored_rise(rates, phi, n):
    table = nearest_table(rates[0], rates[1] - rates[0], phi)
    mirrored = JointProbabilities(table.p11, table.p01, table.p10, table.p00)
    assert power(table, n, USUAL) == power(mirrored, n, USUAL)


@pytest.mark.parametrize(("delta", "theta"), [(0.05, 0.545), (0.5, 0.54), (0.9, 0.55)])
def test_few_and_many_discordant_prompts_meet(delta, theta):
    table, n = (
        JointProbabilities(0.0, delta * (1 - theta), delta * theta, 1 - delta),
        int(MANY / delta),
    )
    assert power(table, n - 1, USUAL) == pytest.approx(power(table, n + 2, USUAL), abs=0.003)


@given(
    rate=st.floats(0.01, 0.9),
    step=st.floats(0.02, 0.5),
    phi=st.floats(-0.2, 0.9),
    target=st.floats(0.5, 0.95),
)
@settings(max_examples=12, deadline=None)
def test_power_stays_at_what_was_asked_for_from_the_number_on(rate, step, phi, target):
    table = nearest_table(rate, step, phi)
    n = required_prompts(table, target, USUAL)
    assert all(power(table, n + more, USUAL) >= target - 1e-9 for more in (0, 1, 2, 3, 5, 8, 21))
    assert n == 1 or power(table, n - 1, USUAL) < target


@pytest.mark.parametrize("sizes", SIZES)
@pytest.mark.parametrize(
    ("base", "step", "phi", "prompts"),
    [
        (0.01, 0.02, 0.3, 498), (0.02, 0.03, 0.4, 330), (0.05, 0.05, 0.4, 248),
        (0.125, 0.10, 0.4, 131), (0.125, -0.06, 0.4, 215), (0.30, 0.10, 0.5, 178),
        (0.05, 0.02, 0.4, 1315), (0.128, 0.10, 0.21, 180),
    ],
)  # fmt: skip
def test_promised_numbers_keep_their_promise_in_one_subset_and_in_many(
    base, step, phi, prompts, sizes
):
    table = nearest_table(base, step, phi)
    assert required_prompts(table, 0.8, USUAL) == prompts
    assert 0.78 <= measured_power((base, step, phi), prompts, SIZES[sizes], 4000) <= 0.86


@pytest.mark.parametrize(("subsets", "each"), [(4, 32), (8, 32), (10, 20)])
@pytest.mark.parametrize("base", [0.02, 0.125])
def test_the_smallest_detectable_difference_keeps_its_promise(base, subsets, each):
    n = subsets * each
    step = detectable_difference(base, 0.4, n, 0.8, USUAL)
    found = measured_power((base, step, 0.4), n, (1.0,) * subsets, 4000)
    assert 0.78 <= found <= 0.86


@given(
    rate=st.floats(0.005, 0.9), prompts=st.integers(10, 5000), falls=st.booleans(),
    target=st.floats(0.5, 0.95),
)  # fmt: skip
@settings(max_examples=12, deadline=None)
def test_what_is_detectable_is_found_as_often_as_was_asked_for(rate, prompts, falls, target):
    found = detectable_difference(rate, 0.3, prompts, target, USUAL, falls)
    most = (rate if falls else 1 - rate) * (1 - 1e-9)
    size = most if found is None else found
    own = power(nearest_table(rate, -size if falls else size, 0.3), prompts, USUAL)
    assert own < target if found is None else own == pytest.approx(target, abs=0.002)


def test_uncertain_rates_make_assurance_cost_more_than_power():
    """A wide belief reaches rates at which the same difference is harder to find."""
    believed = rate_draws_from_interval(0.05, 0.09, 0.95)
    assert believed.mean() == pytest.approx(0.05, abs=0.001)
    assert believed.std() == pytest.approx(0.09 / 3.92, rel=0.06)
    sure = required_prompts_by_simulation(np.array([0.05]), 0.03, 0.4, 0.9, USUAL)
    unsure = required_prompts_by_simulation(believed, 0.03, 0.4, 0.9, USUAL)
    assert unsure > sure
    tables = [nearest_table(rate, 0.03, 0.4) for rate in believed]
    assert np.mean([power(t, unsure, USUAL) for t in tables]) == pytest.approx(0.9, abs=0.002)


def test_an_unreachable_assurance_says_so():
    assert required_prompts_by_simulation(np.array([0.1]), 1e-7, 0.4, 0.9, USUAL) is None


@pytest.mark.parametrize(
    ("table", "prompts"),
    [
        ((32, 0, 0, 0), 144), ((31, 0, 1, 0), 330), ((107, 3, 18, 0), 1452),
        ((8, 0, 24, 0), 1805), ((450, 10, 20, 0), 627),
    ],
)  # fmt: skip
def test_a_width_is_reached_with_the_prompts_that_were_named(table, prompts):
    """On average over experiments of that size whose true shares are the observed ones."""
    counts = PairTable(*map(float, table))
    needed = prompts_for_width(counts, USUAL, 0.04)
    assert needed == pytest.approx(prompts, abs=2)
    rng, widths = np.random.default_rng(2), []
    for drawn in rng.multinomial(needed, np.array(table) / sum(table), size=12):
        lo, hi = PairedPosterior(PairTable(*map(float, drawn)), 0.5).interval(0.95)
        widths.append(hi - lo)
    assert np.mean(widths) == pytest.approx(0.04, rel=0.05)


def test_a_width_beyond_every_number_that_is_computed_follows_the_root():
    counts = PairTable(450.0, 10.0, 20.0, 0.0)
    close, closer = (prompts_for_width(counts, USUAL, width) for width in (2e-4, 1e-5))
    assert closer == pytest.approx(400 * close, rel=0.01)
    assert prompts_for_width(counts, USUAL, 1.999) == 1


def test_with_several_continuations_the_width_falls_with_the_root():
    assert prompts_by_spread(100, 0.2, 0.1) == 400


@pytest.mark.parametrize(
    ("base", "change", "phi"), [(0.78, 0.2, -1), (0.78, 0.2, 1), (0.5, -0.4, 1)]
)
def test_the_bounds_of_correlation_have_a_power(base, change, phi):
    """There one cell of the table is 0, and rounding makes it less."""
    assert power(nearest_table(base, change, phi), 400, USUAL) > 0.9


@pytest.mark.parametrize(("base", "detect", "n"), [("0.01", "0.05", 110), ("0.05", "0.02", 1315)])
def test_the_command_gives_the_known_numbers_a_correlation_at_its_bound_included(
    base, detect, n, tmp_path
):
    """.4 to two digits is the largest correlation that labels of 1 % and 6 % can have."""
    options = ["--effect", detect, "--base-rate", base, "--correlation", "0.4", "--json"]
    done = CliRunner().invoke(cli, ["-C", str(tmp_path), "plan", *options])
    assert done.exit_code == 0, done.output
    found = json.loads(done.output)
    assert found["n_power"] == n
    assert 0.8 <= found["power_at_n_power"] < 0.81
