"""Differences between two results: params, data, weights, code, environment, numbers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from toxtrail.provenance.identity import (
    Manifest,
    ModelIdentity,
    TrainingRecord,
    canonical_json,
    flatten_dict,
    shown_params,
    walk_lineage,
)
from toxtrail.records.run_tags import COMMIT_TAG, DIRTY_TAG

MISSING = "-"
SECTIONS = ("params", "data", "weights", "code", "environment", "execution", "numbers")


class FieldDifference(NamedTuple):
    """One field that differs."""

    section: str
    field: str
    a: str
    b: str


def diff_results(
    a: Mapping[str, Any],
    b: Mapping[str, Any],
    record_a: Mapping[str, Any],
    record_b: Mapping[str, Any],
) -> list[FieldDifference]:
    """Return everything that differs, by section.

    Args:
        a: a summary of a posterior or a comparison.
        record_a: of its MLflow run; empty for files.
    """
    known_a, known_b = _facts(a, record_a), _facts(b, record_b)
    differences = []
    for section in SECTIONS:
        fields_a, fields_b = known_a[section], known_b[section]
        for field in {**fields_a, **fields_b}:
            left, right = fields_a.get(field, MISSING), fields_b.get(field, MISSING)
            if left != right:
                differences.append(FieldDifference(section, field, left, right))
    return differences


def unchanged_sections(differences: Sequence[FieldDifference]) -> list[str]:
    """Return the sections without differences."""
    return [
        name for name in SECTIONS if name not in {difference.section for difference in differences}
    ]


def publication_facts(record: Mapping[str, Any]) -> dict[str, str]:
    """Return the commit and the hashes of the state from which a run was published.

    Args:
        record: of the run (record.json).
    """
    tags, hashes = record["tags"], record.get("hashes", {})
    return {
        "git_commit": tags.get(COMMIT_TAG, "none"),
        "git_dirty": tags.get(DIRTY_TAG, "unknown"),
        **{n: hashes.get(n, "none") for n in ("dvc_lock_sha256", "requirements_sha256")},
    }


def _facts(summary: Mapping[str, Any], record: Mapping[str, Any]) -> dict[str, dict[str, str]]:
    manifest = Manifest.from_json(summary["manifest"])
    nodes = walk_lineage(manifest)
    cards = {node.model.key: node.model for node in nodes if node.model}
    alone = len(cards) <= 1
    return {
        "params": _params(nodes, alone),
        "data": _data(nodes, cards),
        "weights": {
            f"{'' if alone else f'{key}: '}{name}": value
            for key, card in cards.items()
            for name, value in _weights(card).items()
        },
        "code": {node.kind: node.code_sha256[:16] for node in nodes},
        "environment": {
            f"{node.kind}: {name}": value
            for node in nodes
            for name, value in node.environment.items()
        },
        "execution": publication_facts(record) if record else {},
        "numbers": _numbers(summary),
    }


def _params(nodes: Sequence[Manifest], alone: bool) -> dict[str, str]:
    values: dict[str, str] = {}
    for node in nodes:
        prefix = "" if alone or node.key is None else f"{node.key}: "
        for name, value in flatten_dict(shown_params(node.params)).items():
            if not name.endswith(".golden"):  # texts that a scorer is tried on
                values.setdefault(f"{prefix}{name}", str(value))
        for adapter_name, training in _trainings(node.model, alone).items():
            recipe = flatten_dict({f"{adapter_name}: finetune": training.recipe})
            values |= {name: str(value) for name, value in recipe.items()}
    return values


def _data(nodes: Sequence[Manifest], cards: Mapping[str, ModelIdentity]) -> dict[str, str]:
    prompts = [node.inputs["prompts"] for node in nodes if "prompts" in node.inputs]
    facts = {"prompts sha256": ", ".join(sorted({source.sha256[:16] for source in prompts}))}
    for card in cards.values():
        for name, training in _trainings(card, len(cards) <= 1).items():
            facts[f"{name}: training data"] = f"{training.data_uri} {training.data_sha256[:16]}"
            facts[f"{name}: examples"] = str(training.examples)
    return facts


def _trainings(card: ModelIdentity | None, alone: bool) -> dict[str, TrainingRecord]:
    """Return the adapters that were trained here: by number, as in the section weights, so that two
    fine-tunes have the same fields; by name among several models."""
    adapters = enumerate(card.adapters if card else (), start=1)
    return {
        f"adapter {number}" if alone else adapter.key: adapter.training
        for number, adapter in adapters
        if adapter.training
    }


def _weights(card: ModelIdentity) -> dict[str, str]:
    facts = {
        "base": card.base.uri,
        "texts": canonical_json(card.texts.reader) if card.texts else "none",
        "name on a server": card.api.model if card.api else "none",
        "base sha256": card.base.sha256[:16],
        "precision as stored": card.base.quantization or card.base.stored_dtype,
        "tokenizer": card.base.tokenizer_sha256[:16],
        "chat template": (card.base.chat_template_sha256 or "none")[:16],
        "fingerprint": card.fingerprint[:16],
    }
    for number, adapter in enumerate(card.adapters, start=1):
        facts[f"adapter {number}"] = f"{adapter.key} {adapter.sha256[:16]}"
        for what, sha256 in adapter.brings:
            facts[f"{what} of adapter {number}"] = sha256[:16]
    return facts


def _numbers(summary: Mapping[str, Any]) -> dict[str, str]:
    """Return rates (for a comparison also differences) by scorer and subset."""
    numbers = {}
    for row in summary["rates"]:
        name = f"{row['variant']}: " if "variant" in row else ""
        numbers[f"{name}rate {row['scorer']}/{row['subset']}"] = _rate(row)
    for row in summary.get("pairs", []):
        value = MISSING if row["diff"] is None else f"{100 * row['diff']:+.1f} {row['verdict']}"
        numbers[f"{row['b']} minus {row['a']} {row['scorer']}/{row['subset']}"] = value
    return numbers


def _rate(row: Mapping[str, Any]) -> str:
    if row["rate"] is None:
        return MISSING
    return f"{100 * row['rate']:.1f} % ({row['n_toxic']}/{row['n_scored']})"
