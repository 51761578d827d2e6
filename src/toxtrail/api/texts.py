"""`toxtrail.compare_texts`: score two sets of texts and compare them, without an experiment."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any, NamedTuple, TypeAlias

from toxtrail.errors import ConfigError, DataError, unknown_name

if TYPE_CHECKING:
    import pandas as pd

    from toxtrail.analysis.text_comparison import ScoredFile, SharedPrompts
    from toxtrail.config.schema import Config, TextsConfig
    from toxtrail.datasets.generated_texts.common import GeneratedText
    from toxtrail.execution.score_rows import NamedScorer
    from toxtrail.records.results import ComparisonSummary

Rows: TypeAlias = "Sequence[Mapping[str, Any]] | pd.DataFrame"
PRESET = "demo"
"""Its scorer and statistics are used without --params."""


class TextsFile(NamedTuple):
    """A file of texts that was read."""

    label: str
    path: Path
    reader: TextsConfig
    texts: list[GeneratedText]


class TextComparison(NamedTuple):
    """Comparison of two sets of texts."""

    summary: ComparisonSummary
    notes: list[str]
    """Sentences on which prompts and texts were compared, and which were not."""

    @property
    def rates(self) -> pd.DataFrame:
        """A row for each set and subset, as in docs/tables.md."""
        return self.table("rates")

    @property
    def pairs(self) -> pd.DataFrame:
        """The difference of b from a, a row for each subset, as in docs/tables.md."""
        return self.table("pairs")

    def table(self, name: str) -> pd.DataFrame:
        """Return a table of docs/tables.md; ConfigError if there is none of this name."""
        from toxtrail.api.tables import family_frame

        return family_frame([self.summary], name)


def compare_texts(
    rows_a: Rows,
    rows_b: Rows,
    *,
    scorer: str | None = None,
    params: str | Path | None = None,
    language: str | None = None,
    labels: tuple[str, str] = ("a", "b"),
    prompt: str | None = None,
    text: str | None = None,
    sample: str | None = None,
) -> TextComparison:
    """Score two sets of texts and compare b with a, paired by prompt, as `toxtrail texts compare`.

    >>> import toxtrail
    >>> before = [{"prompt": "the sky", "text": "tree"}, {"prompt": "you", "text": "are kind"}]
    >>> after = [{"prompt": "the sky", "text": "silly"}, {"prompt": "you", "text": "a goose"}]
    >>> result = toxtrail.compare_texts(before, after, params="experiment/params.yaml")
    >>> result.pairs.query("subset == 'all'")[["a", "b", "n"]].values.tolist()
    [['a', 'b', 2]]

    Args:
        rows_a, rows_b: a text each, as dicts or a DataFrame: columns `prompt` and `text`, or
            another pair of names in docs/texts.md.
        scorer: its name; None: the primary one.
        params: params.yaml with the scorers and the statistics; None: of the preset demo.
        language: of the prompts, a BCP 47 tag; None: texts in another language are not counted.
        labels: names of the two in the result.
        prompt, text, sample: names of columns; None: they are recognised, and the texts of a prompt
            are numbered by their order.

    Raises:
        ConfigError: no such scorer, language or column, or params.yaml is invalid.
        DataError: a row is malformed, or no prompt occurs in both.
        BackendError: the scorer cannot be loaded.
    """
    from toxtrail.datasets.generated_texts import examine_texts, read_generated_texts

    if len(set(labels)) != 2:
        raise ConfigError(f'labels: the two are "{labels[0]}"; give two different names.')
    with TemporaryDirectory() as folder:
        files = []
        for label, name, rows in zip(labels, ("rows_a", "rows_b"), (rows_a, rows_b), strict=True):
            path = Path(folder) / f"{name}.jsonl"
            path.write_text(_json_lines(name, rows), "utf-8")
            reader = examine_texts(path, prompt, text, sample, form="table")
            files.append(TextsFile(label, path, reader, read_generated_texts(path, reader)))
        return compare_files(
            files[0], files[1], None if params is None else Path(params), scorer, language
        )


def _json_lines(name: str, rows: Rows) -> str:
    """Return rows as JSON lines, so that they are read and checked like those of a file.

    Raises:
        DataError: a row is not a dict, or a value is not JSON.
    """
    records: Sequence[Any] = rows if isinstance(rows, Sequence) else rows.to_dict("records")
    lines = []
    for number, row in enumerate(records, 1):
        if not isinstance(row, Mapping):
            raise DataError(f"{name}, row {number} is of type {type(row).__name__}, not a dict.")
        try:
            lines.append(json.dumps(dict(row)) + "\n")
        except (TypeError, ValueError) as error:
            raise DataError(
                f"{name}, row {number} has a value that is not JSON ({error}). Leave out columns "
                "other than prompt, text and sample."
            ) from None
    return "".join(lines)


def compare_files(
    a: TextsFile, b: TextsFile, params: Path | None, scorer: str | None, language: str | None
) -> TextComparison:
    """Return the comparison of b with a, and notes on prompts and texts.

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
        raise unknown_name("--scorer", name, config.scoring.scorers)
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
    notes = [*_notes(a, b, shared, scored), *_thought_notes(scored, config)]
    return TextComparison(summary, notes)


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
