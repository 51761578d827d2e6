"""Continuations: the same whatever the batch, and only as `Decoding` says."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from toxtrail.backends.huggingface.generation.generator import HuggingFaceModel, PromptEncoder
from toxtrail.backends.huggingface.generation.sampling import SeededSampler, top_p_filter
from toxtrail.backends.huggingface.weights.load import load_model
from toxtrail.backends.protocols import Decoding, EncodedPrompt
from toxtrail.errors import ConfigError
from toxtrail.records.rows import Turn

pytestmark = pytest.mark.slow

TEXTS = ["The ship", "What is the capital of France? Paris", "A", "birds build nests in it. Birds"]


@pytest.fixture
def loaded(weights, tiny_card, tmp_path):
    return load_model(tiny_card, tmp_path, weights, "float32", "cpu")


@pytest.fixture(params=["packed", "plain"])
def engine(request):
    return request.param


@pytest.fixture
def model_of(loaded, engine):
    def made(loaded, temperature=0.0, top_p=1.0, new=12, template="none", batch_tokens=1000):
        decoding = Decoding(new, temperature, top_p, template)
        return HuggingFaceModel(loaded.model, loaded.tokenizer, decoding, batch_tokens, engine)

    return made


def in_order(found):
    return [completion for _, completion in sorted(found, key=lambda pair: pair[0])]


def complete(model, texts, seeds=None):
    asked = [model.encode(t) for t in texts]
    return in_order(model.complete(asked, seeds or list(range(len(texts)))))


def test_a_batch_says_what_each_prompt_says_alone(loaded, model_of):
    model = model_of(loaded)
    alone = [complete(model, [text])[0] for text in TEXTS]
    assert complete(model, TEXTS) == alone
    assert len({row.token_ids for row in alone}) == len(TEXTS)


def test_greedy_is_the_argmax_of_the_plain_model(loaded, model_of):
    ids = list(model_of(loaded).encode(TEXTS[1]).token_ids)
    expected = []
    for _ in range(12):
        with torch.inference_mode():
            best = int(loaded.model(torch.tensor([ids + expected])).logits[0, -1].argmax())
        expected.append(best)
    if loaded.tokenizer.eos_token_id in expected:
        expected = expected[: expected.index(loaded.tokenizer.eos_token_id)]
    assert complete(model_of(loaded), [TEXTS[1]])[0].token_ids == tuple(expected)


def test_a_sampled_row_depends_on_its_own_seed_alone(loaded, model_of):
    model = model_of(loaded, temperature=1.0, top_p=0.9)
    alone = [complete(model, [t], [s])[0] for t, s in zip(TEXTS, [5, 6, 7, 8], strict=True)]
    assert complete(model, TEXTS, [5, 6, 7, 8]) == alone
    assert complete(model, TEXTS[::-1], [8, 7, 6, 5]) == alone[::-1]
    assert complete(model, TEXTS, [9, 6, 7, 8])[0] != alone[0]


def test_a_sample_does_not_touch_the_global_generators(loaded, model_of):
    torch.manual_seed(1)
    expected = torch.rand(3)
    torch.manual_seed(1)
    complete(model_of(loaded, temperature=1.0), TEXTS)
    assert torch.equal(torch.rand(3), expected)


def test_a_tiny_nucleus_is_greedy(loaded, model_of):
    greedy = complete(model_of(loaded), TEXTS)
    assert complete(model_of(loaded, temperature=1.0, top_p=1e-9), TEXTS) == greedy


def test_the_models_own_sampling_settings_are_ignored(loaded, model_of):
    plain = complete(model_of(loaded), TEXTS)
    published = loaded.model.generation_config
    published.do_sample, published.temperature, published.repetition_penalty = True, 5.0, 9.0
    published.suppress_tokens, published.min_new_tokens = [row.token_ids[0] for row in plain], 12
    published.eos_token_id = 1
    assert complete(model_of(loaded), TEXTS) == plain


def test_an_end_token_ends_the_text_and_is_not_part_of_it(loaded, model_of):
    first = complete(model_of(loaded), [TEXTS[0]])[0].token_ids
    loaded.model.generation_config.eos_token_id = [1, first[3]]
    row = complete(model_of(loaded), [TEXTS[0]])[0]
    assert row.token_ids == first[: first.index(first[3])]
    assert row.finish_reason == "stop"


EARLIER = (Turn("system", "Be kind."), Turn("user", "Who?"), Turn("assistant", "A ship."))


@pytest.fixture
def chat_loaded(weights, tiny_chat_card, tmp_path):
    return load_model(tiny_chat_card, tmp_path, weights, "float32", "cpu")


def test_rows_with_a_common_beginning_are_those_of_the_whole_conversation_alone(
    chat_loaded, engine
):
    decoding = Decoding(6, 0.0, 1.0, "chat", EARLIER)
    parts = chat_loaded.model, chat_loaded.tokenizer
    model = HuggingFaceModel(*parts, decoding, 1000, engine)
    rows = complete(model, TEXTS[:2])
    messages = [{"role": turn.role, "content": turn.text} for turn in EARLIER]
    for text, row in zip(TEXTS, rows, strict=False):
        ids = chat_loaded.tokenizer.apply_chat_template(
            [*messages, {"role": "user", "content": text}], add_generation_prompt=True
        )["input_ids"]
        assert model.encode(text).token_ids == tuple(ids)
        alone = HuggingFaceModel(*parts, Decoding(6, 0.0, 1.0, "none"), 1000, "plain")
        asked = EncodedPrompt(tuple(ids), fits=True)
        assert in_order(alone.complete([asked], [0])) == [row]


def test_earlier_messages_of_a_prompt_follow_those_of_the_settings(chat_loaded):
    both = PromptEncoder(
        chat_loaded.tokenizer, Decoding(6, 0.0, 1.0, "chat", EARLIER[:1]), None, None
    ).encode("And?", EARLIER[1:])
    alone = PromptEncoder(chat_loaded.tokenizer, Decoding(6, 0.0, 1.0, "chat"), None, None)
    assert both == alone.encode("And?", EARLIER)
    assert both != alone.encode("And?", EARLIER[1:])


def test_a_template_that_loses_a_role_of_a_conversation_is_refused(chat_loaded):
    """The system message is also in the markup, which is no proof that it was rendered."""
    template = chat_loaded.tokenizer.chat_template
    chat_loaded.tokenizer.chat_template = "{% set messages = messages[-1:] %}user" + template
    encoder = PromptEncoder(chat_loaded.tokenizer, Decoding(6, 0.0, 1.0, "chat"), None, None)
    with pytest.raises(ConfigError, match="drops the text of: system"):
        encoder.encode("And?", [Turn("system", "user")])


def test_a_template_that_loses_the_system_message_is_refused_before_generation(chat_loaded):
    template = chat_loaded.tokenizer.chat_template
    chat_loaded.tokenizer.chat_template = template.replace("messages %}", "messages[-1:] %}", 1)
    with pytest.raises(ConfigError, match=r"Remove generation\.system"):
        PromptEncoder(chat_loaded.tokenizer, Decoding(6, 0.0, 1.0, "chat", EARLIER[:1]), None, None)
    with pytest.raises(ConfigError, match=r"Remove generation\.turns"):
        PromptEncoder(chat_loaded.tokenizer, Decoding(6, 0.0, 1.0, "chat", EARLIER[1:]), None, None)


def test_the_prompt_format_shows_no_text_of_earlier_turns(chat_loaded):
    decoding = Decoding(6, 0.0, 1.0, "chat", EARLIER)
    encoder = PromptEncoder(chat_loaded.tokenizer, decoding, None, None)
    assert encoder.prompt_format() == (
        "<|start|>system\nBe kind.<|end|>\n<|start|>user\n{user}<|end|>\n"
        "<|start|>assistant\n{assistant}<|end|>\n<|start|>user\n{prompt}<|end|>\n"
        "<|start|>assistant\n"
    )


def test_the_prompt_format_has_the_systems_message_of_the_template(chat_loaded):
    tokenizer = chat_loaded.tokenizer
    tokenizer.chat_template = "You are tiny." + tokenizer.chat_template
    encoder = PromptEncoder(tokenizer, Decoding(6, 0.0, 1.0, "chat", EARLIER[:1]), None, None)
    assert encoder.prompt_format() == (
        "You are tiny.<|start|>system\nBe kind.<|end|>\n<|start|>user\n{prompt}<|end|>\n"
        "<|start|>assistant\n"
    )
    assert (
        PromptEncoder(tokenizer, Decoding(6, 0.0, 1.0, "none"), None, None).prompt_format() is None
    )


def test_a_text_that_ends_at_once_has_finish_reason_none(loaded, model_of):
    first = complete(model_of(loaded), [TEXTS[0]])[0].token_ids
    loaded.model.generation_config.eos_token_id = [first[0]]
    row = complete(model_of(loaded), [TEXTS[0]])[0]
    assert (row.token_ids, row.text, row.finish_reason, row.error) == ((), "", "none", "")


def test_a_text_that_is_long_enough_has_finish_reason_length(loaded, model_of):
    row = complete(model_of(loaded, new=2), [TEXTS[0]])[0]
    assert (len(row.token_ids), row.finish_reason) == (2, "length")
    assert row.text == loaded.tokenizer.decode(row.token_ids)


def test_an_ended_row_is_not_changed_by_rows_that_go_on(loaded, model_of):
    first = complete(model_of(loaded), [TEXTS[0]])[0].token_ids
    loaded.model.generation_config.eos_token_id = [first[2]]
    model = model_of(loaded)
    assert complete(model, TEXTS)[0] == complete(model, [TEXTS[0]])[0]


def test_non_finite_logits_spoil_their_own_row_only(loaded, model_of):
    model = model_of(loaded)
    before = complete(model, TEXTS)
    poisoned = model.encode(TEXTS[2]).token_ids[0]
    assert all(poisoned not in model.encode(t).token_ids for t in (TEXTS[0], TEXTS[1]))
    assert all(poisoned not in row.token_ids for row in before[:2])
    with torch.no_grad():
        loaded.model.lm_head.weight = torch.nn.Parameter(loaded.model.lm_head.weight.clone())
        loaded.model.model.embed_tokens.weight[poisoned] = float("nan")
    after = complete(model, TEXTS[:3])
    assert after[:2] == before[:2]
    assert after[2][:4] == ((), "", "none", "non-finite logits at new token 1")


def test_an_empty_prompt_without_a_first_token_is_an_error_of_its_row(loaded, model_of):
    model = model_of(loaded)
    empty, full = complete(model, ["", TEXTS[0]])
    assert "no tokens" in empty.error
    assert full == complete(model, [TEXTS[0]])[0]


def test_an_empty_prompt_starts_at_the_first_token_where_there_is_one(loaded, model_of):
    loaded.tokenizer.bos_token = "<|start|>"
    model = model_of(loaded)
    assert model.encode("").token_ids == (0,)
    assert complete(model, [""])[0].error == ""


def test_a_prompt_fits_exactly_up_to_the_window(loaded, model_of):
    model = model_of(loaded, new=12)
    short = "A" * (128 - 12)
    assert len(model.encode(short).token_ids) == 116
    assert model.encode(short).fits
    assert not model.encode(short + "A").fits


def test_a_prompt_that_does_not_fit_is_not_continued(loaded, model_of):
    ((_, row),) = model_of(loaded).complete([EncodedPrompt((2,) * 127, fits=False)], [0])
    assert "the model's window" in row.error
    assert row.token_ids == ()


def test_nothing_asked_is_nothing_said(loaded, model_of):
    assert list(model_of(loaded).complete([], [])) == []


def test_chat_needs_a_template(loaded, model_of):
    with pytest.raises(ConfigError, match=r'generation.template: "chat".*no chat template'):
        model_of(loaded, template="chat").encode("Hello")


def test_chat_is_one_user_message_up_to_the_answer(weights, tiny_chat_card, tmp_path, model_of):
    chat = load_model(tiny_chat_card, tmp_path, weights, "float32", "cpu")
    encoded = model_of(chat, template="chat").encode("Hello")
    text = chat.tokenizer.decode(encoded.token_ids)
    assert text == "<|start|>user\nHello<|end|>\n<|start|>assistant\n"


def test_a_template_that_reads_the_clock_says_the_same_each_day(loaded, model_of):
    loaded.tokenizer.chat_template = "{{ strftime_now('%d %b %Y') }}: {{ messages[0]['content'] }}"
    model = model_of(loaded, template="chat")
    assert loaded.tokenizer.decode(model.encode("Hi").token_ids) == "26 Jul 2024: Hi"


# --- the draw itself ---


def draw(logits, seeds, temperature=1.0, top_p=1.0, step=0):
    draws = SeededSampler(1, seeds, temperature, top_p)
    ids = torch.zeros((len(seeds), 1 + step), dtype=torch.long)
    return draws(ids, logits).argmax(-1).numpy()


@pytest.mark.parametrize("temperature", [0.5, 1.0, 2.0])
def test_draws_follow_the_softmax(temperature):
    logits, n = torch.tensor([2.0, 1.0, 0.0, -1.0]), 20_000
    drawn = draw(logits.expand(n, 4), range(n), temperature)
    expected = torch.softmax(logits / temperature, -1).numpy()
    error = 5 * np.sqrt(expected * (1 - expected) / n)
    assert (np.abs(np.bincount(drawn, minlength=4) / n - expected) < error).all()


def test_steps_of_one_row_are_independent():
    n = 4000
    pairs = [
        (draw(torch.zeros(1, 2), [s])[0], draw(torch.zeros(1, 2), [s], step=1)[0]) for s in range(n)
    ]
    same = sum(a == b for a, b in pairs) / n
    assert abs(same - 0.5) < 0.04


@settings(max_examples=50, deadline=None)
@given(
    st.lists(st.floats(-5, 5), min_size=2, max_size=8, unique=True),
    st.floats(0.01, 0.99),
)
def test_a_nucleus_is_the_smallest_set_with_enough_mass(logits, top_p):
    row = torch.tensor([logits], dtype=torch.float64)
    probability = row.softmax(-1)[0]
    kept = torch.isfinite(top_p_filter(row, top_p))[0]
    assert probability[kept].sum() >= top_p - 1e-12
    assert probability[kept].sum() - probability[kept].min() < top_p
    assert kept.all() or probability[kept].min() >= probability[~kept].max()


@settings(max_examples=100, deadline=None)
@given(
    st.lists(st.sampled_from([-5.0, -1.0, 0.0, 0.5, 3.0]), min_size=1, max_size=9),
    st.floats(0.01, 0.99),
    st.integers(1, 9),
)
def test_a_nucleus_is_the_same_however_few_tokens_are_looked_at_first(logits, top_p, most):
    rows = torch.tensor([logits, logits[::-1]], dtype=torch.float64)
    assert torch.equal(top_p_filter(rows, top_p, most), top_p_filter(rows, top_p, most=len(logits)))


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_a_broken_row_is_noted_with_its_first_step(bad):
    draws = SeededSampler(1, [1, 2], 1.0, 1.0)
    logits = torch.zeros(2, 3)
    draws(torch.zeros((2, 1)), logits)
    logits[1, 2] = bad
    draws(torch.zeros((2, 2)), logits)
    draws(torch.zeros((2, 3)), logits)
    assert draws.failed == {1: 1}


def test_a_masked_token_is_not_a_broken_row():
    draws = SeededSampler(1, [1], 0.0, 1.0)
    draws(torch.zeros((1, 1)), torch.tensor([[0.0, -torch.inf]]))
    assert draws.failed == {}
