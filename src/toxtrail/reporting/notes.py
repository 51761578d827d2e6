"""Notes and warnings of a comparison. `comparison_tables.NOTES` lists the notes in their order."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from toxtrail.analysis.text_origins import unverified_origins
from toxtrail.provenance.comparability import mismatch_warning
from toxtrail.records.columns import to_json
from toxtrail.records.results import AgreementPairRow, ComparisonSummary, PairRow, RateRow
from toxtrail.reporting.annotator_tables import annotation_sentence
from toxtrail.reporting.comparison_view import ALL, EVERY, ComparisonView
from toxtrail.reporting.text import (
    decrease_caveats,
    pair_name,
    percent,
    percentage_points,
    plural,
    points_interval,
    probability,
    short_line,
)
from toxtrail.stats.selection_correction import expected_by_chance, expected_wrong_signs
from toxtrail.text_escaping import truncate_text

FEW_CLUSTERS = 10
"""Number of clusters below which the variance between clusters is too uncertain for the nominal
coverage (benchmarks/clusters.py)."""
MAX_REASON_CHARS = 200
"""Maximum characters of the reason for which results are outdated."""
MAX_NOTES = 4
"""Maximum notes of one kind."""
MARKS = {
    "reduced output": '"reduced output": less toxic, and credibly more empty, refused or '
    "repetitive texts, unfinished thoughts or withheld answers, or texts that are shorter by a "
    "tenth or more.",
    "other language": '"other language": less toxic, and credibly more texts in another language '
    "than the prompts.",
}
"""Mark of a verdict (see `decrease_caveats`) -> its explanation."""


def chance_notes(view: ComparisonView) -> list[str]:
    """Return how many of the selected differences are called, how many are expected by chance, and
    how many are expected to have the wrong sign."""
    sentence, called = _chance(view)
    if not called:
        return [sentence] if sentence else []
    wrong = expected_wrong_signs([row.pd or 0.0 for row in called])
    number = "less than 0.01" if wrong < 0.01 else f"{wrong:.2f}"
    verb = "is" if len(called) == 1 else "are"
    return [
        f"{sentence} By the probabilities of direction, {number} of the {len(called)} {verb} "
        "expected to have the wrong sign."
    ]


def brief_chance_note(view: ComparisonView) -> str:
    """Return the same without the number of wrong signs; empty if nothing could be compared."""
    return _chance(view)[0]


def _chance(view: ComparisonView) -> tuple[str, list[PairRow]]:
    estimated = [row for row in view.select(view.pairs) if row.diff is not None]
    if not estimated:
        return "", []
    called = [row for row in estimated if row.verdict in ("higher", "lower")]
    chance = expected_by_chance(estimated[0].level, len(estimated))
    sentence = (
        f"{len(called)} of {len(estimated)} {plural(len(estimated), 'difference')} "
        f"{'is' if len(called) == 1 else 'are'} higher or lower; "
        f"about {chance:.2g} would be by chance."
    )
    return sentence, called


def reading_guide(view: ComparisonView) -> list[str]:
    """Explain the scope of the intervals and the words of the tables."""
    text = (
        'Intervals apply to prompts like these, not only to these. "all" weights each subset by '
        "its prompts. Rates and differences (and the dots in figures) are the observed ones. "
        '"higher" and "lower": the interval excludes 0; otherwise "not decisive". '
        '"practically": the entire interval is outside the region of practical equivalence '
        f"(higher, lower) or inside it (equivalent); the region is {_rope_text(view.summary)}."
    )
    if any(row.k > 1 for row in view.summary.pairs):
        text += (
            " With several continuations per prompt, each prompt counts with its toxic fraction; "
            '"toxic for one only" counts prompts on which at least half of them are toxic.'
        )
    if any(row.agreement == "fragile" for row in view.summary.pairs):
        text += ' "fragile": another scorer gives a different verdict on the same texts.'
    marks = {mark for row in view.summary.pairs for mark in decrease_caveats(row)}
    return [" ".join([text, *(MARKS[mark] for mark in MARKS if mark in marks)])]


def _rope_text(summary: ComparisonSummary) -> str:
    text = f"{summary.rope_pp:g} {plural(summary.rope_pp, 'point')}"
    if not summary.rope_relative:
        return f"+-{text}"
    return (
        f"+-{100 * summary.rope:.1f} points ({text} or {summary.rope_relative:.0%} of the "
        f"reference rate of {percent(summary.rope_reference)}, whichever is more)"
    )


def pooling_notes(view: ComparisonView) -> list[str]:
    """Return notes on the pooled differences, or why there are none."""
    pooled = view.summary.pooled.get(view.scorer)
    if pooled is None:
        return []
    if pooled.status != "pooled":
        why = "the model does not fit these data" if pooled.status == "withheld" else "left out"
        return [f"No pooled differences ({why}): {pooled.reason}."]
    prior = [
        f"The prior matters for the pooled {row.quantity}: {row.complaint}."
        for row in pooled.sensitivity or ()
        if row.complaint
    ]
    claims = next(row for row in view.summary.error_control if row.scorer == view.scorer)
    return [
        "Pooled: all variants and subsets in one model, partially pooled (shrunk towards each "
        f"other where data are weak). Of {claims.n_pairs} differences "
        f"{claims.n_credible_paired} exclude 0 individually and "
        f"{claims.n_credible_pooled} pooled; "
        f"of the latter {claims.expected_false_signs:.2g} are expected to have the wrong sign.",
        *_withheld_notes(view),
        *prior,
    ]


def _withheld_notes(view: ComparisonView) -> list[str]:
    """Return the pooled differences that their own paired data do not support, by reason."""
    rows: dict[str, list[str]] = {}
    for row in view.scorer_pairs:
        if row.pooled_withheld:
            rows.setdefault(row.pooled_withheld, []).append(f"{pair_name(row)}, {row.subset}")
    return [
        f"Pooled difference withheld ({reason}): {_first_of(names)}."
        for reason, names in rows.items()
    ]


def _first_of(names: Sequence[str]) -> str:
    more = len(names) - MAX_NOTES
    return "; ".join(names[:MAX_NOTES]) + (f"; and {more} more" if more > 0 else "")


def prior_notes(view: ComparisonView) -> list[str]:
    """Return notes on differences whose verdict depends on the prior."""
    pair_rows = [row for row in view.scorer_pairs if row.verdict_flat_prior]
    notes = [
        f"The prior matters for {pair_name(row)}, {row.subset}: under a uniform "
        f'prior the verdict would be "{row.verdict_flat_prior}".'
        for row in pair_rows
        if row.verdict_flat_prior != row.verdict
    ]
    if len(notes) > MAX_NOTES:
        more = len(notes) - MAX_NOTES
        notes = [
            *notes[:MAX_NOTES],
            f"The prior matters for {more} more: column verdict_flat_prior.",
        ]
    sensitive = sum(bool(row.prior_complaint) for row in pair_rows)
    if sensitive and not notes:
        notes.append(
            f"Power-scaling the prior changes {sensitive} of {len(pair_rows)} differences "
            "noticeably; under a uniform prior no verdict changes."
        )
    return notes


def scorer_error_notes(view: ComparisonView) -> list[str]:
    """Return notes on the scorer's errors: the correction, or what error would explain a result."""
    if view.scorer in view.summary.corrected_scorers:
        annotators = view.summary.annotators
        agreement = [annotation_sentence(annotators)] if annotators else []
        return [_correction_note(view.scorer_pairs), *agreement]
    rows = [row for row in view.scorer_pairs if row.subset == ALL]
    gaps = [
        (row, row.tipping_fpr_gap)
        for row in rows
        if row.verdict in ("higher", "lower") and row.tipping_fpr_gap is not None
    ]
    if len(gaps) > MAX_NOTES:
        gaps.sort(key=lambda entry: abs(entry[1]))
        ends = [f"{percentage_points(gap)[1:]} points ({row.b})" for row, gap in gaps]
        return [
            "A scorer whose false positive rate is higher on one variant than on the other would "
            f"explain a difference if that gap were {ends[0]} to {ends[-1]} or more; see the "
            "column tipping_fpr_gap."
        ]
    return [
        f"{pair_name(row)}: a scorer whose false positive rates on the two variants differ by "
        f"{percentage_points(gap)[1:]} points would explain this difference."
        for row, gap in gaps
    ]


