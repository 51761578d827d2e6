"""The rows of every result table, and the summaries that contain them.

Each field is a column; `records.columns` derives JSON, Parquet, CSV and docs/tables.md from it. A
rate, a difference and a probability are numbers between -1 and 1. None: nothing was scored, or the
value was not requested.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from typing import Annotated, Any

from toxtrail.records.columns import LeftOut, Mark

# --- one variant ------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class VariantColumns:
    """Columns that identify a variant."""

    variant: Annotated[str, "as in params.yaml; no parent is empty"]
    family: str
    role: str
    parent: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class VariantIdentity(VariantColumns):
    """One variant, as in params.yaml."""

    recipe: Annotated[str | None, Mark.OPTIONAL] = None
    dose: Annotated[float | None, Mark.OPTIONAL] = None


@dataclass(frozen=True, slots=True, kw_only=True)
class RateRow(VariantColumns):
    """The toxicity rate of one variant by one scorer on one subset."""

    scorer: Annotated[str, "scorer and subset"]
    subset: str
    threshold: Annotated[float, "toxic means a score of at least this"]
    n_prompts: Annotated[int, "prompts, continuations per prompt"]
    k: int
    n_scored_prompts: Annotated[int, "prompts with a score"]
    n_clusters: Annotated[
        int, "clusters of the prompts with a score; a prompt without one counts as one"
    ]
    n_scored: Annotated[int, "continuations with a score, those at the threshold or above"]
    n_toxic: int
    n_ok: Annotated[
        int,
        "continuations by state: scored, nothing written, thought not finished, answer withheld "
        "by a server, prompt too long, failed",
    ]
    n_empty: int
    n_unfinished: int
    n_filtered: int
    n_truncated: int
    n_error: int
    rate: Annotated[
        float | None,
        "observed share of toxic continuations (of each prompt, then averaged; over subsets "
        "weighted)",
    ]
    rate_mean: Annotated[float | None, "its posterior mean"]
    rate_lo: Annotated[float | None, "its interval"]
    rate_hi: float | None
    corrected_rate: Annotated[
        float | None,
        "corrected for the scorer's errors, by `posterior.labels` or `posterior.scorer_error` "
        "([labels.md](labels.md))",
    ]
    corrected_rate_lo: float | None
    corrected_rate_hi: float | None
    corrected_rate_possible: Annotated[
        float | None,
        "stated error rates: share of possible draws; labels: number of labelled prompts",
    ]
    corrected_rate_labels: int | None
    score_mean: Annotated[float | None, "mean score"]
    score_mean_lo: float | None
    score_mean_hi: float | None
    expected_max_toxicity: Annotated[
        float | None, "mean over prompts of the highest of the k scores"
    ]
    expected_max_toxicity_lo: float | None
    expected_max_toxicity_hi: float | None
    toxicity_probability: Annotated[
        float | None,
        "share of prompts with at least one toxic continuation of k, its posterior mean and "
        "interval",
    ]
    toxicity_probability_mean: float | None
    toxicity_probability_lo: float | None
    toxicity_probability_hi: float | None
    method: Annotated[str, "method"]
    prior_id: str
    rate_at_30: Annotated[float | None, "observed rate at the thresholds .3, .5, .7, .9"]
    rate_at_50: float | None
    rate_at_70: float | None
    rate_at_90: float | None
    weight: Annotated[float, "the subset's share of all prompts"]
    n_unsupported_language: Annotated[
        int | None,
        "continuations in a language that is not among `scoring.scorers.<s>.languages`; empty if "
        "the scorer's languages are not declared",
    ] = None
    pooled_rate: Annotated[
        float | None, "the same rate, all variants and subsets estimated together"
    ] = None
    pooled_rate_lo: float | None = None
    pooled_rate_hi: float | None = None
    r_hat: Annotated[
        float | None, "R-hat and effective sample sizes of the pooled rate's draws"
    ] = None
    ess_bulk: float | None = None
    ess_tail: float | None = None
    pooled_withheld: Annotated[
        str | None,
        "why this row has no pooled rate although its scorer has; empty if it has one",
    ] = None


@dataclass(frozen=True, slots=True, kw_only=True)
class FlagRate:
    """Number and rate of continuations with a response flag; None if it was not computed."""

    n: int | None
    rate: float | None
    lo: float | None
    hi: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class BehaviourRow(VariantColumns):
    """Response behaviour of one variant on one subset."""

    subset: Annotated[str, "subset of the prompts"]
    n_prompts: Annotated[int, "prompts, texts"]
    n_continuations: int
    length_unit: Annotated[
        str, "unit of the lengths: `tokens`, or `words` for texts whose tokens are not known"
    ]
    length_mean: Annotated[
        float | None,
        "length of the answer: mean and quantiles; 0 without one (an unfinished thought)",
    ]
    length_q10: float | None
    length_q50: float | None
    length_q90: float | None
    at_limit_rate: Annotated[float | None, "share that ended at max_new_tokens"]
    flags: Annotated[
        Mapping[str, FlagRate], Mark.FLATTEN, "number, share and interval of the share"
    ]
    """Response flag -> its rate."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RefusalRow(VariantColumns):
    """Refusals of one variant on one subset, by a guard and by phrases, on the same texts."""

    scorer: Annotated[str, "the guard; subset of the prompts"]
    subset: str
    n: Annotated[int, "texts with an answer of the guard; texts without one, which do not count"]
    n_unanswered: int
    guard_n: Annotated[
        int, "refusals by the guard (probability of at least .5): number, share and interval"
    ]
    guard_rate: float | None
    guard_lo: float | None
    guard_hi: float | None
    phrases_n: Annotated[int, "refusals by phrases (the flag `refused`) on the same texts"]
    phrases_rate: float | None
    phrases_lo: float | None
    phrases_hi: float | None
    both: Annotated[int, "texts by both"]
    only_guard: int
    only_phrases: int
    neither: int
    agreement: Annotated[float | None, "share of texts with equal answers"]
    kappa: Annotated[
        float | None,
        "Cohen's kappa with its interval, with texts as independent; none if there is only one "
        "answer",
    ]
    kappa_lo: float | None
    kappa_hi: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class ThresholdRow(VariantColumns):
    """The rate of one variant at another threshold."""

    scorer: Annotated[str, "scorer and subset"]
    subset: str
    threshold: Annotated[float, ".05 to .95"]
    rate: Annotated[float, "rate of scores at or above it"]
    rate_lo: float
    rate_hi: float


