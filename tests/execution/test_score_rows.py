"""Score: every row is accounted for, and no failure reads as clean."""

from __future__ import annotations

import math
import tempfile
from contextlib import ExitStack
from pathlib import Path
from types import SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from toxtrail.backends.protocols import NoProgress, ScoredText, SingleProcess
from toxtrail.config.schema import ScoringConfig
from toxtrail.errors import BackendError, DataError
from toxtrail.execution.score_rows import (
    NamedScorer,
    ScoringInput,
    collect_scores,
    refuse_many_errors,
    rows_identity,
    score_generations,
)
from toxtrail.provenance.identity import Manifest
from toxtrail.records.rows import Generation
from toxtrail.stages.score import score_manifest
from toxtrail.storage.row_journal import RowJournal

SCORER = {"kind": "hf", "uri": "file:x", "head": "toxic", "golden": [], "golden_tolerance": 0.1}


class LengthScorer:
    """The longer the text, the more toxic."""

    heads = ("toxic", "other")

    def score(self, texts, prompts=None):
        return [ScoredText({"toxic": min(1, len(t) / 10), "other": 0.5}, 1) for t in texts]


class ConstantScorer:
    heads = ("toxic",)

    def __init__(self, value, drop=0):
        self.value, self.drop = value, drop

    def score(self, texts, prompts=None):
        return [ScoredText({"toxic": self.value}, 1) for _ in texts[self.drop :]]


def row(name, text="abc", state="ok"):
    return Generation(name, 0, "s", state, text, (1,), 3, "length", "")


def scored(rows, folder, judges=None, prompts=None):
    texts = ScoringInput(rows, prompts or {})
    with ExitStack() as files:
        held = {}
        for judge in judges or [NamedScorer("len", LengthScorer(), "toxic")]:
            store = files.enter_context(RowJournal(folder / judge.name, {}))
            held[judge.name] = judge, store
            score_generations(texts, judge, store, NoProgress(), SingleProcess())
        return collect_scores(texts, held)


def test_all_heads_are_kept_and_the_named_one_is_toxicity(tmp_path):
    (found,) = scored([row("a", "abcde")], tmp_path)
    assert (found.toxicity, found.heads) == (0.5, {"toxic": 0.5, "other": 0.5})


@pytest.mark.parametrize("state", ["empty", "truncated", "error"])
def test_a_row_without_text_keeps_its_state_and_gets_no_score(state, tmp_path):
    (found,) = scored([row("a", "", state)], tmp_path)
    assert (found.state, found.toxicity, found.heads, found.windows) == (state, None, None, 0)


@pytest.mark.parametrize("value", [math.nan, -0.01, 1.01, math.inf])
def test_a_score_that_is_no_probability_stops_the_stage(value, tmp_path):
    with pytest.raises(BackendError, match=r"a score is in \[0, 1\]"):
        scored([row("a")], tmp_path, [NamedScorer("bad", ConstantScorer(value), "toxic")])


def test_a_scorer_that_answers_too_few_texts_stops_the_stage(tmp_path):
    with pytest.raises(BackendError, match="1 of 2 texts"):
        scored(
            [row("a"), row("b", "abcd")],
            tmp_path,
            [NamedScorer("bad", ConstantScorer(0.1, drop=1), "toxic")],
        )


def test_every_judge_scores_every_row(tmp_path):
    judges = [
        NamedScorer("len", LengthScorer(), "toxic"),
        NamedScorer("const", ConstantScorer(0.2), "toxic"),
    ]
    found = scored([row("a"), row("b", "", "empty")], tmp_path, judges)
    assert sorted((s.prompt_id, s.scorer) for s in found) == [
        ("a", "const"),
        ("a", "len"),
        ("b", "const"),
        ("b", "len"),
    ]


@given(st.lists(st.text(min_size=1, max_size=12), max_size=12), st.integers(1, 15))
def test_how_many_texts_a_scorer_gets_at_once_changes_no_score(texts, chunk):
    rows = [row(f"p{i}", text) for i, text in enumerate(texts)]
    judge = NamedScorer("len", LengthScorer(), "toxic")
    with tempfile.TemporaryDirectory() as folder:
        alone = scored(rows, Path(folder) / "one", [judge])
        chunked = judge._replace(texts_per_call=chunk)
        assert scored(rows, Path(folder) / "other", [chunked]) == alone


def test_equal_texts_are_scored_once_and_known_ones_not_again(tmp_path):
    class Counting(LengthScorer):
        seen = 0

        def score(self, texts, prompts=None):
            self.seen += len(texts)
            return super().score(texts, prompts)

    judge = NamedScorer("len", Counting(), "toxic")
    first = scored([row("a"), row("b"), row("c", "other")], tmp_path, [judge])
    assert judge.scorer.seen == 2
    assert [s.toxicity for s in first] == [0.3, 0.3, 0.5]
    scored([row("a"), row("d", "new")], tmp_path, [judge])
    assert judge.scorer.seen == 3


class PromptScorer(LengthScorer):
    """The longer prompt and text together, the more toxic; refuses to score a long text."""

    def score(self, texts, prompts=None):
        return [
            ScoredText(
                {"toxic": min(1, len(p + t) / 10)}, 1, 0.25, "another answer" if len(t) > 5 else ""
            )
            for p, t in zip(prompts, texts, strict=True)
        ]


def test_a_scorer_that_sees_the_prompt_scores_each_pair_of_prompt_and_text(tmp_path):
    judge = NamedScorer("both", PromptScorer(), "toxic", sees_prompt=True)
    rows, prompts = [row("a"), row("b"), row("c", "abcd")], {"a": "1", "b": "1234", "c": "1"}
    found = scored(rows, tmp_path, [judge], prompts)
    assert [s.toxicity for s in found] == [0.4, 0.7, 0.5]
    assert {s.other for s in found} == {0.25}
    with pytest.raises(DataError, match="prompt b "):
        scored(rows, tmp_path, [judge], {"a": "1", "c": "1"})


