"""Published numbers as data: re-analyse them, and compare them with measured results.

reads   a YAML file of sources, rates and comparisons (docs/published.md), or a table
        (`stages.published`)
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from decimal import Decimal
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple

from pydantic import Field, NonNegativeInt, PositiveInt, StringConstraints

from toxtrail.analysis.score_table import ALL
from toxtrail.config.load import config_error, read_yaml, validate_section
from toxtrail.config.sections import ConfigSection, Key
from toxtrail.errors import ConfigError, DataError, did_you_mean
from toxtrail.published.counts import (
    COLUMNS,
    Counts,
    Sampler,
    add_overall,
    count_from_row,
    how,
    pair_row,
    rate_row,
    reanalyse_table,
)
from toxtrail.stats import published_counts
from toxtrail.stats.published_counts import AnalysisSettings, PublishedCount
from toxtrail.stats.rates import Interval

Text = Annotated[str, StringConstraints(min_length=1)]
Verdict = Literal["higher", "lower", "not decisive"]

BASELINE_RATES = (0.01, 0.10)
"""Baseline rates of the resolution table: of a fine-tuned and of a base model."""
OPPOSITE: dict[str, str] = {"higher": "lower", "lower": "higher"}


class SourceConfig(ConfigSection):
    """A publication and its measure."""

    cite: Text
    measure: Text
    """Quantity measured by the rates. Rates of two sources are never compared."""
    prompts: dict[Text, PositiveInt] | None = None
    """Subset -> number of prompts per rate (`all`: the total); a rate may have its own n."""
    unconfirmed: dict[Text, PositiveInt] | None = None
    """Numbers of prompts that the source does not confirm: used for the resolution table only."""
    decimals: Annotated[int, Field(ge=0, le=20)] | Literal["exact"] | None = None
    """Decimals of each of its rates, if trailing zeros are not written (0.1 for 0.10); exact: not
    rounded."""


class RateConfig(ConfigSection):
    """One published rate."""

    source: Key
    variant: Text
    subset: Text | None = None
    """None: all subsets together."""
    n: PositiveInt | None = None
    rate: Text | Decimal | int | None = None
    """16.1 % or 0.161; the written digits determine the precision of the count."""
    rate_pct: Text | Decimal | int | None = None
    """The rate in percent instead: 16.1."""
    toxic: NonNegativeInt | None = None
    """The count instead; together with a rate, it must round to the rate."""


class ClaimConfig(ConfigSection):
    """One published comparison."""

    source: Key
    variant: Text
    against: Text
    subset: Text | None = None
    """None: all subsets together."""
    verdict: Verdict | None = None
    """The source's verdict: higher or lower if it calls the difference credible, "not decisive" if
    it finds none; None if it gives none."""
    quote: Text | None = None
    """Quote from the source."""


class PublishedFile(ConfigSection):
    """File of published numbers."""

    sources: Annotated[dict[Key, SourceConfig], Field(min_length=1)]
    rates: list[RateConfig]
    comparisons: list[ClaimConfig] | None = None
    keys: dict[Text, Key] | None = None
    """Published name -> variant of params.yaml, for `toxtrail compare --published`."""

    @property
    def claims(self) -> list[ClaimConfig]:
        return self.comparisons or []

    def key_of(self, variant: str) -> str:
        """Return the key in params.yaml of a published variant."""
        return (self.keys or {}).get(variant, variant)


class PublishedData(NamedTuple):
    """A checked file."""

    file: PublishedFile
    counts: Mapping[str, Counts]
    """Source -> (variant, subset) -> count."""


def load_published(path: Path) -> PublishedData:
    """Read and check a file of published numbers.

    Raises:
        ConfigError: every problem: an unknown name, a rate that no count gives, a source that is
            not listed, a duplicate row.
    """
    file = validate_section(PublishedFile, read_yaml(path, exact=True), path.name)
    wrong = [*_broken_names(file), *_duplicates(file)]
    counts: dict[str, dict[tuple[str, str], PublishedCount]] = {key: {} for key in file.sources}
    for index, row in enumerate(file.rates):
        if row.source in counts:
            try:
                counts[row.source][row.variant, row.subset or ALL] = _count_of_row(
                    row, file.sources
                )
            except (DataError, ValueError) as error:
                wrong.append(f"rates.{index} ({row.variant}): {str(error).rstrip('.')}.")
    if wrong:
        raise config_error(path.name, wrong)
    return PublishedData(
        file, {source: add_overall(source_counts) for source, source_counts in counts.items()}
    )


def replay(
    loaded: PublishedData,
    only: str | None,
    against: str | None,
    belief: AnalysisSettings,
    sampler: Sampler | None,
) -> dict[str, Any]:
    """Re-analyse every published comparison from the counts, with the source's verdict.

    In a source without comparisons, each variant is compared with the first.

    Args:
        only: one source.
        against: the baseline variant; only for sources without comparisons.
        sampler: samples the hierarchical model; None omits the pooled columns.

    Raises:
        ConfigError: unknown source, or an option that conflicts with the file.
        DataError: a table has gaps and cannot be pooled.
    """
    sources = _selected_sources(loaded, only)
    results = [_reanalyse_source(loaded, source, against, belief, sampler) for source in sources]
    return {
        **how(belief),
        "sources": [
            {"source": key, **loaded.file.sources[key].model_dump(mode="json")} for key in sources
        ],
        "pooled": {
            key: result["pooled"]
            for key, result in zip(sources, results, strict=True)
            if result["pooled"]
        },
        "rates": [row for result in results for row in result["rates"]],
        "pairs": [row for result in results for row in result["pairs"]],
        "resolution": [row for key in sources for row in _resolution_rows(loaded, key, belief)],
    }


def compare_with_run(
    loaded: PublishedData, summary: Mapping[str, Any], scorer: str, prior: float
) -> dict[str, Any]:
    """Compare measured with published rates and verdicts, matched by variant and subset.

    Two rates agree if they differ by no more than the region of practical equivalence: rope_pp, or
    rope_relative of the published rate if that is more.
    """
    belief = AnalysisSettings(prior, summary["level"], 0, 0.0)  # nothing is drawn, nothing paired
    measured = {
        (row["variant"], row["subset"]): row
        for row in summary["rates"]
        if row["scorer"] == scorer and row["rate"] is not None
    }
    rates = [
        _compare_rate(loaded, source, key, count, measured[key], summary, belief)
        for source, counts in loaded.counts.items()
        for (variant, subset), count in counts.items()
        if (key := (loaded.file.key_of(variant), subset)) in measured
    ]
    pairs = [row for row in summary["pairs"] if row["scorer"] == scorer]
    verdicts = {(row["b"], row["a"], row["subset"]): row for row in pairs}
    claims = [
        comparison
        for claim in loaded.file.claims
        if claim.verdict and (comparison := _compare_claim(loaded.file, claim, verdicts))
    ]
    return {"scorer": scorer, "rates": rates, "pairs": claims}


# --- checking -----------------------------------------------------------------------------------


def _broken_names(file: PublishedFile) -> Iterable[str]:
    named: dict[str, Sequence[RateConfig | ClaimConfig]]
    named = {"rates": file.rates, "comparisons": file.claims}
    for name, rows in named.items():
        for index, row in enumerate(rows):
            if row.source not in file.sources:
                yield (
                    f'{name}.{index}.source: unknown source "{row.source}".'
                    f"{did_you_mean(row.source, file.sources)}"
                )
    for index, claim in enumerate(file.claims):
        if claim.variant == claim.against:
            yield f"comparisons.{index}: {claim.variant} is compared with itself."


def _duplicates(file: PublishedFile) -> Iterable[str]:
    rates = Counter((row.source, row.variant, row.subset or ALL) for row in file.rates)
    claims = Counter((c.source, c.variant, c.against, c.subset or ALL) for c in file.claims)
    for name, counter in (("rates", rates), ("comparisons", claims)):
        yield from (
            f"{name}: duplicate row {', '.join(key)}."
            for key, times in counter.items()
            if times > 1
        )


def _count_of_row(row: RateConfig, sources: Mapping[str, SourceConfig]) -> PublishedCount:
    subset = row.subset or ALL
    n = row.n or (sources[row.source].prompts or {}).get(subset)
    if n is None:
        raise DataError(
            f"the number of prompts is missing. Set n here, or sources.{row.source}.prompts."
            f"{subset}"
        )
    values = {name: getattr(row, name) for name in COLUMNS}
    return count_from_row(values, n, sources[row.source].decimals)


def _selected_sources(loaded: PublishedData, only: str | None) -> list[str]:
    sources = loaded.file.sources
    if only is not None and only not in sources:
        raise ConfigError(f'--source: unknown source "{only}".{did_you_mean(only, sources)}')
    return [only] if only else list(sources)


# --- re-analysis --------------------------------------------------------------------------------


def _reanalyse_source(
    loaded: PublishedData,
    source: str,
    against: str | None,
    belief: AnalysisSettings,
    sampler: Sampler | None,
) -> dict[str, Any]:
    counts = loaded.counts[source]
    claims = [claim for claim in loaded.file.claims if claim.source == source]
    if claims and (against or sampler):
        raise ConfigError(
            f"{source} lists its own comparisons: --against and --pool are for tables that do not."
        )
    if not claims and counts:
        table = reanalyse_table(counts, against, belief, sampler)
        pairs = [{**row, **_claim_columns(row, None)} for row in table["pairs"]]
        return {
            **table,
            "rates": [{"source": source, **row} for row in table["rates"]],
            "pairs": [{"source": source, **row} for row in pairs],
        }
    rates = [
        {"source": source, **rate_row(key, count, None, belief)} for key, count in counts.items()
    ]
    pairs = [{"source": source, **_claim_row(counts, claim, belief)} for claim in claims]
    return {"pooled": None, "rates": rates, "pairs": pairs}


def _claim_row(counts: Counts, claim: ClaimConfig, belief: AnalysisSettings) -> dict[str, Any]:
    """Re-analyse a published comparison; the result is missing if the source reports too few
    numbers."""
    part = claim.subset or ALL
    ends = [(claim.against, part), (claim.variant, part)]
    if all(end in counts for end in ends):
        row = pair_row(counts, (claim.against, claim.variant), part, {}, belief)
    else:
        missing = [variant for variant, subset in ends if (variant, subset) not in counts]
        row = {
            "a": claim.against,
            "b": claim.variant,
            "subset": part,
            "verdict": None,
            "missing": missing,
        }
    return {**row, **_claim_columns(row, claim)}


def _claim_columns(row: Mapping[str, Any], claim: ClaimConfig | None) -> dict[str, Any]:
    published = claim.verdict if claim else None
    return {
        "verdict_published": published,
        "quote": claim.quote if claim else None,
        "status": _claim_status(row["verdict"], published),
    }


def _claim_status(computed: str | None, published: str | None) -> str:
    """Return whether the counts support the source's verdict."""
    if computed is None:
        return "no rates to replay"
    if published is None:
        return "nothing stated"
    if computed == published:
        return "supported"
    if computed.startswith("depends"):
        return "undetermined"
    return "contradicted" if OPPOSITE.get(computed) == published else "not supported"


