"""A comparison of two files of texts without an experiment: it has the prompts of both files."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import NamedTuple

from toxtrail.analysis.comparison import MeasuredRun, compare_runs
from toxtrail.analysis.response_table import build_response_table, refusal_columns
from toxtrail.analysis.score_table import build_score_table
from toxtrail.analysis.text_matching import group_by_prompt
from toxtrail.analysis.variant_rates import (
    estimate_variant_rates,
    measured_conditions,
    with_language_counts,
)
from toxtrail.config.schema import PosteriorConfig
from toxtrail.datasets.generated_texts.common import GeneratedText
from toxtrail.errors import DataError
from toxtrail.provenance.identity import InputFile, Manifest, sha256_text
from toxtrail.provenance.measured_scorers import require_measured_scorers
from toxtrail.records.results import ComparisonSummary, VariantIdentity
from toxtrail.records.rows import Generation, Prompt, Score

SUBSET = "texts"
"""Name of the subset of all shared prompts."""


class SharedPrompts(NamedTuple):
    """The prompts that two files have in common, without surrounding white space."""

    prompts: list[Prompt]
    samples: int
    """Continuations that are compared: as many as a prompt has at most in both files."""
    only_in: tuple[int, int]
    """Prompts that only the first, only the second file has."""


class ScoredFile(NamedTuple):
    """The rows of one file, scored."""

    label: str
    generations: Sequence[Generation]
    scores: Sequence[Score]
    manifest: Manifest
    """Manifest of the scores, which contains that of the texts."""


def shared_prompts(
    a: Iterable[GeneratedText], b: Iterable[GeneratedText], language: str | None = None
) -> SharedPrompts:
    """Return the prompts of both files, in the order of the first.

    Args:
        language: of the prompts, a BCP 47 tag.

    Raises:
        DataError: there are none, or a sample number occurs twice.
    """
    first, second = _text_counts(a), _text_counts(b)
    names = [name for name in first if name in second]
    if not names:
        raise DataError(
            f"The files have no prompt in common ({len(first):,} and {len(second):,} prompts). "
            "Prompts are matched by their text; --prompt names another field."
        )
    samples = min(max(counts[name] for name in names) for counts in (first, second))
    prompts = [
        Prompt(f"{SUBSET}-{sha256_text(name)[:12]}", SUBSET, name, "", number, language)
        for number, name in enumerate(names)
    ]
    only = len(first) - len(names), len(second) - len(names)
    return SharedPrompts(prompts, samples, only)


def compare_scored_files(
    a: ScoredFile, b: ScoredFile, primary: str, config: PosteriorConfig
) -> ComparisonSummary:
    """Return the summary of the comparison of b with a."""
    runs = [_measured(file, primary, config) for file in (a, b)]
    return compare_runs(runs, f"{b.label} against {a.label}", allow_mismatch=False)


def _text_counts(texts: Iterable[GeneratedText]) -> Mapping[str, int]:
    """Return prompt without surrounding white space -> number of its texts."""
    counts: dict[str, int] = {}
    for prompt, prompt_texts in group_by_prompt(texts).items():
        counts[prompt.strip()] = counts.get(prompt.strip(), 0) + len(prompt_texts)
    return counts


def _measured(file: ScoredFile, primary: str, config: PosteriorConfig) -> MeasuredRun:
    require_measured_scorers(config, file.manifest)
    table, responses = (
        build_score_table(file.scores),
        build_response_table(
            file.generations,
            "words",
            True,
            [k for k, v in file.manifest.params["scorers"].items() if "refusal" in v],
            refusal_columns(file.scores),
        ),
    )
    variant = VariantIdentity(variant=file.label, family="texts", role="texts", parent=None)
    scores = InputFile(path=file.label, sha256="", manifest=file.manifest)
    conditions = measured_conditions(table, scores, config)
    estimates = estimate_variant_rates(table, responses, variant, primary, config, conditions)
    manifest = {**file.manifest.to_json(), "params": {"posterior": config.plain()}}
    counted = with_language_counts(estimates.summary, responses, scores)
    summary = replace(counted, manifest=manifest)
    return MeasuredRun(file.label, summary, file.scores, file.generations)
