"""Track: show a variant, or a family's comparison, as one sealed MLflow run.

reads   the model card, generations, scores and posterior of a variant; or a comparison
writes  the run, and mlruns/receipts/<group>/<name>.json once it stands
"""

from __future__ import annotations

import csv
import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from toxtrail.artifacts import Store, read_json
from toxtrail.backends.base import DatasetInput, LoggedAdapter, RunContent, Tracker
from toxtrail.config import VariantConfig
from toxtrail.errors import DataError
from toxtrail.identity import Manifest, ModelCard, canonical_json, flatten, sha256_file, sha256_text
from toxtrail.records import Generation, Prompt, Score
from toxtrail.stages.wording import interval, percent, verdict_sentence

PREVIEW_ROWS = 300
"""Rows of the generation table that the MLflow UI previews; the Parquet file has all."""

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
    """Metrics per scorer and subset; rates in per cent too, as the UI prints two decimals."""
    metrics: dict[str, float] = {}
    for row in rates:
        group = f"{row['scorer']}/{row['subset']}"
        for name in ("rate", "rate_lo", "rate_hi"):
            _put(metrics, f"{group}/{name}", row[name])
            _put(metrics, f"{group}/{name}_pct", row[name], 100)
        for name in (
            "rate_raw",
            "score_mean",
            "expected_max_toxicity",
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
            "score_change",
        ):
            _put(metrics, f"{group}/{name}", row[name])
    return metrics


def generation_table(
    prompts: Sequence[Prompt],
    generations: Sequence[Generation],
    scores: Sequence[Score],
    primary: str,
) -> dict[str, list[object]]:
    """Columns of the generations that the MLflow UI shows side by side, in the order of prompts."""
    texts = {prompt.prompt_id: prompt.text for prompt in prompts}
    toxicity = {(s.prompt_id, s.sample): s.toxicity for s in scores if s.scorer == primary}
    rows = generations[:PREVIEW_ROWS]
    return {
        "prompt_id": [row.prompt_id for row in rows],
        "sample": [row.sample for row in rows],
        "subset": [row.subset for row in rows],
        "prompt": [texts[row.prompt_id] for row in rows],
        "continuation": [row.text for row in rows],
        "state": [row.state for row in rows],
        "toxicity": [toxicity[row.key] for row in rows],
    }


def run_variant(
    store: Store, variant: str, who: VariantConfig, tracker: Tracker, facts: Mapping[str, str]
) -> None:
    """Collect, publish, write the receipt.

    Args:
        facts: tags of this moment that are no part of the identity (commit, dirty flag, ...).
    """
    posterior = store.posterior(who.family, variant)
    files = {
        "model.json": store.model(variant) / "model.json",
        "generations.parquet": store.generations(who.family, variant),
        "scores.parquet": store.scores(who.family, variant),
        "posterior/summary.json": posterior / "summary.json",
        "posterior/posterior.nc": posterior / "posterior.nc",
        **_files(store.model(variant), "loss.csv"),
    }
    summary, card = store.read_summary(posterior), store.read_card(variant)
    manifest = _manifest(summary)
    table = generation_table(
        store.read_prompts(),
        store.read_generations(who.family, variant),
        store.read_scores(who.family, variant),
        summary["primary"],
    )
    content = RunContent(
        name=variant,
        content_key=manifest.content_key,
        manifest=canonical_json(statement(manifest, files)),
        description=_variant_text(variant, who, summary, card),
        tags={**_variant_tags(who, card, files), **facts},
        params=_params(manifest),
        metrics={**rate_metrics(summary["rates"]), **_cost(store, variant, files)},
        curves=_curves(files.get("loss.csv")),
        inputs=_inputs(manifest, card),
        files={**files, **_files(store.root, "params.yaml", "dvc.lock")},
        tables={"tables/generations.json": table},
        adapter=_adapter(variant, card),
    )
    _publish(store, "variants", content, tracker)


def run_comparison(store: Store, family: str, tracker: Tracker, facts: Mapping[str, str]) -> None:
    """Collect, publish, write the receipt."""
    folder = store.comparison(family)
    files = _files(folder, "summary.json", "posterior.nc", "rates.svg", "differences.svg")
    summary = store.read_summary(folder)
    manifest = _manifest(summary)
    content = RunContent(
        name=f"{family} comparison",
        content_key=manifest.content_key,
        manifest=canonical_json(statement(manifest, files)),
        description=_comparison_text(family, summary),
        tags={"toxtrail.kind": "comparison", "toxtrail.family": family, **facts},
        params={
            **_params(manifest),
            **{f"variant.{v['variant']}": v["content_key"] for v in summary["variants"]},
        },
        metrics=pair_metrics(summary["pairs"]),
        files={**files, **_files(store.root, "params.yaml", "dvc.lock")},
    )
    _publish(store, "families", content, tracker)


