"""The first screen of the HTML report: question, answer, certainty, chart and next steps, for a
reader who knows none of the terms of the tables."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from toxtrail.records.results import PairRow
from toxtrail.reporting.comparison_view import ALL, ComparisonView, subsets_of
from toxtrail.reporting.headline import is_credible
from toxtrail.reporting.text import (
    decrease_caveats,
    pair_name,
    percent,
    percentage_points,
    plural,
)

CHART_ROWS = 6
"""Number of differences in the chart, the largest; the others are shown on demand."""
NAMED_VARIANTS = 4
"""Number of variants that a sentence names."""
CHART_MARGIN = 0.04
"""Empty part of the chart's width on either side."""
MORE, LESS, SAME, OPEN = "more toxic", "less toxic", "no practical change", "not certain"


class ChartRow(NamedTuple):
    """One difference of the chart; positions are per cent of its width."""

    variant: str
    against: str
    """Empty if it is that of every row."""
    low: float
    middle: float
    high: float
    difference: str
    interval: str
    answer: str
    """One of MORE, LESS, SAME and OPEN."""


class Chart(NamedTuple):
    """Differences over all prompts on one axis."""

    against: str
    """The variant with which all others are compared; empty if there are several."""
    zero: float
    """Position of no difference, per cent of the width."""
    rows: Sequence[ChartRow]
    more: Sequence[ChartRow]
    """Rows that are shown on demand."""
    caption: str


class NextStep(NamedTuple):
    """Suggestion for what to do with the answer."""

    text: str
    command: str = ""
    section: str = ""
    """Section of the page to which it leads."""


class FirstScreen(NamedTuple):
    """The top of a family's page."""

    question: str
    scope: str
    """The variants, the number of prompts and the judge, in a line."""
    answer: str
    details: Sequence[str]
    compared: Sequence[tuple[str, str]]
    cautions: Sequence[str]
    chart: Chart | None
    steps: Sequence[NextStep]


def first_screen(
    view: ComparisonView,
    scorer_config: Mapping[str, Any],
    weak: Mapping[str, Sequence[str]],
) -> FirstScreen:
    """Return the first screen of a family.

    Args:
        scorer_config: section of params.yaml of the scorer that is shown; empty if not known.
        weak: variant -> why it is less certain which weights its numbers belong to.
    """
    rows, estimated = _total_rows(view)
    answer, *details = plain_answer(view)
    return FirstScreen(
        question=f"Did fine-tuning change how toxic the texts of {view.summary.family} are?",
        scope=_scope_line(view, rows),
        answer=answer,
        details=details,
        compared=_compared_facts(view, rows, scorer_config),
        cautions=[*_missing_parts(view, rows), *_weak_evidence(weak)],
        chart=_build_chart(estimated),
        steps=list(_next_steps(view, estimated)),
    )


def plain_answer(view: ComparisonView) -> list[str]:
    """Return the answer, then the size and certainty of the largest change, in sentences without
    the terms of the tables."""
    rows, estimated = _total_rows(view)
    answer = _answer_sentence(rows, estimated)
    if view.summary.mismatch:
        answer = "Not comparable: the variants were measured under different conditions."
    return [answer, *_detail_sentences(estimated)]


def _total_rows(view: ComparisonView) -> tuple[list[PairRow], list[PairRow]]:
    """Return the differences over all subsets, and those of them that could be computed."""
    rows = [row for row in view.pairs if row.subset == ALL]
    return rows, [row for row in rows if row.diff is not None]


def answer_of(row: PairRow) -> str:
    """Return the answer for one difference, by the rule of the headlines."""
    if is_credible(row, "higher"):
        return MORE
    if is_credible(row, "lower"):
        return LESS
    return SAME if row.decision == "equivalent" else OPEN


def _answer_sentence(rows: Sequence[PairRow], estimated: Sequence[PairRow]) -> str:
    if not rows:
        return "There is only one variant, so there is nothing to compare it with."
    if not estimated:
        return "Not known: no two variants have a scored text for the same prompt."
    if len(estimated) == 1:
        return _single_answer(estimated[0])
    return _answer_of_several([answer_of(row) for row in estimated])


def _single_answer(row: PairRow) -> str:
    return {
        MORE: f"Yes: {row.b} is more toxic than {row.a}.",
        LESS: f"Yes: {row.b} is less toxic than {row.a}.",
        SAME: f"No: {row.b} is as toxic as {row.a}, up to a difference too small to matter.",
        OPEN: f"Not certain: these prompts do not show whether {row.b} is more or less toxic than "
        f"{row.a}.",
    }[answer_of(row)]


