"""Report: one HTML file that can be sent to a colleague and needs nothing else.

reads   results/comparisons/<family>/
writes  report/index.html
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from importlib.resources import files
from typing import Any

from toxtrail import embedding
from toxtrail.artifacts import Store
from toxtrail.comparability import mismatch_text
from toxtrail.identity import Manifest, canonical_json, lineage
from toxtrail.pipeline import manifest_of
from toxtrail.stages.figures import differences_figure, rates_figure
from toxtrail.stages.wording import (
    edition,
    estimand,
    pair_cells,
    pooling_notes,
    rate_cells,
    verdict_parts,
)


def render(summaries: Sequence[Mapping[str, Any]], manifest: Manifest) -> str:
    """The page. Every text is escaped by the template; only our own SVG is put in as it is."""
    import jinja2

    environment = jinja2.Environment(
        autoescape=True, trim_blocks=True, lstrip_blocks=True, undefined=jinja2.StrictUndefined
    )
    source = files("toxtrail").joinpath("templates/report.html").read_text("utf-8")
    return environment.from_string(source).render(
        families=[_family(s) for s in summaries],
        manifest_name=embedding.NAME,
        manifest=embedding.as_text(manifest),
    )


def run(store: Store, families: Sequence[str]) -> None:
    """Read, render, write."""
    folders = {family: store.comparison(family) for family in families}
    inputs = {f: store.input(folder / "summary.json") for f, folder in folders.items()}
    manifest = manifest_of("report", None, {"families": list(families)}, inputs, {})
    page = render([store.read_summary(folder) for folder in folders.values()], manifest)
    store.write_text(store.report, page)


def _family(summary: Mapping[str, Any]) -> dict[str, Any]:
    primary = summary["primary"]
    manifest = Manifest.model_validate_json(canonical_json(summary["manifest"]))
    return {
        "name": summary["family"],
        "reference": summary["reference"],
        "edition": edition(summary, primary),
        "warning": mismatch_text(summary["mismatch"]),
        "estimand": estimand(summary),
        "pooling": pooling_notes(summary, primary),
        "headlines": [
            verdict_parts(row)
            for row in summary["pairs"]
            if row["scorer"] == primary and row["subset"] == "all"
        ],
        "rates": [rate_cells(row) for row in summary["rates"] if row["scorer"] == primary],
        "pairs": [pair_cells(row) for row in summary["pairs"] if row["scorer"] == primary],
        "rates_figure": _inline(rates_figure(summary)),
        "differences_figure": _inline(differences_figure(summary)),
        "weights": _weights(manifest),
        "settings": _settings(manifest),
        "variants": summary["variants"],
        "content_key": manifest.content_key,
    }


def _inline(svg: str) -> str:
    """The <svg> element without the XML prologue."""
    return svg[svg.index("<svg") :]


def _weights(manifest: Manifest) -> list[dict[str, str]]:
    """Which weights each variant is, from its own card."""
    cards = {node.model.key: node.model for node in lineage(manifest) if node.model}
    return [
        {
            "variant": key,
            "base": f"{card.base.uri} ({card.base.quantization or card.base.stored_dtype})",
            "adapters": ", ".join(f"{a.key} {a.sha256[:12]}" for a in card.adapters) or "none",
            "fingerprint": card.fingerprint[:12],
        }
        for key, card in sorted(cards.items())
    ]


def _settings(manifest: Manifest) -> list[tuple[str, str]]:
    """Settings that all variants of a comparison share: prompts, decoding, scorers, statistics."""
    found: dict[str, str] = {}
    for node in lineage(manifest):
        for section in ("prompts", "generation", "scorers", "posterior"):
            if section in node.params:
                found.setdefault(section, canonical_json(node.params[section]))
    return list(found.items())
