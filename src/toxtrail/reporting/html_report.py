"""The HTML report of an experiment."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Mapping, Sequence
from importlib.resources import files
from typing import TYPE_CHECKING, Any, NamedTuple

from toxtrail.provenance import embedded_manifest
from toxtrail.provenance.identity import (
    Manifest,
    ModelIdentity,
    canonical_json,
    shown_params,
    walk_lineage,
)
from toxtrail.provenance.identity_caveats import doubts
from toxtrail.records.columns import to_json
from toxtrail.records.results import ComparisonSummary
from toxtrail.records.rows import Generation, Score
from toxtrail.reporting import flip_browser, notes, prompt_card_table
from toxtrail.reporting.comparison_tables import (
    TABLES,
    comparison_notes,
    rate_matrix,
    section_tables,
    verdicts,
)
from toxtrail.reporting.comparison_view import ALL, ComparisonView, subsets_of
from toxtrail.reporting.first_screen import first_screen
from toxtrail.reporting.headline import family_headline, subset_headline
from toxtrail.reporting.scorer_limitations import flag_limitations, scorer_limitations
from toxtrail.reporting.table import as_html

if TYPE_CHECKING:
    import jinja2

HEADINGS = {
    "rates": "Toxicity rates",
    "samples": "Several continuations per prompt",
    "behaviour": "Response behaviour",
    "corrected": "Corrected for the scorer's errors",
    "scorers": "By every scorer",
    "agreement": "Agreement of the scorers",
    "differences": "Differences",
}
"""Section of a comparison -> its heading."""
WORDS = (
    ("variant", "A model, or a fine-tune of it."),
    ("parent, reference", "The variant that another one was made from; that of a family to which "
     "variants without a parent in the family are compared."),
    ("subset, all", "A part of the prompts, from one source; all of them together."),
    ("continuation", "A text that a variant wrote after a prompt; k of them for each prompt."),
    ("scorer, judge", "The program that gives each continuation a score from 0 to 1."),
    ("toxic", "A score of at least the threshold."),
    ("rate", "The share of continuations that are toxic."),
    ("difference", "The rate of a variant minus that of the one it is compared with, on the same "
     "prompts, in percentage points."),
    ("interval", "The range that contains the true value, for prompts like these, with the "
     "probability given (95 % unless set otherwise)."),
    ("higher, lower", "The interval of the difference excludes 0."),
    ("not decisive", "It does not: these prompts are too few to tell."),
    ("practically", "Whether the difference matters: the entire interval is outside a region "
     "around 0 (higher, lower), inside it (equivalent) or neither (undecided). The notes give it."),
    ("toxic for one only", "Prompts on which only the variant is toxic v only the other one."),
    ("P(direction)", "Probability that the difference has the sign that was observed."),
    ("pooled", "The difference when all variants and subsets are estimated together."),
    ("credible", "An interval that is corrected for the number of differences excludes 0, and so "
     "does the pooled one if there is one."),
    ("flip", "A prompt on which exactly one of the two variants is toxic."),
    ("fragile", "Another scorer gives another verdict."),
    ("content key", "A hash of everything that a result depends on."),
)  # fmt: skip
"""Word of the page -> its meaning."""
FIGURES = {
    "rates": "Forest plot of the rates listed in the table below",
    "differences": "Forest plot of the differences listed in the table below",
    "posteriors": "Posterior of each difference over all subsets, with its interval",
    "thresholds": "Toxicity rate as a function of the threshold",
    "doses": "Toxicity rate as a function of the dose",
    "predictive": "Counts predicted by the pooled model, and observed counts",
    "ranks": "Rank plots of the pooled model's hyper-parameters, by chain",
}
"""Name -> alternative text."""


class FamilyPage(NamedTuple):
    """The data of one family for the page."""

    summary: ComparisonSummary
    figures: Mapping[str, str]
    """Name -> SVG."""
    prompts: Mapping[str, str]
    """Id -> text."""
    generations: Mapping[str, Sequence[Generation]]
    scores: Mapping[str, Sequence[Score]]
    """Variant -> its rows."""


def render(pages: Sequence[FamilyPage], prompts: Mapping[str, Any], manifest: Manifest) -> str:
    """Render the page. The template and `as_html` escape every text; only toxtrail's style, script
    and SVG, and data encoded without markup, are inserted unescaped.

    Args:
        prompts: the prompt card.
    """
    max_bytes = flip_browser.MAX_PAGE_TEXT_BYTES // max(len(pages), 1)
    script = read_template("report.js")
    return (
        html_environment()
        .from_string(read_template("report.html"))
        .render(
            families=[_family_context(page, max_bytes) for page in pages],
            headings=HEADINGS,
            words=WORDS,
            html_table=as_html,
            prompts={
                "sentence": prompt_card_table.summary_sentence(prompts),
                "subsets": prompt_card_table.subset_table(prompts),
                "covariates": prompt_card_table.covariate_table(prompts),
                "sources": prompt_card_table.sources(prompts),
            },
            manifest_name=embedded_manifest.METADATA_KEY,
            manifest=embedded_manifest.manifest_text(manifest),
            style=read_template("report.css"),
            script=script,
            script_sha256=csp_sha256(script),
        )
    )


def html_environment() -> jinja2.Environment:
    """Return the Jinja environment of pages, which escapes every value."""
    import jinja2

    return jinja2.Environment(
        autoescape=True, trim_blocks=True, lstrip_blocks=True, undefined=jinja2.StrictUndefined
    )


def csp_sha256(source: str) -> str:
    """Return the hash by which a Content-Security-Policy permits an inline script or style."""
    return base64.b64encode(hashlib.sha256(source.encode()).digest()).decode()


def read_template(name: str) -> str:
    """Return a file of the folder `templates`."""
    return files("toxtrail").joinpath(f"templates/{name}").read_text("utf-8")


def _family_context(page: FamilyPage, max_bytes: int) -> dict[str, Any]:
    summary = page.summary
    view = ComparisonView(summary, summary.primary)
    manifest = Manifest.model_validate_json(canonical_json(summary.manifest))
    subsets = subsets_of(summary)
    rows = flip_browser.FlipBrowserInput(summary, page.prompts, page.generations, page.scores)
    return {
        "name": summary.family,
        "reference": summary.reference,
        "first": first_screen(
            view, _scorer_configs(manifest).get(view.scorer, {}), _weak_variants(summary, manifest)
        ),
        "method": notes.method_line(view),
        "answer": family_headline(view),
        "by_subset": [
            subset_headline(view, subset) for subset in subsets if subset != ALL and view.pairs
        ],
        "warnings": notes.warnings(view),
        "notes": comparison_notes(view),
        "verdicts": verdicts(view),
        "matrix": rate_matrix(view),
        "subsets": subsets,
        "tables": {section: section_tables(view, [section]) for section in TABLES},
        "browser": flip_browser.script_safe_json(flip_browser.flip_browser_data(rows, max_bytes))
        if view.pairs
        else "",
        "figures": {
            name: {"svg": _svg_element(svg), "says": FIGURES[name]}
            for name, svg in page.figures.items()
        },
        "limits": _limits(summary, manifest),
        "diagnostics": _diagnostics(summary),
        "cards": _cards(summary, manifest),
        "settings": _settings(manifest),
        "commands": _commands(summary),
        "content_key": manifest.content_key,
    }


def _svg_element(svg: str) -> str:
    """Return the <svg> element without the XML prologue."""
    return svg[svg.index("<svg") :]


def _limits(summary: ComparisonSummary, manifest: Manifest) -> list[str]:
    """Return the known limitations of each scorer and of the response flags."""
    scorers = [
        scorer_limitations(name, config, name in summary.corrected_scorers)
        for name, config in _scorer_configs(manifest).items()
    ]
    return [*scorers, flag_limitations()]


def _scorer_configs(manifest: Manifest) -> dict[str, Any]:
    """Return each scorer's section of params.yaml."""
    configs: dict[str, Any] = {}
    for node in walk_lineage(manifest):
        configs |= node.params.get("scorers", {})
    return configs


