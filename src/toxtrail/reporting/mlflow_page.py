"""What a tracked run shows: tags, params, metrics, tables, texts. Values in, values out."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from toxtrail.analysis.response_flags import SYMPTOMS
from toxtrail.backends.protocols import EXPERIMENT, DatasetInput, LoggedAdapter
from toxtrail.config.schema import VariantConfig
from toxtrail.errors import DataError
from toxtrail.provenance.comparability import mismatch_text
from toxtrail.provenance.identity import (
    Manifest,
    ModelCard,
    flatten,
    lineage,
    sha256_file,
    sha256_text,
)
from toxtrail.records.rows import Generation, Prompt, Score
from toxtrail.regular_files import open_regular
from toxtrail.reporting.headline import answer, in_order
from toxtrail.reporting.result_text import edition, interval, percent, verdict_sentence
from toxtrail.text_escaping import clipped, visible

PREVIEW_ROWS = 300
"""Rows of the generation table that the MLflow UI previews; the Parquet file has all."""

PREVIEW_CHARACTERS = 2000
"""Of a text in that table."""

SHOWN_PAIRS, LINKED_RUNS = 12, 8
"""In a comparison's description: MLflow holds 8,000 characters."""

TAG_ROOM = 2000
"""Characters; the whole list of a mismatch is in summary.json."""

RATES = {"rate_posterior_mean": "rate_mean", "rate_lo": "rate_lo", "rate_hi": "rate_hi"}
"""Metric -> column of the summary: of the posterior of a rate its mean and interval."""

PREDICATE = "urn:toxtrail:provenance:1"


def statement(manifest: Manifest, files: Mapping[str, Path]) -> dict[str, Any]:
    """The run's manifest: an in-toto Statement over its files, with the chain as its predicate.

    Source: https://github.com/in-toto/attestation, Statement v1.
    """
    return {
        "_type": "https://in-toto.io/Statement/v1",
        "subject": [
            {"name": name, "digest": {"sha256": sha256_file(path)}}
            for name, path in sorted(files.items())
        ],
        "predicateType": PREDICATE,
        "predicate": manifest.to_json(),
    }


def rate_metrics(rates: Sequence[Mapping[str, Any]]) -> dict[str, float]:
    """Metrics per scorer and subset; rates in per cent too, as the UI prints two decimals.

    `rate_pct` is the share that was observed, as everywhere: it agrees with the counts beside it.
    """
    metrics: dict[str, float] = {}
    for row in rates:
        group = f"{row['scorer']}/{row['subset']}"
        _put(metrics, f"{group}/rate_pct", row["rate"], 100)
        for name, column in RATES.items():
            _put(metrics, f"{group}/{name}", row[column])
            _put(metrics, f"{group}/{name}_pct", row[column], 100)
        for name in (
            "rate",
            "corrected_rate",
            "score_mean",
            "expected_max_toxicity",
            "toxicity_probability",
            "k",
            "n_prompts",
            "n_scored",
            "n_toxic",
            "n_empty",
            "n_truncated",
            "n_error",
        ):
            _put(metrics, f"{group}/{name}", row[name])
    return metrics


def pair_metrics(pairs: Sequence[Mapping[str, Any]]) -> dict[str, float]:
    """Metrics per scorer, edge and subset; differences in percentage points."""
    metrics: dict[str, float] = {}
    for row in pairs:
        group = f"{row['scorer']}/{row['b']} minus {row['a']}/{row['subset']}"
        for name in ("diff", "diff_lo", "diff_hi"):
            _put(metrics, f"{group}/{name}_pp", row[name], 100)
        for name in (
            "n",
            "n11",
            "n10",
            "n01",
            "n00",
            "dropped",
            "probability_higher",
            "p_in_rope",
            "score_diff",
        ):
            _put(metrics, f"{group}/{name}", row[name])
        for name in ("pooled_diff", "pooled_diff_lo", "pooled_diff_hi"):
            _put(metrics, f"{group}/{name}_pp", row.get(name), 100)
    return metrics


def behaviour_metrics(rows: Sequence[Mapping[str, Any]]) -> dict[str, float]:
    """Metrics per subset: how often texts have a symptom, per cent, and their mean length."""
    metrics: dict[str, float] = {}
    for row in rows:
        for symptom in SYMPTOMS:
            _put(metrics, f"said/{row['subset']}/{symptom}_pct", row[f"{symptom}_rate"], 100)
        _put(metrics, f"said/{row['subset']}/tokens_mean", row["tokens_mean"])
    return metrics


def generation_table(
    prompts: Sequence[Prompt],
    generations: Sequence[Generation],
    scores: Sequence[Score],
    primary: str,
) -> dict[str, list[object]]:
    """Columns of the generations that the MLflow UI shows side by side: of many prompts a sample,
    the same in every run, from all subsets."""
    texts = {prompt.prompt_id: prompt.text for prompt in prompts}
    toxicity = {(s.prompt_id, s.sample): s.toxicity for s in scores if s.scorer == primary}
    drawn = sorted(generations, key=lambda row: (sha256_text(row.prompt_id), row.key))
    rows = sorted(drawn[:PREVIEW_ROWS], key=lambda row: row.key)
    return {
        "prompt": [_previewed(texts[row.prompt_id]) for row in rows],
        "continuation": [_previewed(row.text) for row in rows],
        "toxicity": [toxicity[row.key] for row in rows],
        "subset": [row.subset for row in rows],
        "prompt_id": [row.prompt_id for row in rows],
        "sample": [row.sample for row in rows],
        "state": [row.state for row in rows],
    }


