"""Posterior: how often is one variant toxic?

reads   data/generations/<family>/<variant>.parquet, data/scores/<family>/<variant>.parquet, and the
        file that `posterior.labels` names
writes  results/posteriors/<family>/<variant>/summary.json, posterior.nc
"""

from __future__ import annotations

import pyarrow as pa

from toxtrail.analysis.annotator_agreement import counted_agreement
from toxtrail.analysis.response_table import REFUSAL_COLUMNS, SubsetResponses, read_response_table
from toxtrail.analysis.score_table import COLUMNS
from toxtrail.analysis.variant_rates import variant_posterior
from toxtrail.backends.protocols import Assets
from toxtrail.config.schema import PosteriorConfig, VariantConfig
from toxtrail.datasets.label_files import Label, labels_of_variant
from toxtrail.datasets.readers import read_rows
from toxtrail.pipeline import installed_versions, manifest_of
from toxtrail.provenance.identity import InputFile
from toxtrail.records.results import AnnotatorAgreement
from toxtrail.storage.artifacts import ArtifactStore


def run(
    store: ArtifactStore,
    variant: str,
    variant_config: VariantConfig,
    config: PosteriorConfig,
    primary: str,
    assets: Assets,
) -> None:
    """Read, compute, write."""
    family = variant_config.family
    scores, rows, texts = _read_scores(store, family, variant)
    labels, annotators, files = _read_labels(store, variant, family, config, assets)
    output = variant_posterior(
        variant, variant_config, rows, scores, texts, labels, annotators, primary, config
    )
    params = {"posterior": config.plain(), "primary": primary, "variant": variant_config.plain()}
    versions = installed_versions("numpy", "scipy", "py3langid")
    manifest = manifest_of("posterior", variant, params, {"scores": scores, **files}, versions)
    store.write_analysis(store.posterior_dir(family, variant), output, manifest)


def _read_scores(
    store: ArtifactStore, family: str, variant: str
) -> tuple[InputFile, pa.Table, dict[str, SubsetResponses]]:
    scores = store.describe_input(store.scores_path(family, variant))
    rows = store.read_score_columns(family, variant, COLUMNS)
    responses = store.read_responses(family, variant, REFUSAL_COLUMNS)
    return scores, rows, read_response_table(*responses, scores, count_languages=True)


def _read_labels(
    store: ArtifactStore, variant: str, family: str, config: PosteriorConfig, assets: Assets
) -> tuple[list[Label], AnnotatorAgreement | None, dict[str, InputFile]]:
    """Return a variant's labels, the annotators' agreement and the file; empty if none is
    configured.

    Raises:
        BackendError: the file differs from its pin in params.yaml.
        DataError: the text of a label has changed.
    """
    if config.labels is None:
        return [], None, {}
    asset = assets.fetch(config.labels.uri, config.labels.sha256)
    texts = store.read_generations(family, variant)
    rows = list(read_rows(asset.path))
    labels = labels_of_variant(asset.path, rows, variant, texts)
    annotators = counted_agreement(asset.path, rows, config.level)
    file = InputFile(path=asset.uri, sha256=asset.sha256, manifest=None)
    return labels, annotators, {"labels": file}
