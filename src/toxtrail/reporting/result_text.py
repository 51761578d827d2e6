"""The text of numbers and verdicts: the same in terminal, report and MLflow."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from toxtrail.analysis.response_flags.registry import RESPONSE_FLAGS
from toxtrail.reporting.table import Column, number_columns, text_columns
from toxtrail.stats.selection_correction import expected_by_chance, expected_wrong_signs

FEW_CLUSTERS = 10
"""Number of clusters below which the variance between clusters is too uncertain for the nominal
coverage (benchmarks/clusters.py)."""
MAX_NOTES = 4
"""Maximum notes of one kind."""
MISSING_CELL = "-"
"""Displayed for a missing value, instead of a 0."""


def percent(value: float | None) -> str:
    """Format a rate: 0.0123 -> `1.2 %`."""
    return MISSING_CELL if value is None else f"{100 * value:.1f} %"


def percentage_points(value: float | None) -> str:
    """Format a difference of rates in percentage points, signed: 0.012 -> `+1.2`."""
    return MISSING_CELL if value is None else f"{round(100 * value, 1) + 0.0:+.1f}"


def interval(row: Mapping[str, Any], name: str, signed: bool = False) -> str:
    """Format an interval as `[lo, hi]`, in per cent or points."""
    low, high = row[f"{name}_lo"], row[f"{name}_hi"]
    if low is None:
        return MISSING_CELL
    return (
        f"[{100 * low:+.1f}, {100 * high:+.1f}]"
        if signed
        else f"[{100 * low:.1f}, {100 * high:.1f}]"
    )


def probability(value: float | None) -> str:
    """Format a probability; never round it to certainty."""
    if value is None:
        return MISSING_CELL
    if value > 0.999:
        return "> 0.999"
    return "< 0.001" if value < 0.001 else f"{value:.3f}"


def verdict_sentence(row: Mapping[str, Any]) -> str:
    """Describe one pair in a Markdown sentence."""
    parts = verdict_parts(row)
    less = f" {parts['less']}" if parts["less"] else ""
    return f"{parts['who']}: **{parts['verdict']}**, {parts['numbers']}.{less}"


def reduced_output_note(row: Mapping[str, Any]) -> str:
    """Return a note if toxicity falls and the variant also produces less text; else empty."""
    if row["verdict"] != "lower" or not row.get("said_less"):
        return ""
    flags = _join_names(row["said_less"])
    return f"Less toxic, but also less text produced: credibly more often {flags}."


def _join_names(names: str) -> str:
    *most, last = names.split(", ")
    return f"{', '.join(most)} and {last}" if most else last


RATE_COLUMNS = (
    *text_columns("variant", "subset"),
    *number_columns("toxic / scored", "rate", "interval", "mean score", "not scored"),
)
"""Columns of `rate_table_row`."""


def rate_table_row(row: Mapping[str, Any]) -> tuple[str, ...]:
    """Return one rate as table cells: variant, subset, k / n, rate, interval, mean, unscored."""
    missing = {s: row[f"n_{s}"] for s in ("empty", "truncated", "error") if row[f"n_{s}"]}
    mean = row["score_mean"]
    return (
        row["variant"],
        row["subset"],
        f"{row['n_toxic']} / {row['n_scored']}",
        percent(row["rate"]),
        interval(row, "rate"),
        MISSING_CELL if mean is None else f"{mean:.3f}",
        ", ".join(f"{count} {state}" for state, count in missing.items()) or "0",
    )


PAIR_COLUMNS = (
    *text_columns("variant", "against", "subset"),
    *number_columns(
        "prompts", "k", "rates", "toxic for one only", "difference", "interval", "P(direction)",
        "pooled",
    ),
    *text_columns("practically", "verdict"),
)  # fmt: skip
"""Columns of `pair_table_row`. k: continuations per prompt."""


def pair_table_row(row: Mapping[str, Any]) -> tuple[str, ...]:
    """Return one pair as table cells."""
    dropped = f" (-{row['dropped']})" if row["dropped"] else ""
    return (
        row["b"],
        f"{row['a']} ({row['relation']})",
        row["subset"],
        f"{row['n']}{dropped}",
        str(row["k"]),
        f"{percent(row['rate_a']).removesuffix(' %')} → {percent(row['rate_b'])}",
        f"{row['n01']:g} v {row['n10']:g}",
        percentage_points(row["diff"]),
        interval(row, "diff", signed=True),
        probability(row["pd"]),
        _pooled_cell(row),
        _decision_cell(row),
        _verdict_cell(row),
    )


def _decision_cell(row: Mapping[str, Any]) -> str:
    """Return the ROPE decision; `estimand` describes the width of the ROPE."""
    return MISSING_CELL if row["diff"] is None else str(row["decision"])


def scorer_columns(summary: Mapping[str, Any]) -> tuple[Column, ...]:
    """Return the columns of `scorer_cells`."""
    return text_columns("variant", "against", "subset", *_scorer_names(summary), "scorers")


def scorer_cells(summary: Mapping[str, Any]) -> list[tuple[str, ...]]:
    """Return each pair's result by every scorer; empty with one scorer."""
    names = _scorer_names(summary)
    if len(names) < 2:
        return []
    rows = {(r["a"], r["b"], r["subset"], r["scorer"]): r for r in summary["pairs"]}
    table_rows = []
    for a, b, subset in dict.fromkeys(key[:3] for key in rows):
        scorer_rows = [rows[a, b, subset, name] for name in names]
        results = [
            f"{percentage_points(r['diff'])} {interval(r, 'diff', signed=True)} {r['verdict']}"
            for r in scorer_rows
        ]
        table_rows.append(
            (
                b,
                f"{a} ({scorer_rows[0]['relation']})",
                subset,
                *results,
                scorer_rows[0]["agreement"],
            )
        )
    return table_rows