@dataclass(frozen=True, slots=True, kw_only=True)
class AgreementRow(VariantColumns):
    """Agreement of several scorers on the texts of one variant on one subset."""

    subset: Annotated[str, "subset of the prompts, names of the scorers"]
    scorers: str
    n_prompts: Annotated[int, "prompts; those with a continuation that every scorer has scored"]
    n_scored_prompts: int
    n_scored: Annotated[
        int,
        "continuations that every scorer has scored; those that only some have scored, which are "
        "in no other number of this table",
    ]
    n_partly_scored: int
    n_disagree: Annotated[
        int,
        "continuations that are toxic by some scorers and not by others; those that are toxic by "
        "exactly half of them",
    ]
    n_tied: int
    disagreement: Annotated[
        float | None, "observed share of continuations on which scorers disagree, and its interval"
    ]
    disagreement_lo: float | None
    disagreement_hi: float | None
    n_majority_toxic: Annotated[
        int, "continuations that are toxic by more than half of the scorers; a tie is not toxic"
    ]
    majority_rate: Annotated[
        float | None, "observed share of continuations that are toxic by the majority, its interval"
    ]
    majority_rate_lo: float | None
    majority_rate_hi: float | None


# --- two variants -----------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class PairColumns:
    """Columns that identify the two compared variants."""

    a: Annotated[str, "b is compared with a, which is its `parent` or the family's `reference`"]
    b: str
    relation: str


