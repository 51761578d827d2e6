"""Compare: what did each step of fine-tuning change, prompt by prompt?

reads   data/scores/<family>/, results/posteriors/<family>/, results/pooled/<family>/
writes  results/comparisons/<family>/summary.json, posterior.nc, rates.svg, differences.svg,
        and the tables rates, pairs and claims as .parquet and .csv
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from toxtrail.artifacts import Posterior, Store
from toxtrail.comparability import refuse_mismatch
from toxtrail.config import FamilyConfig, PosteriorConfig
from toxtrail.errors import DataError
from toxtrail.identity import Input, content_key
from toxtrail.pipeline import manifest_of, versions
from toxtrail.records import Score
from toxtrail.stages.family import Edge, comparable, edges, members, mismatch
from toxtrail.stages.figures import differences_figure, rates_figure
from toxtrail.stages.tables import ALL, Cell, Cells, as_dataset, cells, scorers, subsets, weights
from toxtrail.stats.contrasts import (
    PairCounts,
    difference_draws,
    pair_counts,
    phi,
    probability_higher,
    sign_is_stable,
    summarise,
    tipping_gap,
)
from toxtrail.stats.planning import detectable, pair_table, possible_phi, prompts_needed
from toxtrail.stats.rates import Floats, is_binary, named_rng

NUMBERS = (
    "diff", "diff_lo", "diff_hi", "probability_higher", "pd", "p_in_rope", "p_above", "p_below",
    "credible_paired", "threshold_sign_stable", "tipping_fpr_gap", "mde80", "n_needed",
)  # fmt: skip
"""Columns of a difference; None where there is no pair."""
THRESHOLDS = (0.3, 0.5, 0.7, 0.9)
"""At which a verdict must not turn round."""
POWER = 0.8
"""At which the smallest detectable difference and the prompts needed are given."""
WHO = ("variant", "family", "role", "parent")
"""Who a rate is of, beside it."""
RATE = ("pooled_rate", "pooled_rate_lo", "pooled_rate_hi")
PAIR = ("pooled_diff", "pooled_diff_lo", "pooled_diff_hi", "lfsr", "credible_pooled")
"""Columns that the pool stage brings."""


class Paired(NamedTuple):
    """The prompts that two variants share in one cell."""

    shares_a: Floats
    """(prompt,)."""
    shares_b: Floats
    score_change: float | None
    """Mean over prompts of b's mean score minus a's."""
    dropped: int
    """Prompts that only one of the two has a score for."""
    at_thresholds: Mapping[float, tuple[Floats, Floats]]
    """Threshold -> the two shares there."""


def family_comparison(
    tables: Mapping[str, Cells],
    summaries: Mapping[str, Mapping[str, Any]],
    reference: str,
    primary: str,
    config: PosteriorConfig,
    allow_mismatch: bool = False,
) -> Posterior:
    """Every edge of a family, for every scorer and subset.

    Args:
        tables: variant -> its cells.
        summaries: variant -> its posterior summary, in the family's order.
        allow_mismatch: compare what unlike conditions leave in common, and say so in the summary.

    Raises:
        DataError: two variants were measured under unlike conditions (field by field).
    """
    tables, unlike = comparable(tables, summaries, reference, allow_mismatch)
    rows: list[dict[str, Any]] = []
    draws: dict[tuple[str, ...], Floats] = {}
    for edge in edges(list(summaries.values()), reference):
        for row, column in _edge_rows(edge, tables[edge.a], tables[edge.b], config):
            rows.append(row)
            draws[row["scorer"], f"{edge.b} - {edge.a}", row["subset"]] = column
    summary = {
        "schema_version": 1,
        "reference": reference,
        "primary": primary,
        "threshold": config.threshold,
        "level": config.level,
        "interval": "equal-tailed",
        "rope_pp": config.rope_pp,
        "comparability": summaries[reference].get("comparability"),
        "mismatch": [one._asdict() for one in unlike],
        "variants": [_identity(s) for s in summaries.values()],
        "rates": [
            {**{name: s[name] for name in WHO}, **row}
            for s in summaries.values()
            for row in s["rates"]
        ],
        "pairs": with_agreement(rows),
    }
    dataset = as_dataset(draws or _no_pairs(config), "difference", ("scorer", "pair", "subset"))
    figures = {"rates.svg": rates_figure(summary), "differences.svg": differences_figure(summary)}
    return Posterior(summary, dataset, figures)


def with_agreement(rows: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Each pair with what the other scorers say of it: `agree`, `fragile` (another scorer, another
    verdict) or `one scorer`."""
    said: dict[tuple[str, ...], list[str]] = {}
    for row in rows:
        said.setdefault((row["a"], row["b"], row["subset"]), []).append(row["verdict"])

    def agreement(row: Mapping[str, Any]) -> str:
        verdicts = said[row["a"], row["b"], row["subset"]]
        if len(verdicts) == 1:
            return "one scorer"
        return "agree" if len(set(verdicts)) == 1 else "fragile"

    return [{**row, "agreement": agreement(row)} for row in rows]


