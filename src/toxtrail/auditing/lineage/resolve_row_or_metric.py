"""Resolve one generation, or one number of a comparison, to its lineage."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from toxtrail.auditing.lineage.context import AuditContext, AuditTarget
from toxtrail.auditing.lineage.lineage import LineageNode
from toxtrail.errors import ConfigError, did_you_mean
from toxtrail.provenance.identity import canonical_json, sha256_text
from toxtrail.records.rows import Score
from toxtrail.stats.rates import at_threshold


def resolve_row_or_metric(
    reference: str, scene: AuditContext, show_text: bool
) -> AuditTarget | None:
    """Resolve `variant/prompt_id/sample` or `family/variant/subset/metric`; None for other
    references.

    Raises:
        ConfigError: a part of it is unknown; the message names the nearest one.
    """
    first, *rest = reference.split("/")
    config = scene.config
    if config is None:
        return None
    if first in config.variants:
        return _generation(reference, first, rest, scene, show_text)
    if first in config.families and len(rest) == 3:
        return _number_subject(reference, first, rest, scene)
    return None


def _generation(
    reference: str, variant: str, rest: list[str], scene: AuditContext, show_text: bool
) -> AuditTarget:
    assert scene.store is not None
    assert scene.config is not None
    if len(rest) > 2:
        raise ConfigError(f'"{reference}": a generation is variant/prompt_id/sample, no more.')
    store, family = scene.store, scene.config.variants[variant].family
    prompt_id, sample = rest[0], rest[1] if len(rest) > 1 else "0"
    rows = store.read_generations(family, variant)
    row = next((r for r in rows if r.key == (prompt_id, _number_of(sample))), None)
    if row is None:
        raise ConfigError(
            f'"{reference}": {variant} has no generation {prompt_id}, sample {sample}.'
            + did_you_mean(prompt_id, sorted({r.prompt_id for r in rows}))
        )
    scores = [s for s in store.read_scores(family, variant) if (s.prompt_id, s.sample) == row.key]
    thresholds = scene.config.posterior.threshold
    tokens = canonical_json(list(row.token_ids))
    of_thought = "" if row.thought is None else f", {row.thought_tokens} of them a thought"
    facts: list[tuple[str, str]] = [
        ("state", f"{row.state}, finished by {row.finish_reason}"),
        (
            "tokens",
            f"{row.prompt_tokens} of the prompt, {len(row.token_ids)} generated{of_thought}",
        ),
        ("token ids sha256", sha256_text(tokens)),
        ("text sha256", sha256_text(row.text)),
        *((f"score by {s.scorer}", _score_text(s, thresholds)) for s in scores),
    ]
    if show_text:
        prompt = next(p.transcript for p in store.read_prompts() if p.prompt_id == prompt_id)
        thought = [("thought", row.thought)] if row.thought is not None else []
        facts += [("prompt", prompt), *thought, ("continuation", row.text)]
    link = LineageNode(
        "generation",
        f"{variant}/{row.prompt_id}/{row.sample}",
        None,
        "recorded",
        tuple(facts),
        made_from=(scene.chain.of_file(store.scores_path(family, variant)),),
    )
    return AuditTarget("generation", link, (f"score@{variant}",))


def _score_text(score: Score, thresholds: Mapping[str, float]) -> str:
    """Return a score, and its label at the scorer's threshold in params.yaml if it has one."""
    if score.toxicity is None:
        return "none"
    threshold = thresholds.get(score.scorer)
    if threshold is None:
        return f"{score.toxicity:.6f}"
    label = "toxic" if at_threshold(score.toxicity, threshold) else "not toxic"
    return f"{score.toxicity:.6f}, {label} at the threshold {threshold:g} of params.yaml"


def _number_of(text: str) -> int | None:
    return int(text) if text.isdigit() else None


def _number_subject(
    reference: str, family: str, rest: list[str], scene: AuditContext
) -> AuditTarget:
    assert scene.store is not None
    variant, subset, metric = rest
    metric, _, scorer = metric.partition("@")
    summary = scene.store.read_summary(scene.store.comparison_dir(family))
    scorer = scorer or summary["primary"]
    request = (variant, subset, metric, scorer)
    rows = [r for r in _number_rows(summary) if _is_about(r, request) and metric in r]
    if not rows:
        raise _unknown_number(reference, request, summary)
    row = rows[0]
    compared = "relation" in row or metric.startswith("pooled_")
    values = [
        f"{r[metric]} against {r['a']} ({r['relation']})" if "relation" in r else f"{r[metric]}"
        for r in rows
        if ("relation" in r) == ("relation" in row)
    ]
    posterior = scene.store.posterior_dir(family, variant) / "summary.json"
    path = scene.store.comparison_dir(family) / "summary.json" if compared else posterior
    link = LineageNode(
        "number",
        reference,
        None,
        "recorded",
        (
            ("value", "; ".join(values)),
            *((("scorer", scorer),) if "scorer" in row else ()),
            ("method", _method_text(row, summary)),
        ),
        made_from=(scene.chain.of_file(path),),
    )
    target = f"compare@{family}" if compared else f"posterior@{variant}"
    return AuditTarget("number", link, (target,))


def _number_rows(summary: dict[str, Any]) -> list[dict[str, Any]]:
    """Return rows of rates and differences: of toxicity, response behaviour, then agreement."""
    tables = ("rates", "pairs", "behaviour", "behaviour_pairs", "agreement", "agreement_pairs")
    return [row for table in tables for row in summary.get(table, ())]


def _is_about(row: dict[str, Any], request: tuple[str, str, str, str]) -> bool:
    variant, subset, _, scorer = request
    row_key = (row.get("variant") or row["b"], row["subset"], row.get("scorer", scorer))
    return row_key == (variant, subset, scorer)


def _method_text(row: dict[str, Any], summary: dict[str, Any]) -> str:
    if "scorers" in row:
        n = row["n"] if "n" in row else row["n_scored"]
        toxic = ", ".join(f"{s} at {summary['threshold'][s]}" for s in row["scorers"].split(", "))
        return f"n {n}, toxic by {toxic} and above, {summary['level']:.0%} intervals"
    if "scorer" not in row:
        n = row["n"] if "n" in row else row["n_continuations"]
        return f"n {n}, measured from the texts, {summary['level']:.0%} intervals"
    n = f"n {row['n']}" if "n" in row else f"{row['n_toxic']} of {row['n_scored']} toxic"
    return f"{n}, toxic at {row['threshold']} and above, {summary['level']:.0%} intervals"


def _unknown_number(
    reference: str, request: tuple[str, str, str, str], summary: dict[str, Any]
) -> ConfigError:
    rows = _number_rows(summary)
    available = {
        "variant": {str(r.get("variant") or r["b"]) for r in rows},
        "subset": {r["subset"] for r in rows},
        "metric": {name for r in rows for name in r},
        "scorer": {r["scorer"] for r in rows if "scorer" in r},
    }
    for (what, names), value in zip(available.items(), request, strict=True):
        if value not in names:
            return ConfigError(
                f'"{reference}": no {what} "{value}".{did_you_mean(value, sorted(names))}'
            )
    return ConfigError(
        f'"{reference}": {request[0]} has no {request[2]} (it is compared with nothing).'
    )