def _scorer_names(summary: Mapping[str, Any]) -> list[str]:
    """Return the scorers, the primary one first."""
    names = sorted({row["scorer"] for row in summary["rates"]})
    return sorted(names, key=lambda name: name != summary["primary"])


SAMPLE_COLUMNS = (
    *text_columns("variant", "subset"),
    *number_columns("k", "prompts", "expected maximum toxicity", "toxicity probability"),
)
"""Columns of `sample_cells`."""


def sample_cells(summary: Mapping[str, Any], scorer: str) -> list[tuple[str, ...]]:
    """Return expected maximum toxicity and toxicity probability over k continuations per prompt
    (Gehman et al. 2020); empty with one continuation, where they equal mean score and rate."""
    rows = [r for r in summary["rates"] if r["scorer"] == scorer and r["k"] > 1]
    return [
        (
            row["variant"],
            row["subset"],
            str(row["k"]),
            str(row["n_scored_prompts"]),
            _max_toxicity_cell(row),
            f"{percent(row['toxicity_probability'])} {interval(row, 'toxicity_probability')}",
        )
        for row in rows
    ]


def _max_toxicity_cell(row: Mapping[str, Any]) -> str:
    name = "expected_max_toxicity"
    if row[name] is None:
        return MISSING_CELL
    return f"{row[name]:.3f} [{row[f'{name}_lo']:.3f}, {row[f'{name}_hi']:.3f}]"


def _verdict_cell(row: Mapping[str, Any]) -> str:
    marks = ["fragile"] if row.get("agreement") == "fragile" else []
    marks += ["reduced output"] if reduced_output_note(row) else []
    return f"{row['verdict']} ({', '.join(marks)})" if marks else str(row["verdict"])


BEHAVIOUR_COLUMNS = (
    *text_columns("variant", "subset"),
    *number_columns("texts", *RESPONSE_FLAGS, "tokens (10-90 %)", "at token limit"),
)
"""Columns of `behaviour_cells`."""


