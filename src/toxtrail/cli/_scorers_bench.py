"""`toxtrail scorers bench`: measure scorers on a labelled file."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from toxtrail.cli._output import json_option, print_json, print_table, tell_delimiter
from toxtrail.console import echo
from toxtrail.errors import ConfigError, did_you_mean
from toxtrail.experiment import Experiment

if TYPE_CHECKING:
    from toxtrail.config.scorer_kinds.base import ScorerConfig
    from toxtrail.datasets.labelled_texts import LabelledFile, TextColumns
    from toxtrail.records.rows import Score
    from toxtrail.records.scorer_bench import BenchRow


@click.command("bench", short_help="Measure scorers on a labelled file.")
@click.argument("file", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option("--scorer", "names", multiple=True, metavar="NAME", help="Default: all; repeatable.")
@click.option("--text", metavar="COLUMN", help="Column of the texts (with --label).")
@click.option("--label", metavar="COLUMN", help="Column of the labels (with --text).")
@click.option("--prompt", metavar="COLUMN", help="Column of the prompts that the texts answer.")
@click.option("--by", metavar="COLUMN", help="Also measure each group of texts by this column.")
@json_option
@click.pass_obj
def bench(
    experiment: Experiment,
    file: Path,
    names: tuple[str, ...],
    text: str | None,
    label: str | None,
    prompt: str | None,
    by: str | None,
    as_json: bool,
) -> None:
    """Measure sensitivity, specificity and the area under the ROC curve of the configured scorers
    on the labelled texts of FILE (.csv, .tsv, .json, .jsonl or .parquet), and print the lines for
    posterior.scorer_error of params.yaml.

    Columns are detected for HateCheck, ToxicChat, Jigsaw and sheets of `labels sample`; name them
    with --text and --label for any other file. Labels are yes or no, 1 or 0, true or false, toxic
    or harmless, hateful or non-hateful; under toxicity and target also the share of annotators,
    toxic from 0.5. Rows without a label are left out. A scorer that sees the prompt needs --prompt.

    Scored texts are kept: a stopped command continues where it was.

    \b
    Examples:
      toxtrail scorers bench hatecheck.csv --by functionality
      toxtrail scorers bench answers.jsonl --text answer --label unsafe --prompt question
      toxtrail scorers bench labels.csv --scorer jigsaw-bilstm --json
    """
    from toxtrail.analysis.scorer_bench import bench_rows, unscored_reasons
    from toxtrail.datasets.labelled_texts import labelled_texts
    from toxtrail.datasets.readers import read_rows

    posterior, scorers = experiment.config.posterior, _chosen(experiment, names)
    _require_prompts(scorers, prompt)
    labelled = labelled_texts(file, read_rows(file), _columns(text, label), prompt, by)
    tell_delimiter(file)
    rows: dict[str, list[BenchRow]] = {}
    reasons: dict[str, dict[str, int]] = {}
    for name, config in scorers.items():
        scores = _scores(experiment, name, config, labelled)
        threshold = posterior.threshold_of(name)
        rows[name] = bench_rows(labelled.texts, scores, threshold, posterior.level, posterior.prior)
        if unscored := unscored_reasons(scores):
            reasons[name] = unscored
    entries, unbound = _entries(experiment, scorers, rows, file)
    if as_json:
        _print_json(labelled, rows, reasons, entries, unbound)
        return
    _print_tables(experiment, file.name, labelled, rows, reasons)
    _print_entries(entries, unbound)


def _chosen(experiment: Experiment, names: Sequence[str]) -> dict[str, ScorerConfig]:
    scorers = experiment.config.scoring.scorers
    for name in names:
        if name not in scorers:
            raise ConfigError(f'--scorer: "{name}" is not a scorer.{did_you_mean(name, scorers)}')
    return {name: config for name, config in scorers.items() if name in (names or scorers)}


def _require_prompts(scorers: Mapping[str, ScorerConfig], prompt: str | None) -> None:
    seeing = [name for name, config in scorers.items() if config.sees_prompt]
    if seeing and prompt is None:
        raise ConfigError(
            f"{', '.join(seeing)}: a scorer that sees the prompt. Name the column of the prompts "
            "with --prompt, or other scorers with --scorer."
        )


def _columns(text: str | None, label: str | None) -> TextColumns | None:
    from toxtrail.datasets.labelled_texts import TextColumns

    if (text is None) != (label is None):
        raise click.UsageError("--text and --label belong together. Give both, or none.")
    return None if text is None or label is None else TextColumns(text, label)


def _scores(
    experiment: Experiment, name: str, config: ScorerConfig, labelled: LabelledFile
) -> list[Score]:
    """Load a scorer and score the texts; finished ones are kept in a journal."""
    from toxtrail.analysis.scorer_bench import rows_to_score
    from toxtrail.backends.compute.devices import pick_device, set_num_threads
    from toxtrail.backends.protocols import SingleProcess
    from toxtrail.execution.factories import make_scorers, scoring_environment
    from toxtrail.execution.progress import progress
    from toxtrail.execution.score_rows import (
        ScoringInput,
        collect_scores,
        rows_identity,
        score_generations,
    )
    from toxtrail.stages.score import score_manifest

    runtime = experiment.config.runtime
    device = pick_device(runtime.device)
    set_num_threads(runtime.threads)
    (scorer,) = make_scorers(experiment, {name: config}, device)
    environment = scoring_environment([scorer], device)
    manifest = score_manifest("bench", {}, experiment.config.scoring, [scorer], environment)
    rows = rows_to_score(labelled.texts)
    prompts = {
        row.prompt_id: text.prompt or "" for row, text in zip(rows, labelled.texts, strict=True)
    }
    requests = ScoringInput(rows, prompts)
    with experiment.store.row_journal("bench", name, rows_identity(manifest, name)) as journal:
        score_generations(requests, scorer, journal, progress(), SingleProcess())
        scores = collect_scores(requests, {name: (scorer, journal)})
        journal.delete_other_identities()
    return scores


def _entries(
    experiment: Experiment,
    scorers: Mapping[str, ScorerConfig],
    rows: Mapping[str, Sequence[BenchRow]],
    file: Path,
) -> tuple[dict[str, Any], dict[str, str]]:
    """Return scorer -> entry in posterior.scorer_error, and scorer -> why there is none."""
    from toxtrail.analysis.scorer_bench import scorer_error_entry
    from toxtrail.provenance.identity import sha256_file
    from toxtrail.provenance.measured_scorers import measured_on

    digest, entries, unbound = sha256_file(file), dict[str, Any](), dict[str, str]()
    for name, config in scorers.items():
        everything = rows[name][0]
        if not (everything.scored_toxic and everything.scored_harmless):
            unbound[name] = "It has no score for any text of one of the labels."
            continue
        try:
            measured = measured_on(config.plain(), everything.threshold, digest)
        except ConfigError as error:
            unbound[name] = str(error)
        else:
            entries[name] = scorer_error_entry(everything, file.name, measured)
    return entries, unbound


def _print_json(
    labelled: LabelledFile,
    rows: Mapping[str, Sequence[BenchRow]],
    reasons: Mapping[str, Mapping[str, int]],
    entries: Mapping[str, Any],
    unbound: Mapping[str, str],
) -> None:
    from toxtrail.records.columns import to_json

    print_json(
        {
            "columns": labelled.columns._asdict(),
            "unlabelled": labelled.unlabelled,
            "rows": [to_json(row) for scorer_rows in rows.values() for row in scorer_rows],
            "unscored": reasons,
            "scorer_error": entries,
            "without_entry": unbound,
        }
    )


def _print_tables(
    experiment: Experiment,
    name: str,
    labelled: LabelledFile,
    rows: Mapping[str, Sequence[BenchRow]],
    reasons: Mapping[str, Mapping[str, int]],
) -> None:
    from toxtrail.reporting.scorer_bench_table import bench_notes, bench_table

    posterior = experiment.config.posterior
    everything = [row for scorer_rows in rows.values() for row in scorer_rows]
    print_table(bench_table(everything, name))
    for note in bench_notes(everything, posterior.level, posterior.prior, reasons):
        echo(note)
    echo(f"Texts are read from {labelled.columns.text}, labels from {labelled.columns.label}.")
    if labelled.unlabelled:
        echo(f"{labelled.unlabelled:,} rows without a label were left out.")


def _print_entries(entries: Mapping[str, Any], unbound: Mapping[str, str]) -> None:
    import yaml

    from toxtrail.reporting.scorer_bench_table import ASSUMPTION

    for name, reason in unbound.items():
        echo(f"No entry for {name}: {reason}", fg="yellow")
    if entries:
        echo("Put this into params.yaml, under posterior:\n")
        echo(yaml.safe_dump({"scorer_error": entries}, sort_keys=False, width=100))
        echo(f"warning: {ASSUMPTION}", fg="yellow")