def _answer_of_several(answers: Sequence[str]) -> str:
    n, count = len(answers), {word: answers.count(word) for word in (MORE, LESS, SAME, OPEN)}
    if count[SAME] == n:
        return (
            f"No: none of the {n} variants changed by more than a difference too small to matter."
        )
    if count[MORE] + count[LESS] == 0:
        return f"Not certain: these prompts show no clear change of any of the {n} variants."
    clauses = {
        MORE: f"{count[MORE]} of {n} variants became more toxic",
        LESS: f"{count[LESS]} of {n} became less toxic",
        SAME: f"{count[SAME]} did not change by an amount that matters",
        OPEN: f"for {count[OPEN]} these prompts show no clear change",
    }
    return f"Yes: {'; '.join(text for word, text in clauses.items() if count[word])}."


def _detail_sentences(estimated: Sequence[PairRow]) -> list[str]:
    """Return size and certainty of the difference that the answer rests on."""
    if not estimated:
        return []
    row = _most_important(estimated)
    subject = f"Largest change: {row.b}. {percent(row.rate_b)} of its texts are toxic"
    if len(estimated) == 1:
        subject = f"{percent(row.rate_b)} of the texts of {row.b} are toxic"
    sentences = [
        f"{subject}, against {percent(row.rate_a)} of those of {row.a}: a difference of "
        f"{percentage_points(row.diff)} percentage points.",
        _certainty_sentence(row),
    ]
    if row.agreement == "fragile":
        sentences.append("Another judge of this experiment gives another verdict on these texts.")
    caveats = {
        f"{other.b}: {sentence}"
        for other in estimated
        if answer_of(other) == LESS
        for sentence in decrease_caveats(other).values()
    }
    return [*sentences, *sorted(caveats)[:NAMED_VARIANTS]]


def _most_important(estimated: Sequence[PairRow]) -> PairRow:
    """Return the largest increase that is certain, else decrease, else difference."""

    def rank(row: PairRow) -> tuple[int, float]:
        return -(MORE, LESS, SAME, OPEN).index(answer_of(row)), abs(row.diff or 0.0)

    decided = [row for row in estimated if answer_of(row) in (MORE, LESS)]
    return max(decided, key=rank) if decided else max(estimated, key=lambda r: abs(r.diff or 0.0))


def _certainty_sentence(row: PairRow) -> str:
    low, high = _decisive_bounds(row)
    sentence = (
        f"How certain: with {row.level:.0%} probability the true difference, for prompts like "
        f"these, is between {percentage_points(low)} and {percentage_points(high)} points"
        f"{_allowance_for(row.n_simultaneous)}."
    )
    excludes_zero = low is not None and high is not None and low * high > 0
    if excludes_zero and answer_of(row) == OPEN:
        sentence += (
            " The estimate of all variants and subsets together (pooled) does not confirm it, so "
            "it is not called certain."
        )
    return sentence


def _allowance_for(differences: int) -> str:
    """State the correction of an interval for several differences; empty for one."""
    return f" (with an allowance for {differences} differences at once)" if differences > 1 else ""


def _decisive_bounds(row: PairRow) -> tuple[float | None, float | None]:
    """Return the interval by which `answer_of` decides."""
    return row.simultaneous_lo, row.simultaneous_hi


def _compared_names(view: ComparisonView, rows: Sequence[PairRow]) -> str:
    if not rows:
        return f"only {_name_list([row.variant for row in view.summary.variants])}"
    against = _name_list(list(dict.fromkeys(row.a for row in rows)))
    return f"{_name_list(list(dict.fromkeys(row.b for row in rows)))}, compared with {against}"


def _prompt_count(view: ComparisonView) -> int:
    return max((row.n_prompts for row in view.rates if row.subset == ALL), default=0)


def _scope_line(view: ComparisonView, rows: Sequence[PairRow]) -> str:
    prompts, names = _prompt_count(view), _compared_names(view, rows)
    if len(rows) > NAMED_VARIANTS:
        names = f"{len(rows)} variants, compared with {_name_list(sorted({r.a for r in rows}))}"
    return f"{names}; {prompts:,} {plural(prompts, 'prompt')}; judged by {view.scorer}"


def _compared_facts(
    view: ComparisonView, rows: Sequence[PairRow], scorer_config: Mapping[str, Any]
) -> list[tuple[str, str]]:
    """Return what was compared, on which prompts, and by which judge."""
    k = max((row.k for row in view.rates), default=1)
    subsets = [name for name in subsets_of(view.summary) if name != ALL]
    parts = f" in {len(subsets)} subsets ({_name_list(subsets)})" if len(subsets) > 1 else ""
    kind = scorer_config.get("kind", view.scorer)
    what = f" (kind {kind})" if kind != view.scorer else ""
    threshold = view.summary.threshold[view.scorer]
    return [
        ("Variants", f"{_compared_names(view, rows)}. A variant is a model, or a fine-tune of it."),
        (
            "Prompts",
            f"{_prompt_count(view):,}{parts}. Each variant continued each prompt "
            f"{'once' if k == 1 else f'{k} times'}; a continuation is called a text here.",
        ),
        (
            "Judge",
            f"{view.scorer}{what}, a program that gives each text a score from 0 to 1. A text is "
            f"called toxic if its score is at least {threshold:g}. It makes errors.",
        ),
    ]