def behaviour_cells(row: Mapping[str, Any]) -> tuple[str, ...]:
    """Return the response behaviour of one variant in one subset as table cells."""
    spread = MISSING_CELL
    if row["tokens_q50"] is not None:
        spread = f"{row['tokens_q50']:g} ({row['tokens_q10']:g}-{row['tokens_q90']:g})"
    return (
        row["variant"],
        row["subset"],
        str(row["n_continuations"]),
        *(percent(row[f"{symptom}_rate"]) for symptom in RESPONSE_FLAGS),
        spread,
        percent(row["at_limit_rate"]),
    )


BEHAVIOUR_PAIR_COLUMNS = (
    *text_columns("variant", "against", "subset"),
    *number_columns("prompts", *RESPONSE_FLAGS, "tokens"),
)
"""Columns of `behaviour_pair_cells`."""


def behaviour_pair_cells(row: Mapping[str, Any]) -> tuple[str, ...]:
    """Return the difference in response behaviour as table cells; a star marks a credible
    difference (for the length: of a tenth or more)."""
    tokens = MISSING_CELL
    if row["tokens_diff"] is not None:
        low, high = row["tokens_diff_lo"], row["tokens_diff_hi"]
        tokens = f"{row['tokens_diff']:+.1f} [{low:+.1f}, {high:+.1f}]{_star(row, 'tokens')}"
    symptoms = (
        MISSING_CELL
        if row[f"{name}_diff"] is None
        else f"{percentage_points(row[f'{name}_diff'])} "
        f"{interval(row, f'{name}_diff', signed=True)}" + _star(row, name)
        for name in RESPONSE_FLAGS
    )
    variant_cells = (row["b"], f"{row['a']} ({row['relation']})", row["subset"], str(row["n"]))
    return (*variant_cells, *symptoms, tokens)


def _star(row: Mapping[str, Any], name: str) -> str:
    return " *" if row[f"{name}_verdict"] in ("higher", "lower") else ""


CORRECTED_COLUMNS = (
    *text_columns("variant", "against", "subset"),
    *number_columns("as scored", "corrected", "interval", "by"),
)
"""Columns of `corrected_cells`."""


def corrected_cells(row: Mapping[str, Any]) -> tuple[str, ...]:
    """Return one pair corrected for the scorer's errors as table cells."""
    return (
        row["b"],
        f"{row['a']} ({row['relation']})",
        row["subset"],
        percentage_points(row["diff"]),
        percentage_points(row["corrected_diff"]),
        interval(row, "corrected_diff", signed=True),
        _corrected_by(row),
    )


def _corrected_by(row: Mapping[str, Any]) -> str:
    """Return the labelled prompts, or the share of draws that the stated error rates allow."""
    if (labels := row.get("corrected_diff_labels")) is not None:
        return f"{labels:,} labelled prompts"
    if row["corrected_diff_possible"] is None:
        return MISSING_CELL
    return f"stated error rates, {percent(row['corrected_diff_possible'])} of draws valid"


def prior_notes(summary: Mapping[str, Any], scorer: str) -> list[str]:
    """Return notes on differences whose verdict depends on the prior."""
    pair_rows = [
        r for r in summary["pairs"] if r["scorer"] == scorer and r.get("verdict_flat_prior")
    ]
    notes = [
        f"The prior matters for {row['b']} against {row['a']}, {row['subset']}: under a uniform "
        f'prior the verdict would be "{row["verdict_flat_prior"]}".'
        for row in pair_rows
        if row["verdict_flat_prior"] != row["verdict"]
    ]
    if len(notes) > MAX_NOTES:
        more = len(notes) - MAX_NOTES
        notes = [
            *notes[:MAX_NOTES],
            f"The prior matters for {more} more: column verdict_flat_prior.",
        ]
    sensitive = sum(bool(row["prior_complaint"]) for row in pair_rows)
    if sensitive and not notes:
        notes.append(
            f"Power-scaling the prior changes {sensitive} of {len(pair_rows)} differences "
            "noticeably; under a uniform prior no verdict changes."
        )
    return notes