def _resolution_rows(
    loaded: PublishedData, source: str, belief: AnalysisSettings
) -> list[dict[str, Any]]:
    """Return the smallest differences that each number of prompts of a source can detect."""
    config = loaded.file.sources[source]
    sizes = [(subset, n, True) for subset, n in (config.prompts or {}).items()]
    sizes += [(subset, n, False) for subset, n in (config.unconfirmed or {}).items()]
    sizes += [(subset, count.n, True) for (_, subset), count in loaded.counts[source].items()]
    rows: dict[tuple[int, bool], dict[str, Any]] = {}
    for subset, n, sure in dict.fromkeys(sizes):
        row = rows.setdefault((n, sure), _resolution_of(n, belief))
        row |= {"source": source, "n_confirmed": sure}
        row.setdefault("subsets", []).append(subset)
    return list(rows.values())


def _resolution_of(n: int, belief: AnalysisSettings) -> dict[str, Any]:
    none = published_counts.rate_interval(PublishedCount(0, n), belief.prior, belief.level)
    row: dict[str, Any] = {"n": n, "none_lo": none.lo, "none_hi": none.hi}
    for base in BASELINE_RATES:
        count = PublishedCount(max(1, round(base * n)), n)
        lo, hi = published_counts.rate_interval(count, belief.prior, belief.level)
        name = f"at_{100 * base:.0f}"
        row |= {f"{name}_lo": lo, f"{name}_hi": hi}
        row |= {
            f"{name}_rise": published_counts.min_detectable_increase(
                count, belief.prior, belief.level
            )
        }
        row |= {
            f"{name}_fall": published_counts.min_detectable_decrease(
                count, belief.prior, belief.level
            )
        }
    return row