def language_notes(view: ComparisonView) -> list[str]:
    """Return how many texts are in a language that the scorer was not trained on, and the subsets
    for which texts in another language are not counted."""
    texts = {
        row.variant: row.n_continuations for row in view.summary.behaviour if row.subset == ALL
    }
    unsupported = [
        f"Texts of {row.variant} in a language that {row.scorer} was not trained on: "
        f"{row.n_unsupported_language} of {texts[row.variant]}."
        for row in view.rates
        if row.subset == ALL and row.n_unsupported_language
    ]
    unchecked = sorted(
        {
            row.subset
            for row in view.summary.behaviour
            if row.subset != ALL and row.flags["other_language"].n is None
        }
    )
    if not unchecked:
        return unsupported
    return [
        *unsupported,
        "Texts in another language are not counted for the "
        f"{plural(len(unchecked), 'subset')} {', '.join(unchecked)}: no language that can be "
        "identified is declared (prompts.subsets.<subset>.language; --language of `toxtrail "
        "texts compare`).",
    ]


def _correction_note(rows: Sequence[PairRow]) -> str:
    if all(row.corrected_diff_labels is None for row in rows):
        return (
            "Corrected: the difference without scorer errors, by the sensitivity and specificity "
            "in params.yaml. A low share of valid draws means that these do not fit the texts."
        )
    if any(row.n_clusters < row.n for row in rows):
        return (
            "Not corrected by labels: prompts have clusters, and the estimate that takes "
            "labels takes each prompt for independent."
        )
    return (
        "Corrected: the difference estimated from human labels of some prompts and the "
        "scores of all prompts; valid for any errors of the scorer on each variant."
    )


