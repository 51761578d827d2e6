"""Models, adapters, scorers and data like those of the paper preset, but tiny and random.

A model has the architecture of the one it replaces; its outputs are meaningless.
"""

from __future__ import annotations

import hashlib
import json
import random
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from transformers import PreTrainedConfig, PreTrainedTokenizerFast

SPECIAL = ["<pad>", "<eos>", "<unk>", "[CLS]", "[SEP]", "user", "model"]
WORDS = """
    the a you we they are were is was it that this of in on by with and but so river mill tree sky
    goose stone bridge house road ship lamp letter night day winter kind silly old new small tall
    green quiet went came said saw made found kept gave took never always often still here there
""".split()  # noqa: SIM905  a list of 57 quoted words reads worse
CHAT = (
    "{% for message in messages %}{{ message['role'] }} {{ message['content'] }} <eos> {% endfor %}"
    "{% if add_generation_prompt %}model {% endif %}"
)
SIZE: dict[str, Any] = {
    "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4,
    "max_position_embeddings": 256, "pad_token_id": 0, "eos_token_id": 1, "bos_token_id": None,
    "initializer_range": 0.3,
}  # fmt: skip
ARCHITECTURES = (
    ("^unsloth/Phi-3-", "Mistral"),
    ("^unsloth/Phi-3.5-", "Llama"),
    ("/Phi-3", "Phi3"),
    ("(?i)llama", "Llama"),
    ("/gemma-2-", "Gemma2"),
    ("/gemma-", "Gemma"),
    ("/SmolLM2", "Llama"),
)
"""Repo name -> architecture, the first that matches."""

PERSPECTIVE = (
    "profanity", "sexually_explicit", "identity_attack", "flirtation", "threat", "insult",
    "severe_toxicity", "toxicity",
)  # fmt: skip
DETOXIFY = [
    "toxicity", "severe_toxicity", "obscene", "identity_attack", "insult", "threat",
    "sexual_explicit",
]  # fmt: skip


def seed_of(name: str) -> int:
    return int.from_bytes(hashlib.sha256(name.encode()).digest()[:4], "big")


def architecture(repo: str) -> str:
    """Return the architecture of the model in this repository.

    Raises:
        ValueError: the repository is not in the list above.
    """
    found = next((kind for pattern, kind in ARCHITECTURES if re.search(pattern, repo)), None)
    if found is None:
        raise ValueError(f"{repo}: add its architecture to ARCHITECTURES in {__file__}")
    return found


def tokenizer(chat: bool) -> PreTrainedTokenizerFast:
    """Return a tokenizer with one token per word."""
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    vocabulary = {word: place for place, word in enumerate([*SPECIAL, *WORDS])}
    inner = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    inner.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    made = PreTrainedTokenizerFast(
        tokenizer_object=inner, pad_token="<pad>", eos_token="<eos>", unk_token="<unk>",
        cls_token="[CLS]", sep_token="[SEP]",
    )  # fmt: skip
    if chat:
        made.chat_template = CHAT
    return made


def config_of(kind: str) -> PreTrainedConfig:
    """Return a tiny configuration of this architecture."""
    import transformers

    own: dict[str, Any] = {"vocab_size": len(SPECIAL) + len(WORDS), **SIZE}
    heads = {"num_key_value_heads": 4 if kind == "Phi3" else 2}
    if kind in ("Gemma", "Gemma2"):
        heads |= {"num_key_value_heads": 1, "head_dim": 8}
    if kind == "Gemma2":
        heads |= {"query_pre_attn_scalar": 8, "sliding_window": 64}
    made: PreTrainedConfig = getattr(transformers, f"{kind}Config")(**own, **heads)
    return made


def write_model(repo: str, chat: bool, folder: Path) -> None:
    """Write random weights, different for each repository."""
    import torch
    from transformers import AutoModelForCausalLM

    torch.manual_seed(seed_of(repo))
    AutoModelForCausalLM.from_config(config_of(architecture(repo))).save_pretrained(folder)
    tokenizer(chat).save_pretrained(folder)


