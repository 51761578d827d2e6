"""Write tiny random assets and the params.yaml of an experiment with them. Run as a script."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import torch
import yaml
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import (
    BertConfig,
    BertForSequenceClassification,
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedTokenizerFast,
)

WORDS = [f"w{i}" for i in range(80)] + [
    "you",
    "are",
    "a",
    "kind",
    "silly",
    "goose",
    "tree",
    "sky",
    "the",
]
SPECIAL = ["<pad>", "<eos>", "<unk>", "[CLS]", "[SEP]"]


def tokenizer() -> PreTrainedTokenizerFast:
    vocabulary = {word: i for i, word in enumerate([*SPECIAL, *WORDS])}
    inner = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    inner.pre_tokenizer = pre_tokenizers.Whitespace()
    return PreTrainedTokenizerFast(
        tokenizer_object=inner,
        pad_token="<pad>",
        eos_token="<eos>",
        unk_token="<unk>",
        cls_token="[CLS]",
        sep_token="[SEP]",
    )


def write(folder: Path, hidden: int = 32, prompts: int = 12) -> None:
    """Write the files.

    Args:
        hidden: size of the language model's hidden states, 4 times the size of a head.
        prompts: number of prompts in each of two files.
    """
    torch.manual_seed(5)
    size = len(SPECIAL) + len(WORDS)
    words = tokenizer()
    model = LlamaForCausalLM(
        LlamaConfig(
            vocab_size=size,
            hidden_size=hidden,
            intermediate_size=2 * hidden,
            num_hidden_layers=2,
            num_attention_heads=4,
            num_key_value_heads=2,
            max_position_embeddings=128,
            pad_token_id=0,
            eos_token_id=1,
            bos_token_id=None,
            initializer_range=0.3,
        )
    )
    judge = BertForSequenceClassification(
        BertConfig(
            vocab_size=size,
            hidden_size=32,
            intermediate_size=64,
            num_hidden_layers=2,
            num_attention_heads=4,
            max_position_embeddings=128,
            num_labels=2,
            pad_token_id=0,
            initializer_range=0.5,
            id2label={0: "clean", 1: "toxic"},
            label2id={"clean": 0, "toxic": 1},
            problem_type="single_label_classification",
        )
    )
    for name, network in (("model", model), ("judge", judge)):
        network.save_pretrained(folder / name)
        words.save_pretrained(folder / name)
    for name, n, seed in (("one", prompts, 1), ("two", prompts - 2, 2)):
        lines = [" ".join(pick(6, 100 * seed + i)) for i in range(n)]
        (folder / f"{name}.txt").write_text("\n".join(lines) + "\n", encoding="utf-8")
    pairs = [
        {"instruction": " ".join(pick(4, 900 + i)), "response": " ".join(pick(6, 990 + i))}
        for i in range(24)
    ]
    lines = [json.dumps(pair) + "\n" for pair in pairs]
    (folder / "pairs.jsonl").write_text("".join(lines), encoding="utf-8")
    (folder / "params.yaml").write_text(yaml.safe_dump(params(), sort_keys=False), "utf-8")


def pick(n: int, seed: int) -> list[str]:
    order = torch.randperm(len(WORDS), generator=torch.Generator().manual_seed(seed))
    return [WORDS[i] for i in order[:n]]


def params() -> dict:
    subset = {"n": 8}
    finetune = {
        "parent": "base",
        "data": {"uri": "file:assets/pairs.jsonl"},
        "template": "{instruction} {response}",
        "loss_on": "response",
        "lora": {
            "r": 4,
            "alpha": 8,
            "dropout": 0.0,
            "bias": "none",
            "targets": ["q_proj", "v_proj"],
        },
        "max_steps": 6,
        "batch_size": 4,
        "accumulation": 1,
        "max_length": 32,
        "learning_rate": 0.05,
        "schedule": "constant",
        "warmup_steps": 0,
        "weight_decay": 0.0,
        "optimizer": "adamw_torch",
        "base_precision": "float32",
        "seed": 3,
    }
    return {
        "prompts": {
            "seed": 1,
            "subsets": {
                "one": {"uri": "file:assets/one.txt", **subset},
                "two": {"uri": "file:assets/two.txt", **subset},
            },
        },
        "generation": {
            "max_new_tokens": 6,
            "temperature": 0.0,
            "top_p": 1.0,
            "samples": 1,
            "template": "none",
            "dtype": "float32",
            "seed": 7,
            "max_error_share": 0.0,
        },
        "scoring": {
            "primary": "judge",
            "max_error_share": 0.0,
            "scorers": {
                "judge": {
                    "kind": "hf",
                    "uri": "file:assets/judge",
                    "head": "toxic",
                    "golden": [],
                    "golden_tolerance": 0.001,
                }
            },
        },
        "posterior": {
            "threshold": {"judge": 0.5},
            "rope_pp": 1.0,
            "level": 0.95,
            "prior": 0.5,
            "draws": 2000,
            "seed": 11,
        },
        "pooling": None,
        "models": {"base": {"uri": "file:assets/model"}},
        "finetunes": {"tuned": finetune},
        "variants": {
            "base": {"family": "tiny", "role": "base"},
            "tuned": {"family": "tiny", "role": "tuned", "parent": "base"},
        },
        "families": {"tiny": {"reference": "base", "variants": ["base", "tuned"]}},
        "tracking": {"experiment": "toxtrail", "project": "lab-0000abcd"},
        "runtime": {
            "device": "cpu",
            "threads": 1,
            "processes": 1,
            "engine": "auto",
            "batch_tokens": 64,
            "score_batch_size": 4,
            "checkpoint_steps": 2,
        },
    }


if __name__ == "__main__":
    write(Path(sys.argv[1]), *map(int, sys.argv[2:]))
