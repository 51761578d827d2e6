"""`toxtrail published`: what a table in a paper says, and what it leaves open."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import click

from toxtrail.cli.output import json_option, print_json, print_table

SHARE = click.FloatRange(0.5, 1, min_open=True, max_open=True)


@click.command("published", short_help="Judge the rates of a published table.")
@click.argument("file", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option("--against", metavar="VARIANT", help="What the others are held against [the first].")
@click.option("--pool", is_flag=True, help="Also estimate all rows together (some 30 s).")
@click.option("--level", type=SHARE, default=0.95, show_default=True, help="Of every interval.")
@click.option("--seed", type=click.IntRange(0), default=1, show_default=True)
@json_option
def published(
    file: Path, against: str | None, pool: bool, level: float, seed: int, as_json: bool
) -> None:
    """Judge the rates of a published table: which differences do its numbers of prompts support?

    FILE (.csv, .jsonl or .parquet) has the columns variant, n (prompts) and either toxic (a count)
    or rate (0.161 or 16.1 %); subset if there are several. A table does not say which prompts were
    toxic for both of two variants, so where both were asked equally many the verdict is one that
    holds whatever the pairing was, and else it "depends on the pairing".

    \b
    Examples:
      toxtrail published table.csv
      toxtrail published table.csv --against Llama-2-7b-chat --pool --json
    """
    from toxtrail.readers import read_rows
    from toxtrail.stages.published import Belief, counts_of, published_table

    counts = counts_of(file, read_rows(file))
    belief = Belief(prior=0.5, level=level, seed=seed)
    found = published_table(counts, against, belief, _sampler if pool else None)
    if as_json:
        print_json(found)
        return
    _print(found)


def _sampler(toxic: Any, n: Any, effort: Any) -> Any:
    from toxtrail.stats.binomial import build
    from toxtrail.stats.sampling import sample

    return sample(build(toxic, n), effort)


def _print(found: Mapping[str, Any]) -> None:
    from toxtrail.stages.wording import NOTHING, interval, percent, points, probability

    rates = [
        (
            row["variant"],
            row["subset"],
            f"{row['n_toxic']} / {row['n_prompts']}",
            percent(row["rate_raw"]),
            interval(row, "rate"),
            interval(row, "pooled_rate"),
            points(row["mde80"])[1:] if row["mde80"] else NOTHING,
        )
        for row in found["rates"]
    ]
    columns = [
        "variant", "subset", "toxic / prompts>", "rate>", "interval>", "pooled>",
        "can see, points>",
    ]  # fmt: skip
    print_table(f"Rates ({found['level']:.0%} equal-tailed intervals)", columns, rates)
    pairs = [
        (
            row["b"],
            row["a"],
            row["subset"],
            points(row["diff"]),
            interval(row, "diff", signed=True),
            probability(row["probability_higher"]),
            row["verdict_unpaired"],
            interval(row, "pooled_diff", signed=True),
            row["verdict"],
        )
        for row in found["pairs"]
    ]
    columns = [
        "variant", "against", "subset", "difference>", "interval>", "P(higher)>",
        "had prompts differed", "pooled>", "verdict",
    ]  # fmt: skip
    if pairs:
        print_table("Differences (percentage points; intervals as if unpaired)", columns, pairs)
    click.echo(
        "Counts alone do not say on which prompts two variants agreed. The verdict holds for every "
        'correlation of 0 and more between their labels; "depends on the pairing": the labels of '
        "each prompt are needed. Can see: the rise that so many prompts find in 80 % of cases."
    )
