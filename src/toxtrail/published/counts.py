"""Published tables: rates and numbers of prompts from somebody else's paper, read as counts.

reads   a table with the columns variant, n, and toxic, rate or rate_pct; subset if there are
        several
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from decimal import Context, Decimal
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np

from toxtrail.analysis.score_table import ALL
from toxtrail.datasets.readers import Rows, field
from toxtrail.errors import DataError, InferenceError, nearest
from toxtrail.stats import published_counts, published_model
from toxtrail.stats.published_counts import Belief, CountSource, Published
from toxtrail.stats.rates import Floats, Ints, equal_tailed, named_rng
from toxtrail.stats.sampling import Diagnostics, Effort, Sampled, complaints, judge

Sampler = Callable[[Ints, Ints, Effort], Sampled]
Counts = Mapping[tuple[str, str], Published]
"""(variant, subset) -> count."""

EFFORT = (4, 3000, 0.95)
"""Chains, draws, target acceptance of the hierarchical model."""
POOLED = ("pooled_diff", "pooled_diff_lo", "pooled_diff_hi", "lfsr", "credible_pooled")


NUMBER = re.compile(r"[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]{1,3})?")
"""Digits with a point, as a paper prints them; 1.2e-3 has two."""
LARGEST = 100
"""Powers of ten."""
WIDE = Context(prec=2 * LARGEST)
COLUMNS = ("toxic", "rate", "rate_pct")
ONE_OF = "toxic (a count), rate (0.161 or 16.1 %) and rate_pct (16.1)"


Decimals = int | Literal["exact"] | None
"""Of the rates of a table, as declared: how many digits after the decimal point each was printed
with, or that none was rounded; None: as many as are written."""


def counts_of(path: Path, rows: Rows, decimals: Decimals) -> dict[tuple[str, str], Published]:
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
            count = count_of(row, _prompts(field(path, number, row, "n")), decimals)
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
    return {"reference": against, **how(belief), "pooled": status, "rates": rates, "pairs": pairs}


def how(belief: Belief) -> dict[str, Any]:
    """How the counts are read, for the output."""
    return {
        "level": belief.level,
        "interval": "equal-tailed",
        "largest_phi": belief.largest_phi,
    }


class Printed(NamedTuple):
    """A number as it was written."""

    value: Decimal
    decimals: int | None
    """Digits after the point; less than 0 in 1e3. None: the file stores a binary number, which does
    not say how many digits were printed."""
    percent: bool


def printed(value: object) -> Printed:
    """A number of a table: its value, and how many digits it was written with.

    Raises:
        ValueError: it is no plain decimal number.
    """
    text = _shortest(value) if isinstance(value, float) else str(value).strip()
    number = text.removesuffix("%").rstrip()
    if isinstance(value, bool) or not NUMBER.fullmatch(number):
        raise ValueError(f'"{value}" is no number.{_spelling(number)}')
    found = Decimal(number)
    decimals = _decimals(found)
    if not -LARGEST < decimals < LARGEST:
        raise ValueError(f'"{value}" is no number of this size')
    return Printed(found, None if isinstance(value, float) else decimals, number != text)


def _decimals(value: Decimal) -> int:
    exponent = value.as_tuple().exponent
    assert isinstance(exponent, int)  # NUMBER takes neither nan nor infinity
    return -exponent


def _shortest(value: float) -> str:
    """The shortest decimal number that is stored as this one, in single precision if it fits."""
    return str(np.float32(value)) if _is_single(value) else repr(value)


def _is_single(value: float) -> bool:
    with np.errstate(over="ignore"):
        return float(np.float32(value)) == value


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


def count_of(row: Mapping[str, Any], n: int, decimals: Decimals) -> Published:
    """The count behind `toxic` (a count), `rate` (0.161 or 16.1 %) or `rate_pct` (16.1).

    Raises:
        ValueError: none is there, there are two rates, one is no number, or count and rate
            disagree.
        DataError: no count gives the rate.
    """
    given = {name: row[name] for name in COLUMNS if not _is_empty(row.get(name))}
    rates = [name for name in given if name != "toxic"]
    if not given or len(rates) > 1:
        there = ", ".join(name for name, value in row.items() if not _is_empty(value))
        raise ValueError(f"a row needs one of {ONE_OF}; found {there or 'nothing'}")
    rounded = _count_of_rate(rates[0], given[rates[0]], n, decimals) if rates else None
    if "toxic" not in given:
        assert rounded is not None
        return rounded
    toxic = _whole(given["toxic"], "count of toxic texts")
    if toxic > n:
        raise ValueError(f"{toxic} toxic of {n} prompts is no count")
    if rounded and not rounded.least.toxic <= toxic <= rounded.most.toxic:
        raise ValueError(
            f"toxic is {toxic} of {n}, which is {toxic / n:.4%}, but {rates[0]} is "
            f"{given[rates[0]]}. Correct one of them, or remove it"
        )
    return Published(toxic, n)


def _is_empty(value: object) -> bool:
    return value is None or value == "" or (isinstance(value, float) and math.isnan(value))


def _count_of_rate(name: str, value: object, n: int, decimals: Decimals) -> Published:
    own = printed(value)
    if own.percent and name == "rate_pct":
        own = own._replace(percent=False)
    unit = Decimal("0.01") if own.percent or name == "rate_pct" else Decimal(1)
    if decimals is not None:
        rate, half = _declared(own, value, decimals)
        known: CountSource = "exact" if decimals == "exact" else "declared"
        return published_counts.counted(unit * rate, n, unit * half, known)
    if unit == 1 and (own.decimals in (0, None)) and own.value in (0, 1):
        return published_counts.counted(
            own.value, n, Decimal(0), "exact"
        )  # none or all, not below a half
    if own.decimals is not None:
        half = Decimal(5).scaleb(-own.decimals - 1)
        return published_counts.counted(unit * own.value, n, unit * half, "printed")
    return _count_of_float(own, value, n, unit)


def _count_of_float(own: Printed, value: object, n: int, unit: Decimal) -> Published:
    """Zeros at the end of what was printed are not stored; where one count is left without them,
    one is left with them.

    Raises:
        ValueError: several are left.
    """
    digits = _decimals(own.value)
    half = max(Decimal(5).scaleb(-digits - 1), _float_error(value))
    count = published_counts.counted(unit * own.value, n, unit * half, "exact")
    if count.open:
        raise ValueError(
            f"{own.value} is stored as a binary number, which does not say how many digits were "
            f"printed ({own.value} or {own.value}0?). Declare it: --decimals N if every rate of "
            "this table was printed with N digits after the decimal point, --decimals exact if "
            "none was rounded. Or store rates as text, or counts as toxic"
        )
    return count


def _float_error(value: object) -> Decimal:
    """Of a number that was computed and stored in binary: twice its relative precision."""
    assert isinstance(value, float)
    precision = np.finfo(np.float32 if _is_single(value) else np.float64).eps
    return Decimal(2 * float(precision) * abs(value))


def _declared(own: Printed, value: object, decimals: int | str) -> tuple[Decimal, Decimal]:
    """The number with as many digits as are declared, and half of the last one.

    Raises:
        ValueError: it has more.
    """
    error = _float_error(value) if own.decimals is None else Decimal(0)
    if decimals == "exact":
        return own.value, error
    assert isinstance(decimals, int)
    last = Decimal(1).scaleb(-decimals)
    rounded = own.value.quantize(last, context=WIDE)
    if abs(rounded - own.value) > error:
        raise ValueError(
            f"{value} has more digits after the decimal point than the {decimals} that are "
            "declared (decimals)"
        )
    return rounded, last / 2


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
    parts = list(counts)
    toxic, n = sum(part.toxic for part in parts), sum(part.n for part in parts)
    below, above = sum(part.below for part in parts), sum(part.above for part in parts)
    rounded: list[CountSource] = [part.source for part in parts if part.source != "exact"]
    return Published(toxic, n, below, above, rounded[0] if rounded else "exact")


def rate_row(
    key: tuple[str, str], own: Published, pooled: Floats | None, belief: Belief
) -> dict[str, Any]:
    """One published rate, and what so many prompts make of it."""
    lo, hi = published_counts.rate_interval(own, belief.prior, belief.level)
    low, high = (None, None) if pooled is None else equal_tailed(pooled, belief.level)
    return {
        "variant": key[0],
        "subset": key[1],
        "n_prompts": own.n,
        "n_toxic": own.toxic,
        "n_toxic_least": own.least.toxic,
        "n_toxic_most": own.most.toxic,
        "count_is": own.source,
        "rate": own.rate,
        "rate_lo": lo,
        "rate_hi": hi,
        "pooled_rate": None if pooled is None else float(pooled.mean()),
        "pooled_rate_lo": low,
        "pooled_rate_hi": high,
        "mde80": published_counts.resolution(own, belief.prior, belief.level),
        "mde80_fall": published_counts.fall(own, belief.prior, belief.level),
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
    (lo, hi), unpaired = published_counts.unpaired_of_all(a, b, belief.prior, belief.level)
    found = published_counts.bracket(a, b, belief)
    tables = [{**one._asdict(), "interval": list(one.interval)} for one in found.tables]
    row: dict[str, Any] = {
        "a": pair[0],
        "b": pair[1],
        "subset": subset,
        "n_a": a.n,
        "n_b": b.n,
        "rate_a": a.rate,
        "rate_b": b.rate,
        "diff": b.rate - a.rate,
        "diff_lo": lo,
        "diff_hi": hi,
        "probability_higher": published_counts.unpaired(
            a, b, belief.prior, belief.level
        ).probability_higher,
        "verdict_unpaired": unpaired,
        "verdict": found.verdict,
        "turns_at_phi": found.turns_at,
        "tables": tables,
        **dict.fromkeys(POOLED),
    }
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
        rate = published_model.rates(drawn.posterior["eta"])
        names = [name for name in published_model.HYPER if name in drawn.posterior]
        found = judge(drawn, names, {"rate": rate}, level)
        wrong = complaints(found)
        if not wrong:
            return rate, found, attempt
    raise InferenceError(
        f"The hierarchical model of these counts did not converge: {'; '.join(wrong)}. Do without "
        "--pool."
    )
