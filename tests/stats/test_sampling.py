"""The gate: draws that have not converged are told from those that have."""

from __future__ import annotations

import numpy as np
import pytest

from toxtrail.errors import InferenceError
from toxtrail.stats.bayes_libraries import CompiledModel
from toxtrail.stats.sampling import (
    Diagnostics,
    SampleResult,
    SamplerSettings,
    convergence_problems,
    diagnose,
    draws_needed,
    sample,
    settle,
)

GOOD = Diagnostics(1.001, 4000, 4000, 2000, 0, 0.9, 0.0, 0.5)


def drawn(values, diverging=None):
    zeros = np.zeros(values.shape[:2])
    energy = np.random.default_rng(0).standard_normal(values.shape[:2])
    return SampleResult({"mu": values}, zeros if diverging is None else diverging, energy, zeros)


def independent(shape=(4, 3000)):
    return np.random.default_rng(1).standard_normal(shape) / 100


def test_independent_draws_pass():
    found = diagnose(drawn(independent()), ["mu"], {"rate": independent()[..., None]}, 0.95)
    assert convergence_problems(found) == []


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"r_hat": 1.02}, "R-hat 1.020"),
        ({"ess_bulk": 900}, "bulk ESS 900"),
        ({"ess_tail": 900}, "tail ESS 900"),
        ({"ess_hyper": 399}, "hyper-parameter"),
        ({"divergences": 1}, "1 divergent"),
        ({"bfmi": 0.2}, "E-BFMI 0.20"),
        ({"at_max_depth": 0.02}, "2.0% of the draws"),
        ({"mcse": 1.1}, "1.1 times"),
        *(({name: float("nan")}, "nan") for name in Diagnostics._fields if name != "divergences"),
    ],
)
def test_each_limit_alone_is_enough_to_fail(change, said):
    assert convergence_problems(GOOD) == []
    (text,) = convergence_problems(GOOD._replace(**change))
    assert said in text


def test_chains_that_disagree_fail():
    apart = independent() + np.array([0, 0, 0, 0.05])[:, None]
    assert any(
        "R-hat" in c
        for c in convergence_problems(diagnose(drawn(apart), ["mu"], {"x": apart}, 0.95))
    )


def test_a_chain_that_stands_still_fails():
    slow = np.repeat(independent((4, 30)), 100, axis=1)
    assert any(
        "ESS" in c for c in convergence_problems(diagnose(drawn(slow), ["mu"], {"x": slow}, 0.95))
    )


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_a_draw_that_is_no_number_is_refused(value):
    bad = independent()
    bad[2, 17] = value
    with pytest.raises(InferenceError, match="not a finite number"):
        diagnose(drawn(bad), ["mu"], {}, 0.95)


def test_a_quantity_that_never_varies_is_no_complaint():
    constant = np.zeros((4, 3000, 1))
    assert convergence_problems(diagnose(drawn(independent()), ["mu"], {"x": constant}, 0.95)) == []


def test_a_second_try_is_harder_and_other():
    first = SamplerSettings(4, 1000, 0.9, 7)
    assert first.harder() == SamplerSettings(4, 2000, 0.99, 8)


def settled(find, most=8000, least=1000):
    """Draws that were asked for, and the outcome; `find` gives the diagnostics of an effort."""
    asked = []

    def draw(effort):
        asked.append(effort)
        return effort

    return asked, settle(draw, find, SamplerSettings(4, most, 0.9, 7), least)


def precise(effort):
    """As many effective draws as draws of a chain."""
    n = effort.draws
    return GOOD._replace(ess_bulk=n, ess_tail=n / 2, ess_hyper=n, mcse=(3000 / n) ** 0.5)


def test_draws_grow_until_the_gate_is_content_and_not_beyond():
    asked, found = settled(precise)
    assert [one.draws for one in asked] == [1000, 3500]
    assert {one.seed for one in asked} == {7}
    assert found.wrong == found.first_try == []
    assert found.effort.draws == 3500


@pytest.mark.parametrize(
    "change", [{"divergences": 1}, {"bfmi": 0.1}, {"mcse": float("nan")}, {"at_max_depth": 0.5}]
)
def test_what_more_draws_do_not_cure_is_tried_harder_at_once(change):
    asked, found = settled(lambda effort: GOOD._replace(**change) if effort.seed == 7 else GOOD)
    assert [(one.draws, one.seed) for one in asked] == [(1000, 7), (1000, 8)]
    assert found.wrong == []
    assert found.first_try != []


def test_no_more_than_the_most_is_drawn_and_then_it_is_given_up():
    asked, found = settled(lambda effort: GOOD._replace(mcse=50.0))
    assert [one.draws for one in asked] == [1000, 8000, 1000, 16000]
    assert found.wrong != [] != found.first_try


@pytest.mark.parametrize("ess", [1e-3, 1.0, 990.0, 4000.0])
def test_a_run_always_grows_by_whole_steps(ess):
    wanted = draws_needed(GOOD._replace(ess_tail=ess), 1000)
    assert wanted > 1000
    assert wanted % 250 == 0


@pytest.mark.slow
def test_a_posterior_with_two_far_modes_does_not_pass():
    """Each chain alone looks perfect; they do not agree."""
    import pymc as pm

    with pm.Model() as model:
        pm.NormalMixture("mu", w=[0.5, 0.5], mu=[-4, 4], sigma=1)
    found = sample(CompiledModel(model), SamplerSettings(4, 1000, 0.9, 1))
    own = diagnose(found, ["mu"], {"mu": found.posterior["mu"]}, 0.95)
    assert any("R-hat" in text for text in convergence_problems(own))


@pytest.mark.slow
def test_a_funnel_does_not_pass():
    """Neal 2003: a scale that goes to 0 cannot be walked with one step size."""
    import pymc as pm

    with pm.Model() as model:
        scale = pm.Normal("log_scale", 0, 3)
        pm.Normal("x", 0, pm.math.exp(scale / 2), shape=9)
    found = sample(CompiledModel(model), SamplerSettings(4, 1000, 0.8, 2))
    own = diagnose(found, ["log_scale"], {"x": found.posterior["x"]}, 0.95)
    assert convergence_problems(own) != []