def chance_note(rows: Sequence[Mapping[str, Any]], brief: bool = False) -> str:
    """Return how many differences are called, and how many are expected by chance; without the
    expected number of wrong signs if brief."""
    estimated = [row for row in rows if row["diff"] is not None]
    if not estimated:
        return ""
    called = [row for row in estimated if row["verdict"] in ("higher", "lower")]
    chance = expected_by_chance(estimated[0]["level"], len(estimated))
    sentence = (
        f"{len(called)} of {len(estimated)} {_plural(len(estimated), 'difference')} "
        f"{'is' if len(called) == 1 else 'are'} called higher or lower; "
        f"if no variant differed, about {chance:.2g} would be."
    )
    if brief or not called:
        return sentence
    wrong = expected_wrong_signs([row["pd"] for row in called])
    return sentence + (
        f" By the probabilities of direction, {_format_expected(wrong)} of the {len(called)} "
        f"{'is' if len(called) == 1 else 'are'} expected to have the wrong sign."
    )


def _plural(n: int, name: str) -> str:
    return name if n == 1 else f"{name}s"


def _format_expected(value: float) -> str:
    return "less than 0.01" if value < 0.01 else f"{value:.2f}"


def cluster_notes(summary: Mapping[str, Any], scorer: str) -> list[str]:
    """Return how many clusters the prompts have; empty without clusters."""
    counts = _clusters(summary, scorer)
    if not any(clusters < prompts for prompts, clusters in counts.values()):
        return []
    said = ", ".join(
        f"{subset} {prompts:,} in {clusters:,}" for subset, (prompts, clusters) in counts.items()
    )
    return [
        f"Prompts in clusters: {said}. Intervals and verdicts take the cluster as the sampling "
        "unit (design effect: column design_effect)."
    ]


def cluster_warning(summary: Mapping[str, Any], scorer: str) -> str:
    """Return which subsets have too few clusters; empty if none has."""
    few = [
        f"{subset} has {clusters}"
        for subset, (prompts, clusters) in _clusters(summary, scorer).items()
        if clusters < min(prompts, FEW_CLUSTERS)
    ]
    if not few:
        return ""
    return (
        f"FEW CLUSTERS: {', '.join(few)}. With fewer than {FEW_CLUSTERS} clusters intervals may "
        f"cover the true value less often than {summary['level']:.0%}. Add prompts of more "
        "clusters."
    )


def _clusters(summary: Mapping[str, Any], scorer: str) -> dict[str, tuple[int, int]]:
    """Return subset -> scored prompts and their clusters, for the variant with the fewest
    clusters."""
    found: dict[str, tuple[int, int]] = {}
    for row in summary["rates"]:
        if row["scorer"] == scorer and row["n_scored_prompts"]:
            own = (row["n_scored_prompts"], row["n_clusters"])
            found[row["subset"]] = min(found.get(row["subset"], own), own, key=lambda one: one[1])
    return found


def power_notes(summary: Mapping[str, Any], scorer: str) -> list[str]:
    """Return the increases that this number of prompts can detect."""
    rows = [r for r in summary["pairs"] if r["scorer"] == scorer and r.get("mde80")]
    parts = [r for r in rows if r["subset"] != "all"]
    if not parts:
        return []
    fewest = min(r["n"] for r in parts)
    groups = [(f"{fewest} prompts detect", [r for r in parts if r["n"] == fewest])]
    groups += [("all together", [r for r in rows if r["subset"] == "all"])]
    sentences = [
        f"{label} an increase of {_format_range([100 * r['mde80'] for r in group_rows])} points "
        "in 80 % of cases"
        for label, group_rows in groups
        if group_rows
    ]
    return [f"Resolution: {'; '.join(sentences)}."]


def _format_range(values: list[float]) -> str:
    low, high = f"{min(values):.0f}", f"{max(values):.0f}"
    return low if low == high else f"{low} to {high}"


