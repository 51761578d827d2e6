"""Report: one self-contained HTML file.

reads   data/prompts.parquet, data/prompts_card.json, data/generations/, data/scores/,
        results/comparisons/<family>/, results/pooled/<family>/
writes  report/index.html
"""

from __future__ import annotations

from collections.abc import Sequence

from toxtrail.errors import DataError
from toxtrail.pipeline import manifest_of
from toxtrail.provenance import embedded_manifest
from toxtrail.provenance.identity import InputFile, Manifest, walk_lineage
from toxtrail.records.results import ComparisonSummary
from toxtrail.regular_files import read_text
from toxtrail.reporting.html_report import FamilyPage, render
from toxtrail.storage.artifacts import ArtifactStore, read_json


def run(store: ArtifactStore, families: Sequence[str]) -> None:
    """Read, render, write."""
    store.write_text(store.report_path, page_of(store, families))


def page_of(store: ArtifactStore, families: Sequence[str]) -> str:
    """Return the page for the current files."""
    folders = {family: store.comparison_dir(family) for family in families}
    inputs = {f: store.describe_input(folder / "summary.json") for f, folder in folders.items()}
    texts = {
        name: input_file
        for f in families
        for name, input_file in _displayed_rows(store, f, inputs[f])
    }
    card = store.describe_input(store.prompt_card_path)
    inputs |= {**texts, "prompt card": card.model_copy(update={"manifest": None})}
    manifest = manifest_of("report", None, {"families": list(families)}, inputs, {})
    pages = [_read_page(store, family) for family in families]
    return render(pages, read_json(store.prompt_card_path), manifest)


def _read_page(store: ArtifactStore, family: str) -> FamilyPage:
    summary = store.read_results(ComparisonSummary, store.comparison_dir(family))
    variants = [row.variant for row in summary.variants]
    return FamilyPage(
        summary,
        _figures(store, family),
        {prompt.prompt_id: prompt.transcript for prompt in store.read_prompts()},
        {variant: store.read_generations(family, variant) for variant in variants},
        {variant: store.read_scores(family, variant) for variant in variants},
    )


def _displayed_rows(
    store: ArtifactStore, family: str, comparison: InputFile
) -> list[tuple[str, InputFile]]:
    """Return the files of displayed rows without manifests; the comparison's manifest has those.

    Raises:
        DataError: the files differ from those that the comparison was made from.
    """
    recorded = rows_of_comparison(comparison.manifest) if comparison.manifest else {}
    for path, sha256 in recorded.items():
        if store.describe_input(store.at(path)).sha256 != sha256:
            raise DataError(
                f"{comparison.path} was created from another version of {path}. "
                "Run `dvc repro` to bring both up to date."
            )
    return [(p, InputFile(path=p, sha256=s, manifest=None)) for p, s in recorded.items()]


def rows_of_comparison(manifest: Manifest) -> dict[str, str]:
    """Return path -> SHA-256 of the prompts, generations and scores behind a comparison. The inputs
    of the stage `prompts` are sources, whose names are chosen by users."""
    return {
        input_file.path: input_file.sha256
        for node in walk_lineage(manifest)
        if node.kind != "prompts"
        for name, input_file in node.inputs.items()
        if name in ("scores", "generations", "prompts")
    }


def _figures(store: ArtifactStore, family: str) -> dict[str, str]:
    """Return the SVG figures by name, without manifests; the page has its own."""
    figures = {}
    for folder in (store.comparison_dir(family), store.pooled_dir(family)):
        for path in sorted(folder.glob("*.svg")):
            figures[path.stem] = embedded_manifest.strip_svg_manifest(read_text(path))
    return figures
