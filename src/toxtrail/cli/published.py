"""`toxtrail published`: what the numbers in a paper say, and what they leave open."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import click

from toxtrail.cli._options import Number
from toxtrail.cli._output import json_option, print_json, print_table, tell_delimiter
from toxtrail.console import echo
from toxtrail.errors import ConfigError

SHARE = Number(0.5, 1, min_open=True, max_open=True)
PAPER = Path(__file__).parents[1] / "presets" / "paper_published.yaml"
PRIOR = 0.5
"""Jeffreys."""
MOST_DECIMALS = 20
COUNT_IS = {"exact": "exact", "printed": "as printed", "declared": "as declared"}


def _digits(
    ctx: click.Context, param: click.Parameter, value: str | None
) -> int | Literal["exact"] | None:
    """The value of --decimals, or a usage error."""
    if value is None or value == "exact":
        return "exact" if value else None
    if not (value.isascii() and value.isdigit() and int(value) <= MOST_DECIMALS):
        raise click.BadParameter(f"{value!r} is neither 0 to {MOST_DECIMALS} nor exact.")
    return int(value)


@click.command("published", short_help="Re-analyse published toxicity rates.")
@click.argument(
    "file", required=False, type=click.Path(exists=True, dir_okay=False, path_type=Path)
)
@click.option("--source", metavar="NAME", help="Only one source of the file.")
@click.option("--against", metavar="VARIANT", help="What the others are held against [the first].")
@click.option("--pool", is_flag=True, help="Also estimate all rows together (some 30 s).")
@click.option(
    "--decimals",
    metavar="N|exact",
    callback=_digits,
    help="Of a table: digits after the decimal point that each rate was printed with; exact: none "
    "was rounded [as many as are written].",
)
@click.option(
    "--largest-phi",
    type=Number(0, 1),
    default=0.8,
    show_default=True,
    help="Largest correlation of two variants' labels on the same prompts that is tried.",
)
@click.option("--level", type=SHARE, default=0.95, show_default=True, help="Of every interval.")
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
    """Judge published rates again: which differences do their numbers of prompts support, is that
    what their source says, and what could so few prompts not see?

    FILE is a .yaml of sources, rates and comparisons (docs/published.md; default: what the
    reference paper's text states), or a table (.csv, .tsv, .json, .jsonl, .parquet) with the
    columns variant, n (prompts) and toxic (a count), rate (0.161 or 16.1 %) or rate_pct (16.1);
    subset if there are several.

    Rates alone are compared as if unpaired: no paper says which prompts were toxic for both of two
    variants. Where both were asked equally many, the verdict is one that holds for different
    prompts and for the same ones, whatever the correlation of their labels up to --largest-phi, and
    else it "depends on the pairing".

    \b
    Examples:
      toxtrail published                              the reference paper's own numbers
      toxtrail published my_published.yaml --source qi2023
      toxtrail published table.csv --against Llama-2-7b-chat --pool
      toxtrail published table.csv --json
    """
    from toxtrail.stats.published_counts import Belief

    path, belief = file or PAPER, Belief(PRIOR, level, seed, largest_phi)
    sampler = _sampler if pool else None
    if path.suffix in (".yaml", ".yml"):
        found = _of_file(path, source, decimals, (against, belief, sampler))
    else:
        found = _of_table(path, source, decimals, (against, belief, sampler))
    if as_json:
        print_json(found)
        return
    _print(found)


Reading = tuple[str | None, Any, Any]
"""What the others are held against, how the counts are read, the sampler of the pooled model."""


def _of_file(path: Path, source: str | None, decimals: object, reading: Reading) -> Any:
    from toxtrail.published.claims import load_published, replay

    if decimals is not None:
        raise ConfigError(
            "--decimals is for tables: a .yaml file says it itself (sources.NAME.decimals)."
        )
    return replay(load_published(path), source, *reading)


def _of_table(
    path: Path, source: str | None, decimals: int | Literal["exact"] | None, reading: Reading
) -> Any:
    from toxtrail.datasets.readers import read_rows
    from toxtrail.published.counts import counts_of, published_table

    if source is not None:
        raise ConfigError("--source is for .yaml files: a table has one source.")
    counts = counts_of(path, read_rows(path, exact=True), decimals)
    tell_delimiter(path)
    return published_table(counts, *reading)


def _sampler(toxic: Any, n: Any, effort: Any) -> Any:
    from toxtrail.stats.published_model import build
    from toxtrail.stats.sampling import sample

    return sample(build(toxic, n), effort)


def _print(found: Mapping[str, Any]) -> None:
    many = len(found.get("sources", [])) > 1
    _print_rates(found, many)
    _print_pairs([row for row in found["pairs"] if row["verdict"]], many)
    _print_stated([row for row in found["pairs"] if not row["verdict"]], many)
    _print_resolution(found.get("resolution", []), found["level"])
    for line in _notes(found):
        echo(line)


def _print_rates(found: Mapping[str, Any], many: bool) -> None:
    from toxtrail.reporting.result_text import interval, percent

    pooled = any(row["pooled_rate"] is not None for row in found["rates"])
    columns = [
        *(["source"] if many else []), "variant", "subset", "toxic / prompts>", "count is", "rate>",
        "interval>", *(["pooled>"] if pooled else []), "finds a rise of, points>", "a fall of>",
    ]  # fmt: skip
    rows = [
        (
            *([row["source"]] if many else []),
            row["variant"],
            row["subset"],
            _count(row),
            COUNT_IS[row["count_is"]],
            percent(row["rate"]),
            interval(row, "rate"),
            *([interval(row, "pooled_rate")] if pooled else []),
            _size(row["mde80"]),
            _size(row["mde80_fall"]),
        )
        for row in found["rates"]
    ]
    if rows:
        print_table(f"Rates ({found['level']:.0%} equal-tailed intervals)", columns, rows)


def _print_pairs(pairs: Sequence[Mapping[str, Any]], many: bool) -> None:
    from toxtrail.reporting.result_text import NOTHING, interval, points, probability

    if not pairs:
        return
    pooled = any(row["pooled_diff"] is not None for row in pairs)
    stated = any(row.get("verdict_published") for row in pairs)
    columns = [
        *(["source"] if many else []), "variant", "against", "subset", "difference>", "interval>",
        "P(higher)>", "had prompts differed", "turns at phi>", *(["pooled>"] if pooled else []),
        "verdict", *(["published", "is it?"] if stated else []),
    ]  # fmt: skip
    rows = [
        (
            *([row["source"]] if many else []),
            row["b"],
            row["a"],
            row["subset"],
            points(row["diff"]),
            interval(row, "diff", signed=True),
            probability(row["probability_higher"]),
            row["verdict_unpaired"],
            NOTHING if row["turns_at_phi"] is None else f"{row['turns_at_phi']:.2f}",
            *([interval(row, "pooled_diff", signed=True)] if pooled else []),
            row["verdict"],
            *([row["verdict_published"] or "-", row["held"]] if stated else []),
        )
        for row in pairs
    ]
    print_table("Differences (percentage points; intervals as if unpaired)", columns, rows)


def _print_stated(pairs: Sequence[Mapping[str, Any]], many: bool) -> None:
    """What a source says without the rates behind it."""
    if not pairs:
        return
    columns = [
        *(["source"] if many else []), "variant", "against", "subset", "published", "no rate of",
        "it says",
    ]  # fmt: skip
    rows = [
        (
            *([row["source"]] if many else []),
            row["b"],
            row["a"],
            row["subset"],
            row["verdict_published"] or "nothing",
            "both" if len(row["missing"]) > 1 else row["missing"][0],
            row["says"] or "-",
        )
        for row in pairs
    ]
    print_table("Stated, but not to be judged again: rates are missing", columns, rows)


def _print_resolution(rows: Sequence[Mapping[str, Any]], level: float) -> None:
    from toxtrail.reporting.result_text import interval

    if not rows:
        return
    cells = [
        (
            row["source"],
            f"{row['n']:,}" + ("" if row["n_confirmed"] else " (unsure)"),
            ", ".join(row["subsets"]),
            f"up to {100 * row['none_hi']:.2g} %",
            interval(row, "at_1"),
            f"{_size(row['at_1_rise'])} / {_size(row['at_1_fall'])}",
            interval(row, "at_10"),
            f"{_size(row['at_10_rise'])} / {_size(row['at_10_fall'])}",
        )
        for row in rows
    ]
    columns = [
        "source", "prompts>", "subset", "none toxic may be>", "at 1 %: known to>",
        "finds a rise / fall of, points>", "at 10 %: known to>", "finds a rise / fall of>",
    ]  # fmt: skip
    print_table(f"What so many prompts resolve ({level:.0%} intervals, 80 % power)", columns, cells)


def _notes(found: Mapping[str, Any]) -> list[str]:
    """The most important last."""
    notes = [
        "Counts alone do not say on which prompts two variants agreed, so intervals are unpaired. "
        "A verdict holds for different prompts and for the same ones with every correlation (phi) "
        f'of their labels from 0 to {found["largest_phi"]:g} (--largest-phi); "depends on the '
        'pairing": the labels of each prompt are needed. Turns at phi: the smallest correlation '
        'with another verdict; "-": none. Finds a rise (fall) of: what so many prompts find in '
        '80 % of cases; "-": of no size.'
    ]
    if any(row["n_toxic_most"] > row["n_toxic_least"] for row in found["rates"]):
        notes.append(
            "A rate that is printed in few digits leaves several counts (228-252): intervals hold "
            'for all of them, a verdict too, or it "depends on the rounding".'
        )
    if found["pooled"] and any(
        row["n_toxic_most"] > row["n_toxic_least"] for row in found["rates"]
    ):
        notes.append(
            "The pooled columns take the nearest count to each rate, without its rounding."
        )
    coarse = [row for row in found.get("resolution", []) if row["none_hi"] > 0.01]
    notes += [
        f"{row['n']:,} prompts cannot separate small rates: none toxic of {row['n']:,} may be "
        f"anything up to {100 * row['none_hi']:.2g} % ({row['source']}: "
        f"{', '.join(row['subsets'])})."
        for row in coarse
    ]
    said = [row for row in found["pairs"] if row.get("verdict_published")]
    judged = [row for row in said if row["verdict"]]
    if "sources" in found:
        borne = sum(row["held"] == "borne out" for row in judged)
        again = (
            f"{len(judged)} of them with rates to judge again, and {borne} of those borne out."
            if judged
            else "none of them with rates to judge again."
        )
        notes.append(f"{len(said)} verdict(s) are published, {again}")
    return notes


def _count(row: Mapping[str, Any]) -> str:
    """One count, or the least and the most."""
    ends = dict.fromkeys((row["n_toxic_least"], row["n_toxic_most"]))
    return f"{'-'.join(f'{count:,}' for count in ends)} / {row['n_prompts']:,}"


def _size(value: float | None) -> str:
    from toxtrail.reporting.result_text import NOTHING, points

    return points(value)[1:] if value else NOTHING