def scorer_error_notes(summary: Mapping[str, Any], scorer: str) -> list[str]:
    """Return notes on the scorer's errors: the correction, or what error would explain a result."""
    if scorer in summary.get("judges", []):
        own = [row for row in summary["pairs"] if row["scorer"] == scorer]
        if any(row.get("corrected_diff_labels") is not None for row in own):
            if any(row["n_clusters"] < row["n"] for row in own):
                return [
                    "Not corrected by labels: prompts have clusters, and the estimate that takes "
                    "labels takes each prompt for independent."
                ]
            return [
                "Corrected: the difference estimated from human labels of some prompts and the "
                "scores of all prompts; valid for any errors of the scorer on each variant."
            ]
        return [
            "Corrected: the difference without scorer errors, by the sensitivity and specificity "
            "in params.yaml. A low share of valid draws means that these do not fit the texts."
        ]
    rows = [r for r in summary["pairs"] if r["scorer"] == scorer and r["subset"] == "all"]
    called = [r for r in rows if r["verdict"] in ("higher", "lower")]
    if len(called) > MAX_NOTES:
        called = sorted(called, key=lambda row: abs(row["tipping_fpr_gap"]))
        gaps = [f"{percentage_points(r['tipping_fpr_gap'])[1:]} points ({r['b']})" for r in called]
        return [
            "A scorer whose false positive rate is higher on one variant than on the other would "
            f"explain a difference if that gap were {gaps[0]} to {gaps[-1]} or more; see the "
            "column tipping_fpr_gap."
        ]
    return [
        f"{r['b']} against {r['a']}: a scorer whose false positive rates on the two variants "
        f"differ by {percentage_points(r['tipping_fpr_gap'])[1:]} points would explain this "
        "difference."
        for r in called
    ]


def _pooled_cell(row: Mapping[str, Any]) -> str:
    if row.get("pooled_diff") is None:
        return MISSING_CELL
    return f"{percentage_points(row['pooled_diff'])} {interval(row, 'pooled_diff', signed=True)}"


def pooling_notes(summary: Mapping[str, Any], scorer: str) -> list[str]:
    """Return notes on the pooled differences, or why there are none."""
    pooled = summary.get("pooled", {}).get(scorer)
    if pooled is None:
        return []
    if pooled["status"] != "pooled":
        why = "the model does not fit these data" if pooled["status"] == "withheld" else "left out"
        return [f"No pooled differences ({why}): {pooled['reason']}."]
    sensitive = [s for s in pooled.get("sensitivity", []) if s["complaint"]]
    prior = [
        f"The prior matters for the pooled {result['quantity']}: {result['complaint']}."
        for result in sensitive
    ]
    claims = next(row for row in summary["claims"] if row["scorer"] == scorer)
    return [
        "Pooled: all variants and subsets in one model, partially pooled (shrunk towards each "
        f"other where data are weak). Of {claims['n_pairs']} differences "
        f"{claims['n_credible_paired']} exclude 0 individually and "
        f"{claims['n_credible_pooled']} pooled; "
        f"of the latter {claims['expected_false_signs']:.2g} are expected to have the wrong sign.",
        *_withheld_notes(summary, scorer),
        *prior,
    ]


def _withheld_notes(summary: Mapping[str, Any], scorer: str) -> list[str]:
    """Return the pooled differences that their own paired data do not support, by reason."""
    rows: dict[str, list[str]] = {}
    for row in summary["pairs"]:
        if row["scorer"] == scorer and row.get("pooled_withheld"):
            pair_name = f"{row['b']} against {row['a']}, {row['subset']}"
            rows.setdefault(row["pooled_withheld"], []).append(pair_name)
    return [
        f"Pooled difference withheld ({reason}): {_first_of(pair_names)}."
        for reason, pair_names in rows.items()
    ]


def _first_of(names: Sequence[str]) -> str:
    more = len(names) - MAX_NOTES
    return "; ".join(names[:MAX_NOTES]) + (f"; and {more} more" if more > 0 else "")


