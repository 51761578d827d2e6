"""Scorers: the right one, the whole text, and the same score in any company."""

from __future__ import annotations

import json
import os
import pickle
import re
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from transformers import BertConfig, BertForSequenceClassification, PreTrainedTokenizerFast

from toxtrail.backends.assets import AssetStore, default_cache
from toxtrail.backends.compute.onednn_linear import OneDnnLinears
from toxtrail.backends.protocols import NoProgress
from toxtrail.backends.scorers.jigsaw_bilstm import read_vocabulary
from toxtrail.backends.scorers.load import load_scorer
from toxtrail.backends.scorers.windows import split_windows
from toxtrail.config.load import load_config
from toxtrail.config.scorer_kinds.base import ScorerConfig
from toxtrail.errors import BackendError, ConfigError
from toxtrail.provenance.identity import hash_tree, tree_sha256

pytestmark = pytest.mark.slow

WHEEL = "pypi:tox-block==0.1.2/"
TEXTS = [
    "You are kind.",
    "You silly goose!",
    "The train leaves at nine.",
    "shut up",
    "a " * 300,
    " ",
]


@given(st.lists(st.integers(), max_size=60), st.integers(1, 20), st.data())
def test_windows_hold_every_token_and_share_what_they_should(tokens, size, data):
    overlap = data.draw(st.integers(0, size - 1))
    windows = split_windows(tokens, size, overlap)
    rebuilt = list(windows[0])
    for window in windows[1:]:
        assert list(window[:overlap]) == rebuilt[len(rebuilt) - overlap :]
        rebuilt += window[overlap:]
    assert rebuilt == tokens
    assert all(len(window) <= size for window in windows)


# --- the embedded BiLSTM --------------------------------------------------------------------------


@pytest.fixture(scope="module")
def assets(tmp_path_factory):
    return AssetStore(default_cache(), tmp_path_factory.mktemp("root"), NoProgress())


@pytest.fixture(scope="module")
def pinned():
    root = Path(__file__).resolve().parents[3]
    return load_config(root / "params.yaml").scoring.scorers["jigsaw-bilstm"]


@pytest.fixture(scope="module")
def bilstm(pinned, assets):
    return load_scorer(pinned, assets, "cpu", 8)


def test_the_port_reproduces_the_scores_that_the_package_publishes(bilstm, assets):
    """Texts and scores are read from the wheel itself; they are min-max rescaled there."""
    page = assets.fetch(f"{WHEEL}tox_block-0.1.2.dist-info/METADATA", None).path.read_text("utf-8")
    source = assets.fetch(f"{WHEEL}tox_block/config/config.py", None).path.read_text("utf-8")
    scale = {
        name: (float(low), float(high))
        for name, low, high in re.findall(r'"(\w+)": \(([\d.]+), ([\d.]+)\)', source)
    }
    found = re.findall(r"\{'text': (?:'([^']+)'|\"([^\"]+)\"),(.+?)\}", page, re.DOTALL)
    found += [
        (a, b, rest)
        for a, b, rest in re.findall(
            r"\d: \{'text': (?:'([^']+)'|\"([^\"]+)\"),(.+?)\}", page, re.DOTALL
        )
    ]
    assert len(found) >= 4
    for one, other, rest in found:
        published = {n: float(v) for n, v in re.findall(r"'(\w+)': ([\d.e-]+)", rest)}
        (scored,) = bilstm.score([one or other])
        for head, value in published.items():
            low, high = scale[head]
            assert abs((scored.heads[head] - low) / (high - low)) == pytest.approx(value, abs=2e-6)


@settings(max_examples=15, deadline=None)
@given(
    texts=st.lists(st.sampled_from(TEXTS) | st.text(max_size=40), min_size=1, max_size=40),
    first=st.integers(0, 39),
    threads=st.integers(1, 3),
)
def test_company_place_and_threads_change_no_bit_of_a_score(bilstm, texts, first, threads):
    """Products of torch's own with few columns did: they depend on a row's place in the batch."""
    together, before = bilstm.score(texts), torch.get_num_threads()
    try:
        torch.set_num_threads(threads)
        assert bilstm.score(texts[first:]) == together[first:]
        assert [bilstm.score([text])[0] for text in texts[:3]] == together[:3]
    finally:
        torch.set_num_threads(before)


def test_a_long_text_is_as_toxic_as_its_worst_window(bilstm):
    calm = "the train to the coast leaves at nine " * 40
    long, short = bilstm.score([calm + "you are a stupid idiot " + calm, calm])
    assert (long.windows > 1, short.windows > 1) == (True, True)
    words = (calm + "you are a stupid idiot " + calm).split()
    parts = bilstm.score([" ".join(window) for window in split_windows(words, 100, 50)])
    assert long.windows == len(parts)
    assert long.heads["toxic"] == pytest.approx(max(p.heads["toxic"] for p in parts), abs=1e-6)
    assert long.heads["toxic"] > 10 * short.heads["toxic"]


