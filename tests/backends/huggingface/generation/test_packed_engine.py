"""Many continuations at once, none of which can tell that it has neighbours.

Tiny random models of the architectures that people fine-tune: these tests are about arithmetic.
"""

from __future__ import annotations

import random

import pytest
import torch
import transformers

from toxtrail.backends.compute.onednn_linear import OneDnnLinears
from toxtrail.backends.huggingface.generation import packed_engine as engines
from toxtrail.backends.huggingface.generation import packed_forward
from toxtrail.backends.huggingface.generation.generate_engine import GenerateEngine
from toxtrail.backends.huggingface.generation.generator import HuggingFaceModel
from toxtrail.backends.huggingface.generation.packed_engine import EngineRequest, PackedEngine
from toxtrail.backends.huggingface.generation.packed_equivalence import (
    longest_packed,
    packed_mismatch,
)
from toxtrail.backends.protocols import Decoding, EncodedPrompt
from toxtrail.backends.silence import silence_libraries
from toxtrail.errors import BackendError

pytestmark = pytest.mark.slow

VOCABULARY = 320
COMMON = {
    "vocab_size": VOCABULARY, "hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 2,
    "num_attention_heads": 4, "num_key_value_heads": 2, "max_position_embeddings": 256,
    "initializer_range": 0.2, "bos_token_id": 0, "eos_token_id": 1, "pad_token_id": 0,
}  # fmt: skip
ARCHITECTURES = {
    "Llama": {},
    "Mistral": {"sliding_window": 6},
    "Qwen2": {},
    "Qwen3": {"head_dim": 16},
    "Gemma": {"head_dim": 16},
    "Gemma2": {"head_dim": 16, "sliding_window": 6},
    "Phi3": {"sliding_window": 6},
    "GPTNeoX": {},
}


def build(name, **changes):
    config = getattr(transformers, f"{name}Config")
    settings = {**COMMON, **ARCHITECTURES.get(name, {}), **changes}
    with torch.random.fork_rng(), silence_libraries():
        torch.manual_seed(3)
        return getattr(transformers, f"{name}ForCausalLM")(config(**settings)).eval()


def asks(n, seed=1, longest=20):
    rng = random.Random(seed)
    return [
        EngineRequest(
            i, tuple(rng.randrange(2, VOCABULARY) for _ in range(rng.randint(1, longest))), 100 + i
        )
        for i in range(n)
    ]


def run(model, asked, budget=1000, temperature=0.0, new=12, stops=(1,), tell=lambda text: None):
    decoding = Decoding(new, temperature, 1.0, "none")
    with packed_forward.packed_attention(model), OneDnnLinears(model).used():
        found = {
            answer.number: answer.tokens
            for answer in PackedEngine(model, stops, decoding, budget, tell).run(asked)
        }
    assert found.keys() == {ask.number for ask in asked}
    return found


def plain(model, asked, budget=1, temperature=0.0, new=12, stops=(1,)):
    decoding = Decoding(new, temperature, 1.0, "none")
    made = GenerateEngine(model, 0, stops, decoding, budget, lambda text: None).run(asked)
    return {answer.number: answer.tokens for answer in made}


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_every_architecture_says_what_its_own_generate_says_alone(name):
    model, asked = build(name), asks(12)
    assert run(model, asked) == plain(model, asked)
    assert run(model, asked, temperature=1.0) == plain(model, asked, temperature=1.0)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("name", ["Llama", "Gemma2", "Phi3"])
def test_a_row_has_the_same_bits_whatever_else_is_in_the_run(name, dtype, monkeypatch):
    model, asked = build(name).to(getattr(torch, dtype)), asks(40)
    seen = {}

    def watched(logits, seeds, steps, temperature, top_p):
        for row, seed, step in zip(logits, seeds, steps, strict=True):
            seen.setdefault((seed, step), []).append(row.float().clone())
        return choose(logits, seeds, steps, temperature, top_p)

    choose = engines.sample_next_tokens
    monkeypatch.setattr(engines, "sample_next_tokens", watched)
    expected = run(model, asked)
    for part, budget in ((asked, 100), (asked[::3], 1000), (asked[5:6], 1000), (asked[::-1], 300)):
        found = run(model, part, budget)
        assert found == {ask.number: expected[ask.number] for ask in part}
    for rows in seen.values():
        assert len(rows) >= 3
        assert all(torch.equal(row, rows[0]) for row in rows)


POISON = 7
"""A token on which the model below overflows."""


@pytest.fixture(params=["Llama", "Gemma2"])
def overflowing(request):
    """Numbers that are not finite, wherever one token is read."""
    model = build(request.param, tie_word_embeddings=False)
    with torch.no_grad():
        model.get_input_embeddings().weight[POISON] = torch.nan
    return model


def answers_of(made):
    """What a row is made of: a failed one keeps no token."""
    return {a.number: a.failed_at if a.failed_at is not None else a.tokens for a in made}


@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_a_row_that_overflows_fails_alone(overflowing, temperature):
    asked = [
        ask._replace(tokens=(*ask.tokens, POISON, 5)) if ask.number % 5 == 0 else ask
        for ask in asks(25, longest=12)
    ]
    decoding = Decoding(6, temperature, 1.0, "none")
    alone = GenerateEngine(overflowing, 0, (1,), decoding, 1, lambda text: None)
    expected = answers_of(alone.run(asked))
    for budget in (48, 128, 4000):
        with packed_forward.packed_attention(overflowing), OneDnnLinears(overflowing).used():
            engine = PackedEngine(overflowing, (1,), decoding, budget, lambda text: None)
            assert answers_of(engine.run(asked)) == expected
    failed = {number for number, answer in expected.items() if isinstance(answer, int)}
    assert set(range(0, 25, 5)) <= failed < set(range(25))


