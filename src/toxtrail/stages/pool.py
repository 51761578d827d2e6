"""Pool: a family's rates and differences, all estimated together.

reads   data/scores/<family>/, results/posteriors/<family>/
writes  results/pooled/<family>/summary.json, posterior.nc, the figures predictive and ranks
"""

from __future__ import annotations

from typing import Any

from toxtrail.analysis.family import build_family
from toxtrail.analysis.pooled_estimates import Sampler, pool_family
from toxtrail.analysis.score_table import COLUMNS
from toxtrail.backends.protocols import Progress
from toxtrail.config.schema import FamilyConfig, PoolingConfig, PosteriorConfig
from toxtrail.pipeline import installed_versions, manifest_of
from toxtrail.records.analysis_output import AnalysisOutput
from toxtrail.records.results import PoolSummary
from toxtrail.reporting.figures.pooled_checks import posterior_predictive_figure, rank_figure
from toxtrail.stats.bayes_libraries import SampleResult, diagnostics_packages
from toxtrail.stats.hierarchical import model as hierarchical_model
from toxtrail.stats.hierarchical.model import FamilyCounts
from toxtrail.stats.sampling import SamplerSettings
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
    inputs = build_family(*store.read_family(family, family_config.variants, COLUMNS))
    reference, allow = family_config.reference, bool(family_config.allow_mismatch)
    sampler = _sampler(progress)
    output = pool_family(
        inputs.tables, inputs.summaries, reference, primary, config, pooling, sampler, allow
    )
    params = _params(family_config, config, pooling, primary)
    packages = ("numpy", "scipy", "matplotlib", "numba", "nutpie", *diagnostics_packages())
    manifest = manifest_of("pool", family, params, inputs.inputs, installed_versions(*packages))
    store.write_analysis(store.pooled_dir(family), _with_figures(output), manifest)


def _sampler(progress: Progress) -> Sampler:
    """Return the model's sampler, with a bar of its draws."""

    def sampler(counts: FamilyCounts, effort: SamplerSettings) -> SampleResult:
        variants, groups = counts.toxic.shape
        total = effort.chains * effort.draws
        label = f"pool {variants} variants x {groups} subsets"
        with progress.bar(label, total, "draws") as advance:
            samples = hierarchical_model.sample_posterior(counts, effort)
            advance(total)
        return samples

    return sampler


def _params(
    family_config: FamilyConfig,
    config: PosteriorConfig,
    pooling: PoolingConfig | None,
    primary: str,
) -> dict[str, Any]:
    return {
        "posterior": config.plain(),
        "pooling": pooling.plain() if pooling else None,
        "family": family_config.plain(),
        "primary": primary,
    }


def _with_figures(output: AnalysisOutput[PoolSummary]) -> AnalysisOutput[PoolSummary]:
    figures = {
        "predictive": posterior_predictive_figure(output.summary),
        "ranks": rank_figure(output.draws, output.summary.primary),
    }
    return output._replace(figures=figures)
