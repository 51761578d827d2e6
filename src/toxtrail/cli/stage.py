"""`toxtrail stage`: run a stage with its config and backends. dvc.yaml calls it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from toxtrail.console import warn
from toxtrail.errors import ConfigError, did_you_mean
from toxtrail.execution.distributed import process_group, relaunch
from toxtrail.execution.factories import (
    make_asset_store,
    make_scorers,
    make_tracker,
    make_tuner,
    make_verifier,
    make_weights,
    open_generator,
    scoring_environment,
)
from toxtrail.execution.progress import progress
from toxtrail.execution.telemetry import record_execution, tracking_facts
from toxtrail.experiment import Experiment

if TYPE_CHECKING:
    from toxtrail.config.schema import TextsConfig


class StageCommand(click.Command):
    """Command of one stage, which refuses outputs if its inputs changed while it ran."""

    def invoke(self, ctx: click.Context) -> Any:
        """Record its dependencies, and run it."""
        experiment: Experiment = ctx.obj
        if experiment.exists:
            experiment.watch(str(self.name), next(iter(ctx.params.values()), None))
        return super().invoke(ctx)


class Stages(click.Group):
    """Group whose commands are stages."""

    command_class = StageCommand


@click.group("stage", cls=Stages, short_help="Run one stage (called by DVC).")
@click.pass_obj
def stage(experiment: Experiment) -> None:
    """Run one stage. DVC calls these commands, and `toxtrail run` calls DVC.

    \b
    Examples:
      toxtrail stage prompts
      toxtrail stage generate smollm2-instruct
    """
    from toxtrail.scaffold import require_same_code

    experiment.reports_older_version = False  # `toxtrail run` did
    if experiment.exists:
        require_same_code(experiment.root)


@stage.command("prompts")
@click.pass_obj
def prompts_command(experiment: Experiment) -> None:
    """Sample the prompt set."""
    from toxtrail.stages import prompts

    prompts.run(experiment.store, experiment.config.prompts, make_asset_store(experiment))


@stage.command("model")
@click.argument("key")
@click.pass_obj
def model_command(experiment: Experiment, key: str) -> None:
    """Resolve, verify and hash third-party weights."""
    from toxtrail.provenance.identity_caveats import adapter_notes
    from toxtrail.stages import model

    models = experiment.config.models
    if key not in models:
        raise ConfigError(f'models has no "{key}".{did_you_mean(key, models)}')
    store, texts = experiment.store, models[key].texts
    if texts is not None:
        model.run_texts(store, key, models[key], texts, make_asset_store(experiment))
        _warn_of_caveats(experiment, key)
        return
    if (name := models[key].api_name) is not None:
        model.run_api(store, key, name)
        _warn_of_caveats(experiment, key)
        return
    model.run(store, key, models[key], make_weights(experiment), make_verifier(experiment))
    _warn_of_caveats(experiment, key)
    for note in adapter_notes(experiment.store.read_card(key)):
        warn(f"{key}: {note}.")


@stage.command("finetune")
@click.argument("key")
@click.pass_obj
def finetune_command(experiment: Experiment, key: str) -> None:
    """Train a LoRA adapter on its parent."""
    from toxtrail.backends.compute.devices import environment_info, pick_device, set_num_threads
    from toxtrail.stages import finetune

    finetunes, runtime = experiment.config.finetunes, experiment.config.runtime
    if key not in finetunes:
        raise ConfigError(f'finetunes has no "{key}".{did_you_mean(key, finetunes)}')
    if relaunch(experiment.root, runtime, ("finetune", key), distributed=False):
        return
    device, threads = pick_device(runtime.device), set_num_threads(runtime.threads)
    _warn_of_bfloat16(experiment, device, "finetune", key)
    tuner = make_tuner(experiment, device)
    output = experiment.store.model_dir(key) / "model.json"
    with record_execution(experiment.store, "finetune", key, output, {"threads": threads}) as cost:
        trained = finetune.run(
            experiment.store,
            key,
            finetunes[key],
            make_asset_store(experiment),
            tuner,
            make_verifier(experiment),
            environment_info(device),
        )
        cost["steps"] = trained.steps
    _warn_of_caveats(experiment, key)


@stage.command("generate")
@click.argument("variant")
@click.pass_obj
def generate_command(experiment: Experiment, variant: str) -> None:
    """Generate continuations of every prompt."""
    from toxtrail.stages import generate

    store, variant_config = experiment.store, experiment.variant(variant)
    if texts := experiment.config.texts_of(variant):
        _match_texts(experiment, variant, texts)
        return
    runtime, is_served = experiment.config.runtime, experiment.config.is_served(variant)
    is_vllm = not is_served and experiment.config.generation.engine == "vllm"
    command = ("generate", variant)
    if not is_served and relaunch(experiment.root, runtime, command, distributed=not is_vllm):
        return
    with (
        process_group("cpu" if is_served or is_vllm else runtime.device) as group,
        open_generator(experiment, variant, group) as generator,
    ):
        output = store.generations_path(variant_config.family, variant)
        settings, is_first = generator.settings, group.number == 0
        if is_first:
            _warn_of_bfloat16(experiment, group.device, "generate", variant)
        with record_execution(store, "generate", variant, output, settings, is_first) as cost:
            cost |= generate.run(
                store,
                variant,
                variant_config,
                experiment.config.generation,
                generator.model,
                generator.environment,
                progress(),
                group,
            )
        if is_first:
            _warn_of_thoughts(experiment, variant)


def _warn_of_bfloat16(
    experiment: Experiment, device: str, stage_name: str, key: str | None = None
) -> None:
    from toxtrail.preflight.bfloat16 import slow_bfloat16_here

    for line in slow_bfloat16_here(experiment.config, device, stage_name, key):
        warn(line)


def _warn_of_thoughts(experiment: Experiment, variant: str) -> None:
    from toxtrail.analysis.thought_problems import thought_problems

    family = experiment.variant(variant).family
    rows = experiment.store.read_generations(family, variant)
    for line in thought_problems(rows, experiment.config.generation.markers):
        warn(f"{variant}: {line}.")


def _match_texts(experiment: Experiment, variant: str, texts: TextsConfig) -> None:
    """Take the rows of a variant from its file of texts."""
    from toxtrail.analysis.text_matching import match_problems
    from toxtrail.stages import generate

    store, family = experiment.store, experiment.variant(variant).family
    config, assets = experiment.config.generation, make_asset_store(experiment)
    output = store.generations_path(family, variant)
    with record_execution(store, "generate", variant, output, {}) as cost:
        counts = generate.run_texts(store, variant, family, texts, config, assets)
        cost["rows"] = counts.prompts * config.samples
    for line in match_problems(counts):
        warn(f"{variant}: {line}.")
    _warn_of_thoughts(experiment, variant)


@stage.command("score")
@click.argument("variant")
@click.pass_obj
def score_command(experiment: Experiment, variant: str) -> None:
    """Score every continuation with every scorer."""
    from toxtrail.backends.compute.devices import set_num_threads
    from toxtrail.stages import score

    store, runtime = experiment.store, experiment.config.runtime
    family, config = experiment.variant(variant).family, experiment.config.scoring
    if relaunch(experiment.root, runtime, ("score", variant)):
        return
    with process_group(runtime.device) as group:
        device, threads = group.device, set_num_threads(runtime.threads, group.here)
        if group.number == 0:
            _warn_of_bfloat16(experiment, device, "score")
        scorers = make_scorers(experiment, config.scorers, device)
        environment = scoring_environment(scorers, device)
        plan = {
            "threads": threads,
            "score_batch_size": runtime.score_batch_size,
            "processes": group.of,
        }
        output = store.scores_path(family, variant)
        with record_execution(store, "score", variant, output, plan, group.number == 0) as cost:
            cost |= score.run(
                store, variant, family, config, scorers, environment, progress(), group
            )


@stage.command("posterior")
@click.argument("variant")
@click.pass_obj
def posterior_command(experiment: Experiment, variant: str) -> None:
    """Estimate the toxicity rates of one variant."""
    from toxtrail.stages import posterior

    variant_config, config = experiment.variant(variant), experiment.config
    posterior.run(
        experiment.store,
        variant,
        variant_config,
        config.posterior,
        config.scoring.primary,
        make_asset_store(experiment),
    )


@stage.command("pool")
@click.argument("family")
@click.pass_obj
def pool_command(experiment: Experiment, family: str) -> None:
    """Fit the hierarchical model of a family."""
    from toxtrail.stages import pool

    (family,), config = experiment.families((family,)), experiment.config
    family_config = config.families[family]
    store, primary = experiment.store, config.scoring.primary
    pool.run(store, family, family_config, config.posterior, config.pooling, primary, progress())


@stage.command("compare")
@click.argument("family")
@click.pass_obj
def compare_command(experiment: Experiment, family: str) -> None:
    """Compare the variants of a family, paired by prompt."""
    from toxtrail.stages import compare

    (family,), config = experiment.families((family,)), experiment.config
    compare.run(
        experiment.store, family, config.families[family], config.posterior, config.scoring.primary
    )


@stage.command("track")
@click.argument("variant")
@click.pass_obj
def track_command(experiment: Experiment, variant: str) -> None:
    """Log the variant as an MLflow run."""
    track_variant(experiment, variant)


@stage.command("track-comparison")
@click.argument("family")
@click.pass_obj
def track_comparison_command(experiment: Experiment, family: str) -> None:
    """Log the family's comparison as an MLflow run."""
    track_comparison(experiment, family)


def track_variant(experiment: Experiment, variant: str) -> None:
    """Publish a variant to the present MLflow store."""
    from toxtrail.stages import track

    variant_config, facts = experiment.variant(variant), tracking_facts(experiment.root)
    tracker = make_tracker(experiment)
    for remark in track.run(experiment.store, variant, variant_config, tracker, facts):
        warn(remark)


def track_comparison(experiment: Experiment, family: str) -> None:
    """Publish a family's comparison. See track_variant."""
    from toxtrail.stages import track_comparison as stage_module

    (family,), facts = experiment.families((family,)), tracking_facts(experiment.root)
    tracker = make_tracker(experiment)
    for remark in stage_module.run(experiment.store, family, tracker, facts):
        warn(remark)


@stage.command("report")
@click.pass_obj
def report_command(experiment: Experiment) -> None:
    """Write one self-contained HTML file."""
    from toxtrail.stages import report

    report.run(experiment.store, list(experiment.config.families))


def _warn_of_caveats(experiment: Experiment, key: str) -> None:
    from toxtrail.auditing.verify.weights import identity_caveats

    for line in identity_caveats(experiment).get(key, ()):
        warn(f"weak: {key}: {line}.")