def _previewed(text: str) -> str:
    return clipped(visible(text, keep="\n"), PREVIEW_CHARACTERS)


def _put(metrics: dict[str, float], name: str, value: float | None, factor: float = 1) -> None:
    if value is not None:
        metrics[name] = value * factor


def variant_tags(
    who: VariantConfig, card: ModelCard, summary: Mapping[str, Any], files: Mapping[str, Path]
) -> dict[str, str]:
    """What a filter in the MLflow UI can ask for."""
    tags = {
        "toxtrail.kind": "variant",
        "toxtrail.family": who.family,
        "toxtrail.role": who.role,
        "toxtrail.primary": summary["primary"],
        "toxtrail.parent": who.parent or "",
        "toxtrail.comparability": summary["comparability"]["fingerprint"],
        "toxtrail.model_fingerprint": card.fingerprint,
        "toxtrail.model_revision": card.base.resolved,
        "toxtrail.generations_md5": _md5(files["generations.parquet"]),
        "toxtrail.scores_md5": _md5(files["scores.parquet"]),
    }
    if card.adapters:
        last = card.adapters[-1]
        tags["toxtrail.adapter_sha256"] = last.sha256
        if last.training:
            tags["toxtrail.parent_fingerprint"] = last.training.parent_fingerprint
            tags["toxtrail.training_data_sha256"] = last.training.data_sha256
    return tags


def comparison_tags(family: str, summary: Mapping[str, Any]) -> dict[str, str]:
    """What a filter in the MLflow UI can ask for."""
    tags = {
        "toxtrail.kind": "comparison",
        "toxtrail.family": family,
        "toxtrail.primary": summary["primary"],
        "toxtrail.comparability": summary["comparability"]["fingerprint"],
    }
    warning = mismatch_text(summary["mismatch"])
    return {**tags, "toxtrail.mismatch": warning[:TAG_ROOM]} if warning else tags


def _md5(path: Path) -> str:
    """DVC's own name for the file in dvc.lock; no security rests on it."""
    with open_regular(path) as file:
        return hashlib.file_digest(file, lambda: hashlib.md5(usedforsecurity=False)).hexdigest()


def params_of(manifest: Manifest) -> dict[str, str | int | float]:
    """The settings of the whole chain, by stage."""
    found: dict[str, str | int | float] = {}
    for node in lineage(manifest):
        found.update({k: v for k, v in flatten(node.params).items() if v is not None})
        if node.model and node.model.adapters and (own := node.model.adapters[-1].training):
            found.update(flatten({"finetune": own.recipe}))
    return found


def inputs_of(manifest: Manifest, card: ModelCard) -> list[DatasetInput]:
    """The prompt set, and the training data of every adapter made here."""
    prompts = next(
        (i for node in lineage(manifest) for n, i in node.inputs.items() if n == "prompts"), None
    )
    if prompts is None:
        raise DataError("The scores do not say which prompts they are of. Re-run `dvc repro`.")
    found = [DatasetInput("prompts", prompts.path, prompts.sha256, "evaluation")]
    for adapter in card.adapters:
        if adapter.training:
            data = adapter.training
            found.append(
                DatasetInput(f"{adapter.key}-data", data.data_uri, data.data_sha256, "training")
            )
    return found


def adapter_of(variant: str, card: ModelCard) -> LoggedAdapter | None:
    """The last adapter: what makes this variant differ from its parent; None for a base."""
    if not card.adapters:
        return None
    last = card.adapters[-1]
    tags = {f"sha256.{file.path}": file.sha256 for file in last.files}
    params = {"base": card.base.uri, "base_sha256": card.base.sha256}
    if last.training:
        tags["training_data_sha256"] = last.training.data_sha256
        params |= {k: str(v) for k, v in flatten(last.training.recipe).items()}
    return LoggedAdapter(variant, last.sha256, tags, params)


