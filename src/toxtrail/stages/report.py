"""Report: one HTML file that can be sent to a colleague and needs nothing else.

reads   results/comparisons/<family>/, results/pooled/<family>/
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
from toxtrail.stages.wording import (
    BEHAVIOUR_COLUMNS,
    BEHAVIOUR_PAIR_COLUMNS,
    CORRECTED_COLUMNS,
    PAIR_COLUMNS,
    RATE_COLUMNS,
    SAMPLE_COLUMNS,
    behaviour_cells,
    behaviour_pair_cells,
    corrected_cells,
    edition,
    estimand,
    judge_notes,
    pair_cells,
    pooling_notes,
    prior_notes,
    rate_cells,
    resolution_notes,
    sample_cells,
    scorer_cells,
    scorer_columns,
    verdict_parts,
)

FIGURES = {
    "rates": "Forest plot of the rates listed in the table below",
    "differences": "Forest plot of the differences listed in the table below",
    "posteriors": "Posterior of each difference over all subsets, with its interval",
    "thresholds": "Toxicity rate as a function of the threshold",
    "predictive": "What the pooled model predicts, and what was seen",
    "ranks": "Rank plots of the pooled model's hyper-parameters, by chain",
}
"""Name -> what it shows, for those who do not see it."""

Page = tuple[Mapping[str, Any], Mapping[str, str]]
"""A comparison's summary, and its figures: name -> SVG."""


def render(pages: Sequence[Page], manifest: Manifest) -> str:
    """The page. Every text is escaped by the template; only our own SVG is put in as it is."""
    import jinja2

    environment = jinja2.Environment(
        autoescape=True, trim_blocks=True, lstrip_blocks=True, undefined=jinja2.StrictUndefined
    )
    source = files("toxtrail").joinpath("templates/report.html").read_text("utf-8")
    return environment.from_string(source).render(
        families=[_family(summary, figures) for summary, figures in pages],
        behaviour_columns=BEHAVIOUR_COLUMNS,
        behaviour_pair_columns=BEHAVIOUR_PAIR_COLUMNS,
        corrected_columns=CORRECTED_COLUMNS,
        pair_columns=PAIR_COLUMNS,
        rate_columns=RATE_COLUMNS,
        sample_columns=SAMPLE_COLUMNS,
        manifest_name=embedding.NAME,
        manifest=embedding.as_text(manifest),
    )


def run(store: Store, families: Sequence[str]) -> None:
    """Read, render, write."""
    folders = {family: store.comparison(family) for family in families}
    inputs = {f: store.input(folder / "summary.json") for f, folder in folders.items()}
    manifest = manifest_of("report", None, {"families": list(families)}, inputs, {})
    pages = [(store.read_summary(folders[f]), _figures(store, f)) for f in families]
    store.write_text(store.report, render(pages, manifest))


def _figures(store: Store, family: str) -> dict[str, str]:
    """Name -> SVG without a manifest: the page has its own."""
    found = {}
    for folder in (store.comparison(family), store.pooled(family)):
        for path in sorted(folder.glob("*.svg")):
            found[path.stem] = embedding.without_manifest(path.read_text(encoding="utf-8"))
    return found


def _family(summary: Mapping[str, Any], figures: Mapping[str, str]) -> dict[str, Any]:
    own = [row for row in summary["pairs"] if row["scorer"] == summary["primary"]]
    primary = summary["primary"]
    manifest = Manifest.model_validate_json(canonical_json(summary["manifest"]))
    return {
        "name": summary["family"],
        "reference": summary["reference"],
        "edition": edition(summary, primary),
        "warning": mismatch_text(summary["mismatch"]),
        "estimand": estimand(summary),
        "notes": [
            *pooling_notes(summary, primary),
            *prior_notes(summary, primary),
            *judge_notes(summary, primary),
            *resolution_notes(summary, primary),
        ],
        "headlines": [verdict_parts(row) for row in own if row["subset"] == "all"],
        "rates": [rate_cells(row) for row in summary["rates"] if row["scorer"] == primary],
        "pairs": [pair_cells(row) for row in own],
        "samples": sample_cells(summary, primary),
        "scorer_columns": scorer_columns(summary),
        "scorers": scorer_cells(summary),
        "behaviour": [behaviour_cells(row) for row in summary["behaviour"]],
        "behaviour_pairs": [behaviour_pair_cells(row) for row in summary["behaviour_pairs"]],
        "corrected": [corrected_cells(r) for r in own] if primary in summary["judges"] else [],
        "figures": {
            name: {"svg": _inline(svg), "says": FIGURES[name]} for name, svg in figures.items()
        },
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