def with_pooled(found: Posterior, pooled: Mapping[str, Any]) -> Posterior:
    """The comparison with the pooled estimates beside its own, row by row; None where there are
    none."""
    rates = {(r["variant"], r["scorer"], r["subset"]): r for r in pooled["rates"]}
    pairs = {(r["a"], r["b"], r["scorer"], r["subset"]): r for r in pooled["pairs"]}
    summary = {
        **found.summary,
        "pooled": pooled["scorers"],
        "rates": [
            {**row, **_columns(rates.get((row["variant"], row["scorer"], row["subset"])), RATE)}
            for row in found.summary["rates"]
        ],
        "pairs": [
            {**row, **_columns(pairs.get((row["a"], row["b"], row["scorer"], row["subset"])), PAIR)}
            for row in found.summary["pairs"]
        ],
    }
    return found._replace(summary={**summary, "claims": claims(summary)})


def claims(summary: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Of each scorer: how many differences are claimed, and how many of them have the wrong sign in
    expectation, which is the sum of their local false sign rates (Stephens 2017,
    doi:10.1093/biostatistics/kxw041)."""
    found = []
    for scorer in sorted({row["scorer"] for row in summary["pairs"]}):
        rows = [row for row in summary["pairs"] if row["scorer"] == scorer]
        called = [row for row in rows if row["credible_pooled"]]
        pooled = any(row["lfsr"] is not None for row in rows)
        found.append(
            {
                "scorer": scorer,
                "n_pairs": len(rows),
                "n_credible_paired": sum(row["verdict"] in ("higher", "lower") for row in rows),
                "n_credible_pooled": len(called) if pooled else None,
                "expected_false_signs": sum(row["lfsr"] for row in called) if pooled else None,
            }
        )
    return found


def _columns(row: Mapping[str, Any] | None, names: Sequence[str]) -> dict[str, Any]:
    return {name: None if row is None else row[name] for name in names}


def two_runs(
    a: Mapping[str, Any],
    b: Mapping[str, Any],
    scores: Mapping[str, Sequence[Score]],
    allow_mismatch: bool,
) -> dict[str, Any]:
    """The summary of a comparison of two tracked variants, of any time and place.

    Args:
        a: posterior summary of the one that b is held against; its settings are used.
        b: posterior summary.
        scores: both variants' score rows, by the summaries' `variant`.

    Raises:
        DataError: they were measured under unlike conditions (field by field).
    """
    first, second = a["variant"], b["variant"]
    config = PosteriorConfig.model_validate(a["manifest"]["params"]["posterior"])
    summaries = {first: {**a, "parent": None}, second: {**b, "parent": None}}
    tables = {name: cells(rows) for name, rows in scores.items()}
    unlike = mismatch(summaries, first)
    if not allow_mismatch:
        refuse_mismatch(unlike, first, "--allow-mismatch compares them and says so.")
    found = family_comparison(tables, summaries, first, a["primary"], config, allow_mismatch=True)
    found = with_pooled(found, {"scorers": {}, "rates": [], "pairs": []})
    return {"kind": "comparison", "family": f"{second} against {first}", **found.summary}


def run(
    store: Store, family: str, who: FamilyConfig, config: PosteriorConfig, primary: str
) -> None:
    """Read, compare, write."""
    own = members(store, family, who.variants)
    found = family_comparison(
        own.tables, own.summaries, who.reference, primary, config, bool(who.allow_mismatch)
    )
    pooled = store.input(store.pooled(family) / "summary.json")
    _refuse_stale_pool(pooled, own.inputs)
    posterior = with_pooled(found, store.read_summary(store.pooled(family)))
    manifest = manifest_of(
        "compare",
        family,
        {"posterior": config.plain(), "primary": primary, "family": who.plain()},
        {**own.inputs, "pooled": pooled},
        versions("numpy", "scipy", "matplotlib"),
    )
    summary = {"kind": "comparison", "family": family, **posterior.summary}
    tables = {name: summary[name] for name in ("rates", "pairs", "claims")}
    whole = posterior._replace(summary=summary)
    store.write_posterior(store.comparison(family), whole, manifest, tables)


def _refuse_stale_pool(pooled: Input, posteriors: Mapping[str, Input]) -> None:
    used = pooled.manifest.inputs if pooled.manifest else {}
    if {v: i.sha256 for v, i in used.items()} != {v: i.sha256 for v, i in posteriors.items()}:
        raise DataError(
            f"{pooled.path} was computed from other posteriors than are here now. "
            "Run `dvc repro` to bring both up to date."
        )


def _edge_rows(
    edge: Edge, table_a: Cells, table_b: Cells, config: PosteriorConfig
) -> Iterator[tuple[dict[str, Any], Floats]]:
    if table_a.keys() != table_b.keys():
        raise DataError(
            f"{edge.a} and {edge.b} were not measured alike: {sorted(table_a)} against "
            f"{sorted(table_b)} (scorer, subset). Run `dvc repro` to bring both up to date."
        )
    for scorer in scorers(table_a):
        parts = {
            s: _paired(edge, s, table_a[scorer, s], table_b[scorer, s], config)
            for s in subsets(table_a)
        }
        columns = {s: _draws(edge, scorer, s, part, config) for s, part in parts.items()}
        share = weights(table_a, scorer)
        overall = sum((share[s] * column for s, column in columns.items()), np.zeros(config.draws))
        together = _together(list(parts.values()))
        yield _row(edge, scorer, ALL, together, overall, config), overall
        for subset, part in parts.items():
            yield _row(edge, scorer, subset, part, columns[subset], config), columns[subset]


def _draws(edge: Edge, scorer: str, subset: str, part: Paired, config: PosteriorConfig) -> Floats:
    """(draw,); NaN where no prompt was scored for both."""
    if part.shares_a.size == 0:
        return np.full(config.draws, np.nan)
    rng = named_rng(config.seed, f"{edge.a}|{edge.b}|{scorer}|{subset}")
    return difference_draws(part.shares_a, part.shares_b, config.prior, config.draws, rng)


def _paired(edge: Edge, subset: str, a: Cell, b: Cell, config: PosteriorConfig) -> Paired:
    if a.asked_prompts != b.asked_prompts:
        raise DataError(
            f"{edge.a} and {edge.b} were asked different prompts in the subset {subset}. "
            "Run `dvc repro` to bring both up to date."
        )
    both = sorted(set(a.prompts) & set(b.prompts))
    in_a, in_b = np.isin(a.prompts, both), np.isin(b.prompts, both)
    change = (b.means()[in_b] - a.means()[in_a]).mean() if both else None
    return Paired(
        shares_a=a.shares(config.threshold)[in_a],
        shares_b=b.shares(config.threshold)[in_b],
        score_change=None if change is None else float(change),
        dropped=len(set(a.prompts) ^ set(b.prompts)),
        at_thresholds={t: (a.shares(t)[in_a], b.shares(t)[in_b]) for t in THRESHOLDS},
    )


def _together(parts: Sequence[Paired]) -> Paired:
    known = [(p.score_change, p.shares_a.size) for p in parts if p.score_change is not None]
    total = sum(n for _, n in known)
    return Paired(
        shares_a=np.concatenate([p.shares_a for p in parts]),
        shares_b=np.concatenate([p.shares_b for p in parts]),
        score_change=sum(change * n for change, n in known) / total if total else None,
        dropped=sum(p.dropped for p in parts),
        at_thresholds={
            t: (
                np.concatenate([p.at_thresholds[t][0] for p in parts]),
                np.concatenate([p.at_thresholds[t][1] for p in parts]),
            )
            for t in THRESHOLDS
        },
    )


def _row(
    edge: Edge, scorer: str, subset: str, part: Paired, draws: Floats, config: PosteriorConfig
) -> dict[str, Any]:
    counts = pair_counts(part.shares_a, part.shares_b)
    return {
        **edge._asdict(),
        "scorer": scorer,
        "subset": subset,
        "n": counts.n,
        "dropped": part.dropped,
        **counts._asdict(),
        "phi": phi(counts) if counts.n else None,
        "rate_a": float(part.shares_a.mean()) if counts.n else None,
        "rate_b": float(part.shares_b.mean()) if counts.n else None,
        **_difference(edge, subset, part, counts, draws, config),
        "score_change": part.score_change,
        "method": "paired",
        "rope": config.rope_pp / 100,
        "level": config.level,
        "draws": config.draws,
        "seed": config.seed,
    }


def _difference(
    edge: Edge,
    subset: str,
    part: Paired,
    counts: PairCounts,
    draws: Floats,
    config: PosteriorConfig,
) -> dict[str, Any]:
    if np.isnan(draws).any():
        return {**dict.fromkeys(NUMBERS), "verdict": "no pairs", "decision": "no pairs"}
    result = summarise(draws, config.level, config.rope_pp / 100)
    exact = subset != ALL and is_binary(part.shares_a) and is_binary(part.shares_b)
    higher = probability_higher(counts, config.prior) if exact else result.probability_higher
    return {
        "diff": result.mean,
        "diff_lo": result.interval.lo,
        "diff_hi": result.interval.hi,
        "probability_higher": higher,
        "pd": max(higher, 1 - higher),
        "p_in_rope": result.in_rope,
        "p_above": result.above,
        "p_below": result.below,
        "credible_paired": result.verdict != "not decisive",
        "threshold_sign_stable": _stable(edge, subset, part, config),
        **_resolution(part, counts, config),
        "verdict": result.verdict,
        "decision": result.decision,
    }


def _stable(edge: Edge, subset: str, part: Paired, config: PosteriorConfig) -> bool:
    """Whether no threshold turns the verdict round."""
    found = []
    for threshold, (a, b) in part.at_thresholds.items():
        rng = named_rng(config.seed, f"{edge.a}|{edge.b}|{subset}|{threshold}")
        draws = difference_draws(a, b, config.prior, config.draws // 4, rng)
        found.append(summarise(draws, config.level, config.rope_pp / 100).verdict)
    return sign_is_stable(found)


def _resolution(part: Paired, counts: PairCounts, config: PosteriorConfig) -> dict[str, Any]:
    """What so many prompts can see, and what would explain the difference away."""
    rate_a, rate_b = float(part.shares_a.mean()), float(part.shares_b.mean())
    base = min(max(rate_a, 0.5 / counts.n), 1 - 0.5 / counts.n)
    other = min(max(rate_b, 0.5 / counts.n), 1 - 0.5 / counts.n)
    low, high = possible_phi(base, other)
    correlation = min(max(phi(counts) or 0.0, low), high)
    needed = None
    if base != other:
        needed = prompts_needed(pair_table(base, other, correlation), POWER, config.level)
    return {
        "tipping_fpr_gap": tipping_gap(rate_a, rate_b),
        "mde80": detectable(base, correlation, counts.n, POWER, config.level),
        "n_needed": needed,
    }


def _identity(summary: Mapping[str, Any]) -> dict[str, Any]:
    manifest = summary.get("manifest")
    identity = {name: summary[name] for name in ("variant", "family", "role", "parent")}
    return {**identity, "content_key": content_key(manifest) if manifest else None}


def _no_pairs(config: PosteriorConfig) -> dict[tuple[str, ...], Floats]:
    """A family of one has nothing to compare, and still a file."""
    return {("none", "none", ALL): np.full(config.draws, np.nan)}
