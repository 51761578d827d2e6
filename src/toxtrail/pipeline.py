"""PIPELINE: the stages in data-flow order, each with its params, files and code.

dvc.yaml contains the same facts; `tests/test_contract.py` compares the two, the CLI and the config.
`{key}` is the item of the params section named in `foreach`; `{family}` and `{parent}` are fields
of that item.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import Any, Literal, NamedTuple

from toxtrail import __version__
from toxtrail.config.schema import Config
from toxtrail.provenance.identity import (
    InputFile,
    Manifest,
    ModelIdentity,
    content_key,
    sha256_file,
    walk_lineage,
)

SOURCE = Path(__file__).parent

StageName = Literal[
    "prompts",
    "model",
    "finetune",
    "generate",
    "score",
    "posterior",
    "pool",
    "compare",
    "track",
    "track-comparison",
    "report",
]
Over = Literal["models", "finetunes", "variants", "families"]

WEIGHTS_CODE = (
    "backends/huggingface/weights",
    "backends/checkpoint_files",
    "backends/compute/devices.py",
    "provenance/identity_caveats.py",
)
TEXTS_CODE = ("datasets/generated_texts",)
TRAINING_CODE = ("backends/huggingface/training",)
GENERATION_CODE = (
    "backends/huggingface/generation",
    "backends/compute/onednn_linear.py",
    "backends/openai_api",
    "backends/vllm",
)
SCORING_CODE = (
    "backends/scorers",
    "backends/openai_api/client.py",
    "backends/openai_api/completions.py",
    "backends/openai_api/connection.py",
    "backends/openai_api/parallel.py",
    "backends/compute",
    "backends/checkpoint_files",
    "backends/huggingface/weights",
    "provenance/identity_caveats.py",
)
RESULT_TEXT_CODE = (
    "reporting/comparison_tables.py",
    "reporting/comparison_view.py",
    "reporting/first_screen.py",
    "reporting/headline.py",
    "reporting/notes.py",
    "reporting/annotator_tables.py",
    "reporting/text.py",
    "reporting/table.py",
    "stats/selection_correction.py",
    "analysis/response_flags/registry.py",
    "analysis/text_origins.py",
)
FIGURE_CODE = (
    "reporting/figures/style.py",
    "reporting/figures/comparison.py",
    "reporting/figures/dose_response.py",
)
SCORE_TABLE_CODE = (
    "analysis/response_behaviour.py",
    "analysis/guard_refusals.py",
    "analysis/family.py",
    "analysis/inference_data.py",
    "analysis/rate_estimates.py",
    "analysis/scorer_agreement.py",
    "analysis/scorer_correction.py",
    "analysis/mean_estimates.py",
    "analysis/response_table.py",
    "analysis/score_table.py",
    "analysis/response_flags",
    "datasets/label_files.py",
    "provenance/comparability.py",
)
RATE_STATISTICS_CODE = tuple(
    f"stats/{name}.py"
    for name in (
        "rates",
        "bayesian_bootstrap",
        "clusters",
        "rate_posterior",
        "paired_posterior",
        "paired_differences",
        "highest_density",
        "selection_correction",
        "scorer_error",
        "prediction_powered",
        "annotator_agreement",
    )
)


class Stage(NamedTuple):
    """One stage of the pipeline: `toxtrail stage NAME [KEY]`."""

    name: StageName
    description: str
    """One-line description."""
    foreach: Over | None
    """The params section with one item per run of this stage; None if it runs once."""
    params: tuple[str, ...]
    reads: tuple[str, ...]
    writes: tuple[str, ...]
    code: tuple[str, ...]
    """Source files, relative to the package, whose change must re-run the stage."""
    metrics: tuple[str, ...] = ()
    """Files for `dvc metrics`: a few numbers of `writes`."""
    plots: tuple[str, ...] = ()
    """Files for `dvc plots`."""


PIPELINE: tuple[Stage, ...] = (
    Stage(
        name="prompts",
        description="sample the prompt set",
        foreach=None,
        params=("prompts",),
        reads=(),
        writes=("data/prompts.parquet", "data/prompts_card.json"),
        code=(
            "stages/prompts.py",
            "datasets/prompt_card.py",
            "datasets/prompt_selection.py",
            "datasets/readers/conversations.py",
        ),
    ),
    Stage(
        name="model",
        description="resolve, verify and hash existing weights",
        foreach="models",
        params=("models.{key}",),
        reads=("requirements.txt",),
        writes=("models/{key}",),
        code=(
            "stages/model.py",
            "backends/openai_api/api_identity.py",
            *TEXTS_CODE,
            *WEIGHTS_CODE,
        ),
    ),
    Stage(
        name="finetune",
        description="train a LoRA adapter on its parent",
        foreach="finetunes",
        params=("finetunes.{key}",),
        reads=("requirements.txt", "models/{parent}"),
        writes=("models/{key}",),
        code=(
            "stages/finetune.py",
            "datasets/instruction_data.py",
            "datasets/readers/conversations.py",
            *WEIGHTS_CODE,
            *TRAINING_CODE,
        ),
    ),
    Stage(
        name="generate",
        description="generate continuations of every prompt",
        foreach="variants",
        params=("generation", "variants.{key}"),
        reads=("requirements.txt", "data/prompts.parquet", "models/{key}"),
        writes=("data/generations/{family}/{key}.parquet",),
        code=(
            "stages/generate.py",
            "execution/generate_rows.py",
            "execution/generation_params.py",
            "execution/server_rows.py",
            "analysis/text_matching.py",
            "records/thought.py",
            "records/words.py",
            *TEXTS_CODE,
            *WEIGHTS_CODE,
            *GENERATION_CODE,
        ),
    ),
    Stage(
        name="score",
        description="score every continuation with every scorer",
        foreach="variants",
        params=("scoring.scorers", "scoring.max_error_share"),
        reads=(
            "requirements.txt",
            "data/prompts.parquet",
            "data/generations/{family}/{key}.parquet",
        ),
        writes=("data/scores/{family}/{key}.parquet",),
        code=("stages/score.py", "execution/score_rows.py", *SCORING_CODE),
    ),
    Stage(
        name="posterior",
        description="estimate the toxicity rates of one variant",
        foreach="variants",
        params=("posterior", "scoring.primary", "variants.{key}"),
        reads=("data/generations/{family}/{key}.parquet", "data/scores/{family}/{key}.parquet"),
        writes=("results/posteriors/{family}/{key}",),
        code=(
            "stages/posterior.py",
            "analysis/variant_rates.py",
            "analysis/annotator_agreement.py",
            "provenance/measured_scorers.py",
            *SCORE_TABLE_CODE,
            *RATE_STATISTICS_CODE,
        ),
    ),
    Stage(
        name="pool",
        description="estimate a family's rates and differences with the pooled model",
        foreach="families",
        params=("pooling", "posterior", "scoring.primary", "families.{key}"),
        reads=("data/scores/{key}", "results/posteriors/{key}"),
        writes=("results/pooled/{key}",),
        code=(
            "stages/pool.py",
            "analysis/pooled_estimates.py",
            "analysis/pooled_inference_data.py",
            "analysis/pooled_row_checks.py",
            "reporting/figures/style.py",
            "reporting/figures/pooled_checks.py",
            "analysis/family.py",
            "analysis/score_table.py",
            "provenance/comparability.py",
            "stats/rates.py",
            "stats/bayesian_bootstrap.py",
            "stats/clusters.py",
            "stats/hierarchical",
            "stats/bayes_libraries.py",
            "stats/sampling.py",
            "stats/prior_sensitivity.py",
        ),
    ),
    Stage(
        name="compare",
        description="compute differences within a family, paired by prompt",
        foreach="families",
        params=("posterior", "scoring.primary", "families.{key}"),
        reads=(
            "data/generations/{key}",
            "data/scores/{key}",
            "results/posteriors/{key}",
            "results/pooled/{key}",
        ),
        writes=("results/comparisons/{key}",),
        metrics=("results/metrics/{key}.json",),
        plots=("results/plots/{key}.csv",),
        code=(
            "stages/compare.py",
            "analysis/comparison.py",
            "analysis/dose_response.py",
            "reporting/dvc_metrics.py",
            "analysis/paired_rows.py",
            *SCORE_TABLE_CODE,
            *FIGURE_CODE,
            *RATE_STATISTICS_CODE,
            "stats/dose_response.py",
            "stats/power.py",
            "stats/prior_sensitivity.py",
            "stats/bayes_libraries.py",
        ),
    ),
    Stage(
        name="track",
        description="log the variant as an MLflow run",
        foreach="variants",
        params=("tracking",),
        reads=(
            "data/prompts.parquet",
            "data/prompts_card.json",
            "models/{key}",
            "data/generations/{family}/{key}.parquet",
            "data/scores/{family}/{key}.parquet",
            "results/posteriors/{family}/{key}",
        ),
        writes=("mlruns/receipts/variants/{family}/{key}.json",),
        code=(
            "stages/track.py",
            "execution/execution_records.py",
            "reporting/mlflow_run.py",
            "reporting/mlflow_page.py",
            "records/run_tags.py",
            *RESULT_TEXT_CODE,
            "provenance/comparability.py",
            "provenance/identity_caveats.py",
        ),
    ),
    Stage(
        name="track-comparison",
        description="log the family's comparison as an MLflow run",
        foreach="families",
        params=("tracking",),
        reads=(
            "results/comparisons/{key}",
            "results/pooled/{key}",
            "mlruns/receipts/variants/{key}",
        ),
        writes=("mlruns/receipts/families/{key}.json",),
        code=(
            "stages/track_comparison.py",
            "reporting/mlflow_run.py",
            "reporting/mlflow_page.py",
            "records/run_tags.py",
            *RESULT_TEXT_CODE,
            "provenance/comparability.py",
            "provenance/identity_caveats.py",
        ),
    ),
    Stage(
        name="report",
        description="write one self-contained HTML file",
        foreach=None,
        params=("families",),
        reads=(
            "data/prompts.parquet",
            "data/prompts_card.json",
            "data/generations",
            "data/scores",
            "results/comparisons",
            "results/pooled",
        ),
        writes=("report/index.html",),
        code=(
            "stages/report.py",
            "reporting/html_report.py",
            "reporting/flip_browser.py",
            "analysis/flips.py",
            "reporting/scorer_limitations.py",
            "config/scorer_kinds",
            "reporting/prompt_card_table.py",
            *RESULT_TEXT_CODE,
            "provenance/comparability.py",
            "provenance/identity_caveats.py",
            "stats/rates.py",
            "templates/report.html",
            "templates/report.css",
            "templates/report.js",
        ),
    ),
)


def get_stage(name: str) -> Stage:
    """Return the stage of this name; raise KeyError if there is none."""
    return {stage.name: stage for stage in PIPELINE}[name]  # type: ignore[index]


@cache
def code_sha256(name: StageName) -> str:
    """Return the hash of the stage's source files, so that changed code changes the identity."""
    return content_key(code_files(name))