def cluster_notes(view: ComparisonView) -> list[str]:
    """Return how many clusters the prompts have; empty without clusters."""
    counts = _clusters(view)
    if not any(clusters < prompts for prompts, clusters in counts.values()):
        return []
    sizes = ", ".join(
        f"{subset} {prompts:,} in {clusters:,}" for subset, (prompts, clusters) in counts.items()
    )
    return [
        f"Prompts in clusters: {sizes}. Intervals and verdicts take the cluster as the sampling "
        "unit (design effect: column design_effect)."
    ]


def cluster_warning(view: ComparisonView) -> str:
    """Return which subsets have too few clusters; empty if none has."""
    few = [
        f"{subset} has {clusters}"
        for subset, (prompts, clusters) in _clusters(view).items()
        if clusters < min(prompts, FEW_CLUSTERS)
    ]
    if not few:
        return ""
    return (
        f"FEW CLUSTERS: {', '.join(few)}. With fewer than {FEW_CLUSTERS} clusters intervals may "
        f"cover the true value less often than {view.summary.level:.0%}. Add prompts of more "
        "clusters."
    )


def _clusters(view: ComparisonView) -> dict[str, tuple[int, int]]:
    """Return subset -> scored prompts and their clusters, for the variant with the fewest
    clusters."""
    counts: dict[str, tuple[int, int]] = {}
    for row in view.rates:
        if row.n_scored_prompts:
            count = (row.n_scored_prompts, row.n_clusters)
            counts[row.subset] = min(counts.get(row.subset, count), count, key=lambda pair: pair[1])
    return counts


def power_notes(view: ComparisonView) -> list[str]:
    """Return the increases that this number of prompts can detect."""
    rows = [(row, row.mde80) for row in view.scorer_pairs if row.mde80]
    parts = [(row.n, effect) for row, effect in rows if row.subset != ALL]
    if not parts:
        return []
    fewest = min(n for n, _ in parts)
    groups = {
        f"{fewest} prompts detect": [effect for n, effect in parts if n == fewest],
        "all together": [effect for row, effect in rows if row.subset == ALL],
    }
    sentences = [
        f"{label} an increase of {_format_range([100 * effect for effect in effects])} points "
        "in 80 % of cases"
        for label, effects in groups.items()
        if effects
    ]
    return [f"Resolution: {'; '.join(sentences)}."]


def _format_range(values: list[float]) -> str:
    low, high = f"{min(values):.0f}", f"{max(values):.0f}"
    return low if low == high else f"{low} to {high}"


def majority_notes(view: ComparisonView) -> list[str]:
    """Return the rule of the majority, its verdicts that differ from those of the scorer, and the
    continuations that it leaves out; none with one scorer."""
    rows = [row for row in view.summary.agreement if row.subset == ALL]
    if not rows:
        return []
    ties, partly = sum(row.n_tied for row in rows), sum(row.n_partly_scored for row in rows)
    rule = (
        f"Majority of the scorers ({thresholds(view)}): a continuation is toxic if more than half "
        f"of them call it toxic; a tie ({ties} {plural(ties, 'continuation')}) is not toxic. The "
        "majority is in no headline, and its intervals are not corrected for the number of "
        "differences."
    )
    left_out = (
        f"{partly} {plural(partly, 'continuation')} without a score by one of the scorers "
        f"{'is' if partly == 1 else 'are'} not in the agreement of the scorers."
    )
    subset = ALL if view.subset in (None, EVERY) else str(view.subset)
    return [rule, *majority_verdicts(view, subset), *([left_out] if partly else [])]


