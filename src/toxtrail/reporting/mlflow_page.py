"""The contents of a tracked run: tags, params, metrics, tables, texts. Pure functions."""

from __future__ import annotations

import hashlib
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from toxtrail.analysis.response_flags.registry import RESPONSE_FLAGS
from toxtrail.backends.protocols import EXPERIMENT_PLACEHOLDER, DatasetInput, LoggedWeights
from toxtrail.config.schema import VariantConfig
from toxtrail.errors import DataError
from toxtrail.provenance.identity import (
    Manifest,
    ModelIdentity,
    canonical_json,
    flatten_dict,
    sha256_file,
    sha256_text,
    walk_lineage,
)
from toxtrail.provenance.identity_caveats import origin_caveat
from toxtrail.records.results import (
    BehaviourRow,
    ComparisonSummary,
    PairRow,
    RateRow,
    VariantSummary,
)
from toxtrail.records.rows import OPTIONAL_PROMPT_COLUMNS, PROMPT_SCHEMA, Generation, Prompt, Score
from toxtrail.records.run_tags import (
    COMPARABILITY_TAG,
    COMPARISON_TAG,
    DIFFERENCE_TAG,
    FAMILY_TAG,
    KEY_TAG,
    KIND_TAG,
    MISMATCH_TAG,
    ORIGIN_TAG,
    PARENT_TAG,
    RATE_TAG,
    REFERENCE_TAG,
    ROLE_TAG,
    SCORER_TAG,
    VERDICT_TAG,
)
from toxtrail.regular_files import open_regular
from toxtrail.reporting.comparison_tables import comparison_notes, verdicts
from toxtrail.reporting.comparison_view import ALL, ComparisonView
from toxtrail.reporting.first_screen import plain_answer
from toxtrail.reporting.headline import family_headline
from toxtrail.reporting.notes import method_line, mismatch_note, warnings
from toxtrail.reporting.text import (
    marked_verdict,
    percent,
    percent_interval,
    percentage_points,
    points_interval,
)
from toxtrail.text_escaping import escape_control_chars, escape_markdown, truncate_text

PREVIEW_ROWS = 300
"""Rows of the generation table that the MLflow UI previews; the Parquet file has all."""

PREVIEW_CHARACTERS = 2000
"""Maximum characters of a text in that table."""

MAX_LISTED_PAIRS, MAX_LINKED_RUNS = 12, 8
"""Limits for a comparison's description: MLflow allows 8,000 characters."""

MAX_DESCRIPTION_CHARS = 8000
"""Maximum characters of a run's description in MLflow."""
PAIR_WORDS = (
    "P(direction): probability that the difference has the sign that was observed. Toxic for one "
    "only: prompts on which only the variant is toxic v only the other one."
)
"""Explanation of the words in the lines of pairs."""
MORE_NOTES = "\n- and {} more: `toxtrail compare --tables notes`"

MAX_TAG_CHARS = 2000
"""Maximum characters of a tag; summary.json has the complete list of mismatches."""

COUNTS = (
    "n_scored",
    "n_toxic",
    "n_empty",
    "n_unfinished",
    "n_filtered",
    "n_truncated",
    "n_error",
)
"""Counts of a rate row that are metrics; those of unscored texts only where they are not 0."""
METRIC_DECIMALS = 4

MLFLOW_TYPES = {"string": "string", "int64": "long"}
"""Type in Arrow -> type in MLflow's schema of a data set; others are `any`."""

PREDICATE = "urn:toxtrail:provenance:1"