@cache
def code_files(name: StageName) -> Mapping[str, str]:
    """Return the stage's source files, relative to the package, with their sha256."""
    files = [file for entry in get_stage(name).code for file in _sources(SOURCE / entry)]
    return {file.relative_to(SOURCE).as_posix(): sha256_file(file) for file in files}


def measured_with(manifest: Manifest) -> str:
    """Return the name and version of toxtrail whose code computed a result and its inputs, as far
    as it is known: the installed version, or that it is another."""
    stages = {stage.name for stage in PIPELINE}
    nodes = [node for node in walk_lineage(manifest) if node.kind in stages]
    if all(node.code_sha256 == code_sha256(get_stage(node.kind).name) for node in nodes):
        return f"toxtrail {__version__}"
    return f"another version of toxtrail than {__version__}"


def code_hash_file(name: StageName) -> str:
    """Return the file with the hashes of a stage's source files, on which DVC depends in an
    experiment without the source."""
    return f"code/{name}.sha256"


def code_deps(stage: Stage, root: Path) -> tuple[str, ...]:
    """Return the code dependencies of a stage as in dvc.yaml: its source files in a checkout of
    toxtrail, the list of their hashes in an experiment created by `toxtrail init`."""
    if (root / "src" / "toxtrail").is_dir():
        return tuple(f"src/toxtrail/{path}" for path in stage.code)
    return (code_hash_file(stage.name),)


