"""What is said of thoughts when the rows are made."""

from __future__ import annotations

import pytest

from toxtrail.analysis.thought_problems import thought_problems
from toxtrail.records.rows import Generation
from toxtrail.records.thought import ThoughtMarkers

MARKERS = ThoughtMarkers("<think>", "</think>")
ROW = Generation("p", 0, "s", "ok", "Bread.", (1, 2), 3, "stop", "")


def thinking(thought, **changes):
    return ROW._replace(thought=thought, thought_tokens=1, **changes)


@pytest.mark.parametrize(
    ("rows", "markers", "numbers"),
    [
        ([ROW, thinking("<think>a</think>")], MARKERS, []),
        ([ROW], None, []),
        ([ROW, ROW._replace(text="\n<think>a</think>b")], None, ["1 of 2", "<think>"]),
        (
            [
                ROW,
                thinking("a", text="", state="unfinished", finish_reason="length"),
                thinking("a", text="", state="unfinished"),
            ],
            MARKERS,
            ["2 of 3", "1 ended"],
        ),
        ([ROW, ROW._replace(text="b<think>a</think>c")], MARKERS, ["1 of 2"]),
        ([thinking("<think>a</think>", text="b</think>c")], MARKERS, ["1 of 1"]),
    ],
)
def test_each_kind_of_thought_that_needs_attention_is_counted(rows, markers, numbers):
    lines = list(thought_problems(rows, markers))
    assert len(lines) == bool(numbers)
    assert all(number in lines[0] for number in numbers)