def intoto_statement(manifest: Manifest, files: Mapping[str, Path]) -> dict[str, Any]:
    """Return the run's manifest: an in-toto Statement over its files; the predicate is the lineage.

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


def rate_metrics(rates: Sequence[RateRow]) -> dict[str, float]:
    """Return metrics per scorer and subset: one for each figure, rates in per cent.

    `rate_pct` is the observed rate, as everywhere: it agrees with the counts.
    """
    metrics: dict[str, float] = {}
    for row in rates:
        group = f"{row.scorer}/{row.subset}"
        shares = {"rate": row.rate, "rate_lo": row.rate_lo, "rate_hi": row.rate_hi}
        shares["corrected_rate"] = row.corrected_rate
        if row.k > 1:
            shares["toxicity_probability"] = row.toxicity_probability
            _add_metric(metrics, f"{group}/expected_max_toxicity", row.expected_max_toxicity)
        for name, share in shares.items():
            _add_metric(metrics, f"{group}/{name}_pct", share, 100)
        _add_metric(metrics, f"{group}/score_mean", row.score_mean)
        for name in COUNTS:
            count = getattr(row, name)
            if count or name in ("n_scored", "n_toxic"):
                _add_metric(metrics, f"{group}/{name}", count)
    return metrics


def pair_metrics(pairs: Sequence[PairRow]) -> dict[str, float]:
    """Return metrics per pair, scorer and subset; differences in percentage points."""
    metrics: dict[str, float] = {}
    for row in pairs:
        group = f"{row.b} - {row.a}/{row.scorer}/{row.subset}"
        for name in (
            "diff",
            "diff_lo",
            "diff_hi",
            "pooled_diff",
            "pooled_diff_lo",
            "pooled_diff_hi",
        ):
            _add_metric(metrics, f"{group}/{name}_pp", getattr(row, name), 100)
        for name in ("n", "n01", "n10", "probability_higher"):
            _add_metric(metrics, f"{group}/{name}", getattr(row, name))
    return metrics


def behaviour_metrics(rows: Sequence[BehaviourRow]) -> dict[str, float]:
    """Return metrics per subset: the rate of each response flag, per cent, and the mean length."""
    metrics: dict[str, float] = {}
    for row in rows:
        for flag in RESPONSE_FLAGS:
            _add_metric(metrics, f"responses/{row.subset}/{flag}_pct", row.flags[flag].rate, 100)
        _add_metric(metrics, f"responses/{row.subset}/length_mean", row.length_mean)
    return metrics


def generation_table(
    prompts: Sequence[Prompt],
    generations: Sequence[Generation],
    scores: Sequence[Score],
    primary: str,
) -> dict[str, list[object]]:
    """Return the table of generations for the MLflow UI: a sample of prompts from all subsets, the
    same in every run."""
    texts = {prompt.prompt_id: prompt.transcript for prompt in prompts}
    toxicity = {(s.prompt_id, s.sample): s.toxicity for s in scores if s.scorer == primary}
    sampled = sorted(generations, key=lambda row: (sha256_text(row.prompt_id), row.key))
    rows = sorted(sampled[:PREVIEW_ROWS], key=lambda row: row.key)
    thoughts: list[object] = [_preview_text(row.thought or "") for row in rows]
    return {
        "prompt": [_preview_text(texts[row.prompt_id]) for row in rows],
        **({"thought": thoughts} if any(row.thought for row in generations) else {}),
        "continuation": [_preview_text(row.text) for row in rows],
        "toxicity": [toxicity[row.key] for row in rows],
        "subset": [row.subset for row in rows],
        "prompt_id": [row.prompt_id for row in rows],
        "sample": [row.sample for row in rows],
        "state": [row.state for row in rows],
    }


def _preview_text(text: str) -> str:
    return truncate_text(escape_control_chars(text, keep="\n"), PREVIEW_CHARACTERS)


def _add_metric(
    metrics: dict[str, float], name: str, value: float | None, factor: float = 1
) -> None:
    if value is not None:
        metrics[name] = round(value * factor, METRIC_DECIMALS)


def variant_tags(
    variant_config: VariantConfig, card: ModelIdentity, summary: VariantSummary
) -> dict[str, str]:
    """Return the tags that a filter in the MLflow UI can use."""
    tags = {
        KIND_TAG: "variant",
        FAMILY_TAG: variant_config.family,
        ROLE_TAG: variant_config.role,
        SCORER_TAG: summary.primary,
        RATE_TAG: _rate(summary),
        COMPARABILITY_TAG: _fingerprint(summary),
    }
    if variant_config.parent:
        tags[PARENT_TAG] = variant_config.parent
    if card.texts:
        tags[ORIGIN_TAG] = "texts handed in"
    if variant_config.served_model_name:
        tags[ORIGIN_TAG] = "texts from a server"
    if card.api:
        tags[ORIGIN_TAG] = "texts from a server, weights not known"
    return tags


def _rate(summary: VariantSummary) -> str:
    """Format the primary scorer's rate over all subsets, with its interval."""
    row = next(r for r in summary.rates if (r.scorer, r.subset) == (summary.primary, ALL))
    return f"{percent(row.rate)} {percent_interval(row.rate_lo, row.rate_hi)}"


