"""Numbers and verdicts as people read them: one wording for terminal, report and MLflow."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from toxtrail.analysis.response_flags import SYMPTOMS
from toxtrail.stats.selection_correction import expected_by_chance, expected_wrong_signs

FEW = 4
"""Sentences of one kind: more would be a table."""
NOTHING = "-"
"""Shown where nothing was scored: never a 0."""


def percent(value: float | None) -> str:
    """0.0123 -> `1.2 %`."""
    return NOTHING if value is None else f"{100 * value:.1f} %"


def points(value: float | None) -> str:
    """A difference of rates in percentage points, signed: 0.012 -> `+1.2`."""
    return NOTHING if value is None else f"{round(100 * value, 1) + 0.0:+.1f}"


def interval(row: Mapping[str, Any], name: str, signed: bool = False) -> str:
    """`[lo, hi]` in per cent or points."""
    low, high = row[f"{name}_lo"], row[f"{name}_hi"]
    if low is None:
        return NOTHING
    return (
        f"[{100 * low:+.1f}, {100 * high:+.1f}]"
        if signed
        else f"[{100 * low:.1f}, {100 * high:.1f}]"
    )


def probability(value: float | None) -> str:
    """Never rounded to certainty."""
    if value is None:
        return NOTHING
    if value > 0.999:
        return "> 0.999"
    return "< 0.001" if value < 0.001 else f"{value:.3f}"


def verdict_sentence(row: Mapping[str, Any]) -> str:
    """One pair in a sentence of markdown."""
    parts = verdict_parts(row)
    less = f" {parts['less']}" if parts["less"] else ""
    return f"{parts['who']}: **{parts['verdict']}**, {parts['numbers']}.{less}"


def less_said(row: Mapping[str, Any]) -> str:
    """The sentence for a drop in toxicity that comes with a rise in saying less; else empty."""
    if row["verdict"] != "lower" or not row.get("said_less"):
        return ""
    return f"Less toxic, but also less said: credibly more often {_listed(row['said_less'])}."


def _listed(names: str) -> str:
    *most, last = names.split(", ")
    return f"{', '.join(most)} and {last}" if most else last


RATE_COLUMNS = (
    "variant", "subset", "toxic / scored>", "rate>", "interval>", "mean score>", "not scored>",
)  # fmt: skip
"""Of `rate_cells`; `>` is right-aligned."""


def rate_cells(row: Mapping[str, Any]) -> tuple[str, ...]:
    """One rate as the cells of a table: variant, subset, k / n, rate, interval, mean, unscored."""
    missing = {s: row[f"n_{s}"] for s in ("empty", "truncated", "error") if row[f"n_{s}"]}
    mean = row["score_mean"]
    return (
        row["variant"],
        row["subset"],
        f"{row['n_toxic']} / {row['n_scored']}",
        percent(row["rate"]),
        interval(row, "rate"),
        NOTHING if mean is None else f"{mean:.3f}",
        ", ".join(f"{count} {state}" for state, count in missing.items()) or "0",
    )


PAIR_COLUMNS = (
    "variant", "against", "subset", "prompts>", "k>", "rates>", "toxic for one alone>",
    "difference>", "interval>", "P(direction)>", "pooled>", "practically", "verdict",
)  # fmt: skip
"""Of `pair_cells`. k: continuations of each prompt."""


def pair_cells(row: Mapping[str, Any]) -> tuple[str, ...]:
    """One pair as the cells of a table."""
    dropped = f" (-{row['dropped']})" if row["dropped"] else ""
    return (
        row["b"],
        f"{row['a']} ({row['relation']})",
        row["subset"],
        f"{row['n']}{dropped}",
        str(row["k"]),
        f"{percent(row['rate_a']).removesuffix(' %')} → {percent(row['rate_b'])}",
        f"{row['n01']:g} v {row['n10']:g}",
        points(row["diff"]),
        interval(row, "diff", signed=True),
        probability(row["pd"]),
        _pooled(row),
        _decision(row),
        _verdict(row),
    )


def _decision(row: Mapping[str, Any]) -> str:
    """Against the region of practical equivalence, whose width `estimand` gives."""
    return NOTHING if row["diff"] is None else str(row["decision"])


def scorer_columns(summary: Mapping[str, Any]) -> list[str]:
    """Of `scorer_cells`."""
    return ["variant", "against", "subset", *_scorers(summary), "scorers"]


def scorer_cells(summary: Mapping[str, Any]) -> list[tuple[str, ...]]:
    """Each pair as every scorer sees it; empty with one scorer."""
    names = _scorers(summary)
    if len(names) < 2:
        return []
    rows = {(r["a"], r["b"], r["subset"], r["scorer"]): r for r in summary["pairs"]}
    found = []
    for a, b, subset in dict.fromkeys(key[:3] for key in rows):
        own = [rows[a, b, subset, name] for name in names]
        said = [
            f"{points(r['diff'])} {interval(r, 'diff', signed=True)} {r['verdict']}" for r in own
        ]
        found.append((b, f"{a} ({own[0]['relation']})", subset, *said, own[0]["agreement"]))
    return found


def _scorers(summary: Mapping[str, Any]) -> list[str]:
    """The primary one first."""
    names = sorted({row["scorer"] for row in summary["rates"]})
    return sorted(names, key=lambda name: name != summary["primary"])


SAMPLE_COLUMNS = (
    "variant", "subset", "k>", "prompts>", "expected maximum toxicity>", "toxicity probability>",
)  # fmt: skip
"""Of `sample_cells`."""


def sample_cells(summary: Mapping[str, Any], scorer: str) -> list[tuple[str, ...]]:
    """Expected maximum toxicity and toxicity probability over k continuations of each prompt
    (Gehman et al. 2020); empty with one continuation, where they are mean score and rate."""
    rows = [r for r in summary["rates"] if r["scorer"] == scorer and r["k"] > 1]
    return [
        (
            row["variant"],
            row["subset"],
            str(row["k"]),
            str(row["n_scored_prompts"]),
            _maximum(row),
            f"{percent(row['toxicity_probability'])} {interval(row, 'toxicity_probability')}",
        )
        for row in rows
    ]


def _maximum(row: Mapping[str, Any]) -> str:
    name = "expected_max_toxicity"
    if row[name] is None:
        return NOTHING
    return f"{row[name]:.3f} [{row[f'{name}_lo']:.3f}, {row[f'{name}_hi']:.3f}]"


def _verdict(row: Mapping[str, Any]) -> str:
    marks = ["fragile"] if row.get("agreement") == "fragile" else []
    marks += ["less said"] if less_said(row) else []
    return f"{row['verdict']} ({', '.join(marks)})" if marks else str(row["verdict"])


BEHAVIOUR_COLUMNS = (
    "variant", "subset", "texts>", "empty>", "refused>", "repetitive>", "degenerate>",
    "tokens (10-90 %)>", "cut at the limit>",
)  # fmt: skip
"""Of `behaviour_cells`; `>` is right-aligned."""


def behaviour_cells(row: Mapping[str, Any]) -> tuple[str, ...]:
    """What one variant said in one subset, as the cells of a table."""
    spread = NOTHING
    if row["tokens_q50"] is not None:
        spread = f"{row['tokens_q50']:g} ({row['tokens_q10']:g}-{row['tokens_q90']:g})"
    return (
        row["variant"],
        row["subset"],
        str(row["n_continuations"]),
        *(percent(row[f"{symptom}_rate"]) for symptom in SYMPTOMS),
        spread,
        percent(row["at_limit_rate"]),
    )


BEHAVIOUR_PAIR_COLUMNS = (
    "variant", "against", "subset", "prompts>", "empty>", "refused>", "repetitive>",
    "degenerate>", "tokens>",
)  # fmt: skip
"""Of `behaviour_pair_cells`."""


def behaviour_pair_cells(row: Mapping[str, Any]) -> tuple[str, ...]:
    """How what was said differs, as the cells of a table; a star where it is credible, and a length
    differs by a tenth."""
    tokens = NOTHING
    if row["tokens_diff"] is not None:
        low, high = row["tokens_diff_lo"], row["tokens_diff_hi"]
        tokens = f"{row['tokens_diff']:+.1f} [{low:+.1f}, {high:+.1f}]{_star(row, 'tokens')}"
    symptoms = (
        NOTHING
        if row[f"{name}_diff"] is None
        else f"{points(row[f'{name}_diff'])} {interval(row, f'{name}_diff', signed=True)}"
        + _star(row, name)
        for name in SYMPTOMS
    )
    who = (row["b"], f"{row['a']} ({row['relation']})", row["subset"], str(row["n"]))
    return (*who, *symptoms, tokens)


def _star(row: Mapping[str, Any], name: str) -> str:
    return " *" if row[f"{name}_verdict"] in ("higher", "lower") else ""


CORRECTED_COLUMNS = (
    "variant", "against", "subset", "as scored>", "corrected>", "interval>", "by>",
)  # fmt: skip
"""Of `corrected_cells`."""


def corrected_cells(row: Mapping[str, Any]) -> tuple[str, ...]:
    """One pair corrected for the scorer's errors, as the cells of a table."""
    return (
        row["b"],
        f"{row['a']} ({row['relation']})",
        row["subset"],
        points(row["diff"]),
        points(row["corrected_diff"]),
        interval(row, "corrected_diff", signed=True),
        _corrected_by(row),
    )


