"""A new response flag is a module and an entry."""

from __future__ import annotations

import pytest

from toxtrail.analysis.response_behaviour import behaviour_rows
from toxtrail.analysis.response_flags.registry import RESPONSE_FLAGS, ResponseFlag, flag_meanings
from toxtrail.analysis.response_flags.rules import flag_modules
from toxtrail.analysis.response_table import build_response_table
from toxtrail.records.columns import columns_of
from toxtrail.records.results import BehaviourRow, VariantIdentity
from toxtrail.records.rows import Generation
from toxtrail.reporting.scorer_limitations import flag_limitations

ASKED = []


def applies(text, token_ids, language):
    ASKED.append(text)
    return text.isupper()


def may_apply(responses):
    return responses.written


@pytest.fixture
def registered(monkeypatch):
    flag = ResponseFlag("texts in capitals", __name__, "Not found: lower-case shouting.")
    monkeypatch.setitem(RESPONSE_FLAGS, "shouted", flag)


def test_a_registered_flag_is_found_counted_and_described(registered, settings):
    texts = ["BREAD", "bread", " ", "SALT"]
    rows = [
        Generation(f"p{i}", 0, "s", "ok", text, (i,), 3, "stop", "", None)
        for i, text in enumerate(texts)
    ]
    rows.append(Generation("p9", 0, "s", "truncated", "", (), 3, "none", "", None))
    responses = build_response_table(rows)
    assert responses["s"].flag_counts["shouted"] == 2
    assert ASKED == ["BREAD", "bread", "SALT"]
    assert responses["s"].flag_counts["empty"] == 1
    variant = VariantIdentity(variant="v", family="f", role="v", parent=None)
    (row, _) = behaviour_rows(responses, variant, settings)
    assert row.flags["shouted"].rate == 0.5
    assert "shouted_rate" in [c.name for c in columns_of(BehaviourRow, flag_meanings())]
    assert "lower-case shouting" in flag_limitations()


@pytest.mark.parametrize("name", flag_modules())
def test_each_flag_has_a_rule_and_a_screening(name):
    assert callable(flag_modules()[name].applies)
    assert callable(flag_modules()[name].may_apply)