def variant_hashes(card: ModelIdentity, files: Mapping[str, Path]) -> dict[str, str]:
    """Return the hashes that connect the run with weights, training data and DVC's cache."""
    hashes = {
        "model_fingerprint": card.fingerprint,
        "base_sha256": card.base.sha256,
        "base_revision": card.base.resolved,
        "generations_md5": _md5(files["generations.parquet"]),
        "scores_md5": _md5(files["scores.parquet"]),
    }
    if card.adapters:
        last = card.adapters[-1]
        hashes["adapter_sha256"] = last.sha256
        if last.training:
            hashes["parent_fingerprint"] = last.training.parent_fingerprint
            hashes["training_data_sha256"] = last.training.data_sha256
    return hashes


def comparison_tags(family: str, summary: ComparisonSummary) -> dict[str, str]:
    """Return the tags that a filter in the MLflow UI can use."""
    tags = {
        KIND_TAG: "comparison",
        FAMILY_TAG: family,
        SCORER_TAG: summary.primary,
        COMPARABILITY_TAG: _fingerprint(summary),
    }
    warning = mismatch_note(summary)
    return {**tags, MISMATCH_TAG: warning[:MAX_TAG_CHARS]} if warning else tags


def _md5(path: Path) -> str:
    """Return the hash that dvc.lock uses for the file; it has no security function."""
    with open_regular(path) as file:
        return hashlib.file_digest(file, lambda: hashlib.md5(usedforsecurity=False)).hexdigest()


def run_params(manifest: Manifest) -> dict[str, str | int | float]:
    """Return the settings of all stages of the lineage."""
    params: dict[str, str | int | float] = {}
    for node in walk_lineage(manifest):
        params.update({k: v for k, v in flatten_dict(node.params).items() if v is not None})
        if node.model and node.model.adapters and (training := node.model.adapters[-1].training):
            params.update(flatten_dict({"finetune": training.recipe}))
    return params


def run_datasets(
    manifest: Manifest, card: ModelIdentity, prompts: Sequence[Prompt]
) -> list[DatasetInput]:
    """Return the prompt set and the training data of every adapter trained here."""
    source = next(
        (i for node in walk_lineage(manifest) for n, i in node.inputs.items() if n == "prompts"),
        None,
    )
    if source is None:
        raise DataError("The manifest of the scores has no prompts. Run `dvc repro`.")
    datasets = [
        DatasetInput(
            "prompts", source.path, source.sha256, "evaluation",
            _prompts_schema(prompts), _prompts_profile(prompts),
        )
    ]  # fmt: skip
    for adapter in card.adapters:
        if adapter.training:
            data = adapter.training
            profile = canonical_json({"num_rows": data.examples})
            datasets.append(
                DatasetInput(
                    f"{adapter.key}-data", data.data_uri, data.data_sha256, "training", "", profile
                )
            )
    return datasets


def _prompts_schema(prompts: Sequence[Prompt]) -> str:
    """Return the columns of prompts.parquet in the format of MLflow's data sets."""
    columns = [
        {
            "name": field.name,
            "type": MLFLOW_TYPES.get(str(field.type), "any"),
            "required": not field.nullable,
        }
        for field in PROMPT_SCHEMA
        if field.name not in OPTIONAL_PROMPT_COLUMNS
        or any(getattr(prompt, field.name) for prompt in prompts)
    ]
    return canonical_json({"mlflow_colspec": columns})


def _prompts_profile(prompts: Sequence[Prompt]) -> str:
    """Return numbers of prompts by subset and language, and the sources of the subsets."""
    return canonical_json(
        {
            "num_rows": len(prompts),
            "subsets": Counter(prompt.subset for prompt in prompts),
            "languages": Counter(prompt.language for prompt in prompts if prompt.language),
            "sources": {prompt.subset: prompt.source for prompt in prompts},
        }
    )


