"""Renderings of a gate's decision: table, Markdown comment, JUnit XML."""

from __future__ import annotations

from collections.abc import Sequence
from xml.etree import ElementTree

from toxtrail.provenance.identity import canonical_json, content_key
from toxtrail.records.gate import GateResult, GateRow
from toxtrail.records.results import ComparisonSummary
from toxtrail.records.run_tags import COMPARISONS_TAG, DECISION_TAG, POLICY_HASH_TAG, POLICY_TAG
from toxtrail.reporting.notes import weak_origins
from toxtrail.reporting.table import (
    Table,
    as_markdown,
    move_constants_to_title,
    number_columns,
    text_columns,
)
from toxtrail.reporting.text import MISSING_CELL, plural
from toxtrail.text_escaping import escape_control_chars, escape_markdown


def gate_tags(result: GateResult, summaries: Sequence[ComparisonSummary]) -> dict[str, str]:
    """Return the tags of a decision: with the policy as canonical JSON, and the content keys of the
    comparisons that it is on."""
    return {
        DECISION_TAG: result.decision,
        POLICY_TAG: canonical_json(result.policy),
        POLICY_HASH_TAG: result.policy_sha256,
        COMPARISONS_TAG: " ".join(sorted(content_key(s.manifest)[:16] for s in summaries)),
    }


def gate_table(result: GateResult) -> Table:
    """Return the table of a decision, failures first."""
    order = ("fail", "not decided", "pass")
    rows = sorted(result.rows, key=lambda row: order.index(row.outcome))
    columns = (
        *text_columns("outcome", "rule", "variant"),
        *text_columns("against", priority=2),
        *text_columns("scorer", "subset", priority=3),
        *number_columns("limit", priority=1),
        *number_columns("difference", "interval"),
        *text_columns("reason", priority=4),
    )
    table = Table("Gate", columns, [_cells(row) for row in rows])
    return move_constants_to_title(table, {"against", "scorer", "subset"})


def gate_sentences(result: GateResult) -> list[str]:
    """Return the decision; and what its intervals are corrected for, with the variants whose texts
    do not come from verified weights."""
    counted = ", ".join(
        f"{number} {outcome}"
        for outcome in ("fail", "not decided", "pass")
        if (number := sum(row.outcome == outcome for row in result.rows))
    )
    m = result.comparisons
    corrected = f", corrected for {m} {plural(m, 'difference')}" if m > 1 else ""
    return [
        f"{result.decision}: {len(result.rows)} {plural(len(result.rows), 'check')} ({counted}).",
        f"Differences in percentage points; intervals cover together with probability "
        f"{result.level:g}{corrected}. Policy {result.policy_sha256[:8]}."
        + (f" {weak}" if (weak := weak_origins(result.origins)) else ""),
    ]


def gate_markdown(result: GateResult) -> str:
    """Return a comment for a pull request: the decision, then the table."""
    title, detail = (escape_markdown(sentence) for sentence in gate_sentences(result))
    return f"### toxtrail gate: {title}\n\n{as_markdown(gate_table(result))}\n\n{detail}\n"


def gate_junit(result: GateResult) -> str:
    """Return JUnit XML: one test case for each check; a check that is not decided is an error."""
    tags = {"fail": "failure", "not decided": "error"}
    suite = ElementTree.Element(
        "testsuite",
        name="toxtrail gate",
        tests=str(len(result.rows)),
        failures=str(sum(row.outcome == "fail" for row in result.rows)),
        errors=str(sum(row.outcome == "not decided" for row in result.rows)),
    )
    for row in result.rows:
        name = f"{row.rule}: {row.b} against {row.a}, {row.scorer}, {row.subset}"
        case = ElementTree.SubElement(
            suite,
            "testcase",
            classname=escape_control_chars(f"toxtrail.{row.family}"),
            name=escape_control_chars(name),
        )
        if row.outcome in tags:
            message = escape_control_chars(f"{row.reason}: {_numbers(row)}")
            ElementTree.SubElement(case, tags[row.outcome], message=message)
    ElementTree.indent(suite)
    text: str = ElementTree.tostring(suite, encoding="unicode", xml_declaration=True)
    return text + "\n"


def _cells(row: GateRow) -> Sequence[object]:
    return (
        row.outcome,
        row.rule.replace("_", " "),
        row.b,
        row.a,
        row.scorer,
        row.subset,
        MISSING_CELL if row.limit is None else f"{100 * row.limit:g}",
        _points(row.diff),
        _interval(row),
        row.reason,
    )


def _numbers(row: GateRow) -> str:
    limit = "" if row.limit is None else f", limit {100 * row.limit:g}"
    return f"{_points(row.diff)} points {_interval(row)}{limit}"


def _interval(row: GateRow) -> str:
    if row.lo is None or row.hi is None:
        return MISSING_CELL
    return f"[{_points(row.lo)}, {_points(row.hi)}]"


def _points(value: float | None) -> str:
    """Format with two decimals, so that a bound near a limit is on its visible side."""
    return MISSING_CELL if value is None else f"{round(100 * value, 2) + 0.0:+.2f}"
