"""The figures of the pooled model: posterior predictive checks and rank plots of the chains."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from toxtrail.records.figure import RenderedFigure
from toxtrail.records.results import PoolSummary, PredictiveCheckRow
from toxtrail.reporting.figures.style import (
    COLOURS,
    DASHES,
    MUTED_COLOUR,
    ROW_INCHES,
    TEXT_COLOUR,
    empty_panel,
    escape_mathtext,
    hide_panels,
    legend,
    new_figure,
    render,
)

if TYPE_CHECKING:
    import xarray as xr
from toxtrail.stats.sampling import LEAST_P

RANK_BINS = 20


def posterior_predictive_figure(pooled: PoolSummary) -> RenderedFigure:
    """Plot what the fitted model predicts for each rate and for joint toxicity, and what was
    observed.

    Args:
        pooled: the summary of the pool stage.
    """
    estimate = pooled.scorers[pooled.primary]
    checks = estimate.checks or ()
    if not checks:
        figure, (axes,) = new_figure(1.2)
        empty_panel(axes, f"No pooled estimate: {estimate.reason}.")
        return render(figure, "predictive")
    figure, (axes,) = new_figure(1.3 + ROW_INCHES * len(checks))
    for y, check in enumerate(checks):
        bounds = [check.predicted_lo, check.predicted_hi]
        first = y == 0
        axes.plot(
            bounds, [y, y], color="#b9c6d3", linewidth=6, solid_capstyle="butt",
            label="predicted: 95 % of replicated data" if first else "_",
        )  # fmt: skip
        fits = LEAST_P <= check.p <= 1 - LEAST_P
        axes.plot(
            [check.observed], [y], linestyle="none", marker="o" if fits else "X",
            markersize=6, color=TEXT_COLOUR if fits else "#c0392b",
            label="observed" if first else "_",
        )  # fmt: skip
        text = f"p {check.p:.2f}" if fits else f"p {check.p:.3f}: does not fit"
        axes.text(
            1.01, y, text, va="center", fontsize=8, color=MUTED_COLOUR if fits else "#c0392b",
            transform=axes.get_yaxis_transform(),
        )  # fmt: skip
    axes.set_yticks(range(len(checks)), [escape_mathtext(_title(check)) for check in checks])
    axes.set_ylim(len(checks) - 0.4, -0.6)
    axes.set_xscale("symlog", linthresh=10)
    axes.set_xlim(left=0)
    ticks = [
        0,
        5,
        10,
        *(t for t in (30, 100, 300, 1000, 3000, 10_000) if t <= _largest_count(checks)),
    ]
    axes.set_xticks(ticks, [f"{tick:,}" for tick in ticks], minor=False)
    axes.minorticks_off()
    axes.set_xlabel(
        escape_mathtext(
            f"prompts; pairs of variants and sums of squares where named; {pooled.primary}"
        )
    )
    legend(figure, axes, 2)
    return render(figure, "predictive")


def rank_figure(draws: xr.Dataset, scorer: str) -> RenderedFigure:
    """Draw rank plots of the hyper-parameters: chains that agree fill every bin equally.

    Source: Vehtari et al. 2021, doi:10.1214/20-BA1221.
    """
    from scipy.stats import rankdata

    names = [
        str(name)
        for name, column in draws.data_vars.items()
        if column.dims == ("chain", "draw", "scorer") and scorer in draws["scorer"].values
    ]
    names = [n for n in names if np.isfinite(draws[n].sel(scorer=scorer).values).all()]
    if not names:
        figure, (axes,) = new_figure(1.2)
        empty_panel(axes, "No pooled estimate: there are no chains to compare.")
        return render(figure, "ranks")
    lines = -(-len(names) // 2)
    figure, panels = new_figure(0.9 + 2.0 * lines, lines, 2)
    for panel, name in zip(panels, names, strict=False):
        values = draws[name].sel(scorer=scorer).values
        ranks = rankdata(values).reshape(values.shape) / values.size
        for chain, chain_ranks in enumerate(ranks):
            counts, edges = np.histogram(chain_ranks, bins=RANK_BINS, range=(0, 1))
            panel.stairs(
                counts / chain_ranks.size * RANK_BINS, edges, color=COLOURS[chain % len(COLOURS)],
                linestyle=DASHES[chain % len(DASHES)], linewidth=1.3, baseline=None,
                label=f"chain {chain + 1}",
            )  # fmt: skip
        panel.axhline(1, color=TEXT_COLOUR, linewidth=0.8)
        panel.set_ylim(0, max(2.0, panel.get_ylim()[1]))
        panel.set_title(name, fontsize=10, loc="left", color=TEXT_COLOUR)
        panel.set_xlim(0, 1)
    hide_panels(panels[len(names) :])
    figure.supxlabel(escape_mathtext(f"rank among all draws, as a fraction; {scorer}"), fontsize=10)
    figure.supylabel("draws, relative to uniform", fontsize=10)
    legend(figure, panels[0], draws.sizes["chain"])
    return render(figure, "ranks")


def _title(check: PredictiveCheckRow) -> str:
    if check.variant is None:
        return check.statistic
    return f"{check.variant}, {check.subset}"


def _largest_count(checks: Sequence[PredictiveCheckRow]) -> float:
    return 1.2 * max(float(max(c.predicted_hi, c.observed)) for c in checks)
