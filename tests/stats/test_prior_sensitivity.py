"""Power-scaling: a prior that matters is found out, one that does not is left in peace."""

from __future__ import annotations

import numpy as np
import pytest
from pair_tables import posterior

from toxtrail.stats.paired_differences import power_scaled
from toxtrail.stats.prior_sensitivity import SENSITIVITY_THRESHOLD, Sensitivity, power_scaling

DRAWS = 4000


def normal(prior_mean, prior_sd, data_mean, data_sd):
    """Sensitivity of a normal mean with a normal prior."""
    precision = prior_sd**-2 + data_sd**-2
    mean = (prior_mean / prior_sd**2 + data_mean / data_sd**2) / precision
    x = np.random.default_rng(1).normal(mean, precision**-0.5, (4, DRAWS // 4))
    log_prior = -0.5 * ((x - prior_mean) / prior_sd) ** 2
    return power_scaling(x, log_prior, -0.5 * ((x - data_mean) / data_sd) ** 2)


def test_a_wide_prior_does_not_matter():
    found = normal(0, 100, 1, 1)
    assert found.prior < SENSITIVITY_THRESHOLD < found.likelihood
    assert found.complaint == ""


def test_a_prior_against_the_data_is_called_a_conflict():
    assert "different ways" in normal(10, 1, 0, 1).complaint


def test_a_prior_that_says_more_than_the_data_decides():
    found = normal(0, 0.1, 0, 10)
    assert found.likelihood < SENSITIVITY_THRESHOLD < found.prior
    assert "prior decides" in found.complaint


def paired(n10, n01, n):
    columns = power_scaled(posterior(0, n10, n01, n - n10 - n01), 4000)
    return power_scaling(*(column.reshape(-1, 4).T for column in columns))


def test_many_discordant_prompts_outweigh_jeffreys():
    assert paired(128, 147, 2400).prior < SENSITIVITY_THRESHOLD / 5


@pytest.mark.parametrize("n", [8, 200])
def test_a_difference_that_rests_on_no_discordant_prompt_rests_on_its_prior(n):
    few, many = paired(0, 0, n), paired(40, 40, 200)
    assert few.prior > 5 * many.prior


def test_what_never_varies_is_sensitive_to_nothing():
    still = np.zeros((4, 100))
    assert power_scaling(still, still, still) == Sensitivity(0.0, 0.0)