def _model_cards(manifest: Manifest) -> dict[str, ModelIdentity]:
    return {node.model.key: node.model for node in walk_lineage(manifest) if node.model}


def _weak_variants(summary: ComparisonSummary, manifest: Manifest) -> dict[str, list[str]]:
    """Return the caveats of each variant whose identity is weak."""
    parents = {row.variant: row.parent for row in summary.variants}
    return doubts(_model_cards(manifest), parents)


def _diagnostics(summary: ComparisonSummary) -> list[tuple[str, str]]:
    """Return diagnostics of the pooled model by scorer; the paired columns need no sampler."""
    rows = [("paired columns", "exact, no sampler: no convergence to check")]
    for scorer, pooled in summary.pooled.items():
        status = pooled.status if pooled.status == "pooled" else f"{pooled.status}: {pooled.reason}"
        rows.append((f"pooled, {scorer}", status))
        diagnostics = to_json(pooled.diagnostics) if pooled.diagnostics else {}
        for name, value in diagnostics.items():
            formatted = f"{value:.4g}" if isinstance(value, float) else str(value)
            rows.append((f"{scorer}: {name.replace('_', ' ')}", formatted))
    return rows


def _cards(summary: ComparisonSummary, manifest: Manifest) -> list[dict[str, Any]]:
    """Return the weights of each variant, down to the base, with hashes."""
    cards, weak = _model_cards(manifest), _weak_variants(summary, manifest)
    return [
        {
            "variant": row.variant,
            "facts": [
                ("role, parent", f"{row.role}, {row.parent or 'none'}"),
                *(_card_facts(cards[row.variant]) if row.variant in cards else ()),
                *(("caveat", line) for line in weak.get(row.variant, ())),
                ("content key of its rates", row.content_key or "none"),
            ],
        }
        for row in summary.variants
    ]