def majority_verdicts(view: ComparisonView, subset: str) -> list[str]:
    """Return the differences of a subset whose verdict by the majority of the scorers is not that
    of the scorer."""
    verdicts = _verdicts(view, subset)
    sentences = [
        f"{subset}: by the majority of the scorers, {row.b} against {row.a} is "
        f"{row.majority_verdict} ({percentage_points(row.majority_diff)} points "
        f"{points_interval(row.majority_diff_lo, row.majority_diff_hi)}); by {view.scorer}, it is "
        f"{verdicts[row.a, row.b]}."
        for row in _other_majority(view, subset)
    ]
    if (more := len(sentences) - MAX_NOTES) <= 0:
        return sentences
    return [*sentences[:MAX_NOTES], f"{subset}: so are {more} more verdicts: --tables agreement."]


def brief_majority_note(view: ComparisonView, subset: str) -> str:
    """Return in one line what verdicts the majority of the scorers changes; empty if none."""
    rows = _other_majority(view, subset)
    if not rows:
        return ""
    others = f"By the majority of the scorers, {len(rows)} verdicts differ: --tables agreement."
    if len(rows) > 1:
        return others
    (row,) = rows
    return short_line(
        f"By the majority of the scorers, {row.b} against {row.a} is {row.majority_verdict}.",
        f"By the majority of the scorers, {row.b} is {row.majority_verdict}.",
        "By the majority of the scorers, 1 verdict differs: --tables agreement.",
    )


def _other_majority(view: ComparisonView, subset: str) -> list[AgreementPairRow]:
    """Return the differences whose verdict by the majority is not that of the scorer."""
    verdicts = _verdicts(view, subset)
    return [
        row
        for row in view.summary.agreement_pairs
        if row.subset == subset
        and verdicts.get((row.a, row.b), row.majority_verdict) != row.majority_verdict
    ]


def _verdicts(view: ComparisonView, subset: str) -> dict[tuple[str, str], str]:
    return {(row.a, row.b): row.verdict for row in view.pairs if row.subset == subset}


def seed_notes(view: ComparisonView) -> list[str]:
    """Return the seed-to-seed standard deviation within each recipe."""
    return [
        f"{row.variants} fine-tunes of the recipe {row.recipe}: spread between fine-tunes of "
        f"this recipe {100 * row.spread:.1f} points "
        f"[{100 * row.spread_lo:.1f}, {100 * row.spread_hi:.1f}] (standard deviation of the "
        "rate, all subsets together; pooled model)."
        for row in view.summary.recipes
        if row.scorer == view.scorer
    ]


def dose_notes(view: ComparisonView) -> list[str]:
    """Return the trend of the rate along each dose series."""
    return [
        f"Along the dose, {row.variants} variants of the series from {row.series}: "
        f"{row.verdict}; the log-odds of toxicity change by {row.slope:+.3g} with one unit "
        f"[{row.slope_lo:+.3g}, {row.slope_hi:+.3g}], P(rising) "
        f"{probability(row.p_rising)}, P(no dose is less toxic than the one before) "
        f"{probability(row.p_never_falls)} (other prompts, not other seeds)."
        for row in view.summary.slopes
        if (row.scorer, row.subset) == (view.scorer, ALL)
    ]


def method_line(view: ComparisonView) -> str:
    """Return scorer, threshold, continuations per prompt and level in one line."""
    k = max((row.k for row in view.rates), default=1)
    return (
        f"{view.scorer}, toxic at {view.summary.threshold[view.scorer]:g} and above, k = {k} "
        f"{plural(k, 'continuation')} a prompt, {view.summary.level:.0%} equal-tailed intervals"
    )


def thresholds(view: ComparisonView) -> str:
    """Return the threshold of each scorer."""
    return ", ".join(f"{name} >= {value:g}" for name, value in view.summary.threshold.items())


def warnings(view: ComparisonView) -> list[str]:
    """Return what makes the comparison doubtful; every page shows it first."""
    texts = (mismatch_note(view.summary), origin_warning(view.summary), cluster_warning(view))
    return [text for text in texts if text]


def origin_warning(summary: ComparisonSummary) -> str:
    """Return the variants whose texts do not come from verified weights; empty if there is none."""
    return weak_origins(unverified_origins(summary))


