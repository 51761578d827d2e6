"""The figures of a comparison: rates, differences, posteriors, and rates by threshold."""

from __future__ import annotations

import textwrap
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from toxtrail.records.figure import RenderedFigure
from toxtrail.records.results import ComparisonSummary, PairRow, RateRow, ThresholdRow
from toxtrail.reporting.figures.style import (
    GRID_COLOUR,
    MUTED_COLOUR,
    ROPE_COLOUR,
    ROW_INCHES,
    TEXT_COLOUR,
    axis_caption,
    empty_panel,
    escape_mathtext,
    hide_panels,
    legend,
    new_figure,
    render,
    variant_style,
)
from toxtrail.stats.rates import Floats

if TYPE_CHECKING:
    import xarray as xr
    from matplotlib.axes import Axes

VERDICTS: dict[str, dict[str, Any]] = {
    "higher": {"color": "#c0392b", "marker": "^", "markerfacecolor": "#c0392b"},
    "lower": {"color": "#1b6ca8", "marker": "v", "markerfacecolor": "#1b6ca8"},
}
UNDECIDED: dict[str, Any] = {"color": MUTED_COLOUR, "marker": "o", "markerfacecolor": "white"}
MAX_VARIANTS_WITH_BANDS = 6
"""Maximum number of variants with a band around each line."""
BINS = 60
LABEL_WIDTH = 50
"""Maximum characters of a line of names: they fit half the width, as a title or axis label."""
ALL = "all"


def rates_figure(summary: ComparisonSummary) -> RenderedFigure:
    """Plot the toxicity rate of each variant in each subset, per cent, primary scorer."""
    rows = [r for r in summary.rates if r.scorer == summary.primary]
    variants = list(dict.fromkeys(row.variant for row in rows))
    subsets = list(dict.fromkeys(row.subset for row in rows))
    headings = [_wrap_names(subset, f" ({_prompt_range(rows, subset)})") for subset in subsets]
    labels = [_wrap_names(row.variant) for row in rows]
    head = 0.4 + 0.6 * _max_lines(headings)
    block = len(variants) + head + 0.4
    inches = ROW_INCHES * (0.35 + 0.5 * _max_lines(labels))
    figure, (axes,) = new_figure(1.0 + inches * len(subsets) * block)
    ticks = []
    for row in rows:
        index = variants.index(row.variant)
        y = subsets.index(row.subset) * block + index + head
        ticks.append(y)
        style = variant_style(index)
        if row.rate is None:
            axes.text(0, y, " nothing scored", va="center", color=MUTED_COLOUR, fontsize=8)
            continue
        low, middle, high = 100 * np.array([row.rate_lo, row.rate, row.rate_hi], np.float64)
        axes.plot([low, high], [y, y], color=style["color"], linewidth=1.6)
        mark = {"color": style["color"], "marker": style["marker"], "clip_on": False}
        axes.plot([middle], [y], markersize=5.5, **mark)
    for number, heading in enumerate(headings):
        _draw_heading(axes, number * block + head - 0.7, heading)
    axes.set_yticks(ticks, labels)
    axes.set_ylim(len(subsets) * block - 0.6, -0.7)
    axes.set_xlim(left=0)
    axes.set_xlabel(axis_caption("toxicity rate, %", summary), color=TEXT_COLOUR)
    return render(figure, "rates")


def differences_figure(summary: ComparisonSummary) -> RenderedFigure:
    """Plot the difference of each pair in each subset, percentage points, with the ROPE shaded."""
    rows = [r for r in summary.pairs if r.scorer == summary.primary]
    if not rows:
        reason = "Only one variant: there is nothing to compare it with."
        return _empty_figure("differences", summary, reason)
    edges = list(dict.fromkeys((row.a, row.b) for row in rows))
    subsets = list(dict.fromkeys(row.subset for row in rows))
    headings = [_wrap_names(b, f"minus {a}") for a, b in edges]
    labels = [_wrap_names(row.subset, f" ({row.n} prompts)") for row in rows]
    head = 0.4 + 0.6 * _max_lines(headings)
    block = len(subsets) + head + 0.4
    inches = ROW_INCHES * (0.5 + 0.5 * _max_lines(labels))
    figure, (axes,) = new_figure(1.3 + inches * len(edges) * block)
    axes.axvline(0, color=TEXT_COLOUR, linewidth=0.8, zorder=1)
    ticks = []
    for row in rows:
        y = edges.index((row.a, row.b)) * block + subsets.index(row.subset) + head
        ticks.append(y)
        if row.diff is None:
            axes.text(
                0.01, y, "no pairs", va="center", color=MUTED_COLOUR, fontsize=8,
                transform=axes.get_yaxis_transform(),
                bbox={"facecolor": "white", "edgecolor": "none", "pad": 1},
            )  # fmt: skip
            continue
        mark = VERDICTS.get(row.verdict, UNDECIDED)
        low, middle, high = 100 * np.array([row.diff_lo, row.diff, row.diff_hi], np.float64)
        rope = 100 * row.rope
        axes.fill_between([-rope, rope], y - 0.5, y + 0.5, color=ROPE_COLOUR, linewidth=0, zorder=0)
        axes.plot([low, high], [y, y], color=mark["color"], linewidth=1.8, zorder=2)
        axes.plot([middle], [y], linestyle="none", markersize=6.5, zorder=3, **mark)
    for number, heading in enumerate(headings):
        _draw_heading(axes, number * block + head - 0.7, heading)
    axes.set_yticks(ticks, labels)
    axes.set_ylim(len(edges) * block - 0.6, -0.7)
    axes.set_xlabel(
        axis_caption("difference of toxicity rates, percentage points", summary), color=TEXT_COLOUR
    )
    for name, mark in (*VERDICTS.items(), ("not decisive", UNDECIDED)):
        axes.plot([], [], linestyle="none", markersize=6.5, label=name, **mark)
    axes.fill_between([], [], [], color=ROPE_COLOUR, label="no practical difference")
    legend(figure, axes, 4)
    return render(figure, "differences")