def manifest_of(
    name: StageName,
    key: str | None,
    params: Mapping[str, Any],
    inputs: Mapping[str, InputFile],
    environment: Mapping[str, str],
    model: ModelIdentity | None = None,
) -> Manifest:
    """Return the manifest of a stage's future output."""
    return Manifest(
        kind=name,
        key=key,
        params=dict(params),
        inputs=dict(inputs),
        model=model,
        code_sha256=code_sha256(name),
        environment=dict(environment),
    )


def installed_versions(*packages: str) -> dict[str, str]:
    """Return the installed versions of the libraries that can change a result."""
    return {package: version(package) for package in packages}


def _sources(entry: Path) -> list[Path]:
    return sorted(entry.rglob("*.py")) if entry.is_dir() else [entry]


class StageRun(NamedTuple):
    """One run of a stage, for one key."""

    stage: Stage
    key: str | None
    params: tuple[str, ...]
    """Key paths in params.yaml."""
    reads: tuple[str, ...]
    """Files and folders of earlier stages, or given ones; without the code."""
    writes: tuple[str, ...]
    metrics_and_plots: tuple[str, ...] = ()
    """Metrics and plots."""

    @property
    def outs(self) -> tuple[str, ...]:
        """All outputs, as dvc.lock lists them."""
        return (*self.writes, *self.metrics_and_plots)

    @property
    def name(self) -> str:
        """Name of the stage run in DVC."""
        return self.stage.name if self.key is None else f"{self.stage.name}@{self.key}"

    @property
    def cmd(self) -> str:
        return f"toxtrail stage {self.stage.name}" + (f" {self.key}" if self.key else "")

    def deps(self, root: Path) -> tuple[str, ...]:
        """Return inputs and code, as named in the dvc.yaml of this experiment."""
        return (*self.reads, *code_deps(self.stage, root))