def test_another_answer_to_a_golden_text_stops_everything(pinned, assets):
    wrong = pinned.model_copy(
        update={"golden": [pinned.golden[0].model_copy(update={"score": 0.5})]}
    )
    with pytest.raises(BackendError, match="golden text 1 scores 0.996"):
        load_scorer(wrong, assets, "cpu", 8)


def test_an_unknown_head_names_the_nearest(pinned, assets):
    with pytest.raises(ConfigError, match='mean "toxic"'):
        load_scorer(pinned.model_copy(update={"head": "toxik"}), assets, "cpu", 8)


def test_a_vocabulary_without_a_pin_is_not_read(pinned, assets):
    bare = pinned.base.model_copy(update={"sha256": None})
    with pytest.raises(ConfigError, match="with its sha256"):
        load_scorer(pinned.model_copy(update={"base": bare}), assets, "cpu", 8)


class Evil:
    def __reduce__(self):
        return os.system, ("true",)


def test_a_pickle_that_could_run_something_is_refused(tmp_path):
    path = tmp_path / "vocabulary.pkl"
    path.write_bytes(pickle.dumps(Evil()))
    with pytest.raises(BackendError, match="system is not allowed"):
        read_vocabulary(path)


# --- sequence classifiers: a tiny random BERT ---------------------------------------------------

SPECIAL = ["[PAD]", "[UNK]", "[CLS]", "[SEP]"]
WORDS = [*SPECIAL, "you", "are", "kind", "silly", "goose", "the", "train", "a"]


@pytest.fixture
def encoder(tmp_path):
    """A folder with a tokenizer and a random classifier of three labels."""
    torch.manual_seed(1)
    inner = Tokenizer(models.WordLevel({w: i for i, w in enumerate(WORDS)}, unk_token="[UNK]"))
    inner.pre_tokenizer = pre_tokenizers.Whitespace()
    inner.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=inner,
        pad_token="[PAD]",
        unk_token="[UNK]",
        cls_token="[CLS]",
        sep_token="[SEP]",
        model_max_length=32,
    )
    config = BertConfig(
        vocab_size=len(WORDS),
        hidden_size=16,
        intermediate_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        max_position_embeddings=32,
        num_labels=3,
        initializer_range=0.8,
        id2label={0: "calm", 1: "toxicity", 2: "threat"},
    )
    folder = tmp_path / "encoder"
    BertForSequenceClassification(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def classifier(folder, **changes):
    values = {
        "kind": "hf",
        "uri": f"file:{folder}",
        "head": "toxicity",
        "golden": [],
        "golden_tolerance": 1e-4,
        "activation": "sigmoid",
        **changes,
    }
    given = {name: value for name, value in values.items() if value is not None}
    return load_scorer(
        ScorerConfig.model_validate(given),
        AssetStore(folder, folder.parent, NoProgress()),
        "cpu",
        3,
    )


def edited(folder, **values):
    path = folder / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **values}))
    return folder


def test_heads_are_the_models_labels_and_exclusive_ones_sum_to_one(encoder):
    scorer = classifier(encoder, activation="softmax")
    assert scorer.heads == ("calm", "toxicity", "threat")
    assert all(sum(row.heads.values()) == pytest.approx(1) for row in scorer.score(TEXTS[:4]))


def test_a_classifiers_score_does_not_depend_on_its_company(encoder):
    scorer = classifier(encoder)
    for text, scored in zip(TEXTS, scorer.score(TEXTS)):
        (alone,) = scorer.score([text])
        assert scored == alone  # to the bit
    assert scorer.score(TEXTS)[4].windows > 5


def test_products_that_would_change_a_score_are_left_to_torch(encoder, monkeypatch):
    wanted = [row.heads for row in classifier(encoder).score(TEXTS)]
    laid = OneDnnLinears._weight
    monkeypatch.setattr(OneDnnLinears, "_weight", lambda own, layer: laid(own, layer) * 1.5)
    for found, expected in zip(classifier(encoder).score(TEXTS), wanted, strict=True):
        assert found.heads == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize(
    "change", [{"padding_side": "left"}, {"pad_token": None}], ids=["the wrong side", "none"]
)
def test_padding_that_would_change_a_score_is_left_out(encoder, change):
    wanted = [row.heads for row in classifier(encoder).score(TEXTS)]
    path = encoder / "tokenizer_config.json"
    settings = {**json.loads(path.read_text()), **change}
    path.write_text(json.dumps({k: v for k, v in settings.items() if v is not None}))
    for found, expected in zip(classifier(encoder).score(TEXTS), wanted, strict=True):
        assert found.heads == pytest.approx(expected, abs=1e-6)


