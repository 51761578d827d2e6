"""`toxtrail published`: re-analyse published toxicity rates."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any, Literal

import click

from toxtrail.cli._options import Number
from toxtrail.cli._output import json_option, print_json, print_table, tell_delimiter
from toxtrail.console import echo
from toxtrail.errors import ConfigError
from toxtrail.reporting.table import Table, number_columns, text_columns
from toxtrail.reporting.text import plural

LEVEL_RANGE = Number(0.5, 1, min_open=True, max_open=True)
PAPER = Path(__file__).parents[1] / "presets" / "paper_published.yaml"
PRIOR = 0.5
"""Jeffreys' prior."""
MOST_DECIMALS = 20
COUNT_IS = {"exact": "exact", "printed": "as printed", "declared": "as declared"}


def _digits(
    ctx: click.Context, param: click.Parameter, value: str | None
) -> int | Literal["exact"] | None:
    """Parse the value of --decimals, or raise a usage error."""
    if value is None or value == "exact":
        return "exact" if value else None
    if not (value.isascii() and value.isdigit() and int(value) <= MOST_DECIMALS):
        raise click.BadParameter(f"{value!r} is neither 0 to {MOST_DECIMALS} nor exact.")
    return int(value)


@click.command("published", short_help="Re-analyse published toxicity rates.")
@click.argument(
    "file", required=False, type=click.Path(exists=True, dir_okay=False, path_type=Path)
)
@click.option("--source", metavar="NAME", help="Analyse only one source of the file.")
@click.option("--against", metavar="VARIANT", help="Baseline variant (default: the first).")
@click.option("--pool", is_flag=True, help="Also fit the pooled model (about 30 s).")
@click.option(
    "--decimals",
    metavar="N|exact",
    callback=_digits,
    help="For tables: digits after the decimal point of each printed rate; exact: rates are not "
    "rounded (default: as many as are written).",
)
@click.option(
    "--largest-phi",
    type=Number(0, 1),
    default=0.8,
    show_default=True,
    help="Largest correlation considered of two variants' labels on the same prompts.",
)
@click.option("--level", type=LEVEL_RANGE, default=0.95, show_default=True, help="Credible level.")
@click.option("--seed", type=click.IntRange(0), default=1, show_default=True)
@json_option
def published(
    file: Path | None,
    source: str | None,
    against: str | None,
    pool: bool,
    decimals: int | Literal["exact"] | None,
    largest_phi: float,
    level: float,
    seed: int,
    as_json: bool,
) -> None:
    """Re-analyse published toxicity rates: which differences their numbers of prompts support,
    whether that agrees with the source, and which differences they cannot detect.

    FILE is a .yaml of sources, rates and comparisons (docs/published.md; default: what the
    reference paper states), or a table (.csv, .tsv, .json, .jsonl, .parquet) with the
    columns variant, n (prompts) and toxic (a count), rate (0.161 or 16.1 %) or rate_pct (16.1);
    subset if there are several.

    Intervals are unpaired: papers do not publish which prompts were toxic for both of two variants.
    If both have equally many prompts, a verdict is given only if it is the same for different and
    for shared prompts, with every correlation of their labels up to --largest-phi; otherwise it
    "depends on the pairing".

    \b
    Examples:
      toxtrail published                              the reference paper's own numbers
      toxtrail published my_published.yaml --source qi2023
      toxtrail published table.csv --against Llama-2-7b-chat --pool
      toxtrail published table.csv --json
    """
    from toxtrail.stats.published_counts import AnalysisSettings

    path, belief = file or PAPER, AnalysisSettings(PRIOR, level, seed, largest_phi)
    sampler = _sampler if pool else None
    if path.suffix in (".yaml", ".yml"):
        result = _of_file(path, source, decimals, (against, belief, sampler))
    else:
        result = _of_table(path, source, decimals, (against, belief, sampler))
    if as_json:
        print_json(result)
        return
    _print(result)


Reading = tuple[str | None, Any, Any]
"""Settings of the analysis: baseline variant, reading of the counts, sampler of the pooled
model."""


def _of_file(path: Path, source: str | None, decimals: object, reading: Reading) -> Any:
    from toxtrail.published.claims import load_published, replay

    if decimals is not None:
        raise ConfigError("--decimals is only for tables; a .yaml file has sources.NAME.decimals.")
    return replay(load_published(path), source, *reading)


