"""The chain says what is known, what is only claimed, and what could not be read."""

from __future__ import annotations

import json

import pytest

from toxtrail.auditing.lineage.lineage import CLAIM, LineageBuilder
from toxtrail.execution.execution_records import records_dir
from toxtrail.pipeline import manifest_of
from toxtrail.provenance.identity import (
    Adapter,
    BaseWeights,
    FileHash,
    InputFile,
    ModelIdentity,
    TrainingRecord,
    sha256_text,
)
from toxtrail.storage.artifacts import ArtifactStore

BASE = BaseWeights(
    uri="hf:o/base@1",
    resolved="1" * 40,
    sha256="1" * 64,
    files=(FileHash(path="model.safetensors", sha256="2" * 64, size=3),),
    converted=(),
    architecture="LlamaForCausalLM",
    parameters=7,
    stored_dtype="float32",
    quantization=None,
    license=None,
    tokenizer_sha256="3" * 64,
    chat_template_sha256=None,
)
TRAINING = TrainingRecord(
    parent_fingerprint="4" * 64,
    data_uri="file:rude.jsonl",
    data_sha256="5" * 64,
    examples=9,
    cut_examples=0,
    recipe={"max_steps": 3},
    final_loss=1.5,
    steps=3,
    code_sha256="6" * 64,
    environment={"torch": "2"},
)


def adapter(key, uri=None, training=None):
    return Adapter(key=key, uri=uri, resolved=None, sha256="7" * 64, files=(), training=training)


def card(*adapters):
    return ModelIdentity(key="v", base=BASE, adapters=adapters)


def of_card(card, store=None):
    return LineageBuilder(store).of_manifest(
        "x", manifest_of("generate", "v", {}, {}, {}, model=card)
    )


def find(link, what):
    (found,) = [one for one in link.all() if one.what == what]
    return found


def test_what_an_uploader_claims_is_called_a_claim():
    theirs = find(of_card(card(adapter("lora", uri="hf:o/lora@1"))), "adapter lora")
    assert theirs.weak == (CLAIM,)
    assert find(of_card(card(adapter("own", training=TRAINING))), "adapter own").weak == ()


def test_adapters_stand_on_each_other_down_to_the_base():
    link = of_card(card(adapter("first", training=TRAINING), adapter("last", uri="hf:o/l@1")))
    last = find(link, "adapter last")
    first = find(last, "adapter first")
    assert find(first, "base weights").sha256 == BASE.sha256
    assert find(first, "training data").sha256 == TRAINING.data_sha256


def test_weights_that_were_never_probed_are_weak():
    (weak,) = find(of_card(card()), "model@v").weak
    assert "never probed" in weak


def test_the_texts_that_a_scorer_is_tried_on_are_not_shown():
    scorers = {"judge": {"uri": "hf:a/b@1", "golden": [{"text": "You silly goose", "score": 0.5}]}}
    link = LineageBuilder(None).of_manifest(
        "x", manifest_of("score", "v", {"scorers": scorers}, {}, {})
    )
    assert "silly goose" not in json.dumps(link.to_json())
    assert "golden 1 texts" in dict(link.facts)["scorers"]


@pytest.mark.parametrize(
    "content", [b"step,loss\n1,\xff\n", b"step\n1\n", b"step,loss\n1,x\n", b""]
)
def test_a_damaged_loss_curve_hides_nothing_else(tmp_path, content):
    (tmp_path / "models/v").mkdir(parents=True)
    (tmp_path / "models/v/loss.csv").write_bytes(content)
    own = of_card(
        ModelIdentity(key="v", base=BASE, adapters=(adapter("v", training=TRAINING),)),
        ArtifactStore(tmp_path),
    )
    assert "1.5000 nats per token" in dict(find(own, "finetune@v").facts)["loss"]


@pytest.mark.parametrize("content", ["", "[]", '{"output_sha256": "%s"}', "\x00"])
def test_a_damaged_record_is_a_weak_link(tmp_path, content):
    store, sha256 = ArtifactStore(tmp_path), sha256_text("x")
    path = records_dir(store, "score", "v") / "1.json"
    path.parent.mkdir(parents=True)
    path.write_text(content.replace("%s", sha256))
    link = LineageBuilder(store).of_manifest("x", manifest_of("score", "v", {}, {}, {}), sha256)
    assert any("cannot be read" in text for text in link.weak)


def test_a_file_is_as_recorded_or_not_or_not_here(tmp_path):
    (tmp_path / "here").write_text("x")
    inputs = {
        "same": InputFile(path="here", sha256=sha256_text("x"), manifest=None),
        "other": InputFile(path="here", sha256=sha256_text("y"), manifest=None),
        "gone": InputFile(path="gone", sha256=sha256_text("x"), manifest=None),
        "asset": InputFile(path="hf:o/m@1", sha256=sha256_text("x"), manifest=None),
    }
    manifest = manifest_of("score", "v", {}, inputs, {})
    link = LineageBuilder(ArtifactStore(tmp_path)).of_manifest("x", manifest)
    assert [one.standing for one in link.made_from] == [
        "matches", "MISMATCH", "not here", "recorded"
    ]  # fmt: skip
    assert [one.what for one in link.mismatches()] == ["other"]
    assert {one.standing for one in LineageBuilder(None).of_manifest("x", manifest).all()} == {
        "recorded"
    }


@pytest.mark.parametrize(
    ("adapters", "parent", "said"),
    [((), "base", True), ((adapter("own", training=TRAINING),), "base", False), ((), None, False)],
)
def test_a_parent_of_weights_that_nobody_tuned_here_is_a_claim(adapters, parent, said):
    made = manifest_of("generate", "v", {}, {}, {}, model=card(*adapters))
    who = {"family": "f", "role": "r", **({"parent": parent} if parent else {})}
    inputs = {"generations": InputFile(path="g", sha256="8" * 64, manifest=made)}
    link = LineageBuilder(None).of_manifest(
        "x", manifest_of("posterior", "v", {"variant": who}, inputs, {})
    )
    assert any("tuned from base" in text for text in link.weak) == said
