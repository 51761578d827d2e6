"""Report: one HTML file that can be sent to a colleague and needs nothing else.

reads   data/prompts.parquet, data/prompts_card.json, data/generations/, data/scores/,
        results/comparisons/<family>/, results/pooled/<family>/
writes  report/index.html
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Mapping, Sequence
from importlib.resources import files
from typing import Any, NamedTuple

from toxtrail.errors import DataError
from toxtrail.pipeline import manifest_of
from toxtrail.provenance import embedded_manifest
from toxtrail.provenance.comparability import mismatch_text
from toxtrail.provenance.identity import Input, Manifest, ModelCard, canonical_json, lineage
from toxtrail.provenance.identity_caveats import doubts
from toxtrail.records.rows import Generation, Score
from toxtrail.regular_files import read_text
from toxtrail.reporting import flip_browser, prompt_card_table, result_text
from toxtrail.reporting import headline as reporting_headline
from toxtrail.reporting.headline import (
    answer,
    headline,
    in_order,
    of_scorer,
    rate_matrix,
    subsets_of,
    tuned,
)
from toxtrail.reporting.scorer_limitations import RESPONSE_FLAGS, limits_of
from toxtrail.storage.artifacts import Store, read_json

FIGURES = {
    "rates": "Forest plot of the rates listed in the table below",
    "differences": "Forest plot of the differences listed in the table below",
    "posteriors": "Posterior of each difference over all subsets, with its interval",
    "thresholds": "Toxicity rate as a function of the threshold",
    "doses": "Toxicity rate as a function of the dose",
    "predictive": "What the pooled model predicts, and what was seen",
    "ranks": "Rank plots of the pooled model's hyper-parameters, by chain",
}
"""Name -> what it shows, for those who do not see it."""


class Page(NamedTuple):
    """One family, as the page needs it."""

    summary: Mapping[str, Any]
    figures: Mapping[str, str]
    """Name -> SVG."""
    prompts: Mapping[str, str]
    """Id -> text."""
    generations: Mapping[str, Sequence[Generation]]
    scores: Mapping[str, Sequence[Score]]
    """Variant -> its rows."""


def render(pages: Sequence[Page], prompts: Mapping[str, Any], manifest: Manifest) -> str:
    """The page. Every text is escaped by the template; put in as they are: our own style, script
    and SVG, and data in a form that holds no markup.

    Args:
        prompts: the prompt card.
    """
    import jinja2

    environment = jinja2.Environment(
        autoescape=True, trim_blocks=True, lstrip_blocks=True, undefined=jinja2.StrictUndefined
    )
    room = flip_browser.ROOM // max(len(pages), 1)
    script = _template("report.js")
    return environment.from_string(_template("report.html")).render(
        families=[_family(page, room) for page in pages],
        behaviour_columns=result_text.BEHAVIOUR_COLUMNS,
        behaviour_pair_columns=result_text.BEHAVIOUR_PAIR_COLUMNS,
        corrected_columns=result_text.CORRECTED_COLUMNS,
        pair_columns=result_text.PAIR_COLUMNS,
        prompts={
            "sentence": prompt_card_table.sentence(prompts),
            "columns": prompt_card_table.COLUMNS,
            "rows": prompt_card_table.subset_cells(prompts),
            "covariate_columns": prompt_card_table.COVARIATE_COLUMNS,
            "covariates": prompt_card_table.covariate_cells(prompts),
            "sources": prompt_card_table.sources(prompts),
        },
        rate_columns=result_text.RATE_COLUMNS,
        sample_columns=result_text.SAMPLE_COLUMNS,
        manifest_name=embedded_manifest.NAME,
        manifest=embedded_manifest.as_text(manifest),
        style=_template("report.css"),
        script=script,
        script_sha256=base64.b64encode(hashlib.sha256(script.encode()).digest()).decode(),
    )


def run(store: Store, families: Sequence[str]) -> None:
    """Read, render, write."""
    store.write_text(store.report, page_of(store, families))


def page_of(store: Store, families: Sequence[str]) -> str:
    """The page that the present files give."""
    folders = {family: store.comparison(family) for family in families}
    inputs = {f: store.input(folder / "summary.json") for f, folder in folders.items()}
    texts = {name: one for f in families for name, one in _texts_behind(store, f, inputs[f])}
    card = store.input(store.prompts_card)
    inputs |= {**texts, "prompt card": card.model_copy(update={"manifest": None})}
    manifest = manifest_of("report", None, {"families": list(families)}, inputs, {})
    pages = [_page(store, family) for family in families]
    return render(pages, read_json(store.prompts_card), manifest)


def _template(name: str) -> str:
    return files("toxtrail").joinpath(f"templates/{name}").read_text("utf-8")


def _page(store: Store, family: str) -> Page:
    summary = store.read_summary(store.comparison(family))
    variants = [one["variant"] for one in summary["variants"]]
    return Page(
        summary,
        _figures(store, family),
        {prompt.prompt_id: prompt.text for prompt in store.read_prompts()},
        {variant: store.read_generations(family, variant) for variant in variants},
        {variant: store.read_scores(family, variant) for variant in variants},
    )


def _texts_behind(store: Store, family: str, comparison: Input) -> list[tuple[str, Input]]:
    """The rows that the page shows, without their manifests: the comparison's holds those.

    Raises:
        DataError: they are others than those that the comparison is of.
    """
    nodes = lineage(comparison.manifest) if comparison.manifest else []
    wanted = {
        made.path: made.sha256
        for node in nodes
        for name, made in node.inputs.items()
        if name in ("scores", "generations", "prompts")
    }
    for path, sha256 in wanted.items():
        if store.input(store.at(path)).sha256 != sha256:
            raise DataError(
                f"{comparison.path} was made from another {path} than is here now. "
                "Run `dvc repro` to bring both up to date."
            )
    return [(p, Input(path=p, sha256=s, manifest=None)) for p, s in wanted.items()]


def _figures(store: Store, family: str) -> dict[str, str]:
    """Name -> SVG without a manifest: the page has its own."""
    found = {}
    for folder in (store.comparison(family), store.pooled(family)):
        for path in sorted(folder.glob("*.svg")):
            found[path.stem] = embedded_manifest.without_manifest(read_text(path))
    return found


def _family(page: Page, room: int) -> dict[str, Any]:
    summary = page.summary
    primary = summary["primary"]
    own = in_order(of_scorer(summary["pairs"], primary))
    manifest = Manifest.model_validate_json(canonical_json(summary["manifest"]))
    columns, matrix, note = rate_matrix(summary, primary)
    subsets = subsets_of(summary)
    rows = flip_browser.Rows(summary, page.prompts, page.generations, page.scores)
    return {
        "name": summary["family"],
        "reference": summary["reference"],
        "edition": result_text.edition(summary, primary),
        "answer": answer(summary, primary),
        "by_subset": [
            headline(summary, primary, s) for s in subsets if s != reporting_headline.ALL and own
        ],
        "warning": mismatch_text(summary["mismatch"]),
        "estimand": result_text.estimand(summary),
        "notes": [
            *([said] if (said := result_text.chance_note(tuned(summary, primary))) else []),
            *result_text.pooling_notes(summary, primary),
            *result_text.prior_notes(summary, primary),
            *result_text.judge_notes(summary, primary),
            *result_text.resolution_notes(summary, primary),
            *result_text.recipe_notes(summary, primary),
            *result_text.dose_notes(summary, primary),
        ],
        "headlines": [
            result_text.verdict_parts(row) for row in own if row["subset"] == reporting_headline.ALL
        ],
        "matrix_columns": columns,
        "matrix": matrix,
        "matrix_note": note,
        "subsets": subsets,
        "rates": [result_text.rate_cells(row) for row in of_scorer(summary["rates"], primary)],
        "pairs": [result_text.pair_cells(row) for row in own],
        "samples": result_text.sample_cells(summary, primary),
        "scorer_columns": result_text.scorer_columns(summary),
        "scorers": result_text.scorer_cells(summary),
        "behaviour": [result_text.behaviour_cells(row) for row in summary["behaviour"]],
        "behaviour_pairs": [
            result_text.behaviour_pair_cells(r) for r in summary["behaviour_pairs"]
        ],
        "corrected": (
            [result_text.corrected_cells(r) for r in own] if primary in summary["judges"] else []
        ),
        "browser": flip_browser.as_script(flip_browser.data_of(rows, room)) if own else "",
        "figures": {
            name: {"svg": _inline(svg), "says": FIGURES[name]} for name, svg in page.figures.items()
        },
        "limits": _limits(summary, manifest),
        "diagnostics": _diagnostics(summary),
        "cards": _cards(summary, manifest),
        "settings": _settings(manifest),
        "commands": _commands(summary),
        "content_key": manifest.content_key,
    }


def _inline(svg: str) -> str:
    """The <svg> element without the XML prologue."""
    return svg[svg.index("<svg") :]


def _limits(summary: Mapping[str, Any], manifest: Manifest) -> list[str]:
    """What each scorer and the response flags are known not to see."""
    configs: dict[str, Any] = {}
    for node in lineage(manifest):
        configs |= node.params.get("scorers", {})
    scorers = [limits_of(name, own, name in summary["judges"]) for name, own in configs.items()]
    return [*scorers, RESPONSE_FLAGS]


def _diagnostics(summary: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Of the pooled model, scorer by scorer; the paired columns need no sampler."""
    found = [("paired columns", "exact draws, no sampler: nothing that could fail to converge")]
    for scorer, own in summary["pooled"].items():
        said = own["status"] if own["status"] == "pooled" else f"{own['status']}: {own['reason']}"
        found.append((f"pooled, {scorer}", said))
        for name, value in own.get("diagnostics", {}).items():
            shown = f"{value:.4g}" if isinstance(value, float) else str(value)
            found.append((f"{scorer}: {name.replace('_', ' ')}", shown))
    return found