def _of_table(
    path: Path, source: str | None, decimals: int | Literal["exact"] | None, reading: Reading
) -> Any:
    from toxtrail.datasets.readers import read_rows
    from toxtrail.published.counts import counts_from_table, reanalyse_table

    if source is not None:
        raise ConfigError("--source is only for .yaml files; a table has one source.")
    counts = counts_from_table(path, read_rows(path, exact=True), decimals)
    tell_delimiter(path)
    return reanalyse_table(counts, *reading)


def _sampler(toxic: Any, n: Any, effort: Any) -> Any:
    from toxtrail.stats.sampling import sample

    return sample(_compiled(toxic.shape), effort, {"counts": toxic, "prompts": n})


@cache
def _compiled(shape: tuple[int, int]) -> Any:
    """Compile the model of a number of variants and subsets once, for all tables and the retry."""
    import numpy as np

    from toxtrail.stats.bayes_libraries import CompiledModel
    from toxtrail.stats.published_model import build

    variants, subsets = shape
    size = f"{variants} {plural(variants, 'variant')}, {subsets} {plural(subsets, 'subset')}"
    echo(f"Compiling the model ({size}): up to a minute the first time.", err=True)
    return CompiledModel(build(np.zeros(shape, dtype=np.int64), np.ones(shape, dtype=np.int64)))


def _print(result: Mapping[str, Any]) -> None:
    many = len(result.get("sources", [])) > 1
    _print_rates(result, many)
    _print_pairs([row for row in result["pairs"] if row["verdict"]], many)
    _print_stated([row for row in result["pairs"] if not row["verdict"]], many)
    _print_resolution(result.get("resolution", []), result["level"])
    for line in _notes(result):
        echo(line)


def _print_rates(result: Mapping[str, Any], many: bool) -> None:
    from toxtrail.reporting.text import percent, percent_interval

    pooled = any(row["pooled_rate"] is not None for row in result["rates"])
    columns = [
        *text_columns(*(["source"] if many else []), "variant", "subset"),
        *number_columns("toxic / prompts"), *text_columns("count is"),
        *number_columns(
            "rate", "interval", *(["pooled"] if pooled else []), "detectable increase, points",
            "decrease",
        ),
    ]  # fmt: skip
    rows = [
        (
            *([row["source"]] if many else []),
            row["variant"],
            row["subset"],
            _count(row),
            COUNT_IS[row["count_is"]],
            percent(row["rate"]),
            percent_interval(row["rate_lo"], row["rate_hi"]),
            *([percent_interval(row["pooled_rate_lo"], row["pooled_rate_hi"])] if pooled else []),
            _size(row["mde80"]),
            _size(row["mde80_fall"]),
        )
        for row in result["rates"]
    ]
    if rows:
        title = f"Rates ({result['level']:.0%} equal-tailed intervals)"
        print_table(Table(title, columns, rows))


def _print_pairs(pairs: Sequence[Mapping[str, Any]], many: bool) -> None:
    from toxtrail.reporting.text import (
        MISSING_CELL,
        percentage_points,
        points_interval,
        probability,
    )

    if not pairs:
        return
    pooled = any(row["pooled_diff"] is not None for row in pairs)
    stated = any(row.get("verdict_published") for row in pairs)
    columns = [
        *text_columns(*(["source"] if many else []), "variant", "against", "subset"),
        *number_columns("difference", "interval", "P(higher)"), *text_columns("if unpaired"),
        *number_columns("changes at phi", *(["pooled"] if pooled else [])),
        *text_columns("verdict", *(["published", "supported?"] if stated else [])),
    ]  # fmt: skip
    rows = [
        (
            *([row["source"]] if many else []),
            row["b"],
            row["a"],
            row["subset"],
            percentage_points(row["diff"]),
            points_interval(row["diff_lo"], row["diff_hi"]),
            probability(row["probability_higher"]),
            row["verdict_unpaired"],
            MISSING_CELL if row["turns_at_phi"] is None else f"{row['turns_at_phi']:.2f}",
            *([points_interval(row["pooled_diff_lo"], row["pooled_diff_hi"])] if pooled else []),
            row["verdict"],
            *([row["verdict_published"] or "-", row["status"]] if stated else []),
        )
        for row in pairs
    ]
    title = "Differences (percentage points; intervals as if unpaired)"
    print_table(Table(title, columns, rows))


