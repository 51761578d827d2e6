"""Detoxify: the scores of the package, from checkpoints that cannot run code."""

from __future__ import annotations

import hashlib
import os
from typing import NamedTuple

import pytest
import torch
import transformers
from tokenizers.pre_tokenizers import ByteLevel

from toxtrail.backends.assets import AssetStore
from toxtrail.backends.protocols import NoProgress
from toxtrail.backends.scorers.load import load_scorer
from toxtrail.config.scorer_kinds.base import ScorerConfig
from toxtrail.errors import BackendError

WORDS = ["you", "are", "kind", "silly", "goose", "the", "train"]
PIECES = [(f"\u2581{word}", -3.0) for word in WORDS] + [("\u2581", -4.0)]
LETTERS = [(chr(code), -5.0) for code in range(ord("a"), ord("z") + 1)]
CLASSES = ["toxic", "obscene", "identity_hate"]
TEXTS = [
    "", " ", "\n\t", "You are kind.", "you silly goose!", "YOU ARE THE TRAIN", "caf\u00e9",
    "\U0001f600 \u4f60\u597d", "\u202ereversed\u202c", "e\u0301 \u00e9", "<s> [SEP] </s> <pad>",
    "a\u0000b", "kind " * 90, "x" * 200,
]  # fmt: skip
LONG = "you are " * 400 + "silly goose"


def entries(*specials):
    return [(name, 0.0) for name in specials] + PIECES + LETTERS


def bert_tokenizer(**options):
    names = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *WORDS, "x", "##x", "."]
    vocab = {name: number for number, name in enumerate(names)}
    return transformers.BertTokenizer(vocab=vocab, **options)


def roberta_tokenizer(**options):
    names = ["<s>", "<pad>", "</s>", "<unk>", *sorted(ByteLevel.alphabet()), "<mask>"]
    vocab = {name: number for number, name in enumerate(names)}
    return transformers.RobertaTokenizer(vocab=vocab, merges=[], **options)


def xlm_roberta_tokenizer(**options):
    vocab = entries("<s>", "<pad>", "</s>", "<unk>")
    return transformers.XLMRobertaTokenizer(vocab=vocab, **options)


def albert_tokenizer(**options):
    vocab = entries("<pad>", "<unk>", "[CLS]", "[SEP]", "[MASK]")
    return transformers.AlbertTokenizer(vocab=vocab, **options)


ARCHITECTURES = {
    "Bert": (bert_tokenizer, {"max_position_embeddings": 512}),
    "Roberta": (roberta_tokenizer, {"max_position_embeddings": 514}),
    "XLMRoberta": (xlm_roberta_tokenizer, {"max_position_embeddings": 514}),
    "Albert": (albert_tokenizer, {"max_position_embeddings": 512, "embedding_size": 8}),
}
"""Architectures of the published checkpoints: original, unbiased, multilingual, the small ones."""


class Files(NamedTuple):
    checkpoint: object
    base: object


@pytest.fixture
def make(tmp_path):
    """Write a checkpoint as Detoxify publishes them, and its encoder's config and tokenizer as a
    repo has them: without the number of classes."""

    def write(name="Bert", args=(), **tensors):
        tokenizer, options = ARCHITECTURES[name]
        base = tmp_path / "base"
        made = tokenizer(model_max_length=512)
        made.save_pretrained(base)
        config = getattr(transformers, f"{name}Config")(
            vocab_size=len(made), hidden_size=16, intermediate_size=32, num_hidden_layers=2,
            num_attention_heads=2, initializer_range=0.8, pad_token_id=made.pad_token_id, **options,
        )  # fmt: skip
        config.save_pretrained(base)
        torch.manual_seed(1)
        config.num_labels = len(CLASSES)
        state = getattr(transformers, f"{name}ForSequenceClassification")(config).state_dict()
        arch = {
            "num_classes": len(CLASSES),
            "model_type": str(base),
            "model_name": f"{name}ForSequenceClassification",
            "tokenizer_name": f"{name}Tokenizer",
        }
        about = {
            "arch": {"type": name, "args": {**arch, **dict(args)}},
            "dataset": {"type": "Jigsaw", "args": {"classes": CLASSES}},
        }
        path = tmp_path / "model.ckpt"
        torch.save({"config": about, "state_dict": {**state, **tensors}}, path)
        return Files(path, base)

    return write


def ours(files, **changes):
    values = {
        "kind": "detoxify", "uri": f"file:{files.checkpoint}", "head": "toxicity", "golden": [],
        "base": {"uri": f"file:{files.base}"}, "golden_tolerance": 1e-4, **changes,
    }  # fmt: skip
    root = files.base.parent
    assets = AssetStore(root / "cache", root, NoProgress())
    return load_scorer(ScorerConfig.model_validate(values), assets, "cpu", 3)


