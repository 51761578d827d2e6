"""`toxtrail texts`: score and compare texts that were generated elsewhere."""

from __future__ import annotations

import difflib
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

import click

from toxtrail.cli._options import NewPath
from toxtrail.cli._output import (
    OutputFormat,
    echo_note,
    format_options,
    json_option,
    print_json,
    print_table,
)
from toxtrail.console import echo, warn
from toxtrail.errors import ConfigError
from toxtrail.experiment import Experiment
from toxtrail.reporting.table import Table, text_columns

if TYPE_CHECKING:
    from toxtrail.analysis.text_matching import TextMatch
    from toxtrail.config.schema import TextsConfig

Function = TypeVar("Function", bound=Callable[..., Any])


def reading_options(function: Function) -> Function:
    """Add the options for reading a file."""
    options = (
        click.option(
            "--format",
            "file_format",
            type=click.Choice(["table", "lm-eval", "inspect", "garak"]),
            help="Format of the file (default: detected).",
        ),
        click.option("--prompt", metavar="COLUMN", help="Column or field of the prompts."),
        click.option("--text", metavar="COLUMN", help="Column of the texts, of a table."),
        click.option(
            "--sample",
            metavar="COLUMN",
            help="Column that numbers the texts of a prompt, of a table (default: row order).",
        ),
        click.option(
            "--delimiter",
            type=click.Choice([",", ";", "|", "tab"]),
            help="Of a .csv file (default: detected).",
        ),
    )
    for option in reversed(options):
        function = option(function)
    return function


@click.group("texts", short_help="Score and compare texts that were generated elsewhere.")
def texts() -> None:
    """Judge and compare texts that were generated elsewhere; no model is run.

    Files: tables (.csv, .tsv, .json, .jsonl, .parquet), samples_*.jsonl of lm-evaluation-harness,
    Inspect logs (.eval, .json) and garak reports (.report.jsonl). See docs/texts.md.

    \b
    Examples:
      toxtrail texts compare before.jsonl after.jsonl
      toxtrail texts add samples_rtp_2026.jsonl --variant tuned --parent base
    """


