"""An experiment that names repos of a hub on this machine."""

from __future__ import annotations

import json

import pytest
import yaml
from click.testing import CliRunner
from fake_hub import Repo, model, pointed_at, serving

from toxtrail.cli import cli

LLAMA = {
    "model_type": "llama", "num_hidden_layers": 32, "hidden_size": 4096,
    "intermediate_size": 11008, "num_attention_heads": 32, "vocab_size": 32000,
}  # fmt: skip


def params(**models):
    return {
        "prompts": {"seed": 1, "subsets": {
            "a": {"uri": "hf:datasets/org/prompts@main/p.jsonl", "n": 100, "column": "text"},
        }},
        "generation": {
            "max_new_tokens": 20, "temperature": 0.0, "top_p": 1.0, "samples": 1,
            "template": "none", "dtype": "float32", "seed": 1, "max_error_share": 0.0,
        },
        "scoring": {"primary": "j", "max_error_share": 0.0, "scorers": {"j": {
            "kind": "hf", "uri": "hf:org/judge", "head": "t", "golden": [],
            "golden_tolerance": 0.1,
        }}},
        "posterior": {"threshold": {"j": 0.5}, "rope_pp": 1.0, "level": 0.95, "prior": 0.5,
                      "draws": 1000, "seed": 1},
        "pooling": None,
        "models": {key: {"uri": uri} for key, uri in models.items()},
        "finetunes": {},
        "variants": {key: {"family": "f", "role": key} for key in models},
        "families": {"f": {"reference": next(iter(models)), "variants": list(models)}},
        "tracking": {"experiment": "t", "project": "lab-0000abcd"},
        "runtime": {"device": "cpu", "threads": 1, "processes": 1, "engine": "auto",
                    "batch_tokens": 512, "score_batch_size": 4, "checkpoint_steps": 2},
    }  # fmt: skip


@pytest.fixture
def hub(monkeypatch, tmp_path):
    with serving() as own:
        pointed_at(own, monkeypatch, tmp_path)
        monkeypatch.setenv("TOXTRAIL_CACHE", str(tmp_path / "cache"))
        own.datasets["org/prompts"] = Repo(files={"p.jsonl": b"{}"}, card={"license": "mit"})
        own.models["org/judge"] = model(license="mit")
        own.models["org/small"] = model(license="apache-2.0")
        big = Repo(files={"config.json": json.dumps(LLAMA).encode()}, parameters=6_738_415_616)
        big.sizes["model.safetensors"] = 13_476_831_232
        own.models["org/big"] = big
        yield own


@pytest.fixture
def written(tmp_path):
    def make(**models):
        path = tmp_path / "elsewhere" / "params.yaml"
        path.parent.mkdir(exist_ok=True)
        path.write_text(yaml.safe_dump(params(**models), sort_keys=False), "utf-8")
        return path

    return make


@pytest.fixture
def run():
    return _run


def _run(*arguments, code=0):
    done = CliRunner().invoke(cli, [str(one) for one in arguments])
    assert done.exit_code == code, done.output + str(done.exception)
    return done.output


@pytest.fixture
def tiny_judge():
    """Folder -> a random classifier of the words You, are and kind, saved there."""
    import torch
    from tokenizers import Tokenizer, models, pre_tokenizers, processors
    from transformers import (
        BertConfig,
        BertForSequenceClassification,
        PreTrainedTokenizerFast,
    )

    def save(folder):
        torch.manual_seed(2)
        words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "You", "are", "kind", "."]
        tokenizer = Tokenizer(models.WordLevel({w: i for i, w in enumerate(words)}, "[UNK]"))
        tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
        tokenizer.post_processor = processors.TemplateProcessing(
            "[CLS] $A [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
        )
        model = BertForSequenceClassification(
            BertConfig(
                vocab_size=len(words), hidden_size=16, num_hidden_layers=1, num_attention_heads=2,
                intermediate_size=16, max_position_embeddings=64, num_labels=2,
            )
        )  # fmt: skip
        model.save_pretrained(folder)
        PreTrainedTokenizerFast(
            tokenizer_object=tokenizer, pad_token="[PAD]", unk_token="[UNK]", cls_token="[CLS]",
            sep_token="[SEP]", model_max_length=64,
        ).save_pretrained(folder)  # fmt: skip

    return save


@pytest.fixture
def tiny_llama():
    """Folder -> a random Llama of one layer, saved there."""
    from tokenizers import Tokenizer, models
    from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

    def save(folder):
        words = {word: number for number, word in enumerate(["[PAD]", "[UNK]", "a", "b"])}
        LlamaForCausalLM(
            LlamaConfig(
                vocab_size=len(words), hidden_size=16, intermediate_size=16, num_hidden_layers=1,
                num_attention_heads=2, num_key_value_heads=2, max_position_embeddings=32,
            )
        ).save_pretrained(folder)  # fmt: skip
        PreTrainedTokenizerFast(
            tokenizer_object=Tokenizer(models.WordLevel(words, "[UNK]")), pad_token="[PAD]",
            unk_token="[UNK]",
        ).save_pretrained(folder)  # fmt: skip

    return save
