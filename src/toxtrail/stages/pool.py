"""Pool: a family's rates and differences, all estimated together.

reads   data/scores/<family>/, results/posteriors/<family>/
writes  results/pooled/<family>/summary.json, posterior.nc, the figures predictive and ranks
"""

from __future__ import annotations

from toxtrail.analysis.family import build_family, require_comparable_family
from toxtrail.analysis.pooled_estimates import pool_family
from toxtrail.analysis.score_table import COLUMNS
from toxtrail.backends.protocols import Progress
from toxtrail.config.schema import FamilyConfig, PoolingConfig, PosteriorConfig
from toxtrail.pipeline import installed_versions, manifest_of
from toxtrail.reporting.figures.pooled_checks import posterior_predictive_figure, rank_figure
from toxtrail.stats.hierarchical import model as hierarchical_model
from toxtrail.stats.hierarchical.model import FamilyCounts
from toxtrail.stats.sampling import SampleResult, SamplerSettings
from toxtrail.storage.artifacts import ArtifactStore


def run(
    store: ArtifactStore,
    family: str,
    family_config: FamilyConfig,
    config: PosteriorConfig,
    pooling: PoolingConfig | None,
    primary: str,
    progress: Progress,
) -> None:
    """Read, estimate, write."""

    def sampler(counts: FamilyCounts, effort: SamplerSettings) -> SampleResult:
        variants, groups = counts.toxic.shape
        total = effort.chains * effort.draws
        with progress.bar(
            f"pool {variants} variants x {groups} subsets", total, "draws"
        ) as advance:
            drawn = hierarchical_model.sample_posterior(counts, effort)
            advance(total)
        return drawn

    family_inputs = build_family(*store.read_family(family, family_config.variants, COLUMNS))
    tables, _ = require_comparable_family(
        family_inputs.tables,
        family_inputs.summaries,
        family_config.reference,
        bool(family_config.allow_mismatch),
    )
    output = pool_family(
        tables, family_inputs.summaries, family_config.reference, primary, config, pooling, sampler
    )
    manifest = manifest_of(
        "pool",
        family,
        {
            "posterior": config.plain(),
            "pooling": pooling.plain() if pooling else None,
            "family": family_config.plain(),
            "primary": primary,
        },
        family_inputs.inputs,
        installed_versions("numpy", "scipy", "matplotlib", "numba", "nutpie", "arviz"),
    )
    figures = {
        "predictive": posterior_predictive_figure(output.summary),
        "ranks": rank_figure(output.draws, primary),
    }
    summary = {"kind": "pool", "family": family, **output.summary}
    store.write_analysis(
        store.pooled_dir(family), output._replace(summary=summary, figures=figures), manifest
    )
