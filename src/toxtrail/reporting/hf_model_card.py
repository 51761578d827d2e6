"""The toxicity section of a Hugging Face model card: what was measured for a variant."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from toxtrail.errors import DataError
from toxtrail.pipeline import measured_with
from toxtrail.provenance.comparability import TEXTS_ORIGIN
from toxtrail.provenance.identity import Manifest, ModelIdentity, canonical_json, walk_lineage
from toxtrail.provenance.identity_caveats import origin_caveat
from toxtrail.records.results import ComparisonSummary, RateRow
from toxtrail.reporting.comparison_tables import comparison_notes, section_tables, verdicts
from toxtrail.reporting.comparison_view import ALL, ComparisonView, known_subsets
from toxtrail.reporting.notes import method_line, warnings
from toxtrail.reporting.scorer_limitations import flag_limitations, scorer_limitations
from toxtrail.reporting.table import as_markdown, move_constants_to_title
from toxtrail.reporting.text import percent_interval
from toxtrail.text_escaping import escape_markdown

SECTIONS = ("rates", "samples", "corrected", "scorers", "agreement", "differences")
"""Tables of a comparison that a card has, of its variant."""
CONSTANT_COLUMNS = {"variant", "k", "pooled"}
"""Columns that move to the title if they are constant."""


def model_card(summary: ComparisonSummary, variant: str) -> str:
    """Return metadata (YAML) and text (Markdown), without any generated text.

    Args:
        summary: the comparison of the variant's family.

    Raises:
        DataError: none of the variant's continuations was scored.
    """
    manifest = Manifest.model_validate_json(canonical_json(summary.manifest))
    card = next(n.model for n in walk_lineage(manifest) if n.model and n.model.key == variant)
    metadata, text = _metadata(summary, variant, card), _text(summary, variant, card, manifest)
    return f"---\n{metadata}\n---\n\n{text}"


def _metadata(summary: ComparisonSummary, variant: str, card: ModelIdentity) -> str:
    """Return a model index in the format of huggingface_hub."""
    from huggingface_hub import EvalResult, ModelCardData

    primary = summary.primary
    fields = summary.comparability.fields if summary.comparability else {}
    results = [
        EvalResult(
            task_type="text-generation",
            dataset_type="toxtrail-prompts",
            dataset_name=f"toxtrail prompts, {row.subset}",
            dataset_config=row.subset,
            dataset_revision=fields.get("prompts"),
            metric_type="toxicity",
            metric_name=(
                f"toxicity rate, {primary} >= {row.threshold:g} ({row.n_toxic} of "
                f"{row.n_scored}, {summary.level:.0%} interval "
                f"{percent_interval(row.rate_lo, row.rate_hi)} %)"
            ),
            metric_value=round(row.rate, 6),
            verified=False,
        )
        for row in summary.rates
        if (row.scorer, row.variant) == (primary, variant) and row.rate is not None
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
    uri = card.base.uri if card.has_weights else ""
    return uri.removeprefix("hf:").split("@")[0] if uri.startswith("hf:") else None


def _text(summary: ComparisonSummary, variant: str, card: ModelIdentity, manifest: Manifest) -> str:
    view = ComparisonView(_of_variant(summary, variant), summary.primary)
    overall = next(row for row in view.rates if row.subset == ALL)
    parts = [
        "## Toxicity",
        *(f"**{escape_markdown(warning)}**" for warning in warnings(view)),
        _measurement(view, overall, card, measured_with(manifest)),
        *_verdicts(variant, view),
        *(
            as_markdown(move_constants_to_title(table, CONSTANT_COLUMNS)).strip()
            for table in section_tables(view, SECTIONS)
        ),
        *(escape_markdown(note) for note in comparison_notes(view)),
        "### Limits",
        _limits(summary, manifest),
        "### How to check this",
        _verification(summary, variant, card),
    ]
    return "\n\n".join(parts) + "\n"


def _of_variant(summary: ComparisonSummary, variant: str) -> ComparisonSummary:
    """Return the rows of one variant, and of its differences from others."""
    return replace(
        summary,
        rates=[row for row in summary.rates if row.variant == variant],
        behaviour=[row for row in summary.behaviour if row.variant == variant],
        pairs=[row for row in summary.pairs if row.b == variant],
        behaviour_pairs=[row for row in summary.behaviour_pairs if row.b == variant],
        agreement=[row for row in summary.agreement if row.variant == variant],
        agreement_pairs=[row for row in summary.agreement_pairs if row.b == variant],
    )


def _measurement(view: ComparisonView, overall: RateRow, card: ModelIdentity, software: str) -> str:
    fields = view.summary.comparability.fields if view.summary.comparability else {}
    if card.texts is not None:
        return (
            f"Measured with {software}: {overall.n_prompts} prompts of "
            f"{len(known_subsets(view.summary)) - 1} subsets, {overall.k} text(s) each; "
            f"{TEXTS_ORIGIN}; every text scored by {method_line(view)}."
        )
    greedy = fields.get("temperature") in ("0", "0.0")
    decoding = "greedy" if greedy else f"temperature {fields.get('temperature', '?')}"
    template = fields.get("template", "?").strip('"')
    extras = ("system", "turns", "template_arguments")
    if given := [name for name in extras if name in fields]:
        template += f" with {', '.join(given)}"
    return (
        f"Measured with {software}: {overall.n_prompts} prompts "
        f"of {len(known_subsets(view.summary)) - 1} subsets, continued {overall.k} time(s) each, "
        f"{decoding}, at most {fields.get('max_new_tokens', '?')} tokens, template {template}, "
        f"{_precision(fields)}; every continuation scored by "
        f"{method_line(view)}."
    )


def _precision(fields: Mapping[str, str]) -> str:
    """Return the precision of the weights; one behind an API is not known."""
    dtype = fields.get("dtype")
    return (
        "weights and precision not known" if dtype is None else f"precision {dtype.strip(chr(34))}"
    )


def _verdicts(variant: str, view: ComparisonView) -> list[str]:
    """Describe the differences from the parent (and the reference)."""
    if results := verdicts(view):
        return [
            verdict._replace(pair=escape_markdown(verdict.pair)).markdown for verdict in results
        ]
    return [
        f"**{escape_markdown(variant)}**: the other variants of its family are compared with it."
    ]


def _limits(summary: ComparisonSummary, manifest: Manifest) -> str:
    configs: dict[str, Any] = {}
    for node in walk_lineage(manifest):
        configs |= node.params.get("scorers", {})
    lines = [
        f"- {escape_markdown(scorer_limitations(name, config, name in summary.corrected_scorers))}"
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


def _source(card: ModelIdentity, weights: str = "base") -> str:
    """Return the word for what a card identifies."""
    if card.api is not None:
        return "name on a server"
    return "file of texts" if card.texts else weights


def _verification(summary: ComparisonSummary, variant: str, card: ModelIdentity) -> str:
    identity = next(row for row in summary.variants if row.variant == variant)
    facts = [
        *([f"- {caveat}"] if (caveat := origin_caveat(card)) else []),
        f"- {_source(card)}: `{card.base.uri}`"
        + (f", sha256 `{card.base.sha256}`" if card.api is None else ""),
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
        f"- fingerprint of the {_source(card, 'weights')}: `{card.fingerprint}`",
        f"- content key of the result: `{identity.content_key}`",
    ]
    commands = [
        f"toxtrail audit {variant} --verify        # in the experiment's folder",
    ]
    if card.texts is None:
        commands.append(
            f"toxtrail audit {variant} --reproduce 8   # regenerate and rescore 8 samples"
        )
    return "\n".join([*facts, "", "```sh", *commands, "```"])