@dataclass(frozen=True, slots=True, kw_only=True)
class PairRow(PairColumns):
    """The difference of two variants' rates by one scorer on one subset."""

    scorer: Annotated[str, "scorer and subset"]
    subset: str
    threshold: Annotated[float, "toxic means a score of at least this"]
    k: Annotated[int, "continuations per prompt"]
    n: Annotated[int, "prompts scored for both"]
    n_clusters: Annotated[
        int,
        "clusters of these prompts; design effect, by which the number of prompts is divided (1 "
        "without clusters)",
    ]
    design_effect: float | None = None
    dropped: Annotated[int, "prompts scored for only one of the two"]
    n11: Annotated[int, "prompts toxic for both, for a only, for b only, for neither"]
    n10: int
    n01: int
    n00: int
    phi: Annotated[float | None, "correlation of the two labels over prompts"]
    rate_a: Annotated[float | None, "observed rates on the shared prompts, subsets weighted"] = None
    rate_b: float | None = None
    rope: Annotated[float, "half-width of the region of practical equivalence"]
    diff: Annotated[float | None, "observed difference, rate b - rate a, and interval"] = None
    diff_lo: float | None = None
    diff_hi: float | None = None
    probability_higher: Annotated[
        float | None,
        "probability that b is higher; probability of direction: that of the more likely sign",
    ] = None
    pd: float | None = None
    p_in_rope: Annotated[
        float | None,
        "probability of a difference within, above, below the region of practical equivalence",
    ] = None
    p_above: float | None = None
    p_below: float | None = None
    credible_paired: Annotated[
        bool | None, "whether the interval excludes 0; whether it would without the pairing"
    ] = None
    credible_unpaired: bool | None = None
    odds_ratio: Annotated[
        float | None,
        "odds of being toxic, b to a: of the observed rates (the posterior median where one is 0 "
        "or 1), and interval",
    ] = None
    odds_ratio_lo: float | None = None
    odds_ratio_hi: float | None = None
    corrected_diff: Annotated[float | None, "corrected for the scorer's errors"] = None
    corrected_diff_lo: float | None = None
    corrected_diff_hi: float | None = None
    corrected_diff_possible: Annotated[
        float | None,
        "stated error rates: share of possible draws; labels: prompts labelled for both",
    ] = None
    corrected_diff_labels: int | None = None
    prior_sensitivity: Annotated[float | None, "power-scaling sensitivity, and its diagnosis"] = (
        None
    )
    likelihood_sensitivity: float | None = None
    prior_complaint: str | None = None
    prior_shift_sd: Annotated[
        float | None,
        "effect of a uniform prior: change of the mean, in standard deviations; the verdict",
    ] = None
    verdict_flat_prior: str | None = None
    threshold_sign_stable: Annotated[
        bool | None, "whether no threshold of .3, .5, .7, .9 reverses the verdict"
    ] = None
    tipping_fpr_gap: Annotated[
        float | None, "gap of false-positive rates that would explain the difference"
    ] = None
    mde80: Annotated[
        float | None,
        "smallest increase detected in 80 % of cases; prompts that this difference needs for that. "
        "By the exact power of the verdict; with several continuations per prompt by the "
        "posterior's spread",
    ] = None
    n_needed: int | None = None
    verdict: Annotated[str, "`higher`, `lower`, `not decisive` or `no pairs`"] = "no pairs"
    decision: Annotated[
        str,
        "decision by the region of practical equivalence: `higher`, `lower`, `equivalent`, "
        "`undecided` or `no pairs`",
    ] = "no pairs"
    n_simultaneous: Annotated[
        int,
        "interval that covers simultaneously with those of this number of differences "
        "(Bonferroni): for `all`, one per pair; for a subset, one per pair and subset. Used for "
        "headlines",
    ]
    simultaneous_lo: float | None = None
    simultaneous_hi: float | None = None
    diff_hdi_lo: Annotated[float | None, "highest-density interval of `diff`, without draws"] = None
    diff_hdi_hi: float | None = None
    score_diff: Annotated[float | None, "difference of mean scores"]
    score_diff_lo: float | None
    score_diff_hi: float | None
    expected_max_diff: Annotated[float | None, "difference of expected maximum toxicity"]
    expected_max_diff_lo: float | None
    expected_max_diff_hi: float | None
    toxicity_probability_diff: Annotated[float | None, "difference of toxicity probabilities"]
    toxicity_probability_diff_lo: float | None
    toxicity_probability_diff_hi: float | None
    method: Annotated[str, "method"]
    level: float
    reduced_output: Annotated[
        str, "how b credibly produces less text than a; empty if it does not"
    ] = ""
    other_language: Annotated[
        bool, "whether b's texts are credibly more often in another language than a's"
    ] = False
    agreement: Annotated[str, "agreement of the scorers: `agree`, `fragile`, or `one scorer`"] = (
        "one scorer"
    )
    pooled_diff: Annotated[float | None, "the same difference, all estimated together"] = None
    pooled_diff_lo: float | None = None
    pooled_diff_hi: float | None = None
    lfsr: Annotated[
        float | None,
        "local false sign rate of the pooled difference; whether its interval excludes 0",
    ] = None
    credible_pooled: bool | None = None
    r_hat: Annotated[
        float | None,
        "R-hat and the smaller effective sample size of the pooled difference's draws",
    ] = None
    ess_min: float | None = None
    pooled_withheld: Annotated[
        str | None,
        "why this row has no pooled difference although its scorer has; empty if it has one",
    ] = None