def _cards(summary: Mapping[str, Any], manifest: Manifest) -> list[dict[str, Any]]:
    """Which weights each variant is, down to the base, with hashes."""
    cards = {node.model.key: node.model for node in lineage(manifest) if node.model}
    weak = doubts(cards, {one["variant"]: one["parent"] for one in summary["variants"]})
    return [
        {
            "variant": one["variant"],
            "facts": [
                ("role, parent", f"{one['role']}, {one['parent'] or 'none'}"),
                *(_card_facts(cards[one["variant"]]) if one["variant"] in cards else ()),
                *(("weak", line) for line in weak.get(one["variant"], ())),
                ("content key of its rates", one["content_key"] or "none"),
            ],
        }
        for one in summary["variants"]
    ]


def _card_facts(card: ModelCard) -> list[tuple[str, str]]:
    base = card.base
    facts = [
        ("base", f"{base.uri} ({base.quantization or base.stored_dtype})"),
        ("resolved", base.resolved),
        ("base sha256", base.sha256),
        ("tokenizer", base.tokenizer_sha256),
    ]
    for adapter in card.adapters:
        facts.append((f"adapter {adapter.key}", adapter.sha256))
        facts += [(f"{what} of {adapter.key}", sha256) for what, sha256 in adapter.brings]
        if adapter.training:
            own = adapter.training
            facts.append(("trained here on", f"{own.data_uri} sha256 {own.data_sha256}"))
            if own.held_out_loss is not None:
                said = (
                    f"{own.held_out_loss:.4f} nats per token, {own.held_out} examples not learned"
                )
                facts.append(("held-out loss", said))
        else:
            facts.append(("taken from", f"{adapter.uri} (what it was trained on is its claim)"))
    return [*facts, ("fingerprint", card.fingerprint), ("license", base.license or "not stated")]