def run_weights(
    variant: str, card: ModelIdentity, metrics: Mapping[str, float], description: str
) -> LoggedWeights | None:
    """Return the logged model of a variant: its last adapter, which makes it differ from its
    parent, or its base. None if only texts are known.

    Args:
        metrics: of the run; the rates over all subsets are those of the model.
    """
    if card.texts is not None:
        return None
    shown = [name for name in metrics if re.search(r"/all/rate(_lo|_hi)?_pct$", name)]
    if not card.adapters:
        tags = {f"sha256.{file.path}": file.sha256 for file in card.base.files}
        params = {"base": card.base.uri, "precision": card.base.quantization or ""}
        return LoggedWeights(
            variant, "base weights", card.base.sha256, tags,
            {name: value for name, value in params.items() if value}, shown, description,
        )  # fmt: skip
    last = card.adapters[-1]
    tags = {f"sha256.{file.path}": file.sha256 for file in last.files}
    params = {"base": card.base.uri, "base_sha256": card.base.sha256}
    if last.training:
        tags["training_data_sha256"] = last.training.data_sha256
        params |= {k: str(v) for k, v in flatten_dict(last.training.recipe).items()}
    return LoggedWeights(variant, "LoRA adapter", last.sha256, tags, params, shown, description)


def variant_description(
    variant: str, variant_config: VariantConfig, summary: VariantSummary, card: ModelIdentity
) -> str:
    """Return Markdown for the run page: rate, link to the verdict, lineage, commands."""
    primary = summary.primary
    rows = {row.subset: row for row in summary.rates if row.scorer == primary}
    overall = rows[ALL]
    worst = max(rows.values(), key=lambda row: (row.rate or 0.0, row.subset != ALL))
    family = _search_link(
        f"tags.{FAMILY_TAG}", variant_config.family, f"tags.{KIND_TAG} = 'comparison'"
    )
    comparable = _search_link(f"tags.{COMPARABILITY_TAG}", _fingerprint(summary))
    against = (
        f"its parent `{variant_config.parent}`"
        if variant_config.parent
        else "the others of its family"
    )
    return "\n".join(
        [
            f"**{variant}** ({variant_config.role} of {variant_config.family}): "
            f"toxicity rate **{_rate(summary)}**, "
            f"{overall.n_toxic} of {overall.n_scored} continuations (toxic: the scorer {primary} "
            f"gives at least {overall.threshold:g}). Highest in *{worst.subset}*: "
            f"{percent(worst.rate)}, {worst.n_toxic} of {worst.n_scored}.",
            "",
            f"**Verdict** against {against}: the tags `{VERDICT_TAG}` and `{DIFFERENCE_TAG}`, and "
            f"the [comparison of {variant_config.family}]({family}). "
            f"[Runs under the same conditions]({comparable}) may be compared.",
            "",
            "**Lineage**, from the base to this variant:",
            "",
            *_lineage_lines(card),
            "",
            "**Reproduce and audit**, in the experiment's folder:",
            "",
            *_shell_block(
                f"dvc repro track@{variant}",
                f"toxtrail audit {variant}",
                f"toxtrail audit {variant} --verify",
                *([f"toxtrail audit {variant} --reproduce 8"] if card.texts is None else []),
                *(
                    [f"toxtrail flips {variant_config.parent} {variant}"]
                    if variant_config.parent
                    else []
                ),
            ),
            "",
            "`tables/generations.json` shows generated text, which can be offensive. "
            "`generations.parquet` and `scores.parquet` contain every row.",
        ]
    )


def comparison_description(family: str, summary: ComparisonSummary) -> str:
    """Return Markdown for the run page: the result, one line for each pair, runs, commands."""
    view = ComparisonView(summary, summary.primary)
    results = verdicts(view)
    answer, *details = plain_answer(view)
    lines = [f"- {verdict.markdown}" for verdict in results[:MAX_LISTED_PAIRS]]
    if len(results) > MAX_LISTED_PAIRS:
        lines.append(f"- and {len(results) - MAX_LISTED_PAIRS} more: `pairs.csv`")
    runs = [
        f"[{v.variant}]({_search_link(f'tags.`{KEY_TAG}`', v.content_key)})"
        if v.content_key and index < MAX_LINKED_RUNS
        else v.variant
        for index, v in enumerate(summary.variants)
    ]
    variants = _search_link(f"tags.{FAMILY_TAG}", family, f"tags.{KIND_TAG} = 'variant'")
    texts = f"{variants}&compareRunsMode=ARTIFACT"
    page = "\n".join(
        [
            *(line for text in warnings(view) for line in (f"**{text[:MAX_TAG_CHARS]}**", "")),
            f"**{family}**: **{answer}** {' '.join(details)}",
            "",
            family_headline(view),
            "",
            f"All subsets together, {method_line(view)}:",
            "",
            *lines,
            "",
            *([PAIR_WORDS, ""] if lines else []),
            f"**Runs compared**: {', '.join(runs)}. "
            f"[Side by side]({_search_link(f'tags.{FAMILY_TAG}', family)}), "
            f"[texts side by side]({texts}).",
            "",
            "**Reproduce and audit**, in the experiment's folder:",
            "",
            *_shell_block(
                f"dvc repro track-comparison@{family}",
                f"toxtrail compare {family}",
                f"toxtrail audit {family}",
                f"toxtrail audit {family} --verify",
            ),
        ]
    )
    return page + _notes_that_fit(comparison_notes(view), MAX_DESCRIPTION_CHARS - len(page))


