"""Rates along a dose, as a figure."""

from __future__ import annotations

import numpy as np

from toxtrail.analysis.score_table import ALL
from toxtrail.records.figure import RenderedFigure
from toxtrail.records.results import ComparisonSummary
from toxtrail.reporting.figures.style import (
    GRID_COLOUR,
    TEXT_COLOUR,
    axis_caption,
    escape_mathtext,
    legend,
    new_figure,
    render,
    variant_style,
)


def dose_figure(summary: ComparisonSummary) -> RenderedFigure:
    """Plot rate against dose over all subsets by the primary scorer, one line for each series."""
    rows = [r for r in summary.doses if (r.scorer, r.subset) == (summary.primary, ALL)]
    figure, (axes,) = new_figure(3.6)
    names = list(dict.fromkeys(row.series for row in rows))
    for number, name in enumerate(names):
        series_rows = [row for row in rows if row.series == name]
        doses = [row.dose for row in series_rows]
        rate, lo, hi = (
            100 * np.array([(row.rate, row.rate_lo, row.rate_hi) for row in series_rows]).T
        )
        marks = variant_style(number)
        axes.errorbar(
            doses, rate, yerr=[rate - lo, hi - rate], linewidth=1.2, capsize=3, markersize=5,
            label=escape_mathtext(name), **{**marks, "linestyle": "none"},
        )  # fmt: skip
        levels = sorted(set(doses))
        means = [np.mean([r for d, r in zip(doses, rate, strict=True) if d == x]) for x in levels]
        axes.plot(levels, means, color=marks["color"], linestyle=marks["linestyle"], linewidth=1)
    axes.grid(axis="y", color=GRID_COLOUR, linewidth=0.7)
    axes.set_ylim(bottom=0)
    axes.set_ylabel("toxicity rate, %", fontsize=10, color=TEXT_COLOUR)
    axes.set_xlabel(
        axis_caption("dose, as in params.yaml", summary), fontsize=10, color=TEXT_COLOUR
    )
    legend(figure, axes, len(names))
    return render(figure, "doses")