def test_a_model_that_knows_no_padding_token_is_refused(encoder):
    path = encoder / "tokenizer_config.json"
    settings = json.loads(path.read_text())
    del settings["pad_token"]
    path.write_text(json.dumps(settings))
    with pytest.raises(BackendError, match="pad_token_id"):
        classifier(edited(encoder, pad_token_id=None))


def test_how_logits_become_probabilities_is_never_guessed(encoder):
    with pytest.raises(ConfigError, match="activation: softmax"):
        classifier(encoder, activation=None)
    edited(encoder, problem_type="multi_label_classification")
    assert classifier(encoder, activation=None).heads


def test_a_model_without_a_trained_head_is_refused(encoder):
    from safetensors.torch import load_file, save_file

    path = encoder / "model.safetensors"
    kept = {n: t for n, t in load_file(path).items() if not n.startswith("classifier")}
    save_file(kept, path, metadata={"format": "pt"})
    with pytest.raises(BackendError, match="lacks the weights classifier"):
        classifier(encoder)


def test_pickled_weights_give_the_same_scores(encoder, monkeypatch, tmp_path):
    import torch
    from safetensors.torch import load_file

    monkeypatch.setenv("TOXTRAIL_CACHE", str(tmp_path / "cache"))
    plain = classifier(encoder)
    path = encoder / "model.safetensors"
    torch.save(load_file(path), encoder / "pytorch_model.bin")
    path.unlink()
    scorer = classifier(encoder)
    assert scorer.score(TEXTS) == plain.score(TEXTS)
    (copy,) = (p for p in (tmp_path / "cache/converted").iterdir() if p.is_dir())
    files = [path for path in copy.iterdir() if path.name != "files.json"]
    assert scorer.converted == {"weights": tree_sha256(hash_tree(copy, files))}
    assert plain.converted == {}


def test_pickled_weights_with_code_are_refused(encoder, monkeypatch, tmp_path):
    import torch

    monkeypatch.setenv("TOXTRAIL_CACHE", str(tmp_path / "cache"))
    (encoder / "model.safetensors").unlink()
    torch.save({"a": Evil()}, encoder / "pytorch_model.bin")
    with pytest.raises(BackendError, match=r"pytorch_model\.bin .*more than tensors"):
        classifier(encoder)


def changed(encoder, **tensors):
    from safetensors.torch import load_file, save_file

    path = encoder / "model.safetensors"
    save_file({**load_file(path), **tensors}, path, metadata={"format": "pt"})
    return encoder


def test_layers_that_the_config_does_not_count_are_refused(encoder):
    layers = json.loads((encoder / "config.json").read_text())["num_hidden_layers"]
    with pytest.raises(BackendError, match=rf"layer\.{layers - 1}.*fewer layers"):
        classifier(edited(encoder, num_hidden_layers=layers - 1))


@pytest.mark.parametrize(
    "name", ["bert.embeddings.position_ids", "cls.predictions.bias", "lm_head.weight"]
)
def test_heads_of_another_task_and_old_buffers_change_no_score(encoder, name):
    wanted = [row.heads for row in classifier(encoder).score(TEXTS[:2])]
    found = classifier(changed(encoder, **{name: torch.zeros(4)})).score(TEXTS[:2])
    assert [row.heads for row in found] == wanted


def test_a_weight_of_another_shape_is_refused(encoder):
    with pytest.raises(BackendError, match="load as a classifier"):
        classifier(changed(encoder, **{"classifier.bias": torch.zeros(7)}))


@pytest.mark.parametrize("content", [b"", b"version https://git-lfs.github.com/spec/v1\n"])
def test_a_classifier_whose_weights_are_none_is_named(encoder, content):
    (encoder / "model.safetensors").write_bytes(content)
    with pytest.raises(BackendError, match=r"model\.safetensors is (empty|a Git LFS pointer)"):
        classifier(encoder)


def test_an_index_of_a_classifier_names_only_hashed_files(encoder, tmp_path):
    (encoder / "model.safetensors").rename(encoder / ".model.safetensors")
    index = {"metadata": {}, "weight_map": {"classifier.bias": ".model.safetensors"}}
    (encoder / "model.safetensors.index.json").write_text(json.dumps(index))
    with pytest.raises(BackendError, match="verified files"):
        classifier(encoder)