@dataclass(frozen=True, slots=True, kw_only=True)
class FlagDifference:
    """The difference of two variants' shares of continuations with a response flag."""

    diff: float | None
    diff_lo: float | None
    diff_hi: float | None
    verdict: str


@dataclass(frozen=True, slots=True, kw_only=True)
class BehaviourPairRow(PairColumns):
    """Difference in response behaviour of two variants on one subset."""

    subset: Annotated[str, "as in `pairs`"]
    n: int
    flags: Annotated[
        Mapping[str, FlagDifference],
        Mark.FLATTEN,
        "difference of the shares, interval and verdict",
    ]
    """Response flag -> the difference."""
    length_unit: Annotated[
        str, "unit of the lengths; empty if `a` and `b` have different ones: there is no difference"
    ]
    length_diff: Annotated[float | None, "difference of the mean length"]
    length_diff_lo: float | None
    length_diff_hi: float | None
    length_verdict: Annotated[
        str,
        "`higher`, `lower`; `too small`: the interval excludes 0, but the lengths differ by less "
        "than a tenth of `a`'s mean; `not decisive`",
    ]
    length_change: Annotated[float | None, "`length_diff` as a share of `a`'s mean length"]


@dataclass(frozen=True, slots=True, kw_only=True)
class AgreementPairRow(PairColumns):
    """Difference of two variants by the majority of the scorers on one subset."""

    subset: Annotated[str, "subset of the prompts, names of the scorers"]
    scorers: str
    n: Annotated[
        int,
        "prompts with a continuation of both that every scorer has scored; prompts with one of "
        "only one of the two",
    ]
    dropped: int
    disagreement_diff: Annotated[
        float | None, "difference of the shares on which scorers disagree, interval and verdict"
    ]
    disagreement_diff_lo: float | None
    disagreement_diff_hi: float | None
    disagreement_verdict: str
    majority_diff: Annotated[
        float | None,
        "difference of the rates by the majority, interval and verdict; not corrected for the "
        "number of differences, and in no headline",
    ]
    majority_diff_lo: float | None
    majority_diff_hi: float | None
    majority_verdict: str


@dataclass(frozen=True, slots=True, kw_only=True)
class RefusalPairRow(PairColumns):
    """Difference in refusals of two variants on one subset, by a guard and by phrases."""

    scorer: Annotated[str, "the guard; subset"]
    subset: str
    n: Annotated[int, "prompts with a text of both variants that the guard answered"]
    guard_diff: Annotated[
        float | None, "difference of the shares by the guard, interval and verdict"
    ]
    guard_diff_lo: float | None
    guard_diff_hi: float | None
    guard_verdict: str
    phrases_diff: Annotated[float | None, "the same by phrases, on the same texts"]
    phrases_diff_lo: float | None
    phrases_diff_hi: float | None
    phrases_verdict: str


# --- a family ---------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class ErrorControlRow:
    """Number of differences that one scorer claims, and expected number with the wrong sign."""

    scorer: Annotated[str, "scorer"]
    n_pairs: Annotated[
        int, "differences; those whose own interval excludes 0; those whose pooled interval does"
    ]
    n_credible_paired: int
    n_credible_pooled: int | None
    expected_false_signs: Annotated[
        float | None, "expected number of pooled claims with the wrong sign"
    ]
    gate: Annotated[
        str, "result of the pooled model's checks, the reason, and problems of a first try"
    ]
    gate_reason: str
    first_try: str
    r_hat: Annotated[float | None, "diagnostics: the worst over all quantities"] = None
    ess_bulk: float | None = None
    ess_tail: float | None = None
    ess_hyper: float | None = None
    divergences: int | None = None
    bfmi: float | None = None
    at_max_depth: float | None = None
    mcse: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class RecipeRow:
    """Spread between fine-tunes of one recipe by one scorer."""

    recipe: Annotated[str, "recipe, scorer, number of its fine-tunes"]
    scorer: str
    variants: int
    spread: Annotated[
        float,
        "standard deviation of the rate, all subsets together, among fine-tunes of the recipe: "
        "posterior median and interval",
    ]
    spread_lo: float
    spread_hi: float
    r_hat: Annotated[float, "diagnostics of its draws"]
    ess_bulk: float
    ess_tail: float


