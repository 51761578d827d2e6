"""An image-text model that is given a text alone computes what its text model computes."""

import pytest
import torch

from toxtrail.backends.huggingface.generation.generator import HuggingFaceModel
from toxtrail.backends.huggingface.weights.load import load_model
from toxtrail.backends.huggingface.weights.pretrained import (
    IMAGE_TEXT_TYPES,
    load_base,
    model_type_problem,
)
from toxtrail.backends.protocols import Decoding
from toxtrail.backends.silence import silence_libraries

TEXT = {
    "vocab_size": 320, "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2,
    "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 8, "initializer_range": 0.3,
    "max_position_embeddings": 128,
}  # fmt: skip
ROTARY = {"rope_type": "default", "mrope_section": [1, 1, 2], "rope_theta": 10000.0}
VISION = {
    "hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2,
    "num_heads": 2, "depth": 1, "patch_size": 2, "image_size": 8, "out_hidden_size": 32,
    "num_position_embeddings": 16, "embed_dim": 16, "head_dim": 8, "fullatt_block_indexes": [0],
}  # fmt: skip
TOKENS = {"image_token_id": 300, "image_token_index": 300, "video_token_id": 301,
          "vision_start_token_id": 302, "vision_end_token_id": 303}  # fmt: skip
EXPERTS = {"num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 16}
QUICK = ("mistral3", "qwen2_5_vl", "qwen3_vl", "internvl", "llava", "smolvlm")
TYPES = [
    kind if kind in QUICK else pytest.param(kind, marks=pytest.mark.slow)
    for kind in sorted(IMAGE_TEXT_TYPES)
]
PROMPTS = ("The ship sailed over the sea and", "A tree")


def save(folder, kind, tokenizer):
    from transformers import AutoModelForImageTextToText
    from transformers.models.auto.configuration_auto import CONFIG_MAPPING

    default = CONFIG_MAPPING[kind]()
    text = {**TEXT, "model_type": default.get_text_config(decoder=True).model_type}
    vision = {**VISION, "model_type": default.vision_config.model_type}
    if kind.startswith(("qwen", "glm")):
        text["rope_parameters"] = ROTARY
    if kind.endswith("moe"):
        text |= EXPERTS
    if kind.startswith("qwen3"):
        vision["deepstack_visual_indexes"] = [0]
    config = CONFIG_MAPPING[kind](text_config=text, vision_config=vision, **TOKENS)
    with silence_libraries(), torch.random.fork_rng():
        torch.manual_seed(5)
        model = AutoModelForImageTextToText.from_config(config).eval()
        model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return model


@pytest.mark.parametrize("kind", TYPES)
def test_a_text_alone_gives_the_logits_of_the_text_model(kind, tiny, weights, tmp_path):
    folder = tmp_path / "model"
    original = save(folder, kind, tiny.tokenizer())
    card = tiny.card(weights, folder)
    assert card.base.architecture == type(original).__name__
    loaded = load_model(card, tmp_path, weights, "float32", "cpu")
    ids = loaded.tokenizer(PROMPTS[0], return_tensors="pt").input_ids
    with torch.inference_mode():
        logits = loaded.model(input_ids=ids).logits
        assert torch.equal(logits, original(input_ids=ids).logits)
        hidden = original.get_decoder()(input_ids=ids)[0]
        assert torch.equal(logits, original.get_output_embeddings()(hidden))


@pytest.mark.parametrize("kind", TYPES)
def test_texts_of_unequal_length_are_continued_as_one_by_one(kind, tiny, tmp_path):
    tokenizer = tiny.tokenizer()
    save(tmp_path, kind, tokenizer)
    model = load_base(tmp_path, kind, "float32", "cpu")
    expected = []
    for text in PROMPTS:
        ids = tokenizer(text).input_ids
        for _ in range(4):
            with torch.inference_mode():
                ids = [*ids, int(model(input_ids=torch.tensor([ids])).logits[0, -1].argmax())]
        expected.append(tuple(ids[-4:]))
    generator = HuggingFaceModel(model, tokenizer, Decoding(4, 0.0, 1.0, "none"), 256)
    prompts = [generator.encode(text) for text in PROMPTS]
    rows = dict(generator.complete(prompts, [1, 2]))
    assert [rows[n].error for n in (0, 1)] == ["", ""]
    for n, tokens in enumerate(expected):
        end = tokens.index(1) if 1 in tokens else len(tokens)
        assert rows[n].token_ids == tokens[:end]


@pytest.mark.parametrize("kind", ["paligemma", "florence2", "blip", "voxtral"])
def test_another_multimodal_model_is_called_what_it_is(kind):
    problem = model_type_problem(kind, has_code=False)
    assert "multimodal" in problem
    assert "Use the text model" in problem