def _print_stated(pairs: Sequence[Mapping[str, Any]], many: bool) -> None:
    """Print the verdicts that a source states without rates."""
    if not pairs:
        return
    columns = text_columns(
        *(["source"] if many else []), "variant", "against", "subset", "published", "no rate of",
        "quote",
    )  # fmt: skip
    rows = [
        (
            *([row["source"]] if many else []),
            row["b"],
            row["a"],
            row["subset"],
            row["verdict_published"] or "nothing",
            "both" if len(row["missing"]) > 1 else row["missing"][0],
            row["quote"] or "-",
        )
        for row in pairs
    ]
    print_table(Table("Stated without rates: cannot be re-analysed", columns, rows))


def _print_resolution(rows: Sequence[Mapping[str, Any]], level: float) -> None:
    from toxtrail.reporting.text import percent_interval

    if not rows:
        return
    cells = [
        (
            row["source"],
            f"{row['n']:,}" + ("" if row["n_confirmed"] else " (unconfirmed)"),
            ", ".join(row["subsets"]),
            f"up to {100 * row['none_hi']:.2g} %",
            percent_interval(row["at_1_lo"], row["at_1_hi"]),
            f"{_size(row['at_1_rise'])} / {_size(row['at_1_fall'])}",
            percent_interval(row["at_10_lo"], row["at_10_hi"]),
            f"{_size(row['at_10_rise'])} / {_size(row['at_10_fall'])}",
        )
        for row in rows
    ]
    columns = [
        *text_columns("source"), *number_columns("prompts"), *text_columns("subset"),
        *number_columns(
            "none toxic may be", "at 1 %: half-width", "detectable increase / decrease, points",
            "at 10 %: half-width", "increase / decrease",
        ),
    ]  # fmt: skip
    title = f"Resolution by number of prompts ({level:.0%} intervals, 80 % power)"
    print_table(Table(title, columns, cells))


def _notes(result: Mapping[str, Any]) -> list[str]:
    """Return the notes, the most important last."""
    notes = [
        "Counts do not show on which prompts two variants agreed, so intervals are unpaired. A "
        "verdict is the same for different prompts and for shared ones with every correlation "
        f'(phi) of their labels from 0 to {result["largest_phi"]:g} (--largest-phi); "depends on '
        'the pairing": the labels of each prompt are needed. Changes at phi: the smallest '
        'correlation with another verdict; "-": none. Detectable increase (decrease): detected in '
        '80 % of cases; "-": none.'
    ]
    if any(row["n_toxic_most"] > row["n_toxic_least"] for row in result["rates"]):
        notes.append(
            "A rate printed with few digits is consistent with several counts (228-252): intervals "
            'cover all of them, and so does a verdict, or it "depends on the rounding".'
        )
    if result["pooled"] and any(
        row["n_toxic_most"] > row["n_toxic_least"] for row in result["rates"]
    ):
        notes.append("The pooled columns use the nearest count to each rate, without its rounding.")
    coarse = [row for row in result.get("resolution", []) if row["none_hi"] > 0.01]
    notes += [
        f"{row['n']:,} prompts cannot separate small rates: none toxic of {row['n']:,} may be "
        f"anything up to {100 * row['none_hi']:.2g} % ({row['source']}: "
        f"{', '.join(row['subsets'])})."
        for row in coarse
    ]
    with_verdict = [row for row in result["pairs"] if row.get("verdict_published")]
    reanalysed = [row for row in with_verdict if row["verdict"]]
    if "sources" in result:
        supported = sum(row["status"] == "supported" for row in reanalysed)
        summary = (
            f"{len(reanalysed)} of them can be re-analysed; {supported} are supported."
            if reanalysed
            else "none of them can be re-analysed."
        )
        notes.append(f"{len(with_verdict)} verdict(s) are published, {summary}")
    return notes


def _count(row: Mapping[str, Any]) -> str:
    """Format one count, or the smallest and the largest."""
    ends = dict.fromkeys((row["n_toxic_least"], row["n_toxic_most"]))
    return f"{'-'.join(f'{count:,}' for count in ends)} / {row['n_prompts']:,}"


def _size(value: float | None) -> str:
    from toxtrail.reporting.text import MISSING_CELL, percentage_points

    return percentage_points(value)[1:] if value else MISSING_CELL
