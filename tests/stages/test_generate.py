"""Generate: batches, states, seeds, resume."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from toxtrail.backends.base import Completion, EncodedPrompt, Silent
from toxtrail.config import GenerationConfig
from toxtrail.errors import BackendError
from toxtrail.journal import Journal
from toxtrail.records import Prompt
from toxtrail.stages.generate import Row, generate, plan_batches, row_seed

CONFIG = GenerationConfig(
    max_new_tokens=4,
    temperature=0.0,
    top_p=1.0,
    samples=2,
    template="none",
    dtype="float32",
    seed=7,
    max_error_share=0.4,
)


class EchoModel:
    """Continues with its seed; some texts make it stop, fail, or not fit."""

    def __init__(self, stop_after: int | None = None) -> None:
        self.calls = 0
        self.stop_after = stop_after

    def encode(self, text):
        return EncodedPrompt(tuple(ord(c) for c in text), fits=text != "too long")

    def complete(self, prompts, seeds):
        if self.calls == self.stop_after:
            raise KeyboardInterrupt
        self.calls += 1
        return [self.one("".join(map(chr, p.token_ids)), seed) for p, seed in zip(prompts, seeds)]

    def one(self, text, seed):
        if text == "silent":
            return Completion((), " ", "stop", "")
        if text == "broken":
            return Completion((), "", "none", "non-finite logits")
        return Completion((seed % 100,), f"{text}-{seed}", "length", "")


def prompts(*texts):
    return [Prompt(f"s-{text}", "s", text, "file:x", i) for i, text in enumerate(texts)]


def made(texts, folder, model=None, config=CONFIG, batch_tokens=16):
    with Journal(folder) as journal:
        return generate(
            prompts(*texts), model or EchoModel(), config, batch_tokens, journal, Silent()
        )


def states(rows):
    return {row.prompt_id: row.state for row in rows}


def test_every_prompt_is_continued_as_often_as_asked(tmp_path):
    rows = made(["a", "b", "c"], tmp_path)
    assert sorted(row.key for row in rows) == [(f"s-{t}", k) for t in "abc" for k in (0, 1)]


def test_each_outcome_has_its_own_state_and_none_is_lost(tmp_path):
    rows = made(["fine", "silent", "too long", "ok", "ok2"], tmp_path)
    assert states(rows) == {
        "s-fine": "ok",
        "s-ok": "ok",
        "s-ok2": "ok",
        "s-silent": "empty",
        "s-too long": "truncated",
    }


def test_too_many_failed_rows_fail_the_stage(tmp_path):
    with pytest.raises(BackendError, match=r"2 of 4 rows failed .*non-finite logits"):
        made(["broken", "fine"], tmp_path)


def test_a_few_failed_rows_are_kept_as_errors(tmp_path):
    rows = made(["broken", "a", "b"], tmp_path)
    assert states(rows)["s-broken"] == "error"


@given(st.lists(st.text("ab", max_size=6), unique=True, max_size=8), st.integers(1, 60))
def test_the_batch_budget_changes_no_row(texts, batch_tokens):
    import tempfile
    from pathlib import Path

    with tempfile.TemporaryDirectory() as one, tempfile.TemporaryDirectory() as other:
        expected = made(texts, Path(one), batch_tokens=10_000)
        assert sorted(made(texts, Path(other), batch_tokens=batch_tokens)) == sorted(expected)


@given(st.lists(st.integers(0, 30), min_size=1, max_size=30), st.integers(1, 200))
def test_batches_hold_every_row_once_and_keep_to_the_budget(lengths, budget):
    rows = [
        Row(prompt, 0, EncodedPrompt((1,) * n, True))
        for prompt, n in zip(prompts(*map(str, range(len(lengths)))), lengths)
    ]
    batches = plan_batches(rows, 5, budget)
    assert sorted(r.prompt.prompt_id for b in batches for r in b) == sorted(
        r.prompt.prompt_id for r in rows
    )
    for batch in batches:
        padded = len(batch) * (max(len(r.encoded.token_ids) for r in batch) + 5)
        assert padded <= budget or len(batch) == 1


def test_a_run_that_was_stopped_goes_on_where_it_was_and_ends_the_same(tmp_path):
    texts = ["a", "bb", "ccc", "dddd", "eeeee"]
    expected = made(texts, tmp_path / "whole")
    with pytest.raises(KeyboardInterrupt):
        made(texts, tmp_path / "cut", EchoModel(stop_after=2))
    model = EchoModel()
    assert made(texts, tmp_path / "cut", model) == expected
    whole = EchoModel()
    made(texts, tmp_path / "again", whole)
    assert model.calls == whole.calls - 2


def test_a_seed_names_prompt_and_sample_and_nothing_else():
    assert row_seed(7, "s-a", 0) == row_seed(7, "s-a", 0)
    assert len({row_seed(s, p, k) for s in (7, 8) for p in ("a", "b") for k in (0, 1)}) == 8
