"""A gate's decision as Markdown and JUnit XML."""

from __future__ import annotations

from xml.etree import ElementTree

import pytest

from toxtrail.records.gate import GateResult, GateRow
from toxtrail.reporting.gate_report import gate_junit, gate_markdown, gate_table


@pytest.fixture
def result():
    def row(outcome, b, **values):
        shared = {"rule": "max_increase_pp", "family": "f", "a": "base", "scorer": "s", "n": 10}
        numbers = {"diff": 0.0204, "lo": -0.011, "hi": 0.0521, "limit": 0.02, "reason": "why"}
        return GateRow(outcome=outcome, b=b, subset="all", **{**shared, **numbers, **values})

    rows = [row("pass", "one", reason=""), row("fail", "a|b<&\x1b"), row("not decided", "three")]
    return GateResult(
        decision="fail", policy={}, policy_sha256="0123456789abcdef", level=0.95, comparisons=3,
        origins={"one": "a file"}, rows=rows,
    )  # fmt: skip


def test_failures_come_first_and_bounds_have_two_decimals(result):
    rows = gate_table(result).rows
    assert [row[0] for row in rows] == ["fail", "not decided", "pass"]
    assert rows[0][3:6] == ["2", "+2.04", "[-1.10, +5.21]"]


def test_a_comment_has_one_line_for_each_check(result):
    lines = [line for line in gate_markdown(result).splitlines() if line.startswith("| ")]
    assert len(lines) == 1 + 1 + 3
    assert r"a\|b" in lines[2]


def test_a_check_that_is_not_decided_is_an_error_in_junit(result):
    suite = ElementTree.fromstring(gate_junit(result).encode("utf-8"))
    assert {name: suite.get(name) for name in ("tests", "failures", "errors")} == {
        "tests": "3", "failures": "1", "errors": "1"
    }  # fmt: skip
    kinds = [[child.tag for child in case] for case in suite]
    assert kinds == [[], ["failure"], ["error"]]
