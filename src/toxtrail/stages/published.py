"""Published tables: rates and numbers of prompts from somebody else's paper, read as counts.

reads   a table with the columns variant, n, and rate or toxic; subset if there are several
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from decimal import Decimal
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from toxtrail.errors import DataError, InferenceError, nearest
from toxtrail.readers import Rows, field
from toxtrail.stages.tables import ALL
from toxtrail.stats import binomial, margins
from toxtrail.stats.margins import Belief, Published
from toxtrail.stats.rates import Floats, Ints, equal_tailed, named_rng
from toxtrail.stats.sampling import Diagnostics, Effort, Sampled, complaints, judge

Sampler = Callable[[Ints, Ints, Effort], Sampled]
Counts = Mapping[tuple[str, str], Published]
"""(variant, subset) -> count."""

DRAWS = 20_000
EFFORT = (4, 3000, 0.95)
"""Chains, draws, target acceptance of the hierarchical model."""
POOLED = ("pooled_diff", "pooled_diff_lo", "pooled_diff_hi", "lfsr", "credible_pooled")


NUMBER = re.compile(r"[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]{1,3})?")
"""Digits with a point, as a paper prints them; 1.2e-3 has two."""
LARGEST = 100
"""Powers of ten."""


def counts_of(path: Path, rows: Rows) -> dict[tuple[str, str], Published]:
    """The counts of a table, in its order; all subsets together are added where there are several.

    Raises:
        DataError: a column is missing, a number is none, no count gives a rate, or a row comes
            twice; with the row.
    """
    found: dict[tuple[str, str], Published] = {}
    for number, row in rows:
        try:
            variant = str(field(path, number, row, "variant")).strip()
            key = (variant, str(row.get("subset") or ALL).strip())
            count = count_of(row, _prompts(field(path, number, row, "n")))
        except ValueError as error:
            raise DataError(f"{path.name}, row {number + 1}: {str(error).rstrip('.')}.") from None
        except DataError as error:
            place = f"{path.name}, row {number + 1}"
            raise DataError(str(error) if place in str(error) else f"{place}: {error}") from None
        if key in found:
            raise DataError(f"{path.name}, row {number + 1}: {key[0]}, {key[1]} is there twice.")
        found[key] = count
    if not found:
        raise DataError(f"{path.name} has no row.")
    return with_all(found)


def published_table(
    counts: Counts, reference: str | None, belief: Belief, sampler: Sampler | None
) -> dict[str, Any]:
    """Rates of every row, and each variant against the reference in every subset both have.

    Args:
        reference: a variant; None for the first.
        sampler: draws from the hierarchical model; None leaves the pooled columns out.

    Raises:
        DataError: no such variant, or the table has gaps and cannot be pooled.
        InferenceError: the hierarchical model did not converge, twice.
    """
    variants = list(dict.fromkeys(variant for variant, _ in counts))
    against = variants[0] if reference is None else reference
    if against not in variants:
        raise DataError(f'"{against}" is no variant of this table.{nearest(against, variants)}')
    pooled, status = _pooled(counts, variants, belief, sampler) if sampler else ({}, None)
    pairs = [
        pair_row(counts, (against, variant), subset, pooled, belief)
        for variant, subset in counts
        if variant != against and (against, subset) in counts
    ]
    rates = [rate_row(key, own, pooled.get(key), belief) for key, own in counts.items()]
    level = {"level": belief.level, "interval": "equal-tailed"}
    return {"reference": against, **level, "pooled": status, "rates": rates, "pairs": pairs}


class Printed(NamedTuple):
    """A number as it was printed."""

    value: Decimal
    half: Decimal
    """Half of its last digit: by so much the true value may differ."""
    percent: bool


def printed(value: object) -> Printed:
    """A number of a table: its value, and how many digits it was printed with.

    Raises:
        ValueError: it is no plain decimal number.
    """
    text = str(value).strip()
    number = text.removesuffix("%").rstrip()
    if isinstance(value, bool) or not NUMBER.fullmatch(number):
        raise ValueError(f'"{value}" is no number.{_spelling(number)}')
    found = Decimal(number)
    exponent = found.as_tuple().exponent
    assert isinstance(exponent, int)  # NUMBER takes neither nan nor infinity
    if not -LARGEST < exponent < LARGEST:
        raise ValueError(f'"{value}" is no number of this size')
    return Printed(found, Decimal(5).scaleb(exponent - 1), number != text)


def _spelling(text: str) -> str:
    """How a number is written that people write otherwise."""
    if re.fullmatch(r"[-+]?[0-9]{1,3}([,_ '][0-9]{3})+(\.[0-9]+)?", text):
        return " Write it without separators between its digits."
    if re.fullmatch(r"[-+]?[0-9]+,[0-9]+", text):
        return " Write the decimal point as a point."
    return ""


def _whole(value: object, what: str) -> int:
    own = printed(value)
    if own.percent or own.value != own.value.to_integral_value() or own.value < 0:
        raise ValueError(f"{value} is no {what}")
    return int(own.value)


def _prompts(value: object) -> int:
    found = _whole(value, "number of prompts")
    if found < 1:
        raise ValueError(f"{value} is no number of prompts")
    return found


def count_of(row: Mapping[str, Any], n: int) -> Published:
    """The count behind `toxic` (a count) or `rate` (0.161 or 16.1 %).

    Raises:
        ValueError: neither is there, or one is no number.
        DataError: no count gives the rate.
    """
    if (toxic := row.get("toxic")) not in (None, ""):
        found = _whole(toxic, "count of toxic texts")
        if found > n:
            raise ValueError(f"{toxic} toxic of {n} prompts is no count")
        return Published(found, n)
    if (rate := row.get("rate")) in (None, ""):
        raise ValueError("a row needs rate (0.161 or 16.1 %) or toxic (a count)")
    own = printed(rate)
    unit = Decimal("0.01") if own.percent else Decimal(1)
    bare = str(rate).strip() in ("0", "1") or (isinstance(rate, float) and rate in (0, 1))
    exact = bare and not own.percent  # none or all, not "below a half"
    rounding = 0.0 if exact else float(unit * own.half)
    count = margins.counted(float(unit * own.value), n, rounding)
    if count.slack and isinstance(rate, float):
        raise ValueError(
            f"{rate} is stored as a number, which does not say how many digits were printed "
            f'({rate} or {rate}0?). Store it as text ("{rate}0"), or give toxic (a count)'
        )
    return count


def with_all(counts: dict[tuple[str, str], Published]) -> dict[tuple[str, str], Published]:
    """With the sum over subsets in front, for variants that have all of them."""
    subsets = {subset for _, subset in counts}
    if len(subsets) == 1 or ALL in subsets:
        return counts
    variants = dict.fromkeys(variant for variant, _ in counts)
    together = {
        (variant, ALL): _sum(counts[variant, subset] for subset in subsets)
        for variant in variants
        if all((variant, subset) in counts for subset in subsets)
    }
    return {**together, **counts}


def _sum(counts: Iterable[Published]) -> Published:
    return Published(*(sum(column) for column in zip(*counts, strict=True)))


def rate_row(
    key: tuple[str, str], own: Published, pooled: Floats | None, belief: Belief
) -> dict[str, Any]:
    """One published rate, and what so many prompts make of it."""
    lo, hi = margins.rate_interval(own, belief.prior, belief.level)
    low, high = (None, None) if pooled is None else equal_tailed(pooled, belief.level)
    return {
        "variant": key[0],
        "subset": key[1],
        "n_prompts": own.n,
        "n_toxic": own.toxic,
        "n_toxic_slack": own.slack,
        "rate_raw": own.rate,
        "rate_lo": lo,
        "rate_hi": hi,
        "pooled_rate": None if pooled is None else float(pooled.mean()),
        "pooled_rate_lo": low,
        "pooled_rate_hi": high,
        "mde80": margins.resolution(own, belief.level),
        "mde80_fall": margins.fall(own, belief.level),
        "method": "margins",
    }


def pair_row(
    counts: Counts,
    pair: tuple[str, str],
    subset: str,
    pooled: Mapping[tuple[str, str], Floats],
    belief: Belief,
) -> dict[str, Any]:
    """One variant against another: as if unpaired, and whatever the pairing was."""
    a, b = (counts[variant, subset] for variant in pair)
    apart = margins.unpaired(a, b, belief.prior, belief.level)
    unpaired = margins.rounded_verdict(a, b, belief.prior, belief.level)
    row: dict[str, Any] = {
        "a": pair[0],
        "b": pair[1],
        "subset": subset,
        "n_a": a.n,
        "n_b": b.n,
        "rate_a": a.rate,
        "rate_b": b.rate,
        "diff": apart.mean,
        "diff_lo": apart.interval.lo,
        "diff_hi": apart.interval.hi,
        "probability_higher": apart.probability_higher,
        "verdict_unpaired": unpaired,
        "verdict": unpaired,
        "tables": [],
        **dict.fromkeys(POOLED),
    }
    if a.n == b.n:
        found = margins.bracket(a, b, belief.prior, belief.level, DRAWS, belief.seed)
        tables = [{**one._asdict(), "interval": list(one.interval)} for one in found.tables]
        row |= {"tables": tables}
        row |= {"verdict": found.verdict} if unpaired == apart.verdict else {}
    if (pair[0], subset) in pooled:
        step = pooled[pair[1], subset] - pooled[pair[0], subset]
        lo, hi = equal_tailed(step, belief.level)
        higher = float((step > 0).mean())
        values = (float(step.mean()), lo, hi, min(higher, 1 - higher), bool(lo > 0 or hi < 0))
        row |= dict(zip(POOLED, values, strict=True))
    return row


def _pooled(
    counts: Counts, variants: Sequence[str], belief: Belief, sampler: Sampler
) -> tuple[dict[tuple[str, str], Floats], dict[str, Any]]:
    """(variant, subset) -> (draw,) of the rate; and how the sampler went."""
    subsets = list(dict.fromkeys(subset for _, subset in counts if subset != ALL)) or [ALL]
    if missing := [(v, s) for v in variants for s in subsets if (v, s) not in counts]:
        raise DataError(f"The table cannot be pooled: {missing[0][0]} has no {missing[0][1]}.")
    toxic, n = (
        np.array([[counts[v, s][field_] for s in subsets] for v in variants]) for field_ in (0, 1)
    )
    seed = int(named_rng(belief.seed, "published").integers(2**31))
    rate, found, effort = _sampled(toxic, n, Effort(*EFFORT, seed), belief.level, sampler)
    together = rate @ (n.sum(axis=0) / n.sum())
    draws = {
        (v, s): rate[:, :, i, j].ravel()
        for i, v in enumerate(variants)
        for j, s in enumerate(subsets)
    }
    if len(subsets) > 1:
        draws |= {(v, ALL): together[:, :, i].ravel() for i, v in enumerate(variants)}
    return draws, {"diagnostics": found._asdict(), "effort": effort._asdict()}


def _sampled(
    toxic: Ints, n: Ints, effort: Effort, level: float, sampler: Sampler
) -> tuple[Floats, Diagnostics, Effort]:
    wrong: list[str] = []
    for attempt in (effort, effort.harder()):
        drawn = sampler(toxic, n, attempt)
        rate = binomial.rates(drawn.posterior["eta"])
        names = [name for name in binomial.HYPER if name in drawn.posterior]
        found = judge(drawn, names, {"rate": rate}, level)
        wrong = complaints(found)
        if not wrong:
            return rate, found, attempt
    raise InferenceError(
        f"The hierarchical model of these counts did not converge: {'; '.join(wrong)}. Do without "
        "--pool."
    )
