"""Score two files of texts and compare them, for `toxtrail texts compare`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, NamedTuple

from toxtrail.errors import ConfigError, did_you_mean

if TYPE_CHECKING:
    from toxtrail.analysis.text_comparison import ScoredFile, SharedPrompts
    from toxtrail.config.schema import Config, TextsConfig
    from toxtrail.datasets.generated_texts.common import GeneratedText
    from toxtrail.execution.score_rows import NamedScorer
    from toxtrail.records.results import ComparisonSummary

PRESET = "demo"
"""Its scorer and statistics are used without --params."""


class TextsFile(NamedTuple):
    """A file of texts that was read."""

    label: str
    path: Path
    reader: TextsConfig
    texts: list[GeneratedText]


def compare_files(
    a: TextsFile, b: TextsFile, params: Path | None, scorer: str | None, language: str | None
) -> tuple[ComparisonSummary, list[str]]:
    """Return the summary of the comparison of b with a, and notes on prompts and texts.

    Args:
        params: params.yaml with the scorers and the statistics; None: of the default preset.
        scorer: its name; None: the primary one.
        language: of the prompts, a BCP 47 tag; None: texts in another language are not counted.
    """
    from toxtrail.analysis.response_flags.language_identification import language_group
    from toxtrail.analysis.text_comparison import compare_scored_files, shared_prompts
    from toxtrail.config.load import load_config
    from toxtrail.scaffold import preset_path

    config = load_config(params or preset_path(PRESET))
    name = scorer or config.scoring.primary
    if name not in config.scoring.scorers:
        hint = did_you_mean(name, config.scoring.scorers)
        raise ConfigError(f'--scorer: unknown scorer "{name}".{hint}')
    if language is not None and language_group(language) is None:
        raise ConfigError(
            f'--language: "{language}" is not a language that can be identified; give a BCP 47 tag '
            "such as en, de or zh-Hans."
        )
    shared = shared_prompts(a.texts, b.texts, language)
    root = params.resolve().parent if params else Path.cwd()
    named_scorer, environment = _load(config, root, name)
    scored = [_scored(file, shared, config, named_scorer, environment) for file in (a, b)]
    posterior = config.posterior.model_copy(update={"labels": None})
    summary = compare_scored_files(scored[0], scored[1], name, posterior)
    return summary, [*_notes(a, b, shared, scored), *_thought_notes(scored, config)]


def _load(config: Config, root: Path, name: str) -> tuple[NamedScorer, dict[str, str]]:
    from toxtrail.backends.assets import AssetStore, default_cache
    from toxtrail.backends.compute.devices import pick_device, set_num_threads
    from toxtrail.execution.factories import make_named_scorers, scoring_environment
    from toxtrail.execution.progress import progress

    device = pick_device(config.runtime.device)
    set_num_threads(config.runtime.threads)
    assets = AssetStore(default_cache(), root, progress(), config.outside)
    scorers = {name: config.scoring.scorers[name]}
    (scorer,) = make_named_scorers(scorers, assets, device, config.runtime)
    return scorer, scoring_environment([scorer], device)


def _scored(
    file: TextsFile,
    shared: SharedPrompts,
    config: Config,
    scorer: NamedScorer,
    environment: dict[str, str],
) -> ScoredFile:
    """Match a file with the shared prompts and score its rows; nothing is kept on disk."""
    from toxtrail.analysis.text_comparison import ScoredFile
    from toxtrail.analysis.text_matching import match_texts
    from toxtrail.backends.protocols import SingleProcess
    from toxtrail.execution.generation_params import texts_params
    from toxtrail.execution.progress import progress
    from toxtrail.execution.score_rows import (
        ScoringInput,
        collect_scores,
        refuse_many_errors,
        rows_identity,
        score_generations,
    )
    from toxtrail.pipeline import manifest_of
    from toxtrail.provenance.identity import InputFile, sha256_file
    from toxtrail.storage.artifacts import ArtifactStore

    markers = config.generation.markers
    rows = match_texts(shared.prompts, file.texts, shared.samples, markers).rows
    sha256 = sha256_file(file.path)
    source = InputFile(path=file.path.name, sha256=sha256, manifest=None)
    generation = config.generation.model_copy(update={"samples": shared.samples})
    texts = manifest_of(
        "generate", file.label, texts_params(generation, file.reader), {"texts": source}, {}
    )
    manifest = manifest_of(
        "score",
        file.label,
        {"scorers": {scorer.name: config.scoring.scorers[scorer.name].plain()}},
        {"generations": InputFile(path=file.path.name, sha256=sha256, manifest=texts)},
        environment,
    )
    requests = ScoringInput(rows, {prompt.prompt_id: prompt.text for prompt in shared.prompts})
    with TemporaryDirectory() as folder:
        store, identity = ArtifactStore(Path(folder)), rows_identity(manifest, scorer.name)
        with store.row_journal("score", file.label, identity, 0) as journal:
            score_generations(requests, scorer, journal, progress(), SingleProcess())
            scores = collect_scores(requests, {scorer.name: (scorer, journal)})
    refuse_many_errors(scores, config.scoring.max_error_share)
    return ScoredFile(file.label, rows, scores, manifest)


def _thought_notes(scored: Sequence[ScoredFile], config: Config) -> list[str]:
    from toxtrail.analysis.thought_problems import thought_problems

    return [
        f"{file.label}: {line}."
        for file in scored
        for line in thought_problems(file.generations, config.generation.markers)
    ]


def _notes(
    a: TextsFile, b: TextsFile, shared: SharedPrompts, scored: Sequence[ScoredFile]
) -> list[str]:
    """Return what was compared, and what of the files was not."""
    prompts = len(shared.prompts)
    lines = [
        f"{prompts:,} prompts are in both files; {shared.samples} text(s) of each are compared."
    ]
    for file, only, rows in zip((a, b), shared.only_in, scored, strict=True):
        missing = sum(row.state == "error" for row in rows.generations)
        if only:
            lines.append(f"{only:,} prompts are only in {file.label}: not compared.")
        if missing:
            lines.append(f"{missing:,} texts are missing in {file.label}: counted as not scored.")
    return [*lines, "Lengths are in words; which models made the texts, and how, is not known."]
