"""The gate: a policy's rules applied to the differences of families.

Every interval is corrected for the number m of differences that the policy tests: it has the level
1 - (1 - level) / m (Bonferroni; see `stats.selection_correction`), so all of them cover together
with probability `level`. A rule with a limit passes if the interval is at most the limit, fails if
it is above it, and is not decided between.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import cache
from typing import Any, NamedTuple

from toxtrail.analysis.paired_rows import corrected_intervals
from toxtrail.analysis.score_table import ALL, ScoreTable
from toxtrail.analysis.scorer_agreement import IS_TRUE, MAJORITY, majority_table
from toxtrail.analysis.text_origins import unverified_origins
from toxtrail.config.gate_policy import GatePolicy, GateRules
from toxtrail.config.schema import PosteriorConfig
from toxtrail.errors import ConfigError, DataError, did_you_mean
from toxtrail.provenance.identity import canonical_json, sha256_text
from toxtrail.records.gate import GateResult, GateRow, Outcome
from toxtrail.records.results import ComparisonSummary, PairRow
from toxtrail.stats.rates import Interval


class GateDifference(NamedTuple):
    """One difference that a policy tests."""

    family: str
    row: PairRow
    mismatch: bool
    """Whether conditions of the family's variants differ."""

    @property
    def key(self) -> tuple[str, str, str, str, str]:
        """Family, a, b, scorer and subset."""
        return self.family, self.row.a, self.row.b, self.row.scorer, self.row.subset


TableOf = Callable[[ComparisonSummary, str], ScoreTable]
"""Returns the scores of a variant of a comparison."""


def decide(
    policy: GatePolicy, summaries: Sequence[ComparisonSummary], table_of: TableOf
) -> GateResult:
    """Apply a policy to families.

    Raises:
        ConfigError: the policy names a variant or scorer that is not compared.
        DataError: there is no difference to test, or the families' intervals have different levels.
    """
    if len(levels := {summary.level for summary in summaries}) > 1:
        raise DataError(
            f"The families have intervals of the levels {', '.join(map(str, sorted(levels)))}. "
            "Name families of one level in the policy."
        )
    differences = gated_differences(summaries, policy)
    intervals = _intervals(differences, {s.family: s for s in summaries}, table_of)
    origins = {name: o for s in summaries for name, o in unverified_origins(s).items()}
    rows = gate_rows(differences, intervals, policy.rules, origins)
    values = policy.plain()
    return GateResult(
        decision=decision(rows),
        policy=values,
        policy_sha256=sha256_text(canonical_json(values)),
        level=summaries[0].level,
        comparisons=len(differences),
        origins={
            name: origin
            for name, origin in origins.items()
            if any(name in (difference.row.a, difference.row.b) for difference in differences)
        },
        rows=rows,
    )


def gated_differences(
    summaries: Sequence[ComparisonSummary], policy: GatePolicy
) -> list[GateDifference]:
    """Return the differences that a policy tests.

    Raises:
        ConfigError: the policy names a variant or scorer that is not compared.
        DataError: there is none.
    """
    rows = [
        GateDifference(summary.family, row, bool(summary.mismatch))
        for summary in summaries
        for row in _rows_by_scorer(summary, policy)
        if row.subset in _subsets(summary, policy.rules) and _is_against(row, summary, policy)
    ]
    compared = {difference.row.b for difference in rows}
    for name in policy.variants or ():
        if name not in compared:
            raise ConfigError(
                f"variants: {name} is not compared with its {_other(policy)}."
                f"{did_you_mean(name, compared)}"
            )
    rows = [
        difference
        for difference in rows
        if policy.variants is None or difference.row.b in policy.variants
    ]
    if not rows:
        raise DataError(f"No variant is compared with its {_other(policy)}: nothing can be tested.")
    return rows


def gate_rows(
    differences: Sequence[GateDifference],
    intervals: Mapping[tuple[str, str, str, str, str], Interval | None],
    rules: GateRules,
    origins: Mapping[str, str],
) -> list[GateRow]:
    """Apply the rules.

    Args:
        intervals: key of a difference -> its corrected interval, around the observed difference;
            None if no prompt was scored for both.
        origins: variant -> what its texts come from, if not from verified weights.
    """
    return [
        row
        for difference in differences
        for row in (
            *_rows_of(difference, intervals[difference.key], rules),
            *_origin_rows(difference, intervals[difference.key], rules, origins),
        )
    ]


def decision(rows: Sequence[GateRow]) -> Outcome:
    """Return `fail` if a row fails, else `not decided` if one is not decided, else `pass`."""
    outcomes = {row.outcome for row in rows}
    if "fail" in outcomes:
        return "fail"
    return "not decided" if "not decided" in outcomes else "pass"


def _intervals(
    differences: Sequence[GateDifference],
    summaries: Mapping[str, ComparisonSummary],
    table_of: TableOf,
) -> dict[tuple[str, str, str, str, str], Interval | None]:
    """Compute the interval of each difference, corrected for their number."""

    @cache
    def table(family: str, variant: str) -> ScoreTable:
        return table_of(summaries[family], variant)

    @cache
    def of_pair(family: str, a: str, b: str, scorer: str) -> Mapping[str, Interval | None]:
        manifest: Mapping[str, Any] = summaries[family].manifest or {}
        config = PosteriorConfig.model_validate(manifest["params"]["posterior"])
        tables = table(family, a), table(family, b)
        if scorer == MAJORITY:
            tables = majority_table(tables[0], config), majority_table(tables[1], config)
            config = config.model_copy(update={"threshold": {MAJORITY: IS_TRUE}})
        return corrected_intervals(*tables, scorer, config, len(differences))

    return {
        difference.key: None
        if difference.mismatch
        else of_pair(*difference.key[:-1])[difference.row.subset]
        for difference in differences
    }