@dataclass(frozen=True, slots=True, kw_only=True)
class SeriesColumns:
    """Columns that identify a dose series, the scorer and the subset."""

    series: Annotated[str, "the parent of the series; scorer and subset"]
    scorer: str
    subset: str


@dataclass(frozen=True, slots=True, kw_only=True)
class DoseRow(SeriesColumns):
    """The rate of one variant of a dose series."""

    variant: Annotated[str, "variant; prompts scored for all of the series"]
    dose: float
    n: int
    rate: Annotated[float, "observed rate on these prompts, with its exact interval"]
    rate_lo: float
    rate_hi: float


@dataclass(frozen=True, slots=True, kw_only=True)
class SlopeRow(SeriesColumns):
    """The trend of one dose series."""

    n: Annotated[int, "prompts scored for all of the series"]
    variants: Annotated[int, "variants of the series, distinct doses"]
    levels: int
    slope: Annotated[float, "change of the log-odds with one unit of dose"]
    slope_lo: float
    slope_hi: float
    p_rising: Annotated[
        float, "probability that it is above 0; that the rate falls from no dose to the next"
    ]
    p_never_falls: float
    verdict: Annotated[str, "`rising`, `falling` or `not decisive`"]


@dataclass(frozen=True, slots=True, kw_only=True)
class FlipRow:
    """One continuation whose label changed between two variants."""

    prompt_id: Annotated[str, "the continuation"]
    sample: int
    subset: str
    category: Annotated[
        str,
        "the scorer's strongest other head on the text that is toxic; `none` if it has no other",
    ]
    direction: Annotated[str, "`became toxic` or `became harmless`, from A to B"]
    score_a: Annotated[float, "the two scores; score_b - score_a"]
    score_b: float
    change: float
    prompt: Annotated[str | None, Mark.OPTIONAL, "only with `--show-text`"] = None
    text_a: Annotated[str | None, Mark.OPTIONAL] = None
    text_b: Annotated[str | None, Mark.OPTIONAL] = None


TABLES: Mapping[str, type] = {
    "rates": RateRow,
    "pairs": PairRow,
    "error_control": ErrorControlRow,
    "behaviour": BehaviourRow,
    "behaviour_pairs": BehaviourPairRow,
    "refusals": RefusalRow,
    "refusal_pairs": RefusalPairRow,
    "thresholds": ThresholdRow,
    "agreement": AgreementRow,
    "agreement_pairs": AgreementPairRow,
    "recipes": RecipeRow,
    "doses": DoseRow,
    "slopes": SlopeRow,
}
"""Tables of a family's comparison, each a field of ComparisonSummary."""
OPTIONAL_TABLES = frozenset(
    {"refusals", "refusal_pairs", "agreement", "agreement_pairs", "recipes", "doses", "slopes"}
)
"""Tables that only some families have: with several scorers, recipes, doses, or a guard with
a question about refusals."""


# --- the pooled model -------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class PooledRateRow:
    """The pooled rate of one variant by one scorer on one subset."""

    variant: str
    scorer: str
    subset: str
    pooled_rate: float | None
    pooled_rate_lo: float | None
    pooled_rate_hi: float | None
    r_hat: float | None
    ess_bulk: float | None
    ess_tail: float | None
    pooled_withheld: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class PooledPairRow:
    """The pooled difference of two variants by one scorer on one subset."""

    a: str
    b: str
    scorer: str
    subset: str
    pooled_diff: float | None
    pooled_diff_lo: float | None
    pooled_diff_hi: float | None
    lfsr: float | None
    credible_pooled: bool | None
    r_hat: float | None
    ess_min: float | None
    pooled_withheld: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class WithheldRow:
    """A rate (`variant`) or a difference (`a`, `b`) on one subset that is withheld from the pooled
    results."""

    variant: Annotated[str | None, Mark.OPTIONAL] = None
    a: Annotated[str | None, Mark.OPTIONAL] = None
    b: Annotated[str | None, Mark.OPTIONAL] = None
    subset: str
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class PoolingDiagnostics:
    """The worst of each kind over all quantities of a pooled model."""

    r_hat: float
    ess_bulk: float
    ess_tail: float
    ess_hyper: float
    divergences: int
    bfmi: float
    at_max_depth: float
    mcse: float


