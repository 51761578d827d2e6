"""Published tables: rates and numbers of prompts from a paper, read as counts.

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
from toxtrail.errors import DataError, InferenceError, did_you_mean
from toxtrail.stats import published_counts, published_model
from toxtrail.stats.bayes_libraries import SampleResult
from toxtrail.stats.published_counts import AnalysisSettings, CountSource, PublishedCount
from toxtrail.stats.rates import Floats, Ints, equal_tailed_interval, named_rng
from toxtrail.stats.sampling import (
    Diagnostics,
    SamplerSettings,
    convergence_problems,
    diagnose,
)

Sampler = Callable[[Ints, Ints, SamplerSettings], SampleResult]
Counts = Mapping[tuple[str, str], PublishedCount]
"""(variant, subset) -> count."""

SAMPLER_SETTINGS = (4, 3000, 0.95)
"""Chains, draws, target acceptance of the hierarchical model."""
POOLED = ("pooled_diff", "pooled_diff_lo", "pooled_diff_hi", "lfsr", "credible_pooled")


NUMBER = re.compile(r"[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]{1,3})?")
"""A decimal number as a paper prints it; 1.2e-3 has two digits."""
LARGEST = 100
"""Largest power of ten."""
WIDE = Context(prec=2 * LARGEST)
COLUMNS = ("toxic", "rate", "rate_pct")
ONE_OF = "toxic (a count), rate (0.161 or 16.1 %) and rate_pct (16.1)"


Decimals = int | Literal["exact"] | None
"""Declared precision of a table's rates: printed digits after the decimal point, or "exact" if
none was rounded; None: as many digits as are written."""


def counts_from_table(
    path: Path, rows: Rows, decimals: Decimals
) -> dict[tuple[str, str], PublishedCount]:
    """Return the counts of a table, in its order, with the total if there are several subsets.

    Raises:
        DataError: a column is missing, a value is not a number, no count gives a rate, or a row
            occurs twice; the message names the row.
    """
    counts: dict[tuple[str, str], PublishedCount] = {}
    for number, row in rows:
        try:
            variant = str(field(path, number, row, "variant")).strip()
            key = (variant, str(row.get("subset") or ALL).strip())
            count = count_from_row(row, _prompt_count(field(path, number, row, "n")), decimals)
        except ValueError as error:
            raise DataError(f"{path.name}, row {number + 1}: {str(error).rstrip('.')}.") from None
        except DataError as error:
            location = f"{path.name}, row {number + 1}"
            raise DataError(
                str(error) if location in str(error) else f"{location}: {error}"
            ) from None
        if key in counts:
            raise DataError(f"{path.name}, row {number + 1}: duplicate row for {key[0]}, {key[1]}.")
        counts[key] = count
    if not counts:
        raise DataError(f"{path.name} has no rows.")
    return add_overall(counts)


def reanalyse_table(
    counts: Counts, reference: str | None, belief: AnalysisSettings, sampler: Sampler | None
) -> dict[str, Any]:
    """Estimate every rate, and the difference of each variant from the reference in shared subsets.

    Args:
        reference: a variant; None for the first.
        sampler: samples the hierarchical model; None leaves the pooled columns out.

    Raises:
        DataError: unknown variant, or the table has gaps and cannot be pooled.
        InferenceError: the hierarchical model did not converge, twice.
    """
    variants = list(dict.fromkeys(variant for variant, _ in counts))
    against = variants[0] if reference is None else reference
    if against not in variants:
        raise DataError(
            f'Unknown variant "{against}" in this table.{did_you_mean(against, variants)}'
        )
    pooled, status = _pooled_draws(counts, variants, belief, sampler) if sampler else ({}, None)
    pairs = [
        pair_row(counts, (against, variant), subset, pooled, belief)
        for variant, subset in counts
        if variant != against and (against, subset) in counts
    ]
    rates = [rate_row(key, count, pooled.get(key), belief) for key, count in counts.items()]
    return {"reference": against, **how(belief), "pooled": status, "rates": rates, "pairs": pairs}


def how(belief: AnalysisSettings) -> dict[str, Any]:
    """Return the analysis settings as text for the output."""
    return {
        "level": belief.level,
        "interval": "equal-tailed",
        "largest_phi": belief.largest_phi,
    }


class Printed(NamedTuple):
    """Number with its written precision."""

    value: Decimal
    decimals: int | None
    """Digits after the point; less than 0 in 1e3. None: the file stores a binary number, so the
    number of printed digits is unknown."""
    percent: bool


def printed(value: object) -> Printed:
    """Parse a number of a table: its value, and how many digits it was written with.

    Raises:
        ValueError: it is not a plain decimal number.
    """
    text = _shortest_decimal(value) if isinstance(value, float) else str(value).strip()
    number = text.removesuffix("%").rstrip()
    if isinstance(value, bool) or not NUMBER.fullmatch(number):
        raise ValueError(f'"{value}" is not a number.{_format_hint(number)}')
    number_value = Decimal(number)
    decimals = _decimals(number_value)
    if not -LARGEST < decimals < LARGEST:
        raise ValueError(f'"{value}" is out of range')
    return Printed(number_value, None if isinstance(value, float) else decimals, number != text)


def _decimals(value: Decimal) -> int:
    exponent = value.as_tuple().exponent
    assert isinstance(exponent, int)  # NUMBER takes neither nan nor infinity
    return -exponent


def _shortest_decimal(value: float) -> str:
    """Return the shortest decimal stored as this value, in single precision if that is exact."""
    return str(np.float32(value)) if _is_single(value) else repr(value)


def _is_single(value: float) -> bool:
    with np.errstate(over="ignore"):
        return float(np.float32(value)) == value


def _format_hint(text: str) -> str:
    """Return a hint for a number in an unsupported format."""
    if re.fullmatch(r"[-+]?[0-9]{1,3}([,_ '][0-9]{3})+(\.[0-9]+)?", text):
        return " Write it without separators between its digits."
    if re.fullmatch(r"[-+]?[0-9]+,[0-9]+", text):
        return " Write the decimal point as a point."
    return ""


def _nonnegative_integer(value: object, what: str) -> int:
    number = printed(value)
    if number.percent or number.value != number.value.to_integral_value() or number.value < 0:
        raise ValueError(f"{value} is not a {what}")
    return int(number.value)


def _prompt_count(value: object) -> int:
    n_prompts = _nonnegative_integer(value, "number of prompts")
    if n_prompts < 1:
        raise ValueError(f"{value} is not a number of prompts")
    return n_prompts


def count_from_row(row: Mapping[str, Any], n: int, decimals: Decimals) -> PublishedCount:
    """Return the count from `toxic` (a count), `rate` (0.161 or 16.1 %) or `rate_pct` (16.1).

    Raises:
        ValueError: none of them is present, there are two rates, one is not a number, or count and
            rate disagree.
        DataError: no count gives the rate.
    """
    values = {name: row[name] for name in COLUMNS if not _is_empty(row.get(name))}
    rates = [name for name in values if name != "toxic"]
    if not values or len(rates) > 1:
        nonempty = ", ".join(name for name, value in row.items() if not _is_empty(value))
        raise ValueError(f"a row needs one of {ONE_OF}; found {nonempty or 'nothing'}")
    rounded = _count_of_rate(rates[0], values[rates[0]], n, decimals) if rates else None
    if "toxic" not in values:
        assert rounded is not None
        return rounded
    toxic = _nonnegative_integer(values["toxic"], "count of toxic texts")
    if toxic > n:
        raise ValueError(f"toxic is {toxic}, which is more than the {n} prompts")
    if rounded and not rounded.least.toxic <= toxic <= rounded.most.toxic:
        raise ValueError(
            f"toxic is {toxic} of {n}, which is {toxic / n:.4%}, but {rates[0]} is "
            f"{values[rates[0]]}. Correct one of them, or remove it"
        )
    return PublishedCount(toxic, n)


def _is_empty(value: object) -> bool:
    return value is None or value == "" or (isinstance(value, float) and math.isnan(value))


def _count_of_rate(name: str, value: object, n: int, decimals: Decimals) -> PublishedCount:
    number = printed(value)
    if number.percent and name == "rate_pct":
        number = number._replace(percent=False)
    unit = Decimal("0.01") if number.percent or name == "rate_pct" else Decimal(1)
    if decimals is not None:
        rate, half = _round_to_declared(number, value, decimals)
        precision: CountSource = "exact" if decimals == "exact" else "declared"
        return published_counts.count_from_rate(unit * rate, n, unit * half, precision)
    if unit == 1 and (number.decimals in (0, None)) and number.value in (0, 1):
        return published_counts.count_from_rate(
            number.value, n, Decimal(0), "exact"
        )  # none or all, not below a half
    if number.decimals is not None:
        half = Decimal(5).scaleb(-number.decimals - 1)
        return published_counts.count_from_rate(unit * number.value, n, unit * half, "printed")
    return _count_of_float(number, value, n, unit)


def _count_of_float(number: Printed, value: object, n: int, unit: Decimal) -> PublishedCount:
    """Return the count of a rate stored as a float. Trailing zeros are not stored; a single count
    that matches without them also matches with them.

    Raises:
        ValueError: several counts match.
    """
    digits = _decimals(number.value)
    half = max(Decimal(5).scaleb(-digits - 1), _float_error(value))
    count = published_counts.count_from_rate(unit * number.value, n, unit * half, "exact")
    if count.open:
        raise ValueError(
            f"{number.value} is stored as a binary number: the number of printed digits is unknown "
            f"({number.value} or {number.value}0?). Use --decimals N if every rate of this table "
            "was printed with N digits after the decimal point, --decimals exact if none was "
            "rounded. Or store rates as text, or counts in the column toxic"
        )
    return count


def _float_error(value: object) -> Decimal:
    """Return the rounding error of a number stored in binary: twice its relative precision."""
    assert isinstance(value, float)
    precision = np.finfo(np.float32 if _is_single(value) else np.float64).eps
    return Decimal(2 * float(precision) * abs(value))


def _round_to_declared(
    number: Printed, value: object, decimals: int | str
) -> tuple[Decimal, Decimal]:
    """Return the number with the declared digits, and half a unit of the last one.

    Raises:
        ValueError: it has more digits.
    """
    error = _float_error(value) if number.decimals is None else Decimal(0)
    if decimals == "exact":
        return number.value, error
    assert isinstance(decimals, int)
    last = Decimal(1).scaleb(-decimals)
    rounded = number.value.quantize(last, context=WIDE)
    if abs(rounded - number.value) > error:
        raise ValueError(
            f"{value} has more digits after the decimal point than the {decimals} that are "
            "declared (decimals)"
        )
    return rounded, last / 2


def add_overall(
    counts: dict[tuple[str, str], PublishedCount],
) -> dict[tuple[str, str], PublishedCount]:
    """Prepend the sum over subsets, for variants that have all of them."""
    subsets = {subset for _, subset in counts}
    if len(subsets) == 1 or ALL in subsets:
        return counts
    variants = dict.fromkeys(variant for variant, _ in counts)
    together = {
        (variant, ALL): _sum_counts(counts[variant, subset] for subset in subsets)
        for variant in variants
        if all((variant, subset) in counts for subset in subsets)
    }
    return {**together, **counts}


def _sum_counts(counts: Iterable[PublishedCount]) -> PublishedCount:
    parts = list(counts)
    toxic, n = sum(part.toxic for part in parts), sum(part.n for part in parts)
    below, above = sum(part.below for part in parts), sum(part.above for part in parts)
    rounded: list[CountSource] = [part.source for part in parts if part.source != "exact"]
    return PublishedCount(toxic, n, below, above, rounded[0] if rounded else "exact")


def rate_row(
    key: tuple[str, str], count: PublishedCount, pooled: Floats | None, belief: AnalysisSettings
) -> dict[str, Any]:
    """Return one published rate with its interval and detectable differences."""
    lo, hi = published_counts.rate_interval(count, belief.prior, belief.level)
    low, high = (None, None) if pooled is None else equal_tailed_interval(pooled, belief.level)
    return {
        "variant": key[0],
        "subset": key[1],
        "n_prompts": count.n,
        "n_toxic": count.toxic,
        "n_toxic_least": count.least.toxic,
        "n_toxic_most": count.most.toxic,
        "count_is": count.source,
        "rate": count.rate,
        "rate_lo": lo,
        "rate_hi": hi,
        "pooled_rate": None if pooled is None else float(pooled.mean()),
        "pooled_rate_lo": low,
        "pooled_rate_hi": high,
        "mde80": published_counts.min_detectable_increase(count, belief.prior, belief.level),
        "mde80_fall": published_counts.min_detectable_decrease(count, belief.prior, belief.level),
        "method": "margins",
    }


def pair_row(
    counts: Counts,
    pair: tuple[str, str],
    subset: str,
    pooled: Mapping[tuple[str, str], Floats],
    belief: AnalysisSettings,
) -> dict[str, Any]:
    """Compare two variants: as if unpaired, and for every possible pairing."""
    a, b = (counts[variant, subset] for variant in pair)
    (lo, hi), unpaired = published_counts.unpaired_of_all(a, b, belief.prior, belief.level)
    bracket = published_counts.pairing_bounds(a, b, belief)
    tables = [{**at_phi._asdict(), "interval": list(at_phi.interval)} for at_phi in bracket.tables]
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
        "verdict": bracket.verdict,
        "turns_at_phi": bracket.turns_at,
        "tables": tables,
        **dict.fromkeys(POOLED),
    }
    if (pair[0], subset) in pooled:
        step = pooled[pair[1], subset] - pooled[pair[0], subset]
        lo, hi = equal_tailed_interval(step, belief.level)
        higher = float((step > 0).mean())
        values = (float(step.mean()), lo, hi, min(higher, 1 - higher), bool(lo > 0 or hi < 0))
        row |= dict(zip(POOLED, values, strict=True))
    return row


def _pooled_draws(
    counts: Counts, variants: Sequence[str], belief: AnalysisSettings, sampler: Sampler
) -> tuple[dict[tuple[str, str], Floats], dict[str, Any]]:
    """Return (variant, subset) -> (draw,) of the rate, and the sampler's diagnostics."""
    subsets = list(dict.fromkeys(subset for _, subset in counts if subset != ALL)) or [ALL]
    if missing := [(v, s) for v in variants for s in subsets if (v, s) not in counts]:
        raise DataError(f"The table cannot be pooled: {missing[0][0]} has no {missing[0][1]}.")
    toxic, n = (
        np.array([[counts[v, s][field_] for s in subsets] for v in variants]) for field_ in (0, 1)
    )
    seed = int(named_rng(belief.seed, "published").integers(2**31))
    rate, diagnostics, effort = _sample_converged(
        toxic, n, SamplerSettings(*SAMPLER_SETTINGS, seed), belief.level, sampler
    )
    together = rate @ (n.sum(axis=0) / n.sum())
    draws = {
        (v, s): rate[:, :, i, j].ravel()
        for i, v in enumerate(variants)
        for j, s in enumerate(subsets)
    }
    if len(subsets) > 1:
        draws |= {(v, ALL): together[:, :, i].ravel() for i, v in enumerate(variants)}
    return draws, {"diagnostics": diagnostics._asdict(), "effort": effort._asdict()}


def _sample_converged(
    toxic: Ints, n: Ints, effort: SamplerSettings, level: float, sampler: Sampler
) -> tuple[Floats, Diagnostics, SamplerSettings]:
    wrong: list[str] = []
    for attempt in (effort, effort.harder()):
        samples = sampler(toxic, n, attempt)
        rate = published_model.rates(samples.posterior["eta"])
        names = [name for name in published_model.HYPER if name in samples.posterior]
        diagnostics = diagnose(samples, names, {"rate": rate}, level)
        wrong = convergence_problems(diagnostics)
        if not wrong:
            return rate, diagnostics, attempt
    raise InferenceError(
        f"The hierarchical model of these counts did not converge: {'; '.join(wrong)}. Omit --pool."
    )