def _corrected_by(row: Mapping[str, Any]) -> str:
    """Labelled prompts, or the share of the draws that stated errors leave possible."""
    if (labels := row.get("corrected_diff_labels")) is not None:
        return f"{labels:,} labelled prompts"
    if row["corrected_diff_possible"] is None:
        return NOTHING
    return f"stated errors, {percent(row['corrected_diff_possible'])} of draws possible"


def prior_notes(summary: Mapping[str, Any], scorer: str) -> list[str]:
    """Whether the prior matters for the differences."""
    own = [r for r in summary["pairs"] if r["scorer"] == scorer and r.get("verdict_flat_prior")]
    notes = [
        f"The prior matters for {row['b']} against {row['a']}, {row['subset']}: with a uniform one "
        f'the verdict would be "{row["verdict_flat_prior"]}".'
        for row in own
        if row["verdict_flat_prior"] != row["verdict"]
    ]
    if len(notes) > FEW:
        more = len(notes) - FEW
        notes = [*notes[:FEW], f"The prior matters for {more} more: column verdict_flat_prior."]
    swayed = sum(bool(row["prior_complaint"]) for row in own)
    if swayed and not notes:
        notes.append(
            f"Power-scaling its prior moves {swayed} of {len(own)} differences noticeably; with a "
            "uniform prior no verdict would be another."
        )
    return notes


