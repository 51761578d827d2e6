"""The benchmark's own arithmetic: wrong here would be wrong in every number that it prints."""

from __future__ import annotations

import json
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from speed import harness, limit, results, scoring, ways
from speed.cpu import LIMIT, LOOP, PACKED, PIPELINE, PLAIN, speeds
from speed.limit import Seconds
from speed.rounds import Spread, Turn, Way, ratio, spread, take_turns
from speed.written import Written, first_difference, near_ties, share_equal, until_stop

times = st.lists(st.floats(0.01, 1000), min_size=1, max_size=9)
tokens = st.lists(st.integers(0, 5), max_size=12)
written = st.builds(lambda ids, ended: Written(tuple(ids), ended), tokens, st.booleans())


def silent(text):
    pass


# --- rounds and ratios ----------------------------------------------------------------------------


def test_the_order_of_the_ways_is_turned_round_in_every_other_round():
    order = []
    ways_ = [Way(name, lambda n=name: order.append(n), 3) for name in "abc"]
    found = take_turns(ways_, silent)
    assert order == list("abccbaabc")
    assert [len(found[name]) for name in "abc"] == [3, 3, 3]


def test_a_way_with_fewer_rounds_takes_part_in_the_first_ones():
    order = []
    ways_ = [Way(name, lambda n=name: order.append(n), n) for name, n in {"a": 3, "b": 1}.items()]
    take_turns(ways_, silent)
    assert order == list("abaa")


@given(times)
def test_a_way_against_itself_is_one(values):
    assert ratio(values, values) == Spread(1.0, 1.0, 1.0, len(values))


@given(times, st.floats(0.1, 10))
def test_a_host_that_slows_whole_rounds_moves_no_ratio(values, factor):
    assert ratio([factor * v for v in values], values).median == pytest.approx(factor)
    assert ratio([factor * v for v in values], values).low == pytest.approx(factor)


@given(times, times)
def test_a_ratio_is_of_the_rounds_in_which_both_took_part(top, bottom):
    found = ratio(top, bottom)
    assert found.rounds == min(len(top), len(bottom))
    assert found.low <= found.median <= found.high
    assert ratio([*top, 1.0], bottom[: len(top)]).median == found.median


def test_two_ways_that_never_met_have_no_ratio():
    with pytest.raises(ValueError, match="no round"):
        ratio([1.0], [])


# --- tokens ---------------------------------------------------------------------------------------


@given(tokens, st.sets(st.integers(0, 5)))
def test_a_row_ends_at_its_first_stop_token_and_counts_it(ids, stops):
    row = until_stop(ids, tuple(stops))
    assert not set(row.tokens) & stops
    assert row.ended == bool(set(ids) & stops)
    assert list(row.tokens) == ids[: len(row.tokens)]
    assert row.drawn == len(row.tokens) + row.ended <= len(ids)


@given(written, written)
def test_rows_are_equal_exactly_where_nothing_differs_first(one, other):
    at = first_difference(one, other)
    assert (at is None) == (one == other) == (share_equal([one], [other]) == 1)
    if at is not None:
        assert one.tokens[:at] == other.tokens[:at]
        assert one.tokens[at : at + 1] != other.tokens[at : at + 1] or one.ended != other.ended


class Fake:
    """Says after any text that token 3 is best, and token 4 nearly."""

    device = "cpu"

    def __init__(self, margin):
        self.margin, self.asked = margin, []

    def __call__(self, input_ids, use_cache):
        import torch

        self.asked.append(input_ids.tolist())
        row = torch.tensor([0.0, -1.0, 1.0, 5.0, 5.0 - self.margin])
        return SimpleNamespace(logits=row.expand(1, input_ids.shape[1], 5))


@pytest.mark.parametrize(("margin", "tie"), [(1e-5, True), (0.5, False)])
def test_a_differing_row_is_called_a_tie_only_if_the_margin_is_one(margin, tie):
    model = Fake(margin)
    rows = [Written((1, 3, 2), False), Written((1, 1, 1), False)]
    others = [Written((1, 4, 2), False), Written((1, 1, 1), False)]
    found = near_ties(model, [(7, 8), (9,)], rows, others, 1e-3)
    assert [(row["row"], row["at"], row["tie"]) for row in found] == [(0, 1, tie)]
    assert found[0]["margin"] == pytest.approx(margin, rel=0.1)
    assert model.asked == [[[7, 8, 1]]]


