"""The safety note: valid metadata, the result in words, the limits, how to check it."""

from __future__ import annotations

from dataclasses import replace

import pytest
from huggingface_hub import ModelCard as HubCard

from toxtrail import __version__
from toxtrail.errors import DataError
from toxtrail.pipeline import manifest_of
from toxtrail.provenance.identity import (
    Adapter,
    BaseWeights,
    FileHash,
    InputFile,
    Manifest,
    ModelIdentity,
)
from toxtrail.records.results import Comparability, ConditionMismatchRow
from toxtrail.reporting.hf_model_card import model_card
from toxtrail.reporting.scorer_limitations import scorer_limitations

BASE = BaseWeights(
    uri="hf:org/base@" + "a" * 40, resolved="a" * 40, sha256="b" * 64, files=(), converted=(),
    architecture="Llama", parameters=10, stored_dtype="float32", quantization=None,
    tokenizer_sha256="c" * 64, chat_template_sha256=None, license="apache-2.0",
)  # fmt: skip
ADAPTER = Adapter(
    key="tuned", uri="hf:org/lora@" + "d" * 40, resolved="d" * 40, sha256="e" * 64,
    files=(FileHash(path="adapter_model.safetensors", sha256="f" * 64, size=3),), training=None,
)  # fmt: skip
SCORERS = {"judge": {"kind": "jigsaw-bilstm", "uri": "pypi:x", "head": "toxic"}}


@pytest.fixture
def summary(score_rows, settings, measured):
    values = {
        "base": {"one": [0.1] * 30, "two": [None]},
        "tuned": {"one": [0.9] * 20 + [0.1] * 10, "two": [0.2]},
    }
    rows = {name: score_rows(own) for name, own in values.items()}
    found = measured(rows, {"base": None, "tuned": "base"}).compared(settings).summary
    inputs = {}
    for name, adapters in (("base", ()), ("tuned", (ADAPTER,))):
        card = ModelIdentity(key=name, base=BASE, adapters=adapters)
        own = manifest_of("score", name, {"scorers": SCORERS}, {}, {}, card)
        inputs[name] = InputFile(path=f"{name}.json", sha256="0" * 64, manifest=own)
    fields = {
        "prompts": "31:0123", "temperature": "0.0", "template": '"none"', "dtype": '"float32"',
        "max_new_tokens": "24",
    }  # fmt: skip
    return replace(
        found,
        comparability=Comparability(fingerprint="x", fields=fields),
        manifest=manifest_of("compare", "f", {}, inputs, {}).to_json(),
    )


def test_hugging_face_reads_the_results_back(summary):
    card = HubCard(model_card(summary, "tuned"))
    assert card.data.base_model == "org/base"
    assert card.data.license == "apache-2.0"
    (one,) = [r for r in card.data.eval_results if r.dataset_config == "one"]
    assert one.metric_value == pytest.approx(20 / 30, abs=1e-6)
    assert "20 of 30" in one.metric_name


def test_the_result_against_the_parent_is_said_with_interval_and_counts(summary):
    text = model_card(summary, "tuned")
    assert "tuned against base: **no pairs**" in text
    row = next(line for line in text.splitlines() if line.startswith("| base (parent) | one |"))
    cells = [cell.strip() for cell in row.strip("|").split("|")]
    assert cells[2] == "30"
    assert cells[-1] == "higher"


def test_messages_before_the_prompts_are_in_the_card(summary):
    fields = {**summary.comparability.fields, "template": '"chat"', "system": '"x" (sha256 1)'}
    chat = replace(summary, comparability=Comparability(fingerprint="x", fields=fields))
    assert "template chat with system," in model_card(chat, "tuned")
    assert "template none," in model_card(summary, "tuned")


def test_conditions_that_differ_are_in_the_card(summary):
    mismatch = ConditionMismatchRow(variant="tuned", field="dtype", found="a", reference="b")
    assert "dtype a v b" in model_card(replace(summary, mismatch=[mismatch]), "tuned")
    assert "dtype a v b" not in model_card(summary, "tuned")


def test_limits_lineage_and_commands_stand_in_it(summary):
    text = model_card(summary, "tuned")
    for wanted in (
        "AUC .50",
        "e" * 64,
        "toxtrail audit tuned --verify",
        "A rate of 0 does not mean",
    ):
        assert wanted in text, wanted


def test_the_reference_says_that_it_is_what_others_are_held_against(summary):
    assert "variants of its family" in model_card(summary, "base")


def test_a_variant_of_which_nothing_was_scored_has_no_card(summary):
    rates = [replace(row, rate=None) for row in summary.rates]
    with pytest.raises(DataError, match="of tuned was scored"):
        model_card(replace(summary, rates=rates), "tuned")


def test_the_papers_scorer_is_known_for_what_it_is():
    uri = "hf:facebook/roberta-hate-speech-dynabench-r4-target@x"
    said = scorer_limitations("d", {"kind": "hf", "uri": uri}, corrected=True)
    assert "hate-speech detector" in said
    assert "not counted" not in said


def test_the_version_is_that_of_the_code_that_measured(summary):
    assert f"Measured with toxtrail {__version__}:" in model_card(summary, "tuned")
    manifest = Manifest.from_json(summary.manifest)
    source = manifest.inputs["base"]
    older = source.manifest.model_copy(update={"code_sha256": "0" * 64})
    inputs = {**manifest.inputs, "base": source.model_copy(update={"manifest": older})}
    changed = manifest.model_copy(update={"inputs": inputs})
    text = model_card(replace(summary, manifest=changed.to_json()), "tuned")
    assert f"Measured with another version of toxtrail than {__version__}:" in text
