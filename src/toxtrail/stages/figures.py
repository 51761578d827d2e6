"""The two figures of a comparison: rates of every variant, differences of every edge. SVG text."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from io import StringIO
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

COLOURS = ("#1b6ca8", "#d1495b", "#2e8b57", "#8d5a97", "#b8860b", "#4b5563", "#00838f", "#c2185b")
"""Distinguishable for most colour-blind readers next to each other; order of the family's list."""

VERDICT_COLOURS = {"higher": "#c0392b", "lower": "#1b6ca8", "not decisive": "#6b7280"}
ROW_INCHES = 0.32


def rates_figure(summary: Mapping[str, Any]) -> str:
    """Toxicity rate of each variant in each subset, per cent, primary scorer."""
    rows = [r for r in summary["rates"] if r["scorer"] == summary["primary"]]
    variants = list(dict.fromkeys(row["variant"] for row in rows))
    subsets = list(dict.fromkeys(row["subset"] for row in rows))
    figure, axes = _canvas(len(subsets) * (len(variants) + 1))
    for row in rows:
        index = variants.index(row["variant"])
        y = subsets.index(row["subset"]) * (len(variants) + 1) + index
        label = row["variant"] if row["subset"] == subsets[0] else "_"
        _interval(axes, y, row, ("rate", "rate_lo", "rate_hi"), COLOURS[index % 8], label)
    middle = (len(variants) - 1) / 2
    counts = {row["subset"]: row["n_scored_prompts"] for row in rows}
    ticks = [i * (len(variants) + 1) + middle for i in range(len(subsets))]
    axes.set_yticks(ticks, [f"{subset}  (n = {counts[subset]})" for subset in subsets])
    axes.set_xlabel(_axis("toxicity rate, %", summary))
    axes.set_xlim(left=0)
    axes.legend(loc="lower center", bbox_to_anchor=(0.5, 1.01), ncols=2, frameon=False)
    return _svg(figure, axes)


def differences_figure(summary: Mapping[str, Any]) -> str:
    """Difference of each edge in each subset, percentage points, with the ROPE shaded."""
    rows = [r for r in summary["pairs"] if r["scorer"] == summary["primary"]]
    edges = list(dict.fromkeys((row["a"], row["b"]) for row in rows))
    subsets = list(dict.fromkeys(row["subset"] for row in rows))
    figure, axes = _canvas(max(1, len(edges) * (len(subsets) + 1)))
    axes.axvspan(-summary["rope_pp"], summary["rope_pp"], color="#e5e7eb", zorder=0, label="_")
    axes.axvline(0, color="#374151", linewidth=0.8, zorder=1)
    labels: list[tuple[float, str]] = []
    for row in rows:
        block = edges.index((row["a"], row["b"])) * (len(subsets) + 1)
        y = block + subsets.index(row["subset"]) + 1
        colour = VERDICT_COLOURS.get(row["verdict"], "#6b7280")
        _interval(axes, y, row, ("diff", "diff_lo", "diff_hi"), colour, "_")
        labels.append((y, f"{row['subset']}  (n = {row['n']}): {row['verdict']}"))
    for number, (a, b) in enumerate(edges):
        labels.append((number * (len(subsets) + 1), f"{b} minus {a}"))
    axes.set_yticks([y for y, _ in labels], [text for _, text in labels])
    _embolden(axes, [f"{b} minus {a}" for a, b in edges])
    axes.set_xlabel(_axis("difference of toxicity rates, percentage points", summary))
    return _svg(figure, axes)


def _canvas(rows: int) -> tuple[Figure, Axes]:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8.0, 1.4 + ROW_INCHES * rows), layout="constrained")
    axes = figure.add_subplot()
    axes.spines[["top", "right", "left"]].set_visible(False)
    axes.tick_params(axis="y", length=0)
    axes.grid(axis="x", color="#e5e7eb", linewidth=0.7)
    axes.set_axisbelow(True)
    return figure, axes


def _interval(
    axes: Axes,
    y: float,
    row: Mapping[str, Any],
    names: tuple[str, str, str],
    colour: str,
    label: str,
) -> None:
    """A point and its interval, in per cent; a cross at 0 where there is nothing to show."""
    if row[names[0]] is None:
        axes.plot([0], [y], marker="x", color=colour, linestyle="none", label=label)
        return
    middle, low, high = (100 * row[name] for name in names)
    axes.plot([low, high], [y, y], color=colour, linewidth=2, solid_capstyle="round")
    axes.plot([middle], [y], marker="o", markersize=5, color=colour, label=label)


def _embolden(axes: Axes, names: Sequence[str]) -> None:
    for tick in axes.get_yticklabels():
        if tick.get_text() in names:
            tick.set_fontweight("bold")


def _axis(text: str, summary: Mapping[str, Any]) -> str:
    warning = "\nNOT COMPARABLE: conditions differ" if summary.get("mismatch") else ""
    return (
        f"{text}\n{summary['primary']}, toxic at {summary['threshold']} and above; "
        f"{summary['level']:.0%} equal-tailed intervals{warning}"
    )


def _svg(figure: Figure, axes: Axes) -> str:
    """SVG whose bytes depend on the figure alone: fixed ids, no date, text as text."""
    import matplotlib as mpl

    axes.invert_yaxis()
    text = StringIO()
    with mpl.rc_context({"svg.hashsalt": "toxtrail", "svg.fonttype": "none"}):
        figure.savefig(text, format="svg", metadata={"Date": None, "Creator": None})
    return text.getvalue()
