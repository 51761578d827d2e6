"""`toxtrail audit REF --reproduce N`: regenerate and rescore random samples."""

from __future__ import annotations

import secrets
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from toxtrail.cli._output import print_table
from toxtrail.cli.verify import BROKEN_EXIT
from toxtrail.console import echo
from toxtrail.errors import ConfigError
from toxtrail.experiment import Experiment
from toxtrail.reporting.table import Table, number_columns, text_columns

if TYPE_CHECKING:
    from toxtrail.audit.lineage.context import AuditContext, AuditTarget
    from toxtrail.audit.reproduce import Plan, Reproduction
    from toxtrail.execution.score_rows import NamedScorer


class ReproductionResult(NamedTuple):
    """Result of the reproduction of one variant."""

    variant: str
    rows: list[Reproduction]
    plan: Plan
    environment: dict[str, Any]
    """Field -> [recorded, present] where the two differ."""
    present: dict[str, str]

    def to_json(self) -> dict[str, Any]:
        return {
            "variant": self.variant,
            "rows": [row._asdict() for row in self.rows],
            "batch_plan": self.plan._asdict(),
            "environment": self.present,
            "environment_differs": self.environment,
        }


def reproduce(
    experiment: Experiment, scene: AuditContext, subject: AuditTarget, n: int, seed: int | None
) -> tuple[int, list[ReproductionResult]]:
    """Sample rows, regenerate and rescore them, and compare.

    Returns:
        The random seed, and one result for each variant.
    """
    seed = secrets.randbelow(1 << 31) if seed is None else seed
    variants = _variants(experiment, subject)
    share = [n // len(variants) + (i < n % len(variants)) for i in range(len(variants))]
    counts = [(v, count) for v, count in zip(variants, share, strict=True) if count]
    return seed, [_variant(experiment, scene, subject, v, count, seed) for v, count in counts]


def show(seed: int, outcomes: Sequence[ReproductionResult]) -> None:
    """Print the rows as a table, and the environment that produced them."""
    rows = [row for outcome in outcomes for row in outcome.rows]
    exact = sum(row.exact for row in rows)
    title = f"{exact} of {len(rows)} generations reproduced exactly (seed {seed})"
    columns = (
        *text_columns("variant", "prompt"), *number_columns("sample"), *text_columns("exact"),
        *number_columns("tokens", "diverges at", "differing", "score by"),
    )  # fmt: skip
    print_table(Table(title, columns, [_cells(row) for row in rows]))
    for outcome in outcomes:
        echo(f"{outcome.variant}: batch plan: {_plan(outcome)}")
        echo(f"  here: {', '.join(f'{k} {v}' for k, v in outcome.present.items())}")
        for name, (was, now) in outcome.environment.items():
            echo(f"  {name}: recorded {was}, here {now}", fg="yellow")


def exit_code(outcomes: Sequence[ReproductionResult]) -> int:
    """Return 3 if a row differs although software, hardware and batch plan are as recorded."""
    alike = [o for o in outcomes if not o.environment and o.plan.source]
    return BROKEN_EXIT if any(not row.exact for o in alike for row in o.rows) else 0


def _variants(experiment: Experiment, subject: AuditTarget) -> list[str]:
    """List the variants whose generations the target derives from."""
    content_keys = {
        link.what.partition("@")[2]: dict(link.facts).get("content key")
        for link in subject.link.all()
        if link.what.startswith("generate@")
    }
    variants = [v for v in experiment.config.variants if v in content_keys]
    if not variants:
        raise ConfigError(
            "It derives from no generations of this experiment: there is nothing to reproduce."
        )
    for variant in variants:
        _refuse_others(experiment, variant, content_keys[variant])
    return variants


def _refuse_others(experiment: Experiment, variant: str, key: str | None) -> None:
    """Require that the local rows have this content key (an edited file keeps it, and is then
    detected).
    """
    path = experiment.store.generations_path(experiment.variant(variant).family, variant)
    manifest = experiment.store.describe_input(path).manifest if path.is_file() else None
    if manifest is None or manifest.content_key != key:
        raise ConfigError(
            f"It derives from other generations of {variant} than the local ones. Check out the "
            "commit that recorded them (see `toxtrail audit`), run `dvc checkout`, and try again."
        )


def _variant(
    experiment: Experiment,
    scene: AuditContext,
    subject: AuditTarget,
    variant: str,
    n: int,
    seed: int,
) -> ReproductionResult:
    from toxtrail.audit import reproduce as again
    from toxtrail.backends.compute.devices import environment_info, pick_device, set_num_threads
    from toxtrail.backends.huggingface.generation.generator import HuggingFaceModel
    from toxtrail.backends.huggingface.weights.load import load_model
    from toxtrail.config.schema import GenerationConfig
    from toxtrail.execution.factories import make_decoding, make_weights
    from toxtrail.execution.progress import progress
    from toxtrail.execution.score_rows import ScoringInput

    store, runtime = experiment.store, experiment.config.runtime
    family = experiment.variant(variant).family
    source = store.describe_input(store.generations_path(family, variant))
    manifest = source.manifest
    if manifest is None or manifest.model is None:
        raise ConfigError(f"{source.path} does not say which model wrote it. Run `dvc repro`.")
    if manifest.model.texts is not None:
        raise ConfigError(
            f"{variant} has texts from a file ({manifest.model.base.uri}): there are no weights to "
            "regenerate them with. `toxtrail audit --verify` compares its rows with the file."
        )
    settings = GenerationConfig.model_validate(manifest.params["generation"])
    plan = again.recorded_plan(store, variant, source.sha256, scene)
    device = pick_device(runtime.device)
    set_num_threads(plan.threads or runtime.threads)
    loaded = load_model(
        manifest.model, store.model_dir(variant), make_weights(experiment), settings.dtype, device
    )
    recorded = {row.key: row for row in store.read_generations(family, variant)}
    row_keys = _referenced_rows(subject, variant) or again.draw(
        list(recorded.values()), n, seed, variant
    )
    generated = again.regenerate(
        store.read_prompts(),
        HuggingFaceModel(
            loaded.model,
            loaded.tokenizer,
            make_decoding(settings),
            plan.batch_tokens or runtime.batch_tokens,
            plan.engine or runtime.engine,  # type: ignore[arg-type]
        ),
        settings,
        plan,
        row_keys,
        progress(),
    )
    prompts = {prompt.prompt_id: prompt.text for prompt in store.read_prompts()}
    rows_to_score = [generated[key] for key in row_keys if key in generated]
    scored = again.rescored(
        ScoringInput(rows_to_score, prompts), _judges(experiment, variant, device)
    )
    scores = store.read_scores(family, variant)
    rows = [
        again.compare_rows(
            variant,
            recorded[key],
            generated.get(key),
            [s for s in scores if (s.prompt_id, s.sample) == key],
            scored,
        )
        for key in row_keys
    ]
    present = environment_info(device)
    differs = again.differing_environment(manifest.environment, present)
    return ReproductionResult(variant, rows, plan, differs, present)


def _referenced_rows(subject: AuditTarget, variant: str) -> list[tuple[str, int]]:
    """Return the row that the reference names, if it names one."""
    if subject.kind != "generation":
        return []
    _, prompt_id, sample = subject.link.name.split("/")
    return [(prompt_id, int(sample))]


def _judges(experiment: Experiment, variant: str, device: str) -> list[NamedScorer]:
    """Load the scorers of the score file's manifest, not those of the present params.yaml."""
    from toxtrail.config.scorer_kinds.base import ScorerConfig
    from toxtrail.execution.factories import make_scorers

    store, family = experiment.store, experiment.variant(variant).family
    path = store.scores_path(family, variant)
    manifest = store.describe_input(path).manifest if path.is_file() else None
    configs = manifest.params["scorers"] if manifest else {}
    scorer_configs = {name: ScorerConfig.model_validate(values) for name, values in configs.items()}
    return make_scorers(experiment, scorer_configs, device)


def _plan(outcome: ReproductionResult) -> str:
    plan = outcome.plan
    if "backend" in outcome.environment:
        return (
            "the server's. Here the weights of the model card generated the rows: greedy ones "
            "should agree except at near ties, sampled ones are different samples"
        )
    if not plan.source:
        return "not recorded"
    return (
        f"engine {plan.engine}, batch_tokens {plan.batch_tokens}, threads {plan.threads} "
        f"({plan.source})"
    )


def _cells(row: Reproduction) -> list[str]:
    return [
        row.variant,
        row.prompt_id,
        str(row.sample),
        "yes" if row.exact else "NO",
        str(row.tokens),
        "-" if row.exact else str(row.same_tokens),
        str(row.differing_tokens),
        "-" if row.score_change is None else f"{row.score_change:.1e}",
    ]
