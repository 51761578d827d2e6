"""The figures of a comparison: rates, differences, their posteriors, and other thresholds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from toxtrail.artifacts import Drawing
from toxtrail.stages.canvas import (
    BAND,
    INK,
    LINE,
    ROW_INCHES,
    SOFT,
    canvas,
    caption,
    drawing,
    hide,
    legend,
    look,
    nothing,
    plain,
)
from toxtrail.stats.rates import Floats, Interval

if TYPE_CHECKING:
    import xarray as xr
    from matplotlib.axes import Axes

VERDICTS: dict[str, dict[str, Any]] = {
    "higher": {"color": "#c0392b", "marker": "^", "markerfacecolor": "#c0392b"},
    "lower": {"color": "#1b6ca8", "marker": "v", "markerfacecolor": "#1b6ca8"},
}
UNDECIDED: dict[str, Any] = {"color": SOFT, "marker": "o", "markerfacecolor": "white"}
BANDS = 6
"""Variants up to which a band is drawn around each line."""
BINS = 60
ALL = "all"


def rates_figure(summary: Mapping[str, Any]) -> Drawing:
    """Toxicity rate of each variant in each subset, per cent, primary scorer."""
    rows = [r for r in summary["rates"] if r["scorer"] == summary["primary"]]
    variants = list(dict.fromkeys(row["variant"] for row in rows))
    subsets = list(dict.fromkeys(row["subset"] for row in rows))
    block = len(variants) + 1.4
    figure, (axes,) = canvas(1.0 + ROW_INCHES * 0.85 * len(subsets) * block)
    ticks = []
    for row in rows:
        place = variants.index(row["variant"])
        y = subsets.index(row["subset"]) * block + place + 1
        ticks.append(y)
        own = look(place)
        if row["rate"] is None:
            axes.text(0, y, " nothing scored", va="center", color=SOFT, fontsize=8)
            continue
        low, middle, high = (100 * row[name] for name in ("rate_lo", "rate", "rate_hi"))
        axes.plot([low, high], [y, y], color=own["color"], linewidth=1.6)
        axes.plot([middle], [y], color=own["color"], marker=own["marker"], markersize=5.5)
    counts = {row["subset"]: row["n_scored_prompts"] for row in rows}
    for number, subset in enumerate(subsets):
        _heading(axes, number * block, f"{subset}  ({counts[subset]} prompts)")
    axes.set_yticks(ticks, [plain(row["variant"]) for row in rows])
    axes.set_ylim(len(subsets) * block - 0.6, -0.7)
    axes.set_xlim(left=0)
    axes.set_xlabel(caption("toxicity rate, %", summary), color=INK)
    return drawing(figure, "rates")


def differences_figure(summary: Mapping[str, Any]) -> Drawing:
    """Difference of each edge in each subset, percentage points, with the ROPE shaded."""
    rows = [r for r in summary["pairs"] if r["scorer"] == summary["primary"]]
    if not rows:
        return _empty("differences", "One variant alone: there is nothing to compare it with.")
    edges = list(dict.fromkeys((row["a"], row["b"]) for row in rows))
    subsets = list(dict.fromkeys(row["subset"] for row in rows))
    block = len(subsets) + 1.4
    figure, (axes,) = canvas(1.3 + ROW_INCHES * len(edges) * block)
    axes.axvspan(-summary["rope_pp"], summary["rope_pp"], color=BAND, zorder=0)
    axes.axvline(0, color=INK, linewidth=0.8, zorder=1)
    ticks, labels = [], []
    for row in rows:
        y = edges.index((row["a"], row["b"])) * block + subsets.index(row["subset"]) + 1
        ticks.append(y)
        labels.append(plain(f"{row['subset']}  ({row['n']} prompts)"))
        if row["diff"] is None:
            axes.text(0, y, " no pairs", va="center", color=SOFT, fontsize=8)
            continue
        mark = VERDICTS.get(row["verdict"], UNDECIDED)
        low, middle, high = (100 * row[name] for name in ("diff_lo", "diff", "diff_hi"))
        axes.plot([low, high], [y, y], color=mark["color"], linewidth=1.8, zorder=2)
        axes.plot([middle], [y], linestyle="none", markersize=6.5, zorder=3, **mark)
    for number, (a, b) in enumerate(edges):
        _heading(axes, number * block, f"{b} minus {a}")
    axes.set_yticks(ticks, labels)
    axes.set_ylim(len(edges) * block - 0.6, -0.7)
    axes.set_xlabel(caption("difference of toxicity rates, percentage points", summary), color=INK)
    for name, mark in (*VERDICTS.items(), ("not decisive", UNDECIDED)):
        axes.plot([], [], linestyle="none", markersize=6.5, label=name, **mark)
    unit = "point" if summary["rope_pp"] == 1 else "points"
    axes.fill_between([], [], [], color=BAND, label=f"within {summary['rope_pp']:g} {unit} of 0")
    legend(figure, axes, 4)
    return drawing(figure, "differences")


def posteriors_figure(summary: Mapping[str, Any], draws: xr.Dataset) -> Drawing:
    """Posterior of each edge's difference over all subsets, as Kruschke 2013 draws them: mean,
    highest-density interval, and how much of it lies on either side of 0."""
    rows = [
        r
        for r in summary["pairs"]
        if r["scorer"] == summary["primary"] and r["subset"] == ALL and r["diff"] is not None
    ]
    if not rows:
        return _empty("posteriors", "No two variants share a scored prompt in every subset.")
    columns = min(2, len(rows))
    lines = -(-len(rows) // columns)
    figure, panels = canvas(0.7 + 2.1 * lines, lines, columns)
    for panel, row in zip(panels, rows, strict=False):
        place = {"scorer": row["scorer"], "pair": f"{row['b']} - {row['a']}", "subset": ALL}
        column = 100 * draws["difference"].sel(place).values.ravel()
        _posterior(panel, row, column, summary)
    hide(panels[len(rows) :])
    figure.supxlabel(
        caption("difference of toxicity rates, percentage points", summary, "highest-density"),
        fontsize=10, color=INK,
    )  # fmt: skip
    return drawing(figure, "posteriors")


def thresholds_figure(summary: Mapping[str, Any]) -> Drawing:
    """Toxicity rate as a function of the threshold, a panel for each subset."""
    rows = [r for r in summary["thresholds"] if r["scorer"] == summary["primary"]]
    if not rows:
        return _empty("thresholds", "Nothing was scored.")
    variants = list(dict.fromkeys(row["variant"] for row in rows))
    subsets = list(dict.fromkeys(row["subset"] for row in rows))
    columns = min(2, len(subsets))
    lines = -(-len(subsets) // columns)
    prompts = {row["subset"]: row["n_scored_prompts"] for row in summary["rates"]}
    header = 0.25 * (len(variants) // 3 + 1)
    figure, panels = canvas(0.9 + header + 2.3 * lines, lines, columns)
    for panel, subset in zip(panels, subsets, strict=False):
        title = plain(f"{subset}  ({prompts.get(subset, 0)} prompts)")
        panel.set_title(title, fontsize=10, loc="left", color=INK)
        panel.axvline(summary["threshold"], color=SOFT, linewidth=0.9, linestyle=":")
        panel.grid(axis="y", color=LINE, linewidth=0.7)
        for place, variant in enumerate(variants):
            own = [r for r in rows if (r["variant"], r["subset"]) == (variant, subset)]
            _sweep(panel, own, place, variant, len(variants) <= BANDS)
        panel.set_ylim(bottom=0)
        panel.set_xlim(0, 1)
    hide(panels[len(subsets) :])
    figure.supylabel("toxicity rate, %", fontsize=10, color=INK)
    warning = "\nNOT COMPARABLE: conditions differ" if summary.get("mismatch") else ""
    bands = f"; bands: {summary['level']:.0%} intervals" if len(variants) <= BANDS else ""
    figure.supxlabel(
        plain(f"threshold of {summary['primary']} (dotted: the one in use){bands}{warning}"),
        fontsize=10, color=INK,
    )  # fmt: skip
    legend(figure, panels[0], len(variants))
    return drawing(figure, "thresholds")


def highest_density(draws: Floats, level: float) -> Interval:
    """The shortest interval that holds `level` of the draws.

    Source: Chen & Shao 1999, doi:10.1080/10618600.1999.10474802.
    """
    ordered = np.sort(draws)
    inside = int(np.ceil(level * ordered.size))
    widths = ordered[inside - 1 :] - ordered[: ordered.size - inside + 1]
    first = int(np.argmin(widths))
    return Interval(float(ordered[first]), float(ordered[first + inside - 1]))


def _heading(axes: Axes, y: float, text: str) -> None:
    axes.text(
        0, y, plain(text), fontweight="bold", fontsize=9.5, va="center", color=INK,
        transform=axes.get_yaxis_transform(),
        bbox={"facecolor": "white", "edgecolor": "none", "pad": 1.5},
    )  # fmt: skip


def _posterior(
    axes: Axes, row: Mapping[str, Any], column: Floats, summary: Mapping[str, Any]
) -> None:
    counts, edges = np.histogram(column, bins=BINS)
    tallest = float(counts.max())
    axes.axvspan(-summary["rope_pp"], summary["rope_pp"], color=BAND, zorder=0)
    axes.stairs(counts, edges, fill=True, color="#b9c6d3", zorder=1)
    axes.axvline(0, color=INK, linewidth=1, zorder=2)
    low, high = highest_density(column, summary["level"])
    axes.plot([low, high], [0, 0], color=INK, linewidth=5, solid_capstyle="butt", zorder=3)
    axes.text(low, 0.04 * tallest, f"{low:+.1f}", ha="right", va="bottom", fontsize=8)
    axes.text(high, 0.04 * tallest, f"{high:+.1f}", ha="left", va="bottom", fontsize=8)
    below, mean = 100 * float((column < 0).mean()), round(float(column.mean()), 1) + 0.0
    axes.set_title(
        plain(f"{row['b']} minus {row['a']}")
        + f"\nmean {mean:+.1f};  {_share(below)} < 0 < {_share(100 - below)};"
        f"  {row['n']} prompts",
        fontsize=9, loc="left", color=INK,
    )  # fmt: skip
    axes.set_ylim(-0.03 * tallest, 1.08 * tallest)
    axes.margins(x=0.08)
    axes.set_yticks([])


def _share(percent: float) -> str:
    """Never rounded to certainty."""
    if percent < 0.1:
        return "under 0.1 %"
    return "over 99.9 %" if percent > 99.9 else f"{percent:.1f} %"


def _sweep(
    axes: Axes, rows: Sequence[Mapping[str, Any]], place: int, variant: str, band: bool
) -> None:
    if not rows:
        return
    x = [row["threshold"] for row in rows]
    own = look(place)
    if band:
        low, high = ([100 * row[name] for row in rows] for name in ("rate_lo", "rate_hi"))
        axes.fill_between(x, low, high, color=own["color"], alpha=0.12, linewidth=0)
    y = [100 * row["rate"] for row in rows]
    axes.plot(
        x, y, linewidth=1.4, markersize=4, markevery=(place % 4, 4), label=plain(variant), **own
    )


def _empty(name: str, reason: str) -> Drawing:
    figure, (axes,) = canvas(1.2)
    nothing(axes, reason)
    return drawing(figure, name)