def test_samples_of_a_prompt_share_its_beginning_and_draw_for_themselves(monkeypatch):
    model, tokens = build("Llama"), asks(1, longest=9)[0].tokens
    read = []
    forward = engines.forward

    def counted(model, step, ids):
        read.extend(start.tokens for start in step.starts)
        return forward(model, step, ids)

    monkeypatch.setattr(engines, "forward", counted)
    samples = [EngineRequest(i, tokens, 7 + i) for i in range(8)]
    found = run(model, samples, temperature=1.0)
    assert read == [tokens]
    assert len(set(found.values())) > 1
    for ask in samples:
        assert run(model, [ask], temperature=1.0)[ask.number] == found[ask.number]


def test_more_samples_than_slots_are_all_made():
    model, tokens = build("Llama"), (5, 6, 7)
    samples = [EngineRequest(i, tokens, i) for i in range(9)]
    assert run(model, samples, 32, temperature=1.0) == run(model, samples, temperature=1.0)


def test_a_hundred_copies_of_a_greedy_prompt_are_continued_once(monkeypatch):
    model, made = build("Llama"), []
    forward = engines.forward
    monkeypatch.setattr(
        engines,
        "forward",
        lambda m, step, ids: made.append(len(step.last)) or forward(m, step, ids),
    )
    found = run(model, [EngineRequest(i, (4, 5, 6), i) for i in range(100)], stops=())
    assert len(set(found.values())) == 1
    assert made == [1] * 12


def test_a_batch_that_does_not_fit_is_halved_said_so_and_nothing_is_lost(monkeypatch):
    model, asked, told = build("Llama"), asks(30), []
    expected = run(model, asked)
    forward = engines.forward

    def full(model, step, ids):
        if len(step.last) > 5:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return forward(model, step, ids)

    monkeypatch.setattr(engines, "forward", full)
    assert run(model, asked, tell=told.append) == expected
    assert any("at a time" in text for text in told)


def test_memory_that_holds_not_even_one_is_an_error(monkeypatch):
    def full(model, step, ids):
        raise RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate")

    monkeypatch.setattr(engines, "forward", full)
    with pytest.raises(BackendError, match="memory of cpu"):
        run(build("Llama"), asks(3))


def test_other_failures_are_not_taken_for_a_lack_of_memory(monkeypatch):
    def wrong(model, step, ids):
        raise RuntimeError("a bug")

    monkeypatch.setattr(engines, "forward", wrong)
    with pytest.raises(RuntimeError, match="a bug"):
        run(build("Llama"), asks(3))


@pytest.mark.parametrize("name", ["Llama", "Gemma2", "Phi3", "GPTNeoX"])
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_the_engine_is_proved_on_the_loaded_weights(tiny, name, dtype):
    model = build(name).to(getattr(torch, dtype))
    before = model.config._attn_implementation
    assert packed_mismatch(model, tiny.tokenizer(), OneDnnLinears(model)) == ""
    assert model.config._attn_implementation == before


def test_a_model_that_attends_otherwise_is_refused_and_generated_plainly(tiny):
    with torch.random.fork_rng(), silence_libraries():
        torch.manual_seed(1)
        config = transformers.BloomConfig(
            vocab_size=VOCABULARY, hidden_size=32, n_layer=2, n_head=4, initializer_range=0.3
        )
        bloom = transformers.BloomForCausalLM(config).eval()
    told = []
    decoding = Decoding(4, 0.0, 1.0, "none")
    made = HuggingFaceModel(bloom, tiny.tokenizer(), decoding, 100, "auto", told.append)
    assert made.engine == "plain"
    assert "packed engine" in told[0]
    assert len(list(made.complete([EncodedPrompt((5, 6), fits=True)], [0]))) == 1
    with pytest.raises(BackendError, match=r"runtime.engine: packed"):
        HuggingFaceModel(bloom, tiny.tokenizer(), decoding, 100, "packed")


def test_a_wrong_attention_is_noticed(tiny, monkeypatch):
    def forgetful(layer, query, step, scale, softcap, bias):
        return query * 0

    monkeypatch.setattr(packed_forward, "_decode_attention", forgetful)
    model = build("Llama")
    assert "logits differ" in packed_mismatch(model, tiny.tokenizer(), OneDnnLinears(model))


def test_a_wrong_product_is_noticed(tiny):
    model = build("Llama")
    linears = OneDnnLinears(model)
    with linears.used():
        for prepacked in linears._prepacked.values():
            prepacked.copy.mul_(1.5)
    assert "logits differ" in packed_mismatch(model, tiny.tokenizer(), linears)


def test_long_texts_of_models_whose_positions_depend_on_the_batch_are_made_plainly():
    rope = {
        "rope_type": "longrope", "original_max_position_embeddings": 24, "rope_theta": 10000.0,
        "short_factor": [1.0] * 8, "long_factor": [4.0] * 8,
    }  # fmt: skip
    model = build("Phi3", rope_parameters=rope, original_max_position_embeddings=24)
    assert longest_packed(model) == 24
    assert longest_packed(build("Phi3")) is None