# --- comparison with a run ----------------------------------------------------------------------


def _compare_rate(
    loaded: PublishedData,
    source: str,
    key: tuple[str, str],
    count: PublishedCount,
    row: Mapping[str, Any],
    summary: Mapping[str, Any],
    belief: AnalysisSettings,
) -> dict[str, Any]:
    region = max(summary["rope_pp"] / 100, summary["rope_relative"] * count.rate)
    measured = row["rate_mean"], Interval(row["rate_lo"], row["rate_hi"])
    agreement = published_counts.rate_agreement(measured, count, region, belief)
    lo, hi = published_counts.rate_interval(count, belief.prior, belief.level)
    return {
        "source": source,
        "variant": key[0],
        "subset": key[1],
        "n_measured": row["n_scored_prompts"],
        "k": row["k"],
        "measured": row["rate"],
        "measured_lo": row["rate_lo"],
        "measured_hi": row["rate_hi"],
        "n_published": count.n,
        "n_toxic_least": count.least.toxic,
        "n_toxic_most": count.most.toxic,
        "published": count.rate,
        "published_lo": lo,
        "published_hi": hi,
        "diff": row["rate"] - count.rate,
        "diff_lo": agreement.interval.lo,
        "diff_hi": agreement.interval.hi,
        "rope": region,
        "p_agree": agreement.within,
        "overlap": agreement.overlap,
        "verdict": agreement.verdict,
    }


