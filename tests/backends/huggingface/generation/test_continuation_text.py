"""Thoughts: markers that are special, added or several tokens; templates that open a thought."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from toxtrail.backends.huggingface.generation.continuation_text import ContinuationDecoder
from toxtrail.backends.huggingface.generation.generator import HuggingFaceModel, PromptEncoder
from toxtrail.backends.huggingface.weights.load import load_model
from toxtrail.backends.protocols import Decoding, NoProgress, SingleProcess
from toxtrail.config.schema import GenerationConfig, ThoughtConfig
from toxtrail.errors import ConfigError
from toxtrail.execution.generate_rows import collect_generations, generate
from toxtrail.records.rows import Prompt, generation_problem
from toxtrail.records.thought import ThoughtMarkers
from toxtrail.storage.row_journal import RowJournal

MARKERS = ThoughtMarkers("<think>", "</think>")


@pytest.fixture(params=["special", "added", "several"])
def thinking_tokenizer(request, tiny):
    tokenizer = tiny.tokenizer()
    if request.param != "several":
        tokenizer.add_tokens(list(MARKERS), special_tokens=request.param == "special")
    return tokenizer


def encoded(tokenizer, text):
    return tokenizer(text, add_special_tokens=False)["input_ids"]


def test_the_markers_stay_in_the_text_whatever_tokens_they_are(thinking_tokenizer):
    decoder = ContinuationDecoder(thinking_tokenizer, MARKERS)
    thought, answer = "<think>The sea</think>\n\n", "The ship"
    start = encoded(thinking_tokenizer, "<|start|>" + thought)
    tokens = start + encoded(thinking_tokenizer, answer)
    assert decoder.text(tokens) == thought + answer
    (end,) = decoder.thought_ends(tokens)
    assert decoder.text(tokens[end:]).lstrip() == answer
    assert "</think>" in decoder.text(tokens[:end])


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(pieces=st.lists(st.sampled_from([*MARKERS, "</th", "ink>", ">\n\n", "The sea", "\u00e9"])))
def test_a_thought_ends_with_the_first_token_that_completes_an_end_marker(
    thinking_tokenizer, pieces
):
    decoder = ContinuationDecoder(thinking_tokenizer, MARKERS)
    tokens = [token for piece in pieces for token in encoded(thinking_tokenizer, piece)]
    ends, text = decoder.thought_ends(tokens), decoder.text(tokens)
    assert text == "".join(pieces)
    assert len(ends) == text.count("</think>")
    for number, end in enumerate(ends, start=1):
        assert decoder.text(tokens[:end]).count("</think>") >= number
        assert decoder.text(tokens[: end - 1]).count("</think>") < number


def test_gpt_oss_like_markers_of_special_tokens_and_words_are_found(tiny):
    tokenizer = tiny.tokenizer()
    tokenizer.add_tokens(["<|channel|>", "<|message|>"], special_tokens=True)
    begin, end = "<|channel|>analysis<|message|>", "<|channel|>final<|message|>"
    decoder = ContinuationDecoder(tokenizer, ThoughtMarkers(begin, end))
    tokens = encoded(tokenizer, f"{begin}The sea<|end|><|start|>{end}The ship")
    assert decoder.text(tokens) == f"{begin}The sea{end}The ship"
    assert decoder.text(tokens[decoder.thought_ends(tokens)[-1] :]) == "The ship"


def test_without_an_end_marker_no_token_is_of_a_thought(thinking_tokenizer):
    decoder = ContinuationDecoder(thinking_tokenizer, MARKERS)
    assert decoder.thought_ends(encoded(thinking_tokenizer, "<think>The sea")) == ()
    assert decoder.thought_ends([]) == ()


def test_special_tokens_other_than_markers_are_left_out_as_by_the_tokenizer(thinking_tokenizer):
    tokens = encoded(thinking_tokenizer, "The<|start|> sea<|end|>")
    for markers in (MARKERS, None):
        assert ContinuationDecoder(thinking_tokenizer, markers).text(tokens) == "The sea"


def test_a_begin_marker_is_not_dropped_if_none_is_declared(thinking_tokenizer):
    tokens = encoded(thinking_tokenizer, "<think>The sea")
    assert ContinuationDecoder(thinking_tokenizer, None).text(tokens) == "<think>The sea"


def test_a_marker_that_the_tokenizer_changes_is_refused(tiny):
    from tokenizers import normalizers

    tokenizer = tiny.tokenizer()
    tokenizer.backend_tokenizer.normalizer = normalizers.Lowercase()
    with pytest.raises(ConfigError, match=r"generation\.thought.*'\[THINK\]' to '\[think\]'"):
        ContinuationDecoder(tokenizer, ThoughtMarkers("[THINK]", "[/THINK]"))


@pytest.mark.parametrize(
    ("ending", "opens"), [("<think>\n", True), ("", False), ("<think>\n\n</think>\n\n", False)]
)
def test_a_template_that_opens_a_thought_needs_declared_markers(tiny, ending, opens):
    tokenizer = tiny.tokenizer()
    tokenizer.chat_template = tiny.chat_template + ending
    encoder = PromptEncoder(tokenizer, Decoding(4, 0.0, 1.0, "chat", thought=MARKERS), None, None)
    assert encoder.encode("The ship").opens_thought == opens
    undeclared = Decoding(4, 0.0, 1.0, "chat")
    if opens:
        with pytest.raises(ConfigError, match=r"begin: '<think>', end: '</think>'"):
            PromptEncoder(tokenizer, undeclared, None, None)
    else:
        assert not PromptEncoder(tokenizer, undeclared, None, None).encode("A").opens_thought


def test_a_raw_prompt_that_ends_with_the_begin_marker_opens_a_thought(tiny):
    encoder = PromptEncoder(
        tiny.tokenizer(), Decoding(4, 0.0, 1.0, "none", thought=MARKERS), None, None
    )
    assert encoder.encode("Say. <think>").opens_thought
    assert not encoder.encode("<think> Say.").opens_thought


@pytest.mark.parametrize("engine", ["packed", "plain"])
def test_rows_of_a_model_that_thinks_are_cut_after_the_end_marker(
    tmp_path: Path, weights, tiny_card, tiny, engine
):
    """The end marker is a token that the random model writes for this prompt."""
    loaded = load_model(tiny_card, tmp_path / "model", weights, "float32", "cpu")
    loaded.tokenizer.chat_template = tiny.chat_template + "<think>\n"
    values = {
        "max_new_tokens": 12, "temperature": 0.0, "top_p": 1.0, "samples": 1, "seed": 1,
        "template": "chat", "dtype": "float32", "max_error_share": 0.0,
    }  # fmt: skip

    def row(end):
        markers = ThoughtConfig(begin="<think>", end=end)
        config = GenerationConfig(**values, thought=markers)
        decoding = Decoding(12, 0.0, 1.0, "chat", thought=config.markers)
        model = HuggingFaceModel(loaded.model, loaded.tokenizer, decoding, 1000, engine)
        prompts = [Prompt("s-1", "s", "The ship", "file:x", 0)]
        with RowJournal(tmp_path / end.strip("</>"), {}) as rows:
            generate(prompts, model, config, rows, NoProgress(), SingleProcess())
            return collect_generations(prompts, config, rows)[0]

    endless = row("</think>")
    assert (endless.state, endless.text) == ("unfinished", "")
    assert endless.thought_tokens == len(endless.token_ids) == 12
    words = [loaded.tokenizer.decode([token]).strip() for token in endless.token_ids]
    end = next(w for w in words if w.isalpha() and endless.thought.rpartition(w)[2].strip())
    cut = row(end)
    assert cut.token_ids == endless.token_ids
    assert cut.thought + cut.text == endless.thought
    assert cut.state == "ok"
    assert cut.thought.rstrip().endswith(end)
    assert end in loaded.tokenizer.decode(cut.token_ids[: cut.thought_tokens])
    assert end not in loaded.tokenizer.decode(cut.token_ids[: cut.thought_tokens - 1])
    assert cut.thought.count(end) == 1
    assert not generation_problem(cut)