def _notes_that_fit(notes: Sequence[str], room: int) -> str:
    """Return the notes as a Markdown list below a heading; those without room are counted."""
    text, rest = "\n\n**Notes**\n", len(notes)
    for note in notes:
        line = f"\n- {escape_markdown(note)}"
        if len(text) + len(line) + len(MORE_NOTES) > room:
            break
        text, rest = text + line, rest - 1
    return text + (MORE_NOTES.format(rest) if rest else "")


def verdict_tags(summary: ComparisonSummary, comparison: str) -> dict[str, dict[str, str]]:
    """Return the content key of each variant's run -> tags with the comparison's verdict.

    Args:
        comparison: content key of the comparison's run.
    """
    rows = [r for r in ComparisonView(summary, summary.primary).pairs if r.subset == ALL]
    tags = {}
    for variant in summary.variants:
        if not variant.content_key:
            continue
        own = sorted(
            (row for row in rows if row.b == variant.variant), key=lambda r: r.relation != "parent"
        )
        texts = {COMPARISON_TAG: comparison, VERDICT_TAG: "reference"}
        if own:
            texts |= {VERDICT_TAG: marked_verdict(own[0]), DIFFERENCE_TAG: _difference(own[0])}
        if own[1:]:
            others = [f"{marked_verdict(row)}, {_difference(row)}" for row in own[1:]]
            texts[REFERENCE_TAG] = "; ".join(others)
        tags[variant.content_key] = {n: text[:MAX_TAG_CHARS] for n, text in texts.items()}
    return tags


def _difference(row: PairRow) -> str:
    interval = points_interval(row.diff_lo, row.diff_hi)
    return f"{percentage_points(row.diff)} {interval} points against {row.a}"


def model_metrics(summary: ComparisonSummary) -> dict[str, str]:
    """Return metric of a difference over all subsets -> content key of the run of its variant b,
    whose logged model has the metric too."""
    keys = {variant.variant: variant.content_key for variant in summary.variants}
    rows = [row for row in summary.pairs if row.subset == ALL and keys.get(row.b)]
    return {
        name: str(keys[row.b])
        for row in rows
        for name in pair_metrics([row])
        if re.search(r"/diff(_lo|_hi)?_pp$", name)
    }


def _fingerprint(summary: VariantSummary | ComparisonSummary) -> str:
    return summary.comparability.fingerprint if summary.comparability else ""


def _search_link(field: str, value: str, *more: str) -> str:
    """Return a link to the runs whose field has this value; it does not depend on run ids."""
    from urllib.parse import quote

    clause = " and ".join([f"{field} = '{value}'", *more])
    return (
        f"#/experiments/{EXPERIMENT_PLACEHOLDER}/runs?searchFilter={quote(clause, safe='')}"
        "&workflowType=machine_learning"
    )


def _lineage_lines(card: ModelIdentity) -> list[str]:
    base = card.base
    if not card.has_weights:
        return [f"1. texts from `{base.uri}`", "", f"**Weak**: {origin_caveat(card)}."]
    lines = [
        f"1. base `{base.uri}` ({base.quantization or base.stored_dtype}), sha256 "
        f"`{base.sha256[:16]}`"
    ]
    for number, adapter in enumerate(card.adapters, start=2):
        data = adapter.training
        training_data = (
            f", trained here on `{data.data_uri}` (`{data.data_sha256[:16]}`)" if data else ""
        )
        included = "".join(f", its own {what} (`{sha256[:16]}`)" for what, sha256 in adapter.brings)
        lines.append(
            f"{number}. adapter `{adapter.key}`, sha256 `{adapter.sha256[:16]}`"
            f"{included}{training_data}"
        )
    return lines


def _shell_block(*lines: str) -> list[str]:
    return ["```sh", *lines, "```"]