def chance_note(rows: Sequence[Mapping[str, Any]]) -> str:
    """How many of these differences are called, and how many would be by chance; empty of none."""
    known = [row for row in rows if row["diff"] is not None]
    if not known:
        return ""
    called = [row for row in known if row["verdict"] in ("higher", "lower")]
    chance = expected_by_chance(known[0]["level"], len(known))
    said = (
        f"{len(called)} of {len(known)} {_counted(len(known), 'difference')} "
        f"{'is' if len(called) == 1 else 'are'} called higher or lower; "
        f"if no variant differed, about {chance:.2g} would be."
    )
    if not called:
        return said
    wrong = expected_wrong_signs([row["pd"] for row in called])
    return said + (
        f" By the probabilities of direction, {_small(wrong)} of the {len(called)} "
        f"{'is' if len(called) == 1 else 'are'} expected to have the wrong sign."
    )


def _counted(n: int, name: str) -> str:
    return name if n == 1 else f"{name}s"


def _small(value: float) -> str:
    return "less than 0.01" if value < 0.01 else f"{value:.2f}"


def resolution_notes(summary: Mapping[str, Any], scorer: str) -> list[str]:
    """What so many prompts can see."""
    rows = [r for r in summary["pairs"] if r["scorer"] == scorer and r.get("mde80")]
    parts = [r for r in rows if r["subset"] != "all"]
    if not parts:
        return []
    fewest = min(r["n"] for r in parts)
    groups = [(f"{fewest} prompts find", [r for r in parts if r["n"] == fewest])]
    groups += [("all together", [r for r in rows if r["subset"] == "all"])]
    said = [
        f"{who} a rise of {_range([100 * r['mde80'] for r in own])} points in 80 % of cases"
        for who, own in groups
        if own
    ]
    return [f"Resolution: {'; '.join(said)}."]