def test_prompts_change_nothing_for_a_scorer_that_does_not_see_them(tmp_path):
    rows = [row("a"), row("b", "abcd")]
    alone = scored(rows, tmp_path / "one")
    assert scored(rows, tmp_path / "other", None, {"a": "x", "b": "y"}) == alone


def test_converted_weights_are_in_the_manifest_and_in_the_rows_identity_of_their_scorer():
    class Converted(LengthScorer):
        def __init__(self):
            self.converted = {"weights": "1" * 64}

    scorers = [NamedScorer(n, s, "toxic") for n, s in (("a", Converted()), ("b", LengthScorer()))]
    config = ScoringConfig.model_validate(
        {"primary": "a", "max_error_share": 0.0, "scorers": dict.fromkeys("ab", SCORER)}
    )
    manifest = score_manifest("v", {}, config, scorers, {})
    assert manifest.converted == {"a": {"weights": "1" * 64}}
    plain = score_manifest("v", {}, config, [scorers[1]], {})
    assert "converted" not in plain.to_json()
    assert rows_identity(manifest, "a") != rows_identity(plain, "a")
    assert rows_identity(manifest, "b") == rows_identity(plain, "b")
    assert Manifest.from_json(manifest.to_json()) == manifest


def test_a_text_that_the_scorer_cannot_judge_is_an_error_row_and_never_clean(tmp_path):
    judge = NamedScorer("both", PromptScorer(), "toxic", sees_prompt=True)
    rows, prompts = [row("a", "abcdefgh"), row("b")], {"a": "1", "b": "1"}
    long, short = scored(rows, tmp_path, [judge], prompts)
    assert (long.state, long.toxicity, long.error) == ("error", None, "another answer")
    assert long.heads == {"toxic": 0.9}
    assert (short.state, short.toxicity, short.error) == ("ok", 0.4, None)


class ServerScorer(LengthScorer):
    """A scorer on a server that has no response to some texts, or stops."""

    def __init__(self):
        self.silent, self.stops_at, self.seen = set(), None, []

    def score(self, texts, prompts=None):
        if self.stops_at in texts:
            raise BackendError("20 consecutive requests had no response")
        self.seen += texts
        none = ScoredText({}, 1, None, "no response", is_temporary=True)
        return [
            none if text in self.silent else scored
            for text, scored in zip(texts, super().score(texts), strict=True)
        ]


def test_a_text_that_a_server_did_not_score_is_an_error_row_until_another_run_scores_it(tmp_path):
    judge = NamedScorer("len", ServerScorer(), "toxic")
    rows = [row("a", "abcd"), row("b", "abcde")]
    judge.scorer.silent = {"abcd"}
    a, b = scored(rows, tmp_path, [judge])
    assert (a.state, a.toxicity, a.error) == ("error", None, "no response")
    judge.scorer.silent, judge.scorer.seen = set(), []
    again, same = scored(rows, tmp_path, [judge])
    assert judge.scorer.seen == ["abcd"]
    assert (again.state, again.toxicity, same) == ("ok", 0.4, b)


def test_texts_scored_before_a_server_stopped_are_not_sent_again(tmp_path):
    judge = NamedScorer("len", ServerScorer(), "toxic", texts_per_call=2)
    rows = [row(str(n), "a" * n) for n in range(1, 8)]
    judge.scorer.stops_at = "a" * 6
    with pytest.raises(BackendError, match="no response"):
        scored(rows, tmp_path, [judge])
    assert len(judge.scorer.seen) == 4
    judge.scorer.stops_at, judge.scorer.seen = None, []
    found = scored(rows, tmp_path, [judge])
    assert [s.toxicity for s in found] == [n / 10 for n in range(1, 8)]
    assert judge.scorer.seen == ["a" * n for n in (5, 6, 7)]


def test_the_server_of_another_scorer_is_not_part_of_a_scores_identity():
    environment = {"torch": "2", "served.server_version": "1", "local.x": "y"}
    manifest = SimpleNamespace(
        params={"scorers": {"local": {}, "served": {}}},
        code_sha256="c",
        environment=environment,
        converted=None,
    )
    assert rows_identity(manifest, "local")["environment"] == {"torch": "2", "local.x": "y"}
    assert rows_identity(manifest, "served")["environment"] == {
        "torch": "2", "served.server_version": "1",
    }  # fmt: skip


def test_too_many_texts_without_a_score_are_refused_with_their_reason(tmp_path):
    judge = NamedScorer("both", PromptScorer(), "toxic", sees_prompt=True)
    rows = [row("a", "abcdefgh"), row("b"), row("c"), row("d"), row("e", "", "error")]
    scores = scored(rows, tmp_path, [judge], dict.fromkeys("abcde", "1"))
    refuse_many_errors(scores, 0.25)
    with pytest.raises(BackendError, match=r"both .*1 of 4 .*24\.0%.*another answer"):
        refuse_many_errors(scores, 0.24)


def test_the_languages_of_a_scorer_score_nothing_again():
    languages = {"a": ["en"], "b": ["en", "fr"]}
    entries = {name: SCORER | {"languages": own} for name, own in languages.items()}
    config = ScoringConfig.model_validate(
        {"primary": "a", "max_error_share": 0.0, "scorers": entries}
    )
    scorers = [NamedScorer(name, LengthScorer(), "toxic") for name in entries]
    manifest = score_manifest("v", {}, config, scorers, {})
    assert manifest.params["scorers"]["b"]["languages"] == ["en", "fr"]
    assert rows_identity(manifest, "a") == rows_identity(manifest, "b")
