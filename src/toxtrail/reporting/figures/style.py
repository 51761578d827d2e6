"""How figures look: one canvas, one set of marks, told apart without colour too."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from io import BytesIO, StringIO
from typing import TYPE_CHECKING, Any

from toxtrail.records.figure import Drawing

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

INK, SOFT, LINE, BAND = "#1f2937", "#6b7280", "#e5e7eb", "#eef0f3"
COLOURS = ("#1b6ca8", "#d1495b", "#2e8b57", "#8d5a97", "#b8860b", "#4b5563", "#00838f", "#c2185b")
"""Distinguishable for most colour-blind readers next to each other; order of the family's list."""
MARKERS = ("o", "s", "^", "D", "v", "P", "X")
DASHES = ("-", (0, (6, 2)), (0, (2, 2)), (0, (6, 2, 2, 2)), (0, (1, 1)))
"""7 markers x 5 dashes x 8 colours: no two of 280 variants look alike."""
WIDTH, DPI = 8.0, 150
ROW_INCHES = 0.3


def canvas(height: float, rows: int = 1, columns: int = 1) -> tuple[Figure, list[Axes]]:
    """A figure of so many panels, in rows."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(WIDTH, height), layout="constrained", facecolor="white")
    panels = list(figure.subplots(rows, columns, squeeze=False).ravel())
    for panel in panels:
        panel.spines[["top", "right", "left"]].set_visible(False)
        panel.spines["bottom"].set_color(SOFT)
        panel.tick_params(axis="y", length=0)
        panel.tick_params(colors=INK, labelsize=9)
        panel.grid(axis="x", color=LINE, linewidth=0.7)
        panel.set_axisbelow(True)
    return figure, panels


def look(place: int) -> dict[str, Any]:
    """Colour, marker and dashes of the variant at a place of the family's list."""
    return {
        "color": COLOURS[place % len(COLOURS)],
        "marker": MARKERS[place % len(MARKERS)],
        "linestyle": DASHES[place % len(DASHES)],
    }


def plain(text: str) -> str:
    """A name as it is: no part of it is mathematics."""
    return text.replace("$", r"\$")


def legend(figure: Figure, axes: Axes, entries: int) -> None:
    """Above the panels, in as many columns as names fit."""
    handles, labels = axes.get_legend_handles_labels()
    widest = max((len(label) for label in labels), default=0)
    columns = max(1, min(entries, 4, int(88 / (widest + 8))))
    figure.legend(
        handles, labels, loc="outside upper left", ncols=columns, frameon=False, fontsize=9
    )


def caption(text: str, summary: Mapping[str, Any], intervals: str = "equal-tailed") -> str:
    """What an axis shows, by whom, and that unlike conditions were compared."""
    warning = "\nNOT COMPARABLE: conditions differ" if summary.get("mismatch") else ""
    k = max((row.get("k", 1) for row in summary.get("rates", [])), default=1)
    several = f"k = {k} continuations a prompt; " if k > 1 else ""
    return plain(
        f"{text}\n{summary['primary']}, toxic at {summary['threshold']:g} and above; {several}"
        f"{summary['level']:.0%} {intervals} intervals{warning}"
    )


def nothing(axes: Axes, reason: str) -> None:
    """An empty panel that says why it is empty."""
    import textwrap

    axes.set_axis_off()
    text = textwrap.fill(plain(reason), 90)
    axes.text(0.5, 0.5, text, ha="center", va="center", color=SOFT, transform=axes.transAxes)


def hide(panels: Sequence[Axes]) -> None:
    """Panels of a grid that have nothing to show."""
    for panel in panels:
        panel.set_axis_off()


def drawing(figure: Figure, name: str) -> Drawing:
    """The figure as bytes that depend on it alone: fixed ids (of their own for each kind of figure,
    as a page holds several), no date, text as text.
    """
    import matplotlib as mpl

    text, image = StringIO(), BytesIO()
    with mpl.rc_context({"svg.hashsalt": f"toxtrail {name}", "svg.fonttype": "none"}):
        figure.savefig(text, format="svg", metadata={"Date": None, "Creator": None})
    figure.savefig(image, format="png", dpi=DPI, metadata={"Software": None})
    return Drawing(text.getvalue(), image.getvalue())