def _settings(manifest: Manifest) -> list[tuple[str, str]]:
    """Settings that all variants of a comparison share: prompts, decoding, scorers, statistics."""
    found: dict[str, str] = {}
    for node in lineage(manifest):
        for section in ("prompts", "generation", "scorers", "posterior"):
            if section in node.params:
                found.setdefault(section, canonical_json(_textless(node.params[section])))
        found.setdefault(f"code of {node.kind}", node.code_sha256)
    return list(found.items())


def _textless(value: Any) -> Any:
    """Without the texts that a scorer is tried on: they may be toxic."""
    if not isinstance(value, dict):
        return value
    return {
        name: f"{len(inner)} texts" if name == "golden" else _textless(inner)
        for name, inner in value.items()
    }


def _commands(summary: Mapping[str, Any]) -> str:
    family, pairs = summary["family"], summary["pairs"]
    return "\n".join(
        [
            "dvc repro                                  # everything, or only what changed",
            f"toxtrail compare {family}",
            *(f"toxtrail flips {pairs[0]['a']} {pairs[0]['b']} --show-text" for _ in pairs[:1]),
            f"toxtrail audit {family} --verify           # every byte and every number again",
            f"toxtrail audit {summary['reference']} --reproduce 8",
            f"toxtrail export {family} --to bundle.zip   # for somebody without this repo",
        ]
    )