def _compare_claim(
    file: PublishedFile,
    claim: ClaimConfig,
    measured: Mapping[tuple[str, str, str], Mapping[str, Any]],
) -> dict[str, Any] | None:
    """Compare a published verdict with the measured one; None if the pair was not measured."""
    b, a = file.key_of(claim.variant), file.key_of(claim.against)
    part = claim.subset or ALL
    row, turned = measured.get((b, a, part)), False
    if row is None:
        row, turned = measured.get((a, b, part)), True
    if row is None:
        return None
    verdict = OPPOSITE.get(row["verdict"], row["verdict"]) if turned else row["verdict"]
    sign = -1 if turned else 1
    diff, ends = row["diff"], (row["diff_lo"], row["diff_hi"])
    is_estimated = diff is not None
    lo, hi = sorted(sign * end for end in ends) if is_estimated else (None, None)
    return {
        "source": claim.source,
        "b": b,
        "a": a,
        "subset": part,
        "n": row["n"],
        "diff": sign * diff if is_estimated else None,
        "diff_lo": lo,
        "diff_hi": hi,
        "verdict": verdict,
        "verdict_published": claim.verdict,
        "same": verdict == claim.verdict,
    }


def published_variants(loaded: PublishedData) -> Sequence[str]:
    """Return the params.yaml key of every variant in the file."""
    named = [row.variant for row in loaded.file.rates]
    named += [name for claim in loaded.file.claims for name in (claim.variant, claim.against)]
    return list(dict.fromkeys(loaded.file.key_of(name) for name in named))