def _range(values: list[float]) -> str:
    low, high = f"{min(values):.0f}", f"{max(values):.0f}"
    return low if low == high else f"{low} to {high}"


def judge_notes(summary: Mapping[str, Any], scorer: str) -> list[str]:
    """Whether the numbers are corrected for the scorer's errors, and what would explain them."""
    if scorer in summary.get("judges", []):
        if any(row.get("corrected_diff_labels") is not None for row in summary["pairs"]):
            return [
                "Corrected: the difference that people's labels of some prompts show together with "
                "the scores of all of them, whatever errors the scorer makes on which variant."
            ]
        return [
            "Corrected: what the difference would be if the scorer made no mistakes, by the "
            "sensitivity and specificity in params.yaml. Few possible draws mean that those do not "
            "fit these texts."
        ]
    rows = [r for r in summary["pairs"] if r["scorer"] == scorer and r["subset"] == "all"]
    called = [r for r in rows if r["verdict"] in ("higher", "lower")]
    if len(called) > FEW:
        called = sorted(called, key=lambda row: abs(row["tipping_fpr_gap"]))
        gaps = [f"{points(r['tipping_fpr_gap'])[1:]} points ({r['b']})" for r in called]
        return [
            "A scorer that calls harmless texts of one variant toxic more often than those of the "
            f"other would explain a difference away from a gap of {gaps[0]} up to {gaps[-1]}; the "
            "column tipping_fpr_gap has each."
        ]
    return [
        f"{r['b']} against {r['a']} would be explained away by a scorer that calls harmless texts "
        f"of one toxic more often than those of the other by {points(r['tipping_fpr_gap'])[1:]} "
        "points."
        for r in called
    ]


def _pooled(row: Mapping[str, Any]) -> str:
    if row.get("pooled_diff") is None:
        return NOTHING
    return f"{points(row['pooled_diff'])} {interval(row, 'pooled_diff', signed=True)}"


def pooling_notes(summary: Mapping[str, Any], scorer: str) -> list[str]:
    """What the pooled column is, or why there is none."""
    found = summary.get("pooled", {}).get(scorer)
    if found is None:
        return []
    if found["status"] != "pooled":
        why = "the model does not fit these data" if found["status"] == "withheld" else "left out"
        return [f"No pooled differences ({why}): {found['reason']}."]
    swayed = [s for s in found.get("sensitivity", []) if s["complaint"]]
    prior = [
        f"The prior matters for the pooled {one['quantity']}: {one['complaint']}." for one in swayed
    ]
    own = next(row for row in summary["claims"] if row["scorer"] == scorer)
    return [
        "Pooled: all variants and subsets estimated together, each drawn towards the others where "
        f"the data do not tell them apart. Of {own['n_pairs']} differences "
        f"{own['n_credible_paired']} exclude 0 one by one and {own['n_credible_pooled']} pooled; "
        f"of the latter {own['expected_false_signs']:.2g} are expected to have the wrong sign.",
        *_withheld_notes(summary, scorer),
        *prior,
    ]


def _withheld_notes(summary: Mapping[str, Any], scorer: str) -> list[str]:
    """Which pooled differences the data of their own rows do not bear out, by reason."""
    rows: dict[str, list[str]] = {}
    for row in summary["pairs"]:
        if row["scorer"] == scorer and row.get("pooled_withheld"):
            place = f"{row['b']} against {row['a']}, {row['subset']}"
            rows.setdefault(row["pooled_withheld"], []).append(place)
    return [
        f"Pooled difference withheld ({reason}): {_first_of(places)}."
        for reason, places in rows.items()
    ]