def theirs(files):
    from detoxify import Detoxify

    return Detoxify(checkpoint=str(files.checkpoint))


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_scores_are_those_of_the_detoxify_package(make, name):
    files = make(name)
    package, scorer = theirs(files), ours(files)
    expected, scored = package.predict(TEXTS), scorer.score(TEXTS)
    assert set(expected) == set(scorer.heads) == {"toxicity", "obscene", "identity_attack"}
    for number, text in enumerate(TEXTS):
        alone = package.predict(text)
        for head in scorer.heads:
            assert scored[number].heads[head] == pytest.approx(expected[head][number], abs=1e-5)
            assert scored[number].heads[head] == pytest.approx(alone[head], abs=1e-5)
        assert scored[number].windows == 1


def test_the_package_scores_the_first_window_of_a_longer_text(make):
    files = make("Roberta")
    package, scorer = theirs(files), ours(files)
    (scored,) = scorer.score([LONG])
    first = package.tokenizer(LONG, truncation=True).input_ids
    windows, _ = scorer._windows([LONG])
    assert windows[0] == first
    assert len(windows) == scored.windows > 1
    for head, value in package.predict(LONG).items():
        assert scored.heads[head] >= value - 1e-5


def test_nothing_is_asked_of_the_network(make, monkeypatch):
    import socket

    asked = []
    monkeypatch.setattr(socket, "getaddrinfo", lambda *args, **_: asked.append(args))
    assert ours(make()).score(["you"])
    assert asked == []


def test_the_precision_in_the_encoders_config_does_not_round_the_weights(make):
    files = make()
    expected = ours(files).score(TEXTS)
    config = transformers.AutoConfig.from_pretrained(files.base)
    config.dtype = "bfloat16"
    config.save_pretrained(files.base)
    assert ours(files).score(TEXTS) == expected


def test_a_checkpoint_that_does_not_fit_its_encoder_is_refused(make):
    with pytest.raises(BackendError, match="strange"):
        ours(make(strange=torch.zeros(1)))
    with pytest.raises(BackendError, match="fit its encoder"):
        ours(make(**{"classifier.bias": torch.zeros(9)}))


def test_a_checkpoint_that_lacks_a_weight_is_refused(make):
    files = make()
    content = torch.load(files.checkpoint, weights_only=True)
    del content["state_dict"]["classifier.bias"]
    torch.save(content, files.checkpoint)
    with pytest.raises(BackendError, match=r"missing.*classifier\.bias"):
        ours(files)


def test_a_base_without_a_config_is_refused(make):
    files = make()
    (files.base / "config.json").unlink()
    with pytest.raises(BackendError, match="config.json.*`base`"):
        ours(files)


class Ran:
    """Leaves a file behind when it is unpickled."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return (os.mkdir, (str(self.path),))


def test_a_checkpoint_that_could_run_something_is_refused_pinned_or_not(make, tmp_path):
    files = make(strange=Ran(tmp_path / "ran"))
    for pin in (None, hashlib.sha256(files.checkpoint.read_bytes()).hexdigest()):
        with pytest.raises(BackendError, match="more than tensors"):
            ours(files, sha256=pin)
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize(
    ("content", "word"),
    [
        (b"", "empty"),
        (b"<html>Sign in</html>", "web page"),
        (b"version https://git-lfs.github.com/spec/v1\n", "git lfs pull"),
        (b"PK\x03\x04cut", "damaged"),
        (b"nothing of the kind", ""),
    ],
)
def test_a_checkpoint_that_is_none_is_named(make, content, word):
    files = make()
    files.checkpoint.write_bytes(content)
    with pytest.raises(BackendError, match=f"model.ckpt.*{word}"):
        ours(files)


@pytest.mark.parametrize(
    "changes",
    [
        {"model_name": "pipeline"},
        {"model_name": "BertModel"},
        {"tokenizer_name": "BertModel"},
        {"num_classes": 4},
        {"model_name": None},
    ],
)
def test_a_checkpoint_names_classes_of_the_right_kind_only(make, changes):
    with pytest.raises(BackendError, match="not a Detoxify checkpoint"):
        ours(make(args=changes))


def test_something_else_is_no_detoxify_checkpoint(make):
    files = make()
    torch.save({"weights": torch.zeros(1)}, files.checkpoint)
    with pytest.raises(BackendError, match="not a Detoxify checkpoint"):
        ours(files)