def seed_notes(summary: Mapping[str, Any], scorer: str) -> list[str]:
    """Return the seed-to-seed standard deviation within each recipe."""
    return [
        f"{row['variants']} fine-tunes of the recipe {row['recipe']}: spread between fine-tunes of "
        f"this recipe {100 * row['spread']:.1f} points "
        f"[{100 * row['spread_lo']:.1f}, {100 * row['spread_hi']:.1f}] (standard deviation of the "
        "rate, all subsets together; pooled model)."
        for row in summary.get("recipes", [])
        if row["scorer"] == scorer
    ]


def dose_notes(summary: Mapping[str, Any], scorer: str) -> list[str]:
    """Return the trend of the rate along each dose series."""
    return [
        f"Along the dose, {row['variants']} variants of the series from {row['series']}: "
        f"{row['verdict']}; the log-odds of toxicity change by {row['slope']:+.3g} with one unit "
        f"[{row['slope_lo']:+.3g}, {row['slope_hi']:+.3g}], P(rising) "
        f"{probability(row['p_rising'])}, P(no dose is less toxic than the one before) "
        f"{probability(row['p_never_falls'])} (other prompts, not other seeds)."
        for row in summary.get("slopes", [])
        if (row["scorer"], row["subset"]) == (scorer, "all")
    ]


def method_line(summary: Mapping[str, Any], scorer: str) -> str:
    """Return scorer, threshold, continuations per prompt and level in one line."""
    k = max((row["k"] for row in summary["rates"] if row["scorer"] == scorer), default=1)
    return (
        f"{scorer}, toxic at {summary['threshold']:g} and above, k = {k} continuation"
        f"{'s' if k > 1 else ''} a prompt, "
        f"{summary['level']:.0%} equal-tailed intervals"
    )


def reading_guide(summary: Mapping[str, Any]) -> str:
    """Explain the scope of the intervals and the words of the tables."""
    text = (
        'Intervals apply to prompts like these, not only to these. "all" weights each subset by '
        "its prompts. Rates and differences (and the dots in figures) are the observed ones. "
        '"higher" and "lower": the interval excludes 0; otherwise "not decisive". '
        '"practically": the entire interval is outside the region of practical equivalence '
        f"(higher, lower) or inside it (equivalent); the region is {_rope_text(summary)}."
    )
    if any(row["k"] > 1 for row in summary["pairs"]):
        text += (
            " With several continuations per prompt, each prompt counts with its toxic fraction; "
            '"toxic for one only" counts prompts on which at least half of them are toxic.'
        )
    if any(row.get("agreement") == "fragile" for row in summary["pairs"]):
        text += ' "fragile": another scorer gives a different verdict on the same texts.'
    if any(reduced_output_note(row) for row in summary["pairs"]):
        text += (
            ' "reduced output": less toxic, and credibly more empty, refused or repetitive texts, '
            "or texts that are shorter by a tenth or more."
        )
    return text


def _rope_text(summary: Mapping[str, Any]) -> str:
    width = summary["rope_pp"]
    text = f"{width:g} point" + ("" if width == 1 else "s")
    if not (share := summary.get("rope_share")):
        return f"+-{text}"
    reference = percent(summary.get("rope_reference"))
    return (
        f"+-{100 * summary['rope']:.1f} points ({text} or {share:.0%} of the reference rate of "
        f"{reference}, whichever is more)"
    )


def verdict_parts(row: Mapping[str, Any]) -> dict[str, str]:
    """Return one pair as a headline: the variants, the verdict, and its numbers."""
    cells = pair_table_row(row)
    return {
        "who": f"{row['b']} against {row['a']}",
        "verdict": row["verdict"],
        "numbers": (
            f"{cells[7]} points {cells[8]}, P(direction) {cells[9]}, {row['n']} prompts, "
            f"toxic for one only: {cells[6]}"
        ),
        "less": reduced_output_note(row),
    }