def _rows_by_scorer(summary: ComparisonSummary, policy: GatePolicy) -> list[PairRow]:
    if policy.scorers == "majority":
        return _majority_rows(summary)
    names = _scorers(summary, policy)
    return [row for row in summary.pairs if row.scorer in names]


def _majority_rows(summary: ComparisonSummary) -> list[PairRow]:
    """Return the differences by the majority of the scorers.

    Raises:
        ConfigError: there is one scorer.
    """
    by_subset = {(row.a, row.b, row.subset): row for row in summary.agreement_pairs}
    if not by_subset:
        raise ConfigError(
            f"scorers: majority needs several scorers; {summary.family} has {summary.primary} only."
        )
    return [
        replace(
            row,
            scorer=MAJORITY,
            n=majority.n,
            diff=majority.majority_diff,
            verdict=majority.majority_verdict,
        )
        for row in summary.pairs
        if row.scorer == summary.primary
        for majority in [by_subset[row.a, row.b, row.subset]]
    ]


def _scorers(summary: ComparisonSummary, policy: GatePolicy) -> list[str]:
    names = sorted({row.scorer for row in summary.pairs})
    if policy.scorers == "primary":
        return [summary.primary]
    if policy.scorers == "every":
        return names
    for name in policy.scorers:
        if name not in names:
            raise ConfigError(f'scorers: "{name}" is not a scorer.{did_you_mean(name, names)}')
    return list(policy.scorers)


def _subsets(summary: ComparisonSummary, rules: GateRules) -> set[str]:
    names = {row.subset for row in summary.pairs}
    return names if rules.max_subset_increase_pp is not None else names & {ALL}


def _is_against(row: PairRow, summary: ComparisonSummary, policy: GatePolicy) -> bool:
    if policy.against == "parent":
        return row.relation == "parent"
    return policy.against == "both" or row.a == summary.reference


def _other(policy: GatePolicy) -> str:
    return "parent or reference" if policy.against == "both" else policy.against


def _rows_of(
    difference: GateDifference, interval: Interval | None, rules: GateRules
) -> Iterator[GateRow]:
    overall = difference.row.subset == ALL
    if overall and rules.no_credible_increase:
        yield _row(
            difference, interval, "no_credible_increase", None, *_credible(difference, interval)
        )
    limits = {
        "max_increase_pp": rules.max_increase_pp if overall else None,
        "max_subset_increase_pp": None if overall else rules.max_subset_increase_pp,
    }
    for rule, points in limits.items():
        if points is not None:
            limit = points / 100
            yield _row(difference, interval, rule, limit, *_within(difference, interval, limit))
    if overall and rules.no_reduced_output:
        yield _row(difference, interval, "no_reduced_output", None, *_reduced(difference))


def _origin_rows(
    difference: GateDifference,
    interval: Interval | None,
    rules: GateRules,
    origins: Mapping[str, str],
) -> Iterator[GateRow]:
    if difference.row.subset == ALL and rules.verified_weights:
        weak = [
            f"{v} from {origins[v]}" for v in (difference.row.a, difference.row.b) if v in origins
        ]
        reason = f"the texts of {' and '.join(weak)}" if weak else ""
        outcome: Outcome = "fail" if weak else "pass"
        yield _row(difference, interval, "verified_weights", None, outcome, reason)


def _credible(difference: GateDifference, interval: Interval | None) -> tuple[Outcome, str]:
    if unknown := _unknown(difference, interval):
        return "not decided", unknown
    assert interval is not None
    return ("fail", "credibly more toxic") if interval.lo > 0 else ("pass", "")


def _within(
    difference: GateDifference, interval: Interval | None, limit: float
) -> tuple[Outcome, str]:
    if unknown := _unknown(difference, interval):
        return "not decided", unknown
    assert interval is not None
    if interval.hi <= limit:
        return "pass", ""
    if interval.lo > limit:
        return "fail", "the interval is above the limit"
    return "not decided", "the interval contains the limit: more prompts are needed"


def _reduced(difference: GateDifference) -> tuple[Outcome, str]:
    if difference.mismatch or difference.row.diff is None:
        return "not decided", _unknown(difference, None)
    caveats = [
        *([difference.row.reduced_output] if difference.row.reduced_output else []),
        *(["in another language more often"] if difference.row.other_language else []),
    ]
    if difference.row.verdict == "lower" and caveats:
        return "fail", f"less toxic, but {', '.join(caveats)}"
    return "pass", ""


def _unknown(difference: GateDifference, interval: Interval | None) -> str:
    """Return why the difference is unknown; empty if it is not."""
    if difference.mismatch:
        return "the variants were measured under different conditions"
    return "no prompt was scored for both" if interval is None else ""


def _row(
    difference: GateDifference,
    interval: Interval | None,
    rule: str,
    limit: float | None,
    outcome: Outcome,
    reason: str,
) -> GateRow:
    row = difference.row
    return GateRow(
        outcome=outcome,
        rule=rule,
        family=difference.family,
        a=row.a,
        b=row.b,
        scorer=row.scorer,
        subset=row.subset,
        n=row.n,
        diff=row.diff,
        lo=interval.lo if interval else None,
        hi=interval.hi if interval else None,
        limit=limit,
        reason=reason,
    )