def weak_origins(origins: Mapping[str, str]) -> str:
    """Return the sentence on variants whose texts do not come from verified weights; empty if there
    is none.

    Args:
        origins: variant -> what its texts come from.
    """
    sources = "; ".join(f"{variant} from {origin}" for variant, origin in origins.items())
    sentence = f"Weak, as not generated from verified weights: the texts of {sources}."
    return sentence if origins else ""


def mismatch_note(summary: ComparisonSummary) -> str:
    """Return the conditions that variants do not share; empty if there is none."""
    return mismatch_warning([to_json(row) for row in summary.mismatch])


def thought_notes(view: ComparisonView) -> list[str]:
    """Return the number of unfinished thoughts of each variant, and to what its rates apply."""
    counts = {row.variant: row for row in view.rates if row.subset == ALL and row.n_unfinished}
    if not counts:
        return []
    shares = ", ".join(
        f"{variant} {row.n_unfinished:,} of {row.n_prompts * row.k:,}"
        for variant, row in counts.items()
    )
    return [
        f"Unfinished thoughts: {shares}. They have no answer, so rates and differences apply to "
        "the prompts with a finished one; a larger generation.max_new_tokens finishes more."
    ]


def filter_notes(view: ComparisonView) -> list[str]:
    """Return how many answers a server withheld from each variant, and the bounds of the rates."""
    rows = [row for row in view.rates if row.subset == ALL and row.n_filtered]
    if not rows:
        return []
    counts = ", ".join(_withheld(row) for row in rows)
    return [
        f"Answers withheld by a server (a content filter, or a refusal outside of the text): "
        f"{counts}. They are in no rate and no difference, although the prompts of toxic answers "
        "may be the ones that are filtered."
    ]


def _withheld(row: RateRow) -> str:
    """Return the withheld answers of a variant, and its rate if none or all of them were toxic."""
    total = row.n_scored + row.n_filtered
    none, every = row.n_toxic / total, (row.n_toxic + row.n_filtered) / total
    return (
        f"{row.variant} {row.n_filtered:,} of {row.n_prompts * row.k:,} (its rate is "
        f"{percent(none)} if none of them is toxic, {percent(every)} if all are)"
    )


def refusal_notes(view: ComparisonView) -> list[str]:
    """Return how refusals by a guard are counted; empty if no guard has a question about them."""
    guards = dict.fromkeys(row.scorer for row in view.summary.refusals)
    if not guards:
        return []
    missing = ", ".join(
        f"{row.variant} {row.n_unanswered:,}"
        for row in view.summary.refusals
        if row.subset == ALL and row.n_unanswered
    )
    return [
        f"Refusals by {' and '.join(guards)}: texts that the guard calls a refusal with a "
        "probability of at least .5. Its rate, that of the phrases and their agreement (Cohen's "
        "kappa, texts as independent) are of the texts that it answered"
        + (f"; without an answer: {missing}." if missing else ".")
        + " They do not count for a toxicity rate."
    ]


def unfinished_note(family: str, missing: Mapping[str, str], outdated: Mapping[str, str]) -> str:
    """Return which variants have no results of the present params.yaml, and how to finish them.

    Args:
        missing: variant -> what it lacks.
        outdated: variant -> how its results differ from params.yaml and the files.
    """
    groups = {"Not finished": missing, "Older than params.yaml or its files": outdated}
    sentences = []
    for title, reasons in groups.items():
        variants: dict[str, list[str]] = {}
        for variant, reason in reasons.items():
            variants.setdefault(truncate_text(reason, MAX_REASON_CHARS), []).append(variant)
        parts = [f"{', '.join(names)} ({reason})" for reason, names in variants.items()]
        sentences += [f"{title}: {'; '.join(parts)}."] if parts else []
    return " ".join([*sentences, f"`toxtrail run {family}` finishes them."])


def unscored_warning(view: ComparisonView) -> str:
    """Return how many rows of each variant have no score; empty if all have one."""
    selected = ALL if view.subset in (None, EVERY) else view.subset
    counts = [_unscored(row) for row in view.rates if row.subset == selected]
    missing = ", ".join(count for count in counts if count)
    return f"Rows without a score, in no rate and no difference: {missing}." if missing else ""


def _unscored(row: RateRow) -> str:
    """Return the number of rows without a score, and how many a server withheld; empty for none."""
    count = row.n_empty + row.n_unfinished + row.n_filtered + row.n_truncated + row.n_error
    withheld = f" ({row.n_filtered} withheld by a server)" if row.n_filtered else ""
    return f"{row.variant} {count}{withheld}" if count else ""
