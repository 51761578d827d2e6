"""The style of figures: one canvas and one set of marks, distinguishable without colour."""

from __future__ import annotations

from collections.abc import Sequence
from io import BytesIO, StringIO
from typing import TYPE_CHECKING, Any

from toxtrail.records.figure import RenderedFigure
from toxtrail.records.results import ComparisonSummary

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

TEXT_COLOUR, MUTED_COLOUR, GRID_COLOUR, ROPE_COLOUR = "#1f2937", "#6b7280", "#e5e7eb", "#eef0f3"
COLOURS = ("#1b6ca8", "#d1495b", "#2e8b57", "#8d5a97", "#b8860b", "#4b5563", "#00838f", "#c2185b")
"""Neighbouring colours are distinguishable for most colour-blind readers; in the family's order."""
MARKERS = ("o", "s", "^", "D", "v", "P", "X")
DASHES = ("-", (0, (6, 2)), (0, (2, 2)), (0, (6, 2, 2, 2)), (0, (1, 1)))
"""7 markers x 5 dashes x 8 colours: no two of 280 variants look alike."""
WIDTH, DPI = 8.0, 150
ROW_INCHES = 0.3


def new_figure(height: float, rows: int = 1, columns: int = 1) -> tuple[Figure, list[Axes]]:
    """Return a figure with a grid of panels."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(WIDTH, height), layout="constrained", facecolor="white")
    panels = list(figure.subplots(rows, columns, squeeze=False).ravel())
    for panel in panels:
        panel.spines[["top", "right", "left"]].set_visible(False)
        panel.spines["bottom"].set_color(MUTED_COLOUR)
        panel.tick_params(axis="y", length=0)
        panel.tick_params(colors=TEXT_COLOUR, labelsize=9)
        panel.grid(axis="x", color=GRID_COLOUR, linewidth=0.7)
        panel.set_axisbelow(True)
    return figure, panels


def variant_style(index: int) -> dict[str, Any]:
    """Return colour, marker and dashes of the variant at an index of the family's list."""
    return {
        "color": COLOURS[index % len(COLOURS)],
        "marker": MARKERS[index % len(MARKERS)],
        "linestyle": DASHES[index % len(DASHES)],
    }


def escape_mathtext(text: str) -> str:
    """Escape a name so that no part of it is rendered as mathematics."""
    return text.replace("$", r"\$")


def legend(figure: Figure, axes: Axes, entries: int) -> None:
    """Draw the legend above the panels, in as many columns as fit."""
    handles, labels = axes.get_legend_handles_labels()
    widest = max((len(label) for label in labels), default=0)
    columns = max(1, min(entries, 4, int(88 / (widest + 8))))
    figure.legend(
        handles, labels, loc="outside upper left", ncols=columns, frameon=False, fontsize=9
    )


def axis_caption(text: str, summary: ComparisonSummary, intervals: str = "equal-tailed") -> str:
    """Return an axis label with scorer, threshold, level and a warning if conditions differ."""
    warning = "\nNOT COMPARABLE: conditions differ" if summary.mismatch else ""
    k = max((row.k for row in summary.rates), default=1)
    threshold = summary.threshold[summary.primary]
    several = f"k = {k} continuations a prompt; " if k > 1 else ""
    return escape_mathtext(
        f"{text}\n{summary.primary}, toxic at {threshold:g} and above; {several}"
        f"{summary.level:.0%} {intervals} intervals{warning}"
    )


def empty_panel(axes: Axes, reason: str) -> None:
    """Write the reason into an empty panel."""
    import textwrap

    axes.set_axis_off()
    text = textwrap.fill(escape_mathtext(reason), 90)
    axes.text(
        0.5, 0.5, text, ha="center", va="center", color=MUTED_COLOUR, transform=axes.transAxes
    )


def hide_panels(panels: Sequence[Axes]) -> None:
    """Hide the unused panels of a grid."""
    for panel in panels:
        panel.set_axis_off()


def render(figure: Figure, name: str) -> RenderedFigure:
    """Render a figure to bytes that depend on the figure only: fixed ids (distinct for each kind of
    figure, because a page contains several), no date, text as text.
    """
    import matplotlib as mpl

    text, image = StringIO(), BytesIO()
    with mpl.rc_context({"svg.hashsalt": f"toxtrail {name}", "svg.fonttype": "none"}):
        figure.savefig(text, format="svg", metadata={"Date": None, "Creator": None})
    figure.savefig(image, format="png", dpi=DPI, metadata={"Software": None})
    return RenderedFigure(text.getvalue(), image.getvalue())
