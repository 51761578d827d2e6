"""What the report takes along of texts: the worst of every pair, as much as a mail holds."""

from __future__ import annotations

import json

import numpy as np
import pytest
from result_rows import filled

from toxtrail.records.results import ComparisonSummary, PairRow
from toxtrail.records.rows import Generation, Score
from toxtrail.reporting.flip_browser import (
    MAX_PAGE_TEXT_BYTES,
    FlipBrowserInput,
    flip_browser_data,
    script_safe_json,
)

WORDS = [
    "weather",
    "baker",
    "garden",
    "people",
    "window",
    "evening",
    "nasty",
    "silly",
    "noise",
    "street",
    "ünïcode",
    "雨",
]


def family(variants, prompts, words=40):
    """A family on which every second label differs, with texts of the paper's length."""
    rng = np.random.default_rng(3)
    ids = [f"{'severe' if place % 3 else 'random'}-{place}" for place in range(prompts)]
    generations, scores = {}, {}
    for place in range(variants):
        name = f"v{place}"
        values = rng.random(prompts)
        texts = [" ".join(rng.choice(WORDS, words)) for _ in ids]
        generations[name] = [
            Generation(p, 0, p.split("-")[0], "ok", text, (), 3, "length", "")
            for p, text in zip(ids, texts)
        ]
        scores[name] = [
            Score(p, 0, p.split("-")[0], "judge", "ok", float(v), {"toxic": float(v)}, 1)
            for p, v in zip(ids, values)
        ]
    pairs = [filled(PairRow, a="v0", b=f"v{place}") for place in range(1, variants)]
    scored = {"params": {"scorers": {"judge": {"head": "toxic"}}}, "inputs": {}}
    summary = filled(
        ComparisonSummary,
        primary="judge",
        threshold={"judge": 0.5},
        pairs=pairs,
        manifest={"params": {}, "inputs": {"v0": {"manifest": scored}}},
    )
    return FlipBrowserInput(summary, {p: f"prompt {p}" for p in ids}, generations, scores)


def test_a_small_family_is_shown_whole():
    found = flip_browser_data(family(3, 40), MAX_PAGE_TEXT_BYTES)
    for pair in found["pairs"]:
        flips = [row for row in pair["rows"] if row[3] < 2]
        assert len(flips) == pair["flips"] > 0
        order = [(row[3], -abs(row[5] - row[4])) for row in flips]
        assert order == sorted(order)
    assert any(row[3] > 1 for row in found["pairs"][0]["rows"])


def test_every_row_points_at_its_own_texts():
    rows = family(2, 30)
    found = flip_browser_data(rows, MAX_PAGE_TEXT_BYTES)
    texts = {v: {g.prompt_id: g.text for g in own} for v, own in rows.generations.items()}
    for row in found["pairs"][0]["rows"]:
        prompt = found["prompts"][row[0]]
        assert prompt[2] == rows.prompts[prompt[0]]
        assert found["subsets"][prompt[1]] == prompt[0].split("-")[0]
        assert found["texts"][row[6]] == texts["v0"][prompt[0]]
        assert found["texts"][row[7]] == texts["v1"][prompt[0]]


def test_a_large_family_fills_the_page_and_no_more_and_every_pair_has_its_share():
    found = flip_browser_data(family(12, 2400), MAX_PAGE_TEXT_BYTES)
    size = len(script_safe_json(found).encode())
    assert MAX_PAGE_TEXT_BYTES / 2 < size < 1.2 * MAX_PAGE_TEXT_BYTES
    shown = [len(pair["rows"]) for pair in found["pairs"]]
    assert max(shown) - min(shown) <= 1
    assert all(pair["flips"] > len(pair["rows"]) for pair in found["pairs"])


@pytest.mark.parametrize("text", ["x" * 1_000_000, "\u202e" * 1_000_000])
def test_a_megabyte_of_one_line_is_cut(text):
    rows = family(2, 4)
    long = {v: [g._replace(text=text) for g in own] for v, own in rows.generations.items()}
    script = script_safe_json(
        flip_browser_data(rows._replace(generations=long), MAX_PAGE_TEXT_BYTES)
    )
    assert len(script) < 40_000
    assert "characters more" in json.loads(script)["texts"][0]
