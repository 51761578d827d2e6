"""Flips: each scored continuation once, in the right direction, the greatest change first."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from toxtrail.analysis.flips import count_flips, only_flips, pair_continuations, toxicity_head
from toxtrail.records.rows import Score

scores = st.lists(st.one_of(st.none(), st.floats(0, 1)), min_size=1, max_size=12)


def rows(values, subset="one", scorer="judge", heads=None):
    return [
        Score(
            prompt_id=f"{subset}-{place}",
            sample=0,
            subset=subset,
            scorer=scorer,
            state="empty" if value is None else "ok",
            toxicity=value,
            heads=None if value is None else {"toxic": value, **(heads or {})},
            windows=1,
        )
        for place, value in enumerate(values)
    ]


@given(scores, scores)
def test_every_pair_is_counted_once_and_the_counts_add_up(a, b):
    n = min(len(a), len(b))
    found = pair_continuations(rows(a[:n]), rows(b[:n]), "judge", 0.5, "toxic")
    own = count_flips(found, n)
    assert sum(own) == n
    assert len(only_flips(found)) == own.became_toxic + own.became_harmless
    assert [abs(row.change) for row in found] == sorted(
        (abs(r.change) for r in found), reverse=True
    )


@given(scores, scores)
def test_turning_the_two_round_turns_every_flip_round(a, b):
    n = min(len(a), len(b))
    there = pair_continuations(rows(a[:n]), rows(b[:n]), "judge", 0.5, "toxic")
    back = pair_continuations(rows(b[:n]), rows(a[:n]), "judge", 0.5, "toxic")
    turned = {"became toxic": "became harmless", "became harmless": "became toxic"}
    assert {(r.prompt_id, turned.get(r.direction, r.direction)) for r in there} == {
        (r.prompt_id, r.direction) for r in back
    }


def test_a_score_at_the_threshold_is_toxic_as_in_the_rates():
    (flip,) = pair_continuations(rows([0.49]), rows([0.5]), "judge", 0.5, "toxic")
    assert (flip.direction, flip.change) == ("became toxic", pytest.approx(0.01))


def test_a_category_is_the_strongest_other_head_that_says_toxic():
    heads = {"threat": 0.6, "insult": 0.8, "clean": 0.1}
    (flip,) = pair_continuations(rows([0.1]), rows([0.9], heads=heads), "judge", 0.5, "toxic")
    assert flip.category == "insult"
    (flip,) = pair_continuations(rows([0.1]), rows([0.9]), "judge", 0.5, "toxic")
    assert flip.category == "none"


def test_another_scorers_rows_are_left_out():
    both = rows([0.9]) + rows([0.9], scorer="other")
    assert len(pair_continuations(rows([0.1]), both, "judge", 0.5, "toxic")) == 1


def test_the_head_is_found_however_deep_the_scores_lie():
    scored = {"params": {"scorers": {"judge": {"head": "toxic"}}}, "inputs": {}}
    above = {
        "params": {},
        "inputs": {"prompts": {"manifest": None}, "scores": {"manifest": scored}},
    }
    assert toxicity_head(above, "judge") == "toxic"
    assert toxicity_head(above, "nobody") == ""