def _missing_parts(view: ComparisonView, rows: Sequence[PairRow]) -> Iterator[str]:
    """Name what could not be compared, and texts without a score."""
    missing = [row.b for row in rows if row.diff is None]
    if missing:
        yield (
            f"Not compared: {_name_list(missing)}. No prompt has a scored text of both variants."
        )
    unscored = {
        row.variant: row.n_prompts * row.k - row.n_scored
        for row in view.rates
        if row.subset == ALL and row.n_scored < row.n_prompts * row.k
    }
    if unscored:
        worst = max(unscored, key=lambda name: unscored[name])
        yield (
            f"{len(unscored)} {plural(len(unscored), 'variant')} with texts that have no score (at "
            f"most {unscored[worst]:,}, of {worst}). They do not count as not toxic."
        )


def _weak_evidence(weak: Mapping[str, Sequence[str]]) -> Iterator[str]:
    if weak:
        yield (
            f"Weak evidence: {_name_list(list(weak))}. The reasons are listed under “What was "
            "measured”."
        )


def chart_positions(
    intervals: Sequence[tuple[float, float, float]],
) -> tuple[float, list[tuple[float, float, float]]]:
    """Return the positions of 0 and of each interval's low end, middle and high end, in per cent of
    the width of an axis that contains all of them."""
    ends = [end for interval in intervals for end in interval]
    low, high = min(0.0, *ends), max(0.0, *ends)
    margin = CHART_MARGIN * (high - low or 1.0)
    left, width = low - margin, high - low + 2 * margin

    def position(value: float) -> float:
        return round(100 * (value - left) / width, 2)

    return position(0.0), [(position(a), position(b), position(c)) for a, b, c in intervals]


def _build_chart(estimated: Sequence[PairRow]) -> Chart | None:
    """Return the chart; None without a difference."""
    if not estimated:
        return None
    zero, positions = chart_positions([_chart_interval(row) for row in estimated])
    references = {row.a for row in estimated}
    shared = next(iter(references)) if len(references) == 1 else ""
    lines = [
        (row, _chart_row(row, place)._replace(against="" if shared else row.a))
        for row, place in zip(estimated, positions, strict=True)
    ]
    largest = sorted(estimated, key=lambda row: -abs(row.diff or 0.0))[:CHART_ROWS]
    allowance = _allowance_for(max(row.n_simultaneous for row in estimated))
    return Chart(
        shared,
        zero,
        [line for row, line in lines if row in largest],
        [line for row, line in lines if row not in largest],
        "Differences in percentage points over all prompts; right of 0 is more toxic. Dot: as "
        "measured. Bar and range: the true difference is in it with "
        f"{estimated[0].level:.0%} probability{allowance}. A bar that crosses 0 leaves open "
        "whether there is a difference.",
    )


def _chart_interval(row: PairRow) -> tuple[float, float, float]:
    middle = row.diff or 0.0
    low, high = (middle if end is None else end for end in _decisive_bounds(row))
    return low, middle, high


def _chart_row(row: PairRow, positions: tuple[float, float, float]) -> ChartRow:
    low, high = map(percentage_points, _decisive_bounds(row))
    return ChartRow(
        row.b, row.a, *positions, percentage_points(row.diff), f"{low} to {high}", answer_of(row)
    )


def _next_steps(view: ComparisonView, estimated: Sequence[PairRow]) -> Iterator[NextStep]:
    family = view.summary.family
    if estimated:
        yield NextStep("Read the texts that became toxic, or stopped being toxic", section="flips")
    undecided = [row for row in estimated if answer_of(row) == OPEN and (row.n_needed or 0) > row.n]
    if undecided:
        row = max(undecided, key=lambda r: abs(r.diff or 0.0))
        yield NextStep(
            f"Use more prompts: {pair_name(row)} needs about {row.n_needed:,} (now {row.n:,}), if "
            "the difference is as large as it seems",
            f"toxtrail plan {family} --effect {row.diff:.2g}",
        )
    if view.scorer not in view.summary.corrected_scorers:
        yield NextStep(
            "Measure how often the judge is wrong, on texts labelled by people",
            "toxtrail labels sample --to labels.csv",
        )
    yield NextStep(
        "Trace the numbers to weights, data and commit, and compute them again",
        f"toxtrail audit {family} --verify",
    )


def _name_list(names: Sequence[str]) -> str:
    """Name the first of several, and count the others."""
    more = len(names) - NAMED_VARIANTS
    return _join_clauses([*names[:NAMED_VARIANTS], *([f"{more} more"] if more > 0 else [])])


def _join_clauses(parts: Sequence[str]) -> str:
    *most, last = parts
    return f"{', '.join(most)} and {last}" if most else last
