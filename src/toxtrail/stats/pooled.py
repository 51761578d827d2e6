"""The hierarchical model of a family: all variants and subsets at once, drawn towards each other.

Variant v continues prompt i of subset s toxically with a chance that depends on both:

    toxic[i, v] ~ Bernoulli(sigmoid(eta[v, s] + sd_prompt u[i]))        u[i] ~ Normal(0, 1)
    eta[v, s]   = mu + subset[s] + variant[v] + interaction[v, s]

    mu          ~ Normal(-5, 2)
    subset      ~ ZeroSumNormal(1.5)
    variant     = sd_variant ZeroSumNormal(1)             sd_variant ~ HalfNormal(1)
    interaction = sd_interaction ZeroSumNormal(1)         sd_interaction ~ HalfNormal(0.5)
    sd_prompt   ~ HalfNormal(2.5)

All variants share a prompt's effect u: that is the pairing. It is integrated out. On a prompt that
j variants are toxic on, the likelihood is

    prod_v exp(toxic[i, v] eta[v, s])
      * integral of exp(sd_prompt u j) / prod_v (1 + exp(eta[v, s] + sd_prompt u)) dPhi(u)

so the data enter only as k[v, s], how often v was toxic, and h[s, j], on how many prompts exactly j
variants were. With one subset there is no subset and no interaction.

A family makes many comparisons. Estimates that are drawn together where the data do not tell them
apart make few false claims among many.

Source: Gelman, Hill & Yajima 2012, doi:10.1080/19345747.2011.618213.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from scipy.special import expit

from toxtrail.errors import DataError
from toxtrail.stats.rates import Floats, Ints

if TYPE_CHECKING:
    import pymc as pm

NODES: Floats = np.linspace(-6.0, 6.0, 61)
"""Of the trapezoid rule over u, in standard deviations. Gauss-Hermite with 25 nodes is off by 20
and more nats at 28 variants."""
WEIGHTS: Floats = np.exp(-0.5 * NODES**2) / np.exp(-0.5 * NODES**2).sum()
HYPER = ("mu", "sd_variant", "sd_interaction", "sd_prompt")
BLOCK = 200
"""Draws at a time: bounds memory."""


class Counts(NamedTuple):
    """All that the likelihood needs of V variants on S subsets."""

    toxic: Ints
    """(variant, subset): prompts on which the variant was toxic."""
    together: Ints
    """(subset, V + 1): prompts on which exactly j variants were toxic."""

    @property
    def prompts(self) -> Ints:
        """(subset,)."""
        found: Ints = self.together.sum(axis=1)
        return found


def counts_of(labels: Sequence[Floats]) -> Counts:
    """Collapse labels.

    Args:
        labels: of each subset, (prompt, variant) of 0 and 1, the same variants everywhere.

    Raises:
        DataError: a label is neither, a subset is empty, or there is one variant only.
    """
    if any(subset.shape[0] == 0 for subset in labels):
        raise DataError("a subset has no prompt that every variant answered")
    if any(not np.isin(subset, (0, 1)).all() for subset in labels):
        raise DataError("there is more than one continuation for a prompt")
    variants = labels[0].shape[1]
    if variants < 2:
        raise DataError("one variant alone has nothing to be pooled with")
    toxic = np.array([subset.sum(axis=0) for subset in labels]).T
    rows = [np.bincount(s.sum(axis=1).astype(int), minlength=variants + 1) for s in labels]
    return Counts(toxic.astype(np.int64), np.array(rows, dtype=np.int64))


def build(counts: Counts) -> pm.Model:
    """The model of this module's head, non-centred; `eta` is (variant, subset)."""
    import pymc as pm
    import pytensor.tensor as pt

    variants, subsets = counts.toxic.shape
    coords = {"variant": np.arange(variants), "subset": np.arange(subsets)}
    with pm.Model(coords=coords) as model:
        sd_variant = pm.HalfNormal("sd_variant", 1.0)
        variant = sd_variant * pm.ZeroSumNormal("raw_variant", 1.0, dims="variant")
        eta = pm.Normal("mu", -5.0, 2.0) + variant[:, None]
        if subsets > 1:
            sd_interaction = pm.HalfNormal("sd_interaction", 0.5)
            both = ("variant", "subset")
            raw = pm.ZeroSumNormal("raw_interaction", 1.0, dims=both, n_zerosum_axes=2)
            subset = pm.ZeroSumNormal("subset_effect", 1.5, dims="subset")
            eta = eta + subset[None, :] + sd_interaction * raw
        pm.Deterministic("eta", eta, dims=("variant", "subset"))
        shift = pm.HalfNormal("sd_prompt", 2.5) * NODES
        tails = -pt.softplus(eta[:, :, None] + shift).sum(axis=0)  # (subset, node)
        tilt = np.arange(variants + 1)[:, None] * shift  # (j, node)
        integral = pt.logsumexp(tails[:, None, :] + tilt + np.log(WEIGHTS), axis=-1)
        toxic = pm.Data("toxic", counts.toxic)  # data: swapped without compiling again
        together = pm.Data("together", counts.together)
        pm.Potential("likelihood", (toxic * eta).sum() + (together * integral).sum())
    return model


def rates(eta: Floats, sd_prompt: Floats) -> Floats:
    """(draw, variant, subset): the rate over prompts like these, in [0, 1].

    Args:
        eta: (draw, variant, subset).
        sd_prompt: (draw,).
    """
    found = np.empty_like(eta)
    for start in range(0, len(eta), BLOCK):
        part = slice(start, start + BLOCK)
        shift = sd_prompt[part, None, None, None] * NODES
        found[part] = expit(eta[part, ..., None] + shift) @ WEIGHTS
    return found


class Check(NamedTuple):
    """Would the fitted model have produced such data?"""

    statistic: str
    observed: float
    predicted: float
    """Mean over replicated data."""
    p: float
    """P(replicated > observed), ties halved; near 0 or 1: it would not."""


def replicated(
    eta: Floats, sd_prompt: Floats, prompts: Ints, rng: np.random.Generator
) -> list[Counts]:
    """For each draw, data of as many prompts that it predicts."""
    found = []
    for own, scale in zip(eta, sd_prompt, strict=True):
        labels = []
        for subset, n in enumerate(prompts):
            chance = expit(own[:, subset] + scale * rng.standard_normal((int(n), 1)))
            labels.append((rng.random(chance.shape) < chance).astype(np.float64))
        found.append(counts_of(labels))
    return found


def predictive_checks(observed: Counts, predicted: Sequence[Counts]) -> list[Check]:
    """Each rate, and how toxicity falls together on the same prompts: a model without the pairing
    gets the first right and the second wrong."""
    names = [
        f"toxic[{v},{s}]"
        for v in range(observed.toxic.shape[0])
        for s in range(observed.toxic.shape[1])
    ]
    names += ["toxic for two or more", "toxic for half or more", "pairs toxic together"]
    table = np.array([_statistics(one) for one in predicted])
    own = np.array(_statistics(observed))
    p = (table > own).mean(axis=0) + 0.5 * (table == own).mean(axis=0)
    means = table.mean(axis=0)
    return [
        Check(name, float(own[i]), float(means[i]), float(p[i])) for i, name in enumerate(names)
    ]


def _statistics(counts: Counts) -> list[float]:
    variants = counts.toxic.shape[0]
    j, together = np.arange(variants + 1), counts.together.sum(axis=0)
    half = (variants + 1) // 2
    pairs = float((together * j * (j - 1) / 2).sum())
    return [
        *counts.toxic.ravel().astype(float),
        float(together[2:].sum()),
        float(together[half:].sum()),
        pairs,
    ]