@given(st.lists(st.integers(), max_size=40), st.integers(1, 20))
def test_batches_hold_every_value_in_order(values, size):
    batches = list(ways.batched(values, size))
    assert [value for batch in batches for value in batch] == values
    assert all(len(batch) == size for batch in batches[:-1])


def test_a_torn_line_of_the_journal_is_made_again(tmp_path):
    journal = tmp_path / "rows.jsonl"
    journal.write_text(json.dumps([0, [5, 6], True, 0.5]) + "\n[1, [5", encoding="utf-8")
    assert ways._journal(journal) == {0: ([5, 6], True, 0.5)}
    assert journal.read_text("utf-8").count("\n") == 1
    assert ways._journal(journal) == {0: ([5, 6], True, 0.5)}


def test_rows_of_the_harness_are_put_back_into_the_order_of_the_prompts():
    answers = [([4, 5, 6], [1, 2, 9, 9]), ([7], [3, 3, 3, 3])]
    assert harness.in_order(answers, [[7], [4, 5, 6]], (9,)) == [
        Written((3, 3, 3, 3), False),
        Written((1, 2), True),
    ]
    with pytest.raises(SystemExit, match="1 of 2 prompts"):
        harness.in_order(answers, [[7], [0, 4, 5, 6]], (9,))


# --- the limit ------------------------------------------------------------------------------------


def test_the_limit_multiplies_by_every_matrix_of_the_model_once(tiny):
    from toxtrail.backends.huggingface.weights.pretrained import load_base

    model = load_base(tiny, "tiny", "float32", "cpu")
    body, head = limit.layers(model)
    layer = 32 * 32 + 2 * 16 * 32 + 32 * 32 + 3 * 32 * 64
    assert sum(one.weight.numel() for one in body) == 2 * layer
    assert head.weight.numel() == model.config.vocab_size * 32
    read = []
    hooks = [one.register_forward_pre_hook(lambda m, x: read.append(m)) for one in (*body, head)]
    assert min(limit.linear_seconds(model, limit.Work(4, 40, 80, 4), 1)) > 0
    assert all(read.count(one) >= 4 for one in (*body, head))
    read.clear()
    assert min(limit.encoder_seconds(model, 40, 4, 1)) > 0
    assert [read.count(one) for one in (*body, head)] == [4] * (len(body) + 1)
    for hook in hooks:
        hook.remove()


def test_no_step_of_the_limit_has_an_empty_place():
    assert limit.Work(rows=128, prompt_tokens=2176, drawn=6400, at_once=128).steps == 49
    assert limit.Work(rows=128, prompt_tokens=2176, drawn=6400, at_once=64).steps == 98


def test_rows_of_logits_are_counted_while_watched_and_not_after(tiny):
    import torch

    from toxtrail.backends.huggingface.weights.pretrained import load_base

    model = load_base(tiny, "tiny", "float32", "cpu")
    ids = torch.ones(3, 5, dtype=torch.long)
    with torch.inference_mode(), limit.watched(model) as rows:
        model(input_ids=ids)
        model(input_ids=ids, logits_to_keep=1)
    with torch.inference_mode():
        model(input_ids=ids)
    assert rows == [15, 3]


# --- results --------------------------------------------------------------------------------------


def turns_of(seconds, made):
    return [Turn(value, made) for value in seconds]