def _card_facts(card: ModelIdentity) -> list[tuple[str, str]]:
    base = card.base
    if card.texts is not None:
        return [
            ("texts from a file", base.uri),
            ("sha256", base.sha256),
            ("read as", canonical_json(card.texts.reader)),
            ("fingerprint", card.fingerprint),
        ]
    if card.api is not None:
        return [("name on a server", base.uri), ("fingerprint", card.fingerprint)]
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
            training = adapter.training
            facts.append(("trained here on", f"{training.data_uri} sha256 {training.data_sha256}"))
            if training.held_out_loss is not None:
                loss = f"{training.held_out_loss:.4f} nats per token"
                facts.append(("held-out loss", f"{loss}, {training.held_out} held-out examples"))
        else:
            facts.append(("taken from", f"{adapter.uri} (its training data are not verified)"))
    return [*facts, ("fingerprint", card.fingerprint), ("license", base.license or "not stated")]


def _settings(manifest: Manifest) -> list[tuple[str, str]]:
    """Return settings shared by all variants: prompts, decoding, scorers, statistics."""
    settings: dict[str, str] = {}
    for node in walk_lineage(manifest):
        for section in ("prompts", "generation", "scorers", "posterior"):
            if section in node.params:
                settings.setdefault(section, canonical_json(shown_params(node.params[section])))
        settings.setdefault(f"code of {node.kind}", node.code_sha256)
    return list(settings.items())


def _commands(summary: ComparisonSummary) -> str:
    family, pairs = summary.family, summary.pairs
    fields = summary.comparability.fields if summary.comparability else {}
    is_generated = "origin" not in fields  # texts from a file cannot be generated again
    return "\n".join(
        [
            "dvc repro                                  # run all outdated stages",
            f"toxtrail compare {family}",
            *(f"toxtrail flips {pairs[0].a} {pairs[0].b} --show-text" for _ in pairs[:1]),
            f"toxtrail audit {family} --verify           # re-hash files, recompute numbers",
            *([f"toxtrail audit {summary.reference} --reproduce 8"] if is_generated else []),
            f"toxtrail export {family} --to bundle.zip   # for someone without this repository",
        ]
    )