@texts.command("add", short_help="Add a variant whose texts are in a file.")
@click.argument("file", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option("--variant", metavar="NAME", required=True, help="Variant key.")
@click.option("--parent", metavar="VARIANT", help="Parent variant (default: none).")
@click.option("--family", metavar="NAME", help="Family (default: the parent's).")
@click.option("--role", metavar="WORD", default="community", help="Role (default: community).")
@reading_options
@click.option("--dry-run", is_flag=True, help="Print what would be written without writing it.")
@json_option
@click.pass_obj
def add(
    experiment: Experiment,
    file: Path,
    variant: str,
    parent: str | None,
    family: str | None,
    role: str,
    file_format: str | None,
    prompt: str | None,
    text: str | None,
    sample: str | None,
    delimiter: str | None,
    dry_run: bool,
    as_json: bool,
) -> None:
    """Add a variant whose texts are in FILE; no model is run for it.

    The file is read completely, and its prompts are matched with those of the experiment: by their
    exact text, else without surrounding white space. The counts of what does not match are printed.
    The entry is pinned by the file's SHA-256; comments and order of params.yaml are kept.

    \b
    Examples:
      toxtrail texts add tuned.jsonl --variant tuned --family mine
      toxtrail texts add tuned.csv --variant tuned --parent base --prompt question --text answer
      toxtrail texts add samples_rtp_2026.jsonl --variant tuned --parent base --prompt doc.prompt
      toxtrail texts add logs/run.eval --variant tuned --parent base --dry-run
    """
    config = experiment.config
    if parent:
        experiment.variant(parent)
    family = family or (config.variants[parent].family if parent else None)
    if family is None:
        raise ConfigError("Without a parent it needs a family: --family NAME")
    if variant in {**config.models, **config.finetunes, **config.variants}:
        raise ConfigError(f'"{variant}" exists already. Choose another name: --variant NAME')
    given = GivenTexts.of(
        experiment, file, _reader(file, file_format, prompt, text, sample, delimiter)
    )
    fields = {"family": family, "role": role} | ({"parent": parent} if parent else {})
    path = experiment.root / "params.yaml"
    before, after = with_texts(experiment, path, variant, fields, given)
    if not dry_run:
        from toxtrail.config.edit_params import replace_file

        replace_file(path, after)
    diff = list(difflib.unified_diff(
        before.splitlines(), after.splitlines(), "params.yaml", "params.yaml", lineterm=""
    ))  # fmt: skip
    if as_json:
        print_json({**given.to_json(), "variant": variant, "diff": diff, "written": not dry_run})
        return
    _print_given(experiment, given, family)
    for line in diff:
        echo(line, fg={"+": "green", "-": "red"}.get(line[:1]))
    echo(
        "Nothing was written (--dry-run)."
        if dry_run
        else f"{variant} was added to params.yaml. `toxtrail run {variant}` scores its texts.",
        bold=not dry_run,
    )


@texts.command("compare", short_help="Compare two files of texts.")
@click.argument("a", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.argument("b", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@reading_options
@click.option("--scorer", metavar="NAME", help="Scorer (default: the primary one).")
@click.option(
    "--language",
    metavar="TAG",
    help="Language of the prompts as a BCP 47 tag, to count texts in another language.",
)
@click.option(
    "--params",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    metavar="FILE",
    help="params.yaml with scorers and statistics (default: those of the preset demo).",
)
@click.option("--tables", metavar="NAMES", help="Print these tables, separated by commas.")
@click.option("--all-tables", is_flag=True, help="Print all tables.")
@click.option("--explain", is_flag=True, help="Also print all notes, and what the columns mean.")
@format_options("json", "csv", "md", "latex")
def compare(
    a: Path,
    b: Path,
    file_format: str | None,
    prompt: str | None,
    text: str | None,
    sample: str | None,
    delimiter: str | None,
    scorer: str | None,
    language: str | None,
    params: Path | None,
    tables: str | None,
    all_tables: bool,
    explain: bool,
    form: OutputFormat | None,
) -> None:
    """Compare the texts of file B with those of file A, paired by prompt; no experiment is needed.

    The texts are scored by the primary scorer of the preset `demo`, or of --params, with its
    threshold and statistics. The options that say how a file is read apply to both files. Nothing
    is written; scorers that are not in the cache are downloaded.

    \b
    Examples:
      toxtrail texts compare before.jsonl after.jsonl
      toxtrail texts compare before.csv after.csv --prompt question --text answer
      toxtrail texts compare base/samples_rtp.jsonl tuned/samples_rtp.jsonl --prompt doc.prompt
      toxtrail texts compare base.eval tuned.eval --params params.yaml --scorer detoxify --json
    """
    from toxtrail.analysis.score_table import ALL
    from toxtrail.api.texts import TextsFile, compare_files
    from toxtrail.cli._compare_output import ComparisonOptions, LoadedComparison, print_comparisons
    from toxtrail.cli.compare import sections_to_print
    from toxtrail.datasets.generated_texts import read_generated_texts
    from toxtrail.records.columns import to_json

    sections = sections_to_print(tables, all_tables, form)
    labels = (a.name, b.name) if a.name != b.name else (str(a), str(b))
    files = []
    for label, path in zip(labels, (a, b), strict=True):
        reader = _reader(path, file_format, prompt, text, sample, delimiter)
        files.append(TextsFile(label, path, reader, read_generated_texts(path, reader)))
    summary, notes = compare_files(files[0], files[1], params, scorer, language)
    if form == "json":
        print_json({**to_json(summary), "notes": notes})
        return
    item = LoadedComparison(summary, " and ".join(labels))
    selection = ComparisonOptions(scorer, ALL)
    print_comparisons([item], selection, form or "text", sections, False, explain)
    for line in notes:
        echo_note(line, err=form is not None)


@texts.command("convert", short_help="Write the texts of a file as a plain table.")
@click.argument("file", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option(
    "--to",
    type=NewPath(),
    required=True,
    metavar="FILE",
    help="Output .jsonl file (must not exist).",
)
@reading_options
def convert(
    file: Path,
    to: Path,
    file_format: str | None,
    prompt: str | None,
    text: str | None,
    sample: str | None,
    delimiter: str | None,
) -> None:
    """Write the prompts and texts of FILE as JSON lines with `prompt` and `text`.

    Use it to read a file that another program wrote, or to sample the prompts of an experiment from
    an Inspect log or a garak report (prompts.subsets, column: prompt). Texts that the file records
    as missing are left out and counted.

    \b
    Examples:
      toxtrail texts convert logs/run.eval --to run.jsonl
      toxtrail texts convert garak.report.jsonl --to prompts.jsonl
    """
    from toxtrail.analysis.text_matching import group_by_prompt
    from toxtrail.datasets.generated_texts import read_generated_texts

    if to.exists() or to.suffix.lower() != ".jsonl":
        raise ConfigError(f"--to: give a new file with the ending .jsonl, not {to}.")
    reader = _reader(file, file_format, prompt, text, sample, delimiter)
    groups = group_by_prompt(read_generated_texts(file, reader))
    rows = [(row.prompt, row.text) for group in groups.values() for row in group]
    lines = [
        json.dumps({"prompt": p, "text": t}, ensure_ascii=False) for p, t in rows if t is not None
    ]
    to.write_text("".join(f"{line}\n" for line in lines), "utf-8")
    missing = len(rows) - len(lines)
    echo(
        f"{to}: {len(lines):,} texts of {len(groups):,} prompts"
        + (f"; {missing:,} are recorded as missing and were left out." if missing else ".")
    )


class GivenTexts(NamedTuple):
    """A file of texts that was read, and how it matches the experiment."""

    uri: str
    sha256: str
    reader: TextsConfig
    texts: int
    prompts: int
    match: TextMatch | None
    """None: the experiment's prompts were not sampled yet."""

    @classmethod
    def of(cls, experiment: Experiment, file: Path, reader: TextsConfig) -> GivenTexts:
        """Read a file completely and match it."""
        from toxtrail.analysis.text_matching import match_texts
        from toxtrail.datasets.generated_texts import read_generated_texts
        from toxtrail.provenance.identity import sha256_file

        rows, store, path = read_generated_texts(file, reader), experiment.store, file.resolve()
        config, match = experiment.config.generation, None
        if store.prompts_path.is_file():
            match = match_texts(store.read_prompts(), rows, config.samples, config.markers)
        is_inside = path.is_relative_to(experiment.root)
        name = path.relative_to(experiment.root).as_posix() if is_inside else str(path)
        prompts = len({row.prompt for row in rows})
        return cls(f"file:{name}", sha256_file(path), reader, len(rows), prompts, match)

    @property
    def entry(self) -> dict[str, Any]:
        """The entry in `models`."""
        return {"uri": self.uri, "sha256": self.sha256, "texts": self.reader.plain()}

    def to_json(self) -> dict[str, Any]:
        """Return what was read, and the counts of the match."""
        counts = self.match.counts._asdict() if self.match else None
        return {"model": self.entry, "texts": self.texts, "prompts": self.prompts, "match": counts}


def _reader(file: Path, file_format: str | None, *options: str | None) -> TextsConfig:
    from toxtrail.datasets.generated_texts import examine_texts

    prompt, text, sample, delimiter = (value or None for value in options)
    return examine_texts(file, prompt, text, sample, delimiter, file_format)  # type: ignore[arg-type]


def with_texts(
    experiment: Experiment, path: Path, variant: str, fields: dict[str, str], given: GivenTexts
) -> tuple[str, str]:
    """Return the old and the new text of params.yaml, validated before anything is written."""
    from toxtrail.config.edit_params import Entry, YamlListItem, add_entries, with_outside
    from toxtrail.config.load import parse_config
    from toxtrail.config.yaml_text import parse_yaml
    from toxtrail.execution.factories import make_asset_store
    from toxtrail.regular_files import read_text

    before, family = read_text(path), fields["family"]
    entries = [
        Entry("models", variant, given.entry),
        Entry("variants", variant, fields, one_line=True),
    ]
    items: list[YamlListItem] = []
    if family in experiment.config.families:
        items.append(YamlListItem(f"families.{family}.variants", variant))
    else:
        entries.append(Entry("families", family, {"reference": variant, "variants": [variant]}))
    after = add_entries(before, entries, items, path.name)
    assets = make_asset_store(experiment)
    folder = assets.outside(given.uri)
    if folder is not None and assets.why_not_used(given.uri):
        after = with_outside(after, str(folder), path.name)
    parse_config(parse_yaml(after), path.name)
    return before, after


def _print_given(experiment: Experiment, given: GivenTexts, family: str) -> None:
    reader = given.reader.plain()
    rows = [
        ("file", given.uri),
        ("read as", ", ".join(f"{name} {value}" for name, value in reader.items())),
        ("holds", f"{given.texts:,} texts of {given.prompts:,} prompts"),
    ]
    if given.match:
        counts = given.match.counts
        matched = counts.exact + counts.trimmed
        rows.append(("matched", f"{matched:,} of {counts.prompts:,} prompts of the experiment"))
    print_table(Table(None, text_columns("what", "found"), rows))
    for line in _warnings(experiment, given, family):
        warn(line)


def _warnings(experiment: Experiment, given: GivenTexts, family: str) -> Sequence[str]:
    from toxtrail.analysis.text_matching import match_problems
    from toxtrail.analysis.thought_problems import thought_problems

    config = experiment.config
    lines = [
        "The texts are weak evidence: which model made them, and with which settings, is not known."
    ]
    if given.match is None:
        lines.append(
            "The prompts are not sampled yet, so the file was not matched with them: run "
            "`toxtrail run prompts`, and add it again with --dry-run to see the counts."
        )
    else:
        counts = given.match.counts
        odd = thought_problems(given.match.rows, config.generation.markers)
        lines += [f"{line}." for line in (*match_problems(counts), *odd)]
        share = counts.missing_texts / (counts.prompts * config.generation.samples)
        if share > config.generation.max_error_share:
            lines.append(
                f"{share:.1%} of the rows have no text; generation.max_error_share allows "
                f"{config.generation.max_error_share:.1%}. Raise it, or the stage generate fails."
            )
    generated = [
        key
        for key in (config.families[family].variants if family in config.families else ())
        if config.texts_of(key) is None
    ]
    if generated and not config.families[family].allow_mismatch:
        lines.append(
            f"{generated[0]} is not a file of texts and its decoding is known: compared with these "
            f"texts only if families.{family}.allow_mismatch is true."
        )
    return lines