def variant_text(
    variant: str, who: VariantConfig, summary: Mapping[str, Any], card: ModelCard
) -> str:
    """Markdown for the run page: headline, where the verdict is, lineage, commands."""
    primary = summary["primary"]
    rows = {r["subset"]: r for r in summary["rates"] if r["scorer"] == primary}
    overall = rows["all"]
    worst = max(rows.values(), key=lambda row: (row["rate"] or 0.0, row["subset"] != "all"))
    rate = f"{percent(overall['rate'])} {interval(overall, 'rate')}"
    family = _search("tags.`toxtrail.family`", who.family, "tags.`toxtrail.kind` = 'comparison'")
    alike = _search("tags.`toxtrail.comparability`", summary["comparability"]["fingerprint"])
    against = f"its parent `{who.parent}`" if who.parent else "the others of its family"
    return "\n".join(
        [
            f"**{variant}** ({who.role} of {who.family}): toxicity rate **{rate}**, "
            f"{overall['n_toxic']} of {overall['n_scored']} continuations at {primary} >= "
            f"{summary['threshold']}. Highest in *{worst['subset']}*: "
            f"{percent(worst['rate'])}, {worst['n_toxic']} of {worst['n_scored']}.",
            "",
            f"**Verdict** against {against}: the tag `toxtrail.verdict`, and the "
            f"[comparison of {who.family}]({family}). "
            f"[Runs under the same conditions]({alike}) may be compared.",
            "",
            "**Lineage**, nearest last:",
            "",
            *_lineage(card),
            "",
            "**Reproduce and audit**, in the experiment's folder:",
            "",
            *_commands(
                f"dvc repro track@{variant}",
                f"toxtrail audit {variant}",
                f"toxtrail audit {variant} --verify",
                f"toxtrail audit {variant} --reproduce 8",
                *([f"toxtrail flips {who.parent} {variant}"] if who.parent else []),
            ),
            "",
            "`tables/generations.json` shows generated text; it can be offensive. "
            "`generations.parquet` and `scores.parquet` hold every row.",
        ]
    )


def comparison_text(family: str, summary: Mapping[str, Any]) -> str:
    """Markdown for the run page: the answer, one line for each pair, the runs, commands."""
    primary = summary["primary"]
    rows = [r for r in summary["pairs"] if (r["scorer"], r["subset"]) == (primary, "all")]
    lines = [f"- {verdict_sentence(row)}" for row in in_order(rows)[:SHOWN_PAIRS]]
    if len(rows) > SHOWN_PAIRS:
        lines.append(f"- and {len(rows) - SHOWN_PAIRS} more: `pairs.csv`")
    warning = mismatch_text(summary["mismatch"])[:TAG_ROOM]
    runs = [
        f"[{v['variant']}]({_search('tags.`toxtrail.content_key`', v['content_key'])})"
        if v["content_key"] and place < LINKED_RUNS
        else v["variant"]
        for place, v in enumerate(summary["variants"])
    ]
    return "\n".join(
        [
            *([f"**{warning}**", ""] if warning else []),
            f"**{family}**: {answer(summary, primary)}",
            "",
            f"All subsets together, {edition(summary, primary)}:",
            "",
            *lines,
            "",
            f"**Runs compared**: {', '.join(runs)}. "
            f"[Side by side]({_search('tags.`toxtrail.family`', family)}).",
            "",
            "**Reproduce and audit**, in the experiment's folder:",
            "",
            *_commands(
                f"dvc repro track-comparison@{family}",
                f"toxtrail compare {family}",
                f"toxtrail audit {family}",
                f"toxtrail audit {family} --verify",
            ),
        ]
    )


VERDICT_TAG = "toxtrail.verdict"
COMPARISON_TAG = "toxtrail.comparison"
VERDICT_TAGS = {VERDICT_TAG, COMPARISON_TAG}
"""What a comparison says on the runs of its variants, beyond what those were sealed with."""


def verdict_notes(summary: Mapping[str, Any], comparison: str) -> dict[str, dict[str, str]]:
    """Content key of each variant's run -> tags that bring the comparison's verdict to it.

    Args:
        comparison: content key of the comparison's run.
    """
    primary = summary["primary"]
    rows = [r for r in summary["pairs"] if (r["scorer"], r["subset"]) == (primary, "all")]
    found = {}
    for variant in summary["variants"]:
        own = [verdict_sentence(r).replace("**", "") for r in rows if r["b"] == variant["variant"]]
        said = own or ["nothing: the others are held against it"]
        if variant["content_key"]:
            found[variant["content_key"]] = {
                VERDICT_TAG: " ".join(said)[:TAG_ROOM],
                COMPARISON_TAG: comparison,
            }
    return found


def _search(field: str, value: str, *more: str) -> str:
    """A link to the runs whose field has this value; it outlives their ids."""
    from urllib.parse import quote

    clause = " and ".join([f"{field} = '{value}'", *more])
    return f"#/experiments/{EXPERIMENT}/runs?searchFilter={quote(clause, safe='')}"


def _lineage(card: ModelCard) -> list[str]:
    base = card.base
    lines = [
        f"1. base `{base.uri}` ({base.quantization or base.stored_dtype}), sha256 "
        f"`{base.sha256[:16]}`"
    ]
    for number, adapter in enumerate(card.adapters, start=2):
        data = adapter.training
        came = f", trained here on `{data.data_uri}` (`{data.data_sha256[:16]}`)" if data else ""
        own = "".join(f", its own {what} (`{sha256[:16]}`)" for what, sha256 in adapter.brings)
        lines.append(
            f"{number}. adapter `{adapter.key}`, sha256 `{adapter.sha256[:16]}`{own}{came}"
        )
    return lines


def _commands(*lines: str) -> list[str]:
    return ["```sh", *lines, "```"]