@dataclass(frozen=True, slots=True, kw_only=True)
class SamplerEffort:
    """Sampler settings of a pooled posterior."""

    chains: int
    draws: int
    target_accept: float
    seed: int


@dataclass(frozen=True, slots=True, kw_only=True)
class PredictiveCheckRow:
    """One posterior predictive check of a pooled model."""

    statistic: str
    variant: str | None
    subset: str | None
    observed: float
    predicted: float
    predicted_lo: float
    predicted_hi: float
    p: float


@dataclass(frozen=True, slots=True, kw_only=True)
class PriorSensitivityRow:
    """Prior sensitivity of one difference of a pooled model."""

    quantity: str
    prior: float
    likelihood: float
    complaint: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ScorerPooling:
    """Result of the pooled model of one scorer; if it was omitted, only the reason."""

    status: str
    """`pooled`, `withheld` or `left out`."""
    reason: str
    withheld: Annotated[Sequence[WithheldRow] | None, Mark.OPTIONAL] = None
    """Rows that are withheld although the model fits overall."""
    dropped: Annotated[int | None, Mark.OPTIONAL] = None
    """Number of prompts without a score for every variant."""
    diagnostics: Annotated[PoolingDiagnostics | None, Mark.OPTIONAL] = None
    effort: Annotated[SamplerEffort | None, Mark.OPTIONAL] = None
    first_try: Annotated[str | None, Mark.OPTIONAL] = None
    """Problems of the first try; empty if there was only one."""
    checks: Annotated[Sequence[PredictiveCheckRow] | None, Mark.OPTIONAL] = None
    sensitivity: Annotated[Sequence[PriorSensitivityRow] | None, Mark.OPTIONAL] = None


# --- summaries --------------------------------------------------------------------------------

VARIANT_COLUMNS = frozenset(column.name for column in fields(VariantColumns))
"""Columns of a variant's rows that its own summary has once."""
POOLED_RATE_COLUMNS = frozenset(c.name for c in fields(PooledRateRow)) - {
    "variant", "scorer", "subset"
}  # fmt: skip
"""Columns of a rate that the pooled model adds; only a comparison has them."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparability:
    """The conditions that rates were measured under."""

    fingerprint: str
    fields: Mapping[str, str]


@dataclass(frozen=True, slots=True, kw_only=True)
class LabelRow:
    """One human label, with each scorer's score of the labelled text."""

    prompt_id: str
    sample: int
    toxic: bool
    scores: Mapping[str, float]


@dataclass(frozen=True, slots=True, kw_only=True)
class AnnotatorPairRow:
    """Labels of two annotators, on the texts that both labelled."""

    first: str
    second: str
    n: int
    """Texts that both labelled."""
    both_toxic: int
    only_first_toxic: int
    only_second_toxic: int
    both_harmless: int
    agreement: float | None
    """Share of texts with equal labels."""
    toxic_first: float | None
    toxic_second: float | None
    """Share of texts labelled toxic: kappa depends on it."""
    kappa: float | None
    kappa_lo: float | None
    kappa_hi: float | None
    """Cohen's kappa with its interval; see `stats.annotator_agreement`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class AnnotatorAgreement:
    """Agreement of the annotators of a set of labels."""

    annotators: Sequence[str]
    texts: int
    """Texts with at least one label; equal texts of a prompt count once."""
    labelled_once: int
    """Texts that only one annotator labelled."""
    disagreements: int
    """Texts with two different labels. Among counted labels, all of them are adjudicated."""
    alpha: float | None
    """Krippendorff's alpha of more than two annotators."""
    pairs: Sequence[AnnotatorPairRow]


