"""Posterior: how often is one variant toxic?

reads   data/generations/<family>/<variant>.parquet, data/scores/<family>/<variant>.parquet, and the
        file that `posterior.labels` names
writes  results/posteriors/<family>/<variant>/summary.json, posterior.nc
"""

from __future__ import annotations

from toxtrail.analysis.response_table import read_response_table
from toxtrail.analysis.score_table import (
    COLUMNS,
    build_score_table,
)
from toxtrail.analysis.scorer_correction import (
    label_rows,
    with_corrected_rates,
)
from toxtrail.analysis.variant_rates import (
    estimate_variant_rates,
    measured_conditions,
    variant_columns,
)
from toxtrail.backends.protocols import Assets
from toxtrail.config.schema import PosteriorConfig, VariantConfig
from toxtrail.datasets.label_files import Label, labels_of_variant
from toxtrail.datasets.readers import read_rows
from toxtrail.pipeline import installed_versions, manifest_of
from toxtrail.provenance.comparability import fingerprint
from toxtrail.provenance.identity import InputFile
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
    scores = store.describe_input(store.scores_path(variant_config.family, variant))
    rows = store.read_score_columns(variant_config.family, variant, COLUMNS)
    table, texts = (
        build_score_table(rows),
        read_response_table(*store.read_responses(variant_config.family, variant), scores),
    )
    labels, files = labels_from(store, variant, variant_config.family, config, assets)
    posterior = estimate_variant_rates(table, texts, variant, primary, config)
    numbers = with_corrected_rates(posterior.summary, table, label_rows(labels, rows), config)
    manifest = manifest_of(
        "posterior",
        variant,
        {"posterior": config.plain(), "primary": primary, "variant": variant_config.plain()},
        {"scores": scores, **files},
        installed_versions("numpy", "scipy"),
    )
    fields = measured_conditions(table, scores, config)
    store.write_analysis(
        store.posterior_dir(variant_config.family, variant),
        posterior._replace(
            summary={
                "kind": "posterior",
                **variant_columns(variant, variant_config),
                "comparability": {"fingerprint": fingerprint(fields), "fields": fields},
                **numbers,
            }
        ),
        manifest,
    )


def labels_from(
    store: ArtifactStore, variant: str, family: str, config: PosteriorConfig, assets: Assets
) -> tuple[list[Label], dict[str, InputFile]]:
    """A variant's labels, and the file that they are in; nothing if none is named.

    Raises:
        BackendError: the file is not the one that params.yaml pins.
        DataError: a label is of another text than there is now.
    """
    if config.labels is None:
        return [], {}
    asset = assets.fetch(config.labels.uri, config.labels.sha256)
    texts = store.read_generations(family, variant)
    found = labels_of_variant(asset.path, read_rows(asset.path), variant, texts)
    return found, {"labels": InputFile(path=asset.uri, sha256=asset.sha256, manifest=None)}