def expand_stages(items: Mapping[str, Mapping[str, Mapping[str, Any]]]) -> list[StageRun]:
    """Return every stage run of an experiment, in data-flow order.

    Args:
        items: section of params.yaml -> key -> its values.
    """
    runs: list[StageRun] = []
    for stage in PIPELINE:
        keys = [None] if stage.foreach is None else list(items[stage.foreach])
        for key in keys:
            fields = items[stage.foreach][key] if stage.foreach and key else {}
            values = {**{k: v for k, v in fields.items() if isinstance(v, str)}, "key": key}
            runs.append(
                StageRun(
                    stage,
                    key,
                    tuple(key_path.format(**values) for key_path in stage.params),
                    tuple(path.format(**values) for path in stage.reads),
                    tuple(path.format(**values) for path in stage.writes),
                    tuple(path.format(**values) for path in (*stage.metrics, *stage.plots)),
                )
            )
    return runs


def stage_runs(config: Config) -> list[StageRun]:
    """Return every stage run defined by params.yaml."""
    sections = config.model_dump(
        mode="json", include={"models", "finetunes", "variants", "families"}
    )
    return expand_stages(sections)


def value_at(values: Any, key_path: str) -> Any:
    """Return the value of params.yaml at a key path; None if there is none."""
    for name in key_path.split("."):
        values = values.get(name) if isinstance(values, Mapping) else None
    return values


def upstream(runs: Sequence[StageRun], targets: Sequence[StageRun]) -> list[StageRun]:
    """Return the requested stage runs and all that they depend on, in data-flow order."""
    selected: dict[str, StageRun] = {}
    new = list(targets)
    while new:
        selected |= {run.name: run for run in new}
        reads = {read for run in new for read in run.reads}
        new = [
            run
            for run in runs
            if run.name not in selected and any(_feeds(o, r) for o in run.writes for r in reads)
        ]
    return [run for run in runs if run.name in selected]


def _feeds(out: str, read: str) -> bool:
    """Return whether an output is an input, is inside it, or contains it."""
    return out == read or out.startswith(f"{read}/") or read.startswith(f"{out}/")