def test_speeds_are_tokens_over_seconds_and_bf16_is_held_against_the_float32_loop():
    rows = [Written((1,) * 9, True)] * 10
    found = speeds(
        {
            f"{LOOP}, float32": turns_of([10.0, 20.0, 10.0], rows),
            f"{PACKED}, float32": turns_of([4.0, 8.0, 5.0], rows),
            f"{PLAIN}, float32": turns_of([5.0], rows),
            f"{PIPELINE}, float32": turns_of([8.0], rows),
            f"{LIMIT}, float32": turns_of([9.0, 9.0, 9.0], Seconds(3.0, 2.0)),
            f"{LOOP}, bfloat16": turns_of([5.0], rows),
            f"{PACKED}, bfloat16": turns_of([1.0, 2.0, 1.0], rows),
            f"{LIMIT}, bfloat16": turns_of([9.0, 9.0, 9.0], Seconds(0.5, 0.25)),
        }
    )
    assert found["tokens_per_second"][f"{LOOP}, float32"]["median"] == 10
    assert found["ratio_vs_reference_loop"] == 2.5
    assert found["spread"]["ratio_vs_reference_loop"] == Spread(2.5, 2.0, 2.5, 3).plain()
    assert found["ratio_bf16"] == 10
    assert found["ratio_bf16_vs_bf16_loop"] == 5
    assert found["ratio_vs_pipeline"] == 2
    assert found["share_of_limit"] == 0.6
    assert found["share_of_limit_bf16"] == 0.5
    assert found["share_of_laid_out_limit"] == 0.4
    assert found["share_of_laid_out_limit_bf16"] == 0.25


def scored(off):
    base = np.full((4, 2), 0.25)
    seconds = {scoring.ALONE: 6.0, scoring.BATCHES: 2.0, scoring.PIPELINE: 3.0, scoring.OURS: 1.0}
    made = {name: base + (off if name == scoring.PIPELINE else 0.0) for name in seconds}
    return {name: turns_of([value], made[name]) for name, value in seconds.items()}


def test_scoring_ratios_are_of_texts_a_second():
    found = scoring.compared(scored(1e-6), 4)
    assert found["ratio_vs_one_by_one"] == 6
    assert found["ratio_vs_batches"] == 2
    assert found["largest_difference"][scoring.PIPELINE] == pytest.approx(1e-6)


def test_what_scoring_could_gain_is_what_its_products_leave():
    turns = {**scored(0.0), scoring.LIMIT: turns_of([9.0], Seconds(torch=0.75, laid_out=0.5))}
    found = scoring.limits(turns)
    assert found["limit_vs_one_by_one"] == pytest.approx(0.5 / 6)
    assert found["torch_limit_vs_one_by_one"] == pytest.approx(0.75 / 6)
    assert found["share_of_limit"] == 0.5


def test_scores_that_differ_are_no_result():
    with pytest.raises(SystemExit, match="differ by 2.0e-05"):
        scoring.compared(scored(2e-5), 4)


def test_texts_to_score_are_distinct_and_the_same_each_time():
    prompts = ["a b", "c", "d e f"]
    texts = scoring.mixed(prompts, 30)
    assert texts == scoring.mixed(prompts, 30)
    assert len(set(texts)) == 30


def test_what_cannot_be_measured_here_wipes_out_nothing():
    known = {"generation_gpu": {"gpu": "x"}, "machine": 1}
    why = {"not_measured": "there is no CUDA device on this machine.", "machine": 2}
    assert results.with_section(known, "generation_gpu", why) == known
    assert results.with_section({}, "generation_gpu", why)["generation_gpu"] == why
    new = {"gpu": "y", "machine": 2}
    assert results.with_section(known, "generation_gpu", new) == {
        "generation_gpu": new,
        "machine": 2,
    }


def test_a_block_replaces_the_one_before_and_nothing_else():
    page = f"before\n{results.BEGIN}\nold\n{results.END}\nafter\n"
    once = results.put_into(page, "new")
    assert once == f"before\n{results.BEGIN}\nnew\n{results.END}\nafter\n"
    assert results.put_into(once, "new") == once
    for broken in ("nothing", results.BEGIN, f"{page}{results.END}"):
        with pytest.raises(ValueError, match="needs one"):
            results.put_into(broken, "new")


def test_the_page_says_what_the_results_say(project):
    page = (project / "benchmarks/RESULTS.md").read_text("utf-8")
    known = results.read(project / "benchmarks/results/latest.json")
    assert results.put_into(page, results.render(known)) == page
    assert not any(part.get("quick") for part in known.values() if isinstance(part, dict))


def test_a_spread_is_shown_only_where_there_was_one():
    assert results._spread(spread([2.0]).plain(), ".1f") == "2.0"
    assert results._spread(spread([1.0, 2.0, 4.0]).plain(), ".1f") == "2.0 (1.0 to 4.0)"