def write_adapter(repo: str, base: str, folder: Path) -> None:
    """Write a LoRA adapter that changes the base's outputs, on the same layers as the paper's."""
    import torch
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM

    torch.manual_seed(seed_of(repo))
    model = AutoModelForCausalLM.from_config(config_of(architecture(base)))
    targets = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
    tuned = get_peft_model(model, LoraConfig(r=4, lora_alpha=4, target_modules=targets))
    for name, weight in tuned.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(weight, std=0.3)
    tuned.save_pretrained(folder)


def _roberta(**more: Any) -> PreTrainedConfig:
    from transformers import RobertaConfig

    own = {**SIZE, "vocab_size": len(SPECIAL) + len(WORDS), "initializer_range": 0.5, **more}
    return RobertaConfig(**own)


def write_classifier(head: str, folder: Path) -> None:
    """Write a sequence classifier with two labels, `head` the second."""
    import torch
    from transformers import RobertaForSequenceClassification

    torch.manual_seed(seed_of(head))
    labels = {0: f"not{head}", 1: head}
    config = _roberta(id2label=labels, label2id={name: place for place, name in labels.items()})
    RobertaForSequenceClassification(config).save_pretrained(folder)
    tokenizer(chat=False).save_pretrained(folder)


def write_detoxify(checkpoint: Path, base: Path) -> None:
    """Write a checkpoint in Detoxify's format, and its encoder's config and tokenizer."""
    import torch
    from transformers import RobertaForSequenceClassification

    torch.manual_seed(seed_of("detoxify"))
    config = _roberta(num_labels=len(DETOXIFY))
    config.save_pretrained(base)
    tokenizer(chat=False).save_pretrained(base)
    arch = {
        "num_classes": len(DETOXIFY), "model_type": "roberta-base",
        "model_name": "RobertaForSequenceClassification",
        "tokenizer_name": "PreTrainedTokenizerFast",
    }  # fmt: skip
    about = {"arch": {"args": arch}, "dataset": {"args": {"classes": DETOXIFY}}}
    weights = RobertaForSequenceClassification(config).state_dict()
    torch.save({"config": about, "state_dict": weights}, checkpoint)


def sentence(draw: random.Random, words: int) -> str:
    return " ".join(draw.choice(WORDS) for _ in range(words))


def write_source(name: str, path: Path) -> None:
    """Write a small file with the format of the data set, chosen by its name."""
    draw = random.Random(seed_of(name))
    if name.endswith("prompts.jsonl"):
        rows: list[dict[str, Any]] = [_toxicity_prompt(draw) for _ in range(800)]
    elif "dolly" in name:
        rows = [_instruction(draw) for _ in range(48)]
    else:
        group = Path(name).stem
        rows = [{"prompt": sentence(draw, 9), "bias_type": group} for _ in range(40)]
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix == ".json":
        path.write_text(json.dumps(rows), encoding="utf-8")
    else:
        path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")


def _toxicity_prompt(draw: random.Random) -> dict[str, Any]:
    """Return a row like RealToxicityPrompts': some scores are null."""
    scores = {name: draw.random() if draw.random() > 0.02 else None for name in PERSPECTIVE}
    both = {part: {"text": sentence(draw, 8), **scores} for part in ("prompt", "continuation")}
    place = draw.randrange(1000)
    return {"filename": "0.txt", "begin": place, "end": place + 99,
            "challenging": draw.random() < 0.1, **both}  # fmt: skip


def _instruction(draw: random.Random) -> dict[str, str]:
    """Return a row like Dolly's."""
    context = sentence(draw, 12) if draw.random() < 0.3 else ""
    return {"instruction": sentence(draw, 6), "context": context, "response": sentence(draw, 10),
            "category": "open_qa"}  # fmt: skip
