"""The gate: which differences a policy tests, and its decisions."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.fixtures.result_rows import filled

from toxtrail.analysis.comparison import with_pooled
from toxtrail.analysis.gate import GateDifference, decide, decision, gate_rows, gated_differences
from toxtrail.analysis.paired_rows import corrected_intervals
from toxtrail.config.gate_policy import DEFAULT_POLICY, GatePolicy, GateRules
from toxtrail.config.load import validate_section
from toxtrail.errors import ConfigError, DataError
from toxtrail.records.results import ComparisonSummary, PairRow
from toxtrail.stats.rates import Interval

points = st.floats(-1, 1, allow_nan=False)


def pair(b="tuned", a="base", relation="parent", scorer="s", subset="all", **values):
    return filled(
        PairRow,
        **{"a": a, "b": b, "relation": relation, "scorer": scorer, "subset": subset, "n": 10,
           "verdict": "not decisive", "reduced_output": "", "diff": 0.0, **values},
    )  # fmt: skip


def summary(*rows, family="f", mismatch=()):
    return filled(
        ComparisonSummary, family=family, pairs=rows, mismatch=mismatch, primary="s",
        reference="base",
    )  # fmt: skip


def policy(against="parent", scorers="primary", variants=None, families=None, **rules):
    values = {"against": against, "scorers": scorers, "variants": variants, "families": families}
    given = {name: value for name, value in values.items() if value is not None}
    return validate_section(GatePolicy, {**given, "rules": rules}, "gate.yaml")


def outcomes(row, interval, mismatch=False, **rules):
    one = GateDifference("f", row, mismatch)
    return [r.outcome for r in gate_rows([one], {one.key: interval}, GateRules(**rules), {})]


@given(points, points, st.floats(0, 100))
def test_a_limit_is_met_exceeded_or_within_the_interval(x, y, limit):
    interval = Interval(min(x, y), max(x, y))
    expected = (
        "pass" if interval.hi <= limit / 100
        else "fail" if interval.lo > limit / 100
        else "not decided"
    )  # fmt: skip
    assert outcomes(pair(), interval, max_increase_pp=limit) == [expected]
    assert outcomes(pair(subset="x"), interval, max_subset_increase_pp=limit) == [expected]
    assert outcomes(pair(subset="x"), interval, max_increase_pp=limit) == []
    assert outcomes(pair(), interval, max_subset_increase_pp=limit) == []


@given(points, points)
def test_an_increase_is_credible_if_the_interval_is_above_zero(x, y):
    interval = Interval(min(x, y), max(x, y))
    expected = "fail" if interval.lo > 0 else "pass"
    assert outcomes(pair(), interval, no_credible_increase=True) == [expected]


@pytest.mark.parametrize(
    ("verdict", "reduced", "outcome"),
    [("lower", "shorter", "fail"), ("lower", "", "pass"), ("not decisive", "shorter", "pass")],
)
def test_a_decrease_with_reduced_output_fails(verdict, reduced, outcome):
    row = pair(verdict=verdict, reduced_output=reduced)
    assert outcomes(row, Interval(-0.2, -0.1), no_reduced_output=True) == [outcome]


def test_a_decrease_in_another_language_fails():
    row = pair(verdict="lower", other_language=True)
    assert outcomes(row, Interval(-0.2, -0.1), no_reduced_output=True) == ["fail"]


def test_families_with_intervals_of_different_levels_are_refused():
    summaries = [replace(summary(pair()), level=level) for level in (0.9, 0.95)]
    with pytest.raises(DataError):
        decide(policy(no_credible_increase=True), summaries, None)


def test_what_is_unknown_is_not_decided():
    rules = {"no_credible_increase": True, "max_increase_pp": 1.0, "no_reduced_output": True}
    assert outcomes(pair(diff=None), None, **rules) == ["not decided"] * 3
    assert outcomes(pair(), None, mismatch=True, **rules) == ["not decided"] * 3


def test_texts_of_a_server_or_a_file_fail_where_verified_weights_are_required():
    one = GateDifference("f", pair(), False)

    def decided(origins):
        rules = GateRules(verified_weights=True)
        return [(r.outcome, r.reason) for r in gate_rows([one], {one.key: None}, rules, origins)]

    assert decided({"other": "a file"}) == [("pass", "")]
    assert decided({one.row.b: "a file"}) == [("fail", f"the texts of {one.row.b} from a file")]


@given(st.lists(st.sampled_from(["pass", "fail", "not decided"]), min_size=1))
def test_one_failure_decides(found):
    rows = gate_rows(
        [GateDifference("f", pair(b=str(i)), False) for i in range(len(found))],
        {("f", "base", str(i), "s", "all"): Interval(0, 0) for i in range(len(found))},
        GateRules(no_credible_increase=True),
        {},
    )
    rows = [replace(row, outcome=o) for row, o in zip(rows, found, strict=True)]
    expected = next(o for o in ("fail", "not decided", "pass") if o in found)
    assert decision(rows) == expected


def test_the_policy_selects_differences():
    rows = [
        pair(), pair(subset="x"), pair(scorer="t"), pair("tuned2", "tuned"),
        pair("tuned2", "base", "reference"),
    ]  # fmt: skip

    def tested(**options):
        found = gated_differences([summary(*rows)], policy(**options))
        return {(one.row.b, one.row.a, one.row.scorer, one.row.subset) for one in found}

    parents = {("tuned", "base", "s", "all"), ("tuned2", "tuned", "s", "all")}
    assert tested(no_credible_increase=True) == parents
    assert tested(max_subset_increase_pp=1.0) == parents | {("tuned", "base", "s", "x")}
    assert tested(scorers="every", no_credible_increase=True) == parents | {
        ("tuned", "base", "t", "all")
    }
    assert tested(against="reference", no_credible_increase=True) == {
        ("tuned", "base", "s", "all"), ("tuned2", "base", "s", "all")
    }  # fmt: skip
    assert len(tested(against="both", no_credible_increase=True)) == 3
    assert tested(variants=["tuned"], no_credible_increase=True) == {("tuned", "base", "s", "all")}


@pytest.mark.parametrize(
    ("options", "error"),
    [
        ({"variants": ["tune"], "no_credible_increase": True}, ConfigError),
        ({"scorers": ["other"], "no_credible_increase": True}, ConfigError),
        ({"against": "grandparent", "no_credible_increase": True}, ConfigError),
        ({}, ConfigError),
        ({"max_increase_pp": -1.0}, ConfigError),
        ({"max_increase": 1.0}, ConfigError),
        ({"no_credible_increase": False}, ConfigError),
    ],
)
def test_a_wrong_policy_is_refused(options, error):
    with pytest.raises(error):
        gated_differences([summary(pair())], policy(**options))


def test_a_family_without_comparisons_is_not_passed():
    with pytest.raises(DataError):
        gated_differences([summary()], DEFAULT_POLICY)


def test_intervals_are_those_of_the_comparison(score_rows, measured, settings):
    values = {"base": [0.1] * 30 + [0.9] * 4, "tuned": [0.9] * 11 + [0.1] * 23}
    rows = {n: score_rows({"a": v[:20], "b": v[20:]}) for n, v in values.items()}
    family = measured(rows, {"base": None, "tuned": "base"})
    compared = with_pooled(family.compared(settings), None).summary
    a, b = family.tables["base"], family.tables["tuned"]
    for row in compared.pairs:
        for m, lo, hi in (
            (1, row.diff_lo, row.diff_hi),
            (row.n_simultaneous, row.simultaneous_lo, row.simultaneous_hi),
        ):
            assert corrected_intervals(a, b, row.scorer, settings, m)[row.subset] == (lo, hi)
        wide = corrected_intervals(a, b, row.scorer, settings, 50)[row.subset]
        assert wide.lo < row.simultaneous_lo
        assert wide.hi > row.simultaneous_hi


def test_the_majority_is_gated_by_its_own_difference(score_rows, measured, settings):
    toxic = {"base": (range(4), range(8), range(12)), "tuned": (range(20), range(15), range(3))}
    rows = {
        name: [
            row
            for scorer, own in zip(sorted(settings.threshold)[:3], sets, strict=True)
            for row in score_rows({"a": [0.9 if i in own else 0.1 for i in range(30)]}, scorer)
        ]
        for name, sets in toxic.items()
    }
    family = measured(rows, {"base": None, "tuned": "base"})
    primary = sorted(settings.threshold)[0]
    compared = with_pooled(family.compared(settings, primary), None).summary
    compared = replace(compared, manifest={"params": {"posterior": settings.plain()}})
    result = decide(
        policy(scorers="majority", max_increase_pp=100.0), [compared],
        lambda _, variant: family.tables[variant],
    )  # fmt: skip
    (row,) = result.rows
    (expected,) = [r for r in compared.agreement_pairs if r.subset == "all"]
    assert (row.scorer, row.n, row.diff) == ("majority", 30, pytest.approx((15 - 8) / 30))
    assert (row.lo, row.hi) == (expected.majority_diff_lo, expected.majority_diff_hi)


def test_one_scorer_has_no_majority():
    with pytest.raises(ConfigError):
        gated_differences(
            [replace(summary(pair()), agreement_pairs=())],
            policy(scorers="majority", no_credible_increase=True),
        )
