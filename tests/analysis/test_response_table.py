"""Texts to arrays: column by column as row by row."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pyarrow as pa
import pytest
from flagged_rows import flag_response
from hypothesis import given
from hypothesis import strategies as st

from toxtrail.analysis import response_table as module
from toxtrail.analysis.response_flags import repetitive
from toxtrail.analysis.response_flags.registry import RESPONSE_FLAGS
from toxtrail.analysis.response_flags.repetitive import (
    SHORTEST_LOOP,
    repeated_at_most,
    repeated_ngram_fraction,
)
from toxtrail.analysis.response_table import NON_RESPONSE_STATES, build_response_table
from toxtrail.pipeline import manifest_of
from toxtrail.records.rows import GENERATION_SCHEMA, Generation, to_arrow_table
from toxtrail.storage.artifacts import ArtifactStore

TEXTS = st.sampled_from(
    [
        "",
        " ",
        "Bread.",
        "I can\u2019t help with that.",
        "no " * 30,
        "!" * 30,
        "\ufffd" * 9,
        "é\x00",
        "The baker sold the first bread to a neighbour at six in the morning.",
    ]
)
LANGUAGE_FLAG = "other_language"
ROWS = st.builds(
    Generation,
    prompt_id=st.sampled_from("abcé"),
    sample=st.integers(0, 3),
    subset=st.sampled_from(["one", "two"]),
    state=st.sampled_from(["ok", "empty", "unfinished", "filtered", "truncated", "error"]),
    text=TEXTS,
    token_ids=st.lists(st.integers(0, 4) | st.integers(0, 2**31 - 1), max_size=20).map(tuple),
    prompt_tokens=st.just(3),
    finish_reason=st.sampled_from(["stop", "length", "none"]),
    error=st.just(""),
    thought=st.none(),
    thought_tokens=st.none(),
    server_tokens=st.none() | st.integers(0, 2**31 - 1),
    cluster=st.none(),
    language=st.none() | st.just("fr"),
).flatmap(
    lambda row: st.integers(0, len(row.token_ids)).map(
        lambda count: row._replace(thought="a" if count else None, thought_tokens=count or None)
    )
)


def answer_tokens(row):
    return row.token_ids[row.thought_tokens or 0 :]


def row_by_row(rows, subset, symptom):
    """(prompt,), share of each prompt's continuations that have a symptom."""
    own = [r for r in rows if r.subset == subset and r.state not in NON_RESPONSE_STATES]
    flags = {}
    for r in own:
        has = symptom in flag_response(r.text, answer_tokens(r), r.state, r.language)
        flags.setdefault(r.prompt_id, []).append(has)
    return [np.mean(flags[prompt]) for prompt in sorted(flags)]


@given(st.lists(ROWS, max_size=12, unique_by=lambda row: (row.subset, *row.key)))
def test_arrays_say_what_the_rows_say(rows):
    found = build_response_table(rows)
    assert list(found) == sorted({row.subset for row in rows})
    for subset, own in found.items():
        texts = [r for r in rows if r.subset == subset and r.state not in NON_RESPONSE_STATES]
        texts.sort(key=lambda row: row.key)
        assert own.prompts == tuple(sorted({r.prompt_id for r in texts}))
        assert own.prompt_ids == {r.prompt_id for r in rows if r.subset == subset}
        assert own.lengths.tolist() == [len(answer_tokens(r)) for r in texts]
        assert own.n_at_token_limit == sum(r.finish_reason == "length" for r in texts)
        languages = {r.language for r in rows if r.subset == subset}
        assert own.language == ("fr" if languages == {"fr"} else None)
        assert set(RESPONSE_FLAGS) - set(own.shares) == (set() if own.language else {LANGUAGE_FLAG})
        for symptom in own.shares:
            shares = row_by_row(rows, subset, symptom)
            assert own.shares[symptom].tolist() == pytest.approx(shares)
            assert own.flag_counts[symptom] == sum(
                symptom in flag_response(r.text, answer_tokens(r), r.state, r.language)
                for r in texts
            )


@given(st.lists(ROWS, min_size=1, max_size=12, unique_by=lambda row: (row.subset, *row.key)))
def test_how_many_tokens_are_sorted_at_a_time_changes_nothing(rows):
    table = to_arrow_table(rows, GENERATION_SCHEMA)
    tokens, ends = module._tokens(table["token_ids"])
    whole = repetitive.different_pairs(tokens, ends)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(repetitive, "TOKENS_AT_ONCE", 7)
        assert repetitive.different_pairs(tokens, ends).tolist() == whole.tolist()


@given(st.lists(st.lists(st.integers(0, 4) | st.integers(0, 2**31 - 1), max_size=30), max_size=5))
def test_the_repeated_share_is_at_most_what_the_pairs_allow(rows):
    tokens, ends = module._tokens(pa.chunked_array([pa.array(rows, pa.list_(pa.int64()))]))
    pairs = repetitive.different_pairs(tokens, ends)
    for own, different in zip(rows, pairs.tolist(), strict=True):
        exact = len(set(pairwise(own)))
        assert different <= exact
        assert different == exact or max(own) >= 2**repetitive.TOKEN_BITS
        if len(own) >= SHORTEST_LOOP:
            assert repeated_ngram_fraction(own) <= repeated_at_most(len(own), different)


def test_a_file_and_its_rows_say_the_same(tmp_path):
    rows = [Generation(f"p{i}", 0, "s", "ok", "Bread.", (1, i), 3, "stop", "") for i in range(5)]
    store = ArtifactStore(tmp_path)
    manifest = manifest_of("generate", "v", {}, {}, {})
    store.write_generations("f", "v", rows, manifest)
    (own,) = build_response_table(store.read_generation_columns("f", "v")).values()
    (same,) = build_response_table(rows).values()
    assert own.prompts == same.prompts
    assert own.tokens.tolist() == same.tokens.tolist()