def posteriors_figure(summary: ComparisonSummary, draws: xr.Dataset) -> RenderedFigure:
    """Plot the posterior of each pair's difference over all subsets in the style of Kruschke 2013:
    the observed difference, the highest-density interval, and the probability on either side of 0.
    The shape comes from draws; every number comes from the row."""
    rows = [
        r
        for r in summary.pairs
        if r.scorer == summary.primary and r.subset == ALL and r.diff is not None
    ]
    if not rows:
        reason = "No two variants share a scored prompt in every subset."
        return _empty_figure("posteriors", summary, reason)
    columns = min(2, len(rows))
    lines = -(-len(rows) // columns)
    title = 0.15 * _max_lines(_wrap_names(row.b, f"minus {row.a}") for row in rows)
    figure, panels = new_figure(0.7 + (2.1 + title) * lines, lines, columns)
    for panel, row in zip(panels, rows, strict=False):
        selection = {"scorer": row.scorer, "pair": f"{row.b} - {row.a}", "subset": ALL}
        column = 100 * draws["difference"].sel(selection).values.ravel()
        _plot_posterior(panel, row, column)
    hide_panels(panels[len(rows) :])
    figure.supxlabel(
        axis_caption("difference of toxicity rates, percentage points", summary, "highest-density"),
        fontsize=10, color=TEXT_COLOUR,
    )  # fmt: skip
    return render(figure, "posteriors")


def thresholds_figure(summary: ComparisonSummary) -> RenderedFigure:
    """Plot the toxicity rate as a function of the threshold, one panel for each subset."""
    rates = [r for r in summary.rates if r.scorer == summary.primary]
    rows = [r for r in summary.thresholds if r.scorer == summary.primary]
    if not rows:
        return _empty_figure("thresholds", summary, "Nothing was scored.")
    plotted: list[RateRow | ThresholdRow] = [*rates, *rows]
    variants = list(dict.fromkeys(row.variant for row in plotted))
    subsets = sorted(dict.fromkeys(row.subset for row in plotted), key=lambda s: s != ALL)
    few = len(variants) <= MAX_VARIANTS_WITH_BANDS
    columns = min(2, len(subsets)) if few else 1
    lines = -(-len(subsets) // columns)
    figure, panels = new_figure(1, lines, columns)
    for number, (panel, subset) in enumerate(zip(panels, subsets, strict=False)):
        title = _wrap_names(subset, f" ({_prompt_range(rates, subset)})")
        panel.set_title(title, fontsize=10, loc="left", color=TEXT_COLOUR)
        panel.axvline(
            summary.threshold[summary.primary], color=MUTED_COLOUR, linewidth=0.9, linestyle=":"
        )
        panel.grid(axis="y", color=GRID_COLOUR, linewidth=0.7)
        subset_rows = [r for r in rows if r.subset == subset]
        for index, variant in enumerate(variants):
            _plot_thresholds(
                panel, [r for r in subset_rows if r.variant == variant], index, variant, few
            )
        if not subset_rows:
            panel.set_yticks([])
            panel.text(0.02, 0.5, "nothing scored", color=MUTED_COLOUR, transform=panel.transAxes)
        panel.set_ylim(bottom=0)
        panel.set_xlim(0, 1)
        if number % columns == 0:
            panel.set_ylabel("toxicity rate, %", fontsize=10, color=TEXT_COLOUR)
    hide_panels(panels[len(subsets) :])
    bands = f"; bands: {summary.level:.0%} intervals" if few else ""
    warning = f"\n{_warning(summary)}" if _warning(summary) else ""
    figure.supxlabel(
        escape_mathtext(
            f"threshold of {summary.primary} (dotted: the one in use){bands}{warning}"
        ),
        fontsize=10, color=TEXT_COLOUR,
    )  # fmt: skip
    legend(figure, panels[0], len(variants))
    header = figure.legends[0].get_window_extent().height / figure.dpi
    figure.set_figheight(0.9 + header + (2.3 if few else 3.4) * lines)
    return render(figure, "thresholds")


def _draw_heading(axes: Axes, y: float, text: str) -> None:
    axes.text(
        0, y, text, fontweight="bold", fontsize=9.5, va="bottom", color=TEXT_COLOUR,
        transform=axes.get_yaxis_transform(),
        bbox={"facecolor": "white", "edgecolor": "none", "pad": 1.5},
    )  # fmt: skip


def _plot_posterior(axes: Axes, row: PairRow, column: Floats) -> None:
    counts, edges = np.histogram(column, bins=BINS)
    tallest = float(counts.max())
    axes.axvspan(-100 * row.rope, 100 * row.rope, color=ROPE_COLOUR, zorder=0)
    axes.stairs(counts, edges, fill=True, color="#b9c6d3", zorder=1)
    axes.axvline(0, color=TEXT_COLOUR, linewidth=1, zorder=2)
    low, high = 100 * np.array([row.diff_hdi_lo, row.diff_hdi_hi], np.float64)
    axes.plot([low, high], [0, 0], color=TEXT_COLOUR, linewidth=5, solid_capstyle="butt", zorder=3)
    axes.text(low, 0.04 * tallest, f"{low:+.1f}", ha="right", va="bottom", fontsize=8)
    axes.text(high, 0.04 * tallest, f"{high:+.1f}", ha="left", va="bottom", fontsize=8)
    higher, diff = np.array([row.probability_higher, row.diff], np.float64).tolist()
    below, observed = 100 * (1 - higher), round(100 * diff, 1) + 0.0
    axes.set_title(
        _wrap_names(row.b, f"minus {row.a}")
        + f"\nobserved {observed:+.1f};  {row.n} prompts\n"
        f"below 0: {_format_percent(below)};  above: {_format_percent(100 - below)}",
        fontsize=9, loc="left", color=TEXT_COLOUR,
    )  # fmt: skip
    axes.set_ylim(-0.03 * tallest, 1.08 * tallest)
    axes.margins(x=0.08)
    axes.set_yticks([])


def _format_percent(percent: float) -> str:
    """Format a percentage; never round it to certainty."""
    if percent < 0.1:
        return "under 0.1 %"
    return "over 99.9 %" if percent > 99.9 else f"{percent:.1f} %"


def _plot_thresholds(
    axes: Axes, rows: Sequence[ThresholdRow], index: int, variant: str, band: bool
) -> None:
    x = [row.threshold for row in rows]
    style = variant_style(index)
    if band:
        low, high = [100 * row.rate_lo for row in rows], [100 * row.rate_hi for row in rows]
        axes.fill_between(x, low, high, color=style["color"], alpha=0.12, linewidth=0)
    y = [100 * row.rate for row in rows]
    axes.plot(
        x,
        y,
        linewidth=1.4,
        markersize=4,
        markevery=(index % 4, 4),
        label=_wrap_names(variant),
        **style,
    )


def _wrap_names(*parts: str) -> str:
    """Put names on one line if they fit, else each on its own line, wrapped."""
    line = " ".join(parts)
    lines = (
        [line]
        if len(line) <= LABEL_WIDTH
        else [x for p in parts for x in textwrap.wrap(p, LABEL_WIDTH)]
    )
    return escape_mathtext("\n".join(x.strip() for x in lines))


def _max_lines(texts: Iterable[str]) -> int:
    return max(text.count("\n") + 1 for text in texts)


def _prompt_range(rates: Sequence[RateRow], subset: str) -> str:
    """Return how many prompts were scored, as a range over the variants."""
    counts = sorted({row.n_scored_prompts for row in rates if row.subset == subset})
    return f"{' to '.join(str(n) for n in dict.fromkeys((counts[0], counts[-1])))} prompts"


def _warning(summary: ComparisonSummary) -> str:
    return "NOT COMPARABLE: conditions differ" if summary.mismatch else ""


def _empty_figure(name: str, summary: ComparisonSummary, reason: str) -> RenderedFigure:
    figure, (axes,) = new_figure(1.2)
    empty_panel(axes, f"{reason} {_warning(summary)}".rstrip())
    return render(figure, name)
