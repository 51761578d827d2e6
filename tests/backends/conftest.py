"""Tiny random models with a tiny tokenizer, and assets that serve local folders: plumbing only."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from toxtrail.backends.protocols import Asset, NoProgress
from toxtrail.config.schema import FinetuneConfig
from toxtrail.provenance.identity import Adapter, ModelIdentity, hash_tree, tree_sha256

TEXT = (
    "The ship sailed over the sea and the crew sang songs of home. A tree grows in the garden, and "
    "birds build nests in it. What is the capital of France? Paris is the capital of France. "
) * 3
CHAT_TEMPLATE = (
    "{% for m in messages %}<|start|>{{ m['role'] }}\n{{ m['content'] }}<|end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|start|>assistant\n{% endif %}"
)
TARGETS = ["q_proj", "v_proj", "down_proj"]
README = "---\nlicense: apache-2.0\ntags: [tiny]\n---\nRandom weights.\n"


class FolderAssets:
    """Serves `file:` addresses as they lie there, without looking at the pin."""

    def fetch(self, uri: str, sha256: str | None) -> Asset:
        path = Path(uri.removeprefix("file:"))
        if path.is_file():
            files = hash_tree(path.parent, [path])
            return Asset(uri, path, files[0].sha256, files[0].sha256, files)
        files = hash_tree(path, [file for file in path.rglob("*") if file.is_file()])
        return Asset(uri, path, tree_sha256(files), tree_sha256(files), files)


def build_tokenizer() -> Any:
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
    from transformers import PreTrainedTokenizerFast

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.post_processor = processors.ByteLevel(trim_offsets=False)
    trainer = trainers.BpeTrainer(
        vocab_size=320,
        special_tokens=["<|start|>", "<|end|>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator([TEXT], trainer)
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token="<|end|>")


def build_model(vocabulary: int, **changes: object) -> Any:
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    settings = {
        "vocab_size": vocabulary, "hidden_size": 32, "intermediate_size": 64,
        "num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2,
        "max_position_embeddings": 128, "tie_word_embeddings": True, "initializer_range": 0.3,
        "bos_token_id": 0, "eos_token_id": 1, "pad_token_id": None,
    }  # fmt: skip
    with torch.random.fork_rng():
        torch.manual_seed(5)
        return LlamaForCausalLM(LlamaConfig(**{**settings, **changes}))


def save_model(folder: Path, tokenizer: Any, **changes: object) -> Path:
    build_model(len(tokenizer), **changes).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    (folder / "README.md").write_text(README, encoding="utf-8")
    return folder


@pytest.fixture(scope="session")
def tiny_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A base model: no chat template, no BOS, no pad token."""
    return save_model(tmp_path_factory.mktemp("weights") / "tiny", build_tokenizer())


@pytest.fixture(scope="session")
def tiny_chat_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same with a chat template."""
    tokenizer = build_tokenizer()
    tokenizer.chat_template = CHAT_TEMPLATE
    return save_model(tmp_path_factory.mktemp("weights") / "tiny-chat", tokenizer)


@pytest.fixture
def copy_of(tmp_path: Path) -> Callable[[Path, str], Path]:
    """Copies a folder, so that a test may damage it."""

    def copied(folder: Path, name: str) -> Path:
        return Path(shutil.copytree(folder, tmp_path / name))

    return copied


@pytest.fixture
def weights(tmp_path: Path) -> Any:
    from toxtrail.backends.huggingface.weights.resolve import HuggingFaceWeights

    return HuggingFaceWeights(FolderAssets(), tmp_path / "cache", NoProgress())


@pytest.fixture
def tiny_card(weights: Any, tiny_folder: Path) -> ModelIdentity:
    return card_of(weights, tiny_folder)


@pytest.fixture
def tiny_chat_card(weights: Any, tiny_chat_folder: Path) -> ModelIdentity:
    return card_of(weights, tiny_chat_folder)


def card_of(weights: Any, folder: Path) -> ModelIdentity:
    return ModelIdentity(key="tiny", base=weights.describe(f"file:{folder}", None), adapters=())


def adapter_card(key: str, folder: Path, uri: str | None) -> Adapter:
    files = hash_tree(folder, list(folder.iterdir()))
    return Adapter(
        key=key, uri=uri, resolved=None, sha256=tree_sha256(files), files=files, training=None
    )


def save_adapter(folder: Path, base: Path, seed: int, **changes: object) -> Path:
    """A random LoRA adapter, as peft's users publish one."""
    import torch
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM

    from toxtrail.backends.silence import silence_libraries

    settings = {"r": 4, "lora_alpha": 8, "target_modules": TARGETS, "task_type": "CAUSAL_LM"}
    with silence_libraries(), torch.random.fork_rng():
        torch.manual_seed(seed)
        base_model = AutoModelForCausalLM.from_pretrained(base, local_files_only=True)
        model = get_peft_model(base_model, LoraConfig(**{**settings, **changes}))
        for name, weight in model.named_parameters():
            if "lora_B" in name:
                torch.nn.init.normal_(weight, std=0.3)
        model.save_pretrained(folder)
    (folder / "README.md").unlink(missing_ok=True)
    return folder


@pytest.fixture
def tiny_adapter(tmp_path: Path, tiny_folder: Path) -> Path:
    return save_adapter(tmp_path / "adapter", tiny_folder, seed=1)


def recipe(**changes: object) -> FinetuneConfig:
    """A fine-tune of a few steps on the tiny model."""
    values: dict[str, Any] = {
        "parent": "tiny", "data": {"uri": "file:data.jsonl"}, "loss_on": "response",
        "template": "Say: {instruction}\nAnswer: {response}", "context_template": None,
        "lora": {"r": 4, "alpha": 8, "dropout": 0.1, "bias": "none", "targets": TARGETS},
        "max_steps": 6, "batch_size": 2, "accumulation": 2, "max_length": 64,
        "learning_rate": 0.01, "schedule": "linear", "warmup_steps": 1, "weight_decay": 0.01,
        "optimizer": "adamw_torch", "base_precision": "float32", "seed": 3,
    }  # fmt: skip
    return FinetuneConfig(**json.loads(json.dumps({**values, **changes})))


@pytest.fixture
def tiny() -> SimpleNamespace:
    """The makers above, for tests that need another one."""
    return SimpleNamespace(
        adapter_card=adapter_card, assets=FolderAssets, build_model=build_model, card=card_of,
        recipe=recipe, save_adapter=save_adapter, save_model=save_model, tokenizer=build_tokenizer,
        chat_template=CHAT_TEMPLATE, targets=TARGETS,
    )  # fmt: skip