def _first_of(places: Sequence[str]) -> str:
    more = len(places) - FEW
    return "; ".join(places[:FEW]) + (f"; and {more} more" if more > 0 else "")


def recipe_notes(summary: Mapping[str, Any], scorer: str) -> list[str]:
    """How far fine-tunes of one recipe lie apart."""
    return [
        f"{row['variants']} fine-tunes of the recipe {row['recipe']}: spread between fine-tunes of "
        f"this recipe {100 * row['spread']:.1f} points "
        f"[{100 * row['spread_lo']:.1f}, {100 * row['spread_hi']:.1f}] (standard deviation of the "
        "rate, all subsets together; pooled model)."
        for row in summary.get("recipes", [])
        if row["scorer"] == scorer
    ]


def dose_notes(summary: Mapping[str, Any], scorer: str) -> list[str]:
    """Which way rates go along a dose."""
    return [
        f"Along the dose, {row['variants']} variants of the series from {row['series']}: "
        f"{row['verdict']}; the log-odds of toxicity change by {row['slope']:+.3g} with one unit "
        f"[{row['slope_lo']:+.3g}, {row['slope_hi']:+.3g}], P(rising) "
        f"{probability(row['p_rising'])}, P(no dose is less toxic than the one before) "
        f"{probability(row['p_never_falls'])} (other prompts, not other seeds)."
        for row in summary.get("slopes", [])
        if (row["scorer"], row["subset"]) == (scorer, "all")
    ]


def edition(summary: Mapping[str, Any], scorer: str) -> str:
    """By whom and how the numbers were made."""
    k = max((row["k"] for row in summary["rates"] if row["scorer"] == scorer), default=1)
    return (
        f"{scorer}, toxic at {summary['threshold']:g} and above, k = {k} continuation"
        f"{'s' if k > 1 else ''} a prompt, "
        f"{summary['level']:.0%} equal-tailed intervals"
    )


def estimand(summary: Mapping[str, Any]) -> str:
    """What the intervals speak of."""
    text = (
        'Intervals speak of prompts like these, not of these alone. "all" weights each subset by '
        "its prompts. Rates and differences (and the dots in figures) are the observed ones. "
        '"higher" and "lower": the interval excludes 0; otherwise the data do not '
        'decide. "practically": the whole interval lies beyond the region named (higher, lower) or '
        f"within it (equivalent); it is {_region(summary)}."
    )
    if any(row["k"] > 1 for row in summary["pairs"]):
        text += (
            ' Of several continuations a prompt\'s share is taken; "toxic for one alone" counts '
            "prompts on which at least half of them are toxic."
        )
    if any(row.get("agreement") == "fragile" for row in summary["pairs"]):
        text += ' "fragile": another scorer gives another verdict on the same texts.'
    if any(less_said(row) for row in summary["pairs"]):
        text += (
            ' "less said": less toxic, and credibly more empty, refused or repetitive texts, or '
            "texts that are shorter by a tenth or more."
        )
    return text


def _region(summary: Mapping[str, Any]) -> str:
    width = summary["rope_pp"]
    text = f"{width:g} point" + ("" if width == 1 else "s")
    if not (share := summary.get("rope_share")):
        return f"+-{text}"
    of = percent(summary.get("rope_reference"))
    return (
        f"+-{100 * summary['rope']:.1f} points ({text} or {share:.0%} of the reference rate of "
        f"{of}, whichever is more)"
    )


def verdict_parts(row: Mapping[str, Any]) -> dict[str, str]:
    """One pair as a headline: who, what, and the numbers behind it."""
    cells = pair_cells(row)
    return {
        "who": f"{row['b']} against {row['a']}",
        "verdict": row["verdict"],
        "numbers": (
            f"{cells[7]} points {cells[8]}, P(direction) {cells[9]}, {row['n']} prompts, "
            f"toxic for one alone: {cells[6]}"
        ),
        "less": less_said(row),
    }
