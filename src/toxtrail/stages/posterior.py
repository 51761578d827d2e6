"""Posterior: how often is one variant toxic?

reads   data/generations/<family>/<variant>.parquet, data/scores/<family>/<variant>.parquet, and the
        file that `posterior.labels` names
writes  results/posteriors/<family>/<variant>/summary.json, posterior.nc
"""

from __future__ import annotations

from toxtrail.analysis.response_table import texts_of
from toxtrail.analysis.score_table import (
    COLUMNS,
    cells,
)
from toxtrail.analysis.scorer_correction import (
    label_rows,
    with_corrected_rates,
)
from toxtrail.analysis.variant_rates import comparability_of, identity_of, variant_posterior
from toxtrail.backends.protocols import Assets
from toxtrail.config.schema import PosteriorConfig, VariantConfig
from toxtrail.datasets.label_files import Label, labels_of_variant
from toxtrail.datasets.readers import read_rows
from toxtrail.pipeline import manifest_of, versions
from toxtrail.provenance.comparability import fingerprint
from toxtrail.provenance.identity import Input
from toxtrail.storage.artifacts import Store


def run(
    store: Store,
    variant: str,
    who: VariantConfig,
    config: PosteriorConfig,
    primary: str,
    assets: Assets,
) -> None:
    """Read, compute, write."""
    scores = store.input(store.scores(who.family, variant))
    rows = store.score_table(who.family, variant, COLUMNS)
    table, texts = cells(rows), texts_of(*store.read_responses(who.family, variant), scores)
    labels, files = labels_from(store, variant, who.family, config, assets)
    posterior = variant_posterior(table, texts, variant, primary, config)
    numbers = with_corrected_rates(posterior.summary, table, label_rows(labels, rows), config)
    manifest = manifest_of(
        "posterior",
        variant,
        {"posterior": config.plain(), "primary": primary, "variant": who.plain()},
        {"scores": scores, **files},
        versions("numpy", "scipy"),
    )
    fields = comparability_of(table, scores, config)
    store.write_posterior(
        store.posterior(who.family, variant),
        posterior._replace(
            summary={
                "kind": "posterior",
                **identity_of(variant, who),
                "comparability": {"fingerprint": fingerprint(fields), "fields": fields},
                **numbers,
            }
        ),
        manifest,
    )


def labels_from(
    store: Store, variant: str, family: str, config: PosteriorConfig, assets: Assets
) -> tuple[list[Label], dict[str, Input]]:
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
    return found, {"labels": Input(path=asset.uri, sha256=asset.sha256, manifest=None)}