@dataclass(frozen=True, slots=True, kw_only=True)
class VariantSummary:
    """Output of `posterior` for one variant."""

    kind: str = "posterior"
    variant: str
    family: str
    role: str
    parent: str | None
    recipe: Annotated[str | None, Mark.OPTIONAL] = None
    dose: Annotated[float | None, Mark.OPTIONAL] = None
    comparability: Annotated[Comparability | None, Mark.OPTIONAL] = None
    schema_version: int
    primary: str
    """The scorer whose results are shown."""
    threshold: Mapping[str, float]
    """Scorer -> threshold."""
    level: float
    """Mass of every interval."""
    interval: str
    rates: Annotated[Sequence[RateRow], LeftOut(VARIANT_COLUMNS | POOLED_RATE_COLUMNS)]
    behaviour: Annotated[Sequence[BehaviourRow], LeftOut(VARIANT_COLUMNS)]
    thresholds: Annotated[Sequence[ThresholdRow], LeftOut(VARIANT_COLUMNS)]
    agreement: Annotated[Sequence[AgreementRow], LeftOut(VARIANT_COLUMNS)]
    refusals: Annotated[Sequence[RefusalRow], LeftOut(VARIANT_COLUMNS), Mark.OPTIONAL] = ()
    labels: Annotated[Sequence[LabelRow] | None, Mark.OPTIONAL] = None
    """None: rates are not corrected by labels."""
    annotators: Annotated[AnnotatorAgreement | None, Mark.OPTIONAL] = None
    """Agreement on all labels of the file, of every variant; None: not recorded."""
    manifest: Annotated[Mapping[str, Any] | None, Mark.OPTIONAL] = None
    """Manifest as JSON; the writer adds it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PoolSummary:
    """Output of `pool` for a family."""

    kind: str = "pool"
    family: str
    schema_version: int
    reference: str
    primary: str
    threshold: Mapping[str, float]
    """Scorer -> threshold."""
    level: float
    interval: str
    scorers: Mapping[str, ScorerPooling]
    rates: Sequence[PooledRateRow]
    pairs: Sequence[PooledPairRow]
    recipes: Annotated[Sequence[RecipeRow], Mark.OPTIONAL] = ()
    manifest: Annotated[Mapping[str, Any] | None, Mark.OPTIONAL] = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ConditionMismatchRow:
    """One condition that differs between a variant and the one that it is compared with."""

    variant: str
    field: str
    found: str
    reference: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ComparedVariant(VariantIdentity):
    """One variant of a comparison."""

    content_key: str | None
    """Content key of its summary."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ComparisonSummary:
    """Output of `compare` for a family, or result for a set of runs."""

    kind: str = "comparison"
    family: str
    """Its name, or the title of a comparison of runs."""
    prior: Annotated[float | None, Mark.OPTIONAL] = None
    """Prior of a comparison of runs; that of a family is in the manifest."""
    schema_version: int
    reference: str
    primary: str
    """The scorer whose results are shown."""
    threshold: Mapping[str, float]
    """Scorer -> threshold."""
    level: float
    interval: str
    rope_pp: float
    rope_relative: float
    rope_reference: float | None
    rope: float
    """Half-width of the region of practical equivalence."""
    corrected_scorers: Sequence[str]
    """Scorers whose numbers are corrected for their errors."""
    annotators: Annotated[AnnotatorAgreement | None, Mark.OPTIONAL] = None
    """Agreement of the annotators of the labels; None: not recorded, or several label files."""
    comparability: Comparability | None
    """Conditions of the reference."""
    mismatch: Sequence[ConditionMismatchRow]
    variants: Sequence[ComparedVariant]
    rates: Sequence[RateRow]
    behaviour: Sequence[BehaviourRow]
    thresholds: Sequence[ThresholdRow]
    pairs: Sequence[PairRow]
    behaviour_pairs: Sequence[BehaviourPairRow]
    agreement: Sequence[AgreementRow]
    agreement_pairs: Sequence[AgreementPairRow]
    refusals: Annotated[Sequence[RefusalRow], Mark.OPTIONAL] = ()
    refusal_pairs: Annotated[Sequence[RefusalPairRow], Mark.OPTIONAL] = ()
    doses: Annotated[Sequence[DoseRow], Mark.OPTIONAL] = ()
    slopes: Annotated[Sequence[SlopeRow], Mark.OPTIONAL] = ()
    pooled: Mapping[str, ScorerPooling] = field(default_factory=dict)
    """Scorer -> its pooled model."""
    recipes: Annotated[Sequence[RecipeRow], Mark.OPTIONAL] = ()
    error_control: Sequence[ErrorControlRow] = ()
    manifest: Annotated[Mapping[str, Any] | None, Mark.OPTIONAL] = None
