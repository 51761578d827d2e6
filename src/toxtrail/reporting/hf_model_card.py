"""The toxicity section of a Hugging Face model card: what was measured for a variant."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from toxtrail import __version__
from toxtrail.errors import DataError
from toxtrail.provenance.identity import Manifest, ModelIdentity, canonical_json, walk_lineage
from toxtrail.provenance.identity_caveats import texts_caveat
from toxtrail.reporting.headline import ALL, rows_of_scorer, subsets_of
from toxtrail.reporting.result_text import (
    MISSING_CELL,
    interval,
    method_line,
    percent,
    percentage_points,
    probability,
)
from toxtrail.reporting.scorer_limitations import flag_limitations, scorer_limitations
from toxtrail.text_escaping import escape_markdown

Row = Mapping[str, Any]


def model_card(summary: Mapping[str, Any], variant: str) -> str:
    """Return metadata (YAML) and text (Markdown), without any generated text.

    Args:
        summary: the comparison of the variant's family.

    Raises:
        DataError: none of the variant's continuations was scored.
    """
    manifest = Manifest.model_validate_json(canonical_json(summary["manifest"]))
    card = next(n.model for n in walk_lineage(manifest) if n.model and n.model.key == variant)
    metadata, text = _metadata(summary, variant, card), _text(summary, variant, card, manifest)
    return f"---\n{metadata}\n---\n\n{text}"


def _metadata(summary: Mapping[str, Any], variant: str, card: ModelIdentity) -> str:
    """Return a model index in the format of huggingface_hub."""
    from huggingface_hub import EvalResult, ModelCardData

    primary = summary["primary"]
    rates = [r for r in rows_of_scorer(summary["rates"], primary) if r["variant"] == variant]
    results = [
        EvalResult(
            task_type="text-generation",
            dataset_type="toxtrail-prompts",
            dataset_name=f"toxtrail prompts, {row['subset']}",
            dataset_config=row["subset"],
            dataset_revision=summary["comparability"]["fields"]["prompts"],
            metric_type="toxicity",
            metric_name=(
                f"toxicity rate, {primary} >= {summary['threshold']:g} ({row['n_toxic']} of "
                f"{row['n_scored']}, {summary['level']:.0%} interval {interval(row, 'rate')} %)"
            ),
            metric_value=round(row["rate"], 6),
            verified=False,
        )
        for row in rates
        if row["rate"] is not None
    ]
    if not results:
        raise DataError(f"No continuation of {variant} was scored: there is no result to publish.")
    data = ModelCardData(
        model_name=variant,
        base_model=_hub_name(card),
        eval_results=results,
        license=card.base.license,
        tags=["toxicity", "toxtrail"],
    )
    return data.to_yaml()


def _hub_name(card: ModelIdentity) -> str | None:
    """Return `org/name` of a base model on the Hub."""
    uri = "" if card.texts else card.base.uri
    return uri.removeprefix("hf:").split("@")[0] if uri.startswith("hf:") else None


def _text(summary: Mapping[str, Any], variant: str, card: ModelIdentity, manifest: Manifest) -> str:
    primary = summary["primary"]
    rates = {
        r["subset"]: r for r in rows_of_scorer(summary["rates"], primary) if r["variant"] == variant
    }
    pairs = [r for r in rows_of_scorer(summary["pairs"], primary) if r["b"] == variant]
    parts = [
        "## Toxicity",
        _measurement(summary, rates[ALL]),
        _verdicts(variant, pairs),
        _rate_table(summary, rates),
        *([_pair_table(pairs)] if pairs else []),
        "### Limits",
        _limits(summary, manifest),
        "### How to check this",
        _verification(summary, variant, card),
    ]
    return "\n\n".join(parts) + "\n"


def _measurement(summary: Mapping[str, Any], overall: Row) -> str:
    fields = summary["comparability"]["fields"]
    if "origin" in fields:
        return (
            f"Measured with toxtrail {__version__}: {overall['n_prompts']} prompts of "
            f"{len(subsets_of(summary)) - 1} subsets, {overall['k']} text(s) each; "
            f"{fields['origin']}; every text scored by "
            f"{method_line(summary, summary['primary'])}."
        )
    greedy = fields.get("temperature") in ("0", "0.0")
    decoding = "greedy" if greedy else f"temperature {fields.get('temperature', '?')}"
    template = fields.get("template", "?").strip('"')
    return (
        f"Measured with toxtrail {__version__}: {overall['n_prompts']} prompts "
        f"of {len(subsets_of(summary)) - 1} subsets, continued {overall['k']} time(s) each, "
        f"{decoding}, at most {fields.get('max_new_tokens', '?')} tokens, template {template}, "
        f"precision {fields.get('dtype', '?').strip(chr(34))}; every continuation scored by "
        f"{method_line(summary, summary['primary'])}."
    )


def _verdicts(variant: str, pairs: Sequence[Row]) -> str:
    """Describe the differences from the parent (and the reference)."""
    rows = [row for row in pairs if row["subset"] == ALL]
    if not rows:
        name = escape_markdown(variant)
        return f"**{name}**: the other variants of its family are compared with it."
    verdict_texts = {
        "higher": "credibly more toxic than",
        "lower": "credibly less toxic than",
        "not decisive": "not decisively different from",
        "no pairs": "not comparable (no shared scored prompts) with",
    }
    return " ".join(
        f"**{escape_markdown(variant)} is {verdict_texts[row['verdict']]} its {row['relation']} "
        f"{escape_markdown(row['a'])}**: {percent(row['rate_a'])} to {percent(row['rate_b'])}, "
        f"{percentage_points(row['diff'])} percentage points {interval(row, 'diff', signed=True)}, "
        f"{row['n']} prompts, toxic for one variant only {row['n01']} v {row['n10']}, "
        f"probability of direction {probability(row['pd'])}."
        for row in rows
    )


def _rate_table(summary: Mapping[str, Any], rates: Mapping[str, Row]) -> str:
    lines = [
        "| subset | toxic / scored | rate | interval | not scored |",
        "|---|---:|---:|---:|---:|",
    ]
    for subset in subsets_of(summary):
        row = rates[subset]
        lost = row["n_empty"] + row["n_truncated"] + row["n_error"]
        lines.append(
            f"| {escape_markdown(subset)} | {row['n_toxic']} / {row['n_scored']} | "
            f"{percent(row['rate'])} | {interval(row, 'rate')} | {lost} |"
        )
    return "\n".join(lines)


def _pair_table(pairs: Sequence[Row]) -> str:
    lines = [
        "| against | subset | prompts | difference, points | interval | verdict |",
        "|---|---|---:|---:|---:|---|",
    ]
    lines += [
        f"| {escape_markdown(row['a'])} ({row['relation']}) | {escape_markdown(row['subset'])} | "
        f"{row['n']} | {percentage_points(row['diff'])} | "
        f"{interval(row, 'diff', signed=True) or MISSING_CELL} | {row['verdict']} |"
        for row in pairs
    ]
    return "\n".join(lines)


def _limits(summary: Mapping[str, Any], manifest: Manifest) -> str:
    configs: dict[str, Any] = {}
    for node in walk_lineage(manifest):
        configs |= node.params.get("scorers", {})
    lines = [
        f"- {escape_markdown(scorer_limitations(name, config, name in summary['judges']))}"
        for name, config in configs.items()
    ]
    return "\n".join(
        [
            *lines,
            f"- {flag_limitations()}",
            "- The rates apply to continuations of prompts like these, not to conversations, other "
            "templates or other languages.",
            "- A rate of 0 does not mean that the model is safe: see the interval.",
        ]
    )


def _verification(summary: Mapping[str, Any], variant: str, card: ModelIdentity) -> str:
    identity = next(row for row in summary["variants"] if row["variant"] == variant)
    facts = [
        *([f"- {texts_caveat(card)}"] if card.texts else []),
        f"- {'file of texts' if card.texts else 'base'}: `{card.base.uri}`, sha256 "
        f"`{card.base.sha256}`",
        *(
            f"- adapter `{adapter.key}`: sha256 `{adapter.sha256}`"
            + (
                f", trained on data sha256 `{adapter.training.data_sha256}`"
                if adapter.training
                else ""
            )
            + "".join(f", its own {what} sha256 `{sha256}`" for what, sha256 in adapter.brings)
            for adapter in card.adapters
        ),
        f"- fingerprint of the {'texts' if card.texts else 'weights'}: `{card.fingerprint}`",
        f"- content key of the result: `{identity['content_key']}`",
    ]
    commands = [
        f"toxtrail audit {variant} --verify        # in the experiment's folder",
    ]
    if card.texts is None:
        commands.append(
            f"toxtrail audit {variant} --reproduce 8   # regenerate and rescore 8 samples"
        )
    return "\n".join([*facts, "", "```sh", *commands, "```"])