def _publish(store: Store, group: str, content: RunContent, tracker: Tracker) -> None:
    """Publish, then write what the lock file may know: nothing that changes from run to run."""
    tracker.publish(content)
    receipt = {"content_key": content.content_key, "seal": sha256_text(content.manifest)}
    name = content.name.removesuffix(" comparison")
    store.write_json(store.receipt(group, name), receipt)


def _manifest(summary: Mapping[str, Any]) -> Manifest:
    return Manifest.model_validate_json(canonical_json(summary["manifest"]))


def _put(metrics: dict[str, float], name: str, value: float | None, factor: float = 1) -> None:
    if value is not None:
        metrics[name] = value * factor


def _files(folder: Path, *names: str) -> dict[str, Path]:
    return {name: folder / name for name in names if (folder / name).is_file()}


def _variant_tags(who: VariantConfig, card: ModelCard, files: Mapping[str, Path]) -> dict[str, str]:
    tags = {
        "toxtrail.kind": "variant",
        "toxtrail.family": who.family,
        "toxtrail.role": who.role,
        "toxtrail.parent": who.parent or "",
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


def _md5(path: Path) -> str:
    """DVC's own name for the file in dvc.lock; no security rests on it."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, lambda: hashlib.md5(usedforsecurity=False)).hexdigest()


def _params(manifest: Manifest) -> dict[str, str | int | float]:
    """The settings of the whole chain, by stage."""
    found: dict[str, str | int | float] = {}
    for node in chain(manifest):
        found.update({k: v for k, v in flatten(node.params).items() if v is not None})
        if node.model and node.model.adapters and (own := node.model.adapters[-1].training):
            found.update(flatten({"finetune": own.recipe}))
    return found


def chain(manifest: Manifest) -> list[Manifest]:
    """The manifest and all that it was made from."""
    below = [i.manifest for i in manifest.inputs.values() if i.manifest is not None]
    return [manifest, *(node for part in below for node in chain(part))]


def _curves(loss: Path | None) -> dict[str, list[tuple[int, float]]]:
    if loss is None:
        return {}
    with loss.open(encoding="utf-8", newline="") as file:
        points = [(int(row["step"]), float(row["loss"])) for row in csv.DictReader(file)]
    return {"train/loss": points}


def _cost(store: Store, variant: str, files: Mapping[str, Path]) -> dict[str, float]:
    """Cost of the executions that made exactly these files; a record of another one is ignored."""
    outputs = {
        "finetune": "model.json",
        "generate": "generations.parquet",
        "score": "scores.parquet",
    }
    metrics: dict[str, float] = {}
    for stage, name in outputs.items():
        path = store.record(stage, variant)
        record = read_json(path) if path.is_file() else {}
        if record.get("output_sha256") == sha256_file(files[name]):
            metrics |= {f"cost/{stage}_{what}": value for what, value in record["cost"].items()}
    return metrics


def _inputs(manifest: Manifest, card: ModelCard) -> list[DatasetInput]:
    prompts = next(
        (i for node in chain(manifest) for n, i in node.inputs.items() if n == "prompts"), None
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


def _adapter(variant: str, card: ModelCard) -> LoggedAdapter | None:
    if not card.adapters:
        return None
    last = card.adapters[-1]
    tags = {f"sha256.{file.path}": file.sha256 for file in last.files}
    params = {"base": card.base.uri, "base_sha256": card.base.sha256}
    if last.training:
        tags["training_data_sha256"] = last.training.data_sha256
        params |= {k: str(v) for k, v in flatten(last.training.recipe).items()}
    return LoggedAdapter(variant, last.sha256, tags, params)


def _variant_text(
    variant: str, who: VariantConfig, summary: Mapping[str, Any], card: ModelCard
) -> str:
    overall = next(
        r for r in summary["rates"] if r["scorer"] == summary["primary"] and r["subset"] == "all"
    )
    rate = f"{percent(overall['rate_raw'])} {interval(overall, 'rate')}"
    return (
        f"**{variant}** ({who.role} of {who.family}): toxicity rate **{rate}**, "
        f"{overall['n_toxic']} of {overall['n_scored']} continuations at "
        f"{summary['primary']} >= {summary['threshold']}.\n\n"
        f"Weights: `{card.base.uri}`"
        + "".join(f" + adapter `{a.key}` (`{a.sha256[:12]}`)" for a in card.adapters)
        + f"\n\nReproduce: `dvc repro track@{variant}`. Chain: `toxtrail audit {variant}`."
    )


def _comparison_text(family: str, summary: Mapping[str, Any]) -> str:
    lines = [
        f"- {verdict_sentence(row)}"
        for row in summary["pairs"]
        if row["scorer"] == summary["primary"] and row["subset"] == "all"
    ]
    return "\n".join(
        [
            f"**{family}**, all subsets together, {summary['primary']}:",
            "",
            *lines,
            "",
            f"Reproduce: `dvc repro track-comparison@{family}`.",
        ]
    )
