"""`toxtrail stage`: run a stage with its config and backends. dvc.yaml calls it."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from toxtrail.console import echo
from toxtrail.errors import ConfigError, did_you_mean
from toxtrail.execution.distributed import process_group, relaunch_distributed
from toxtrail.execution.progress import progress
from toxtrail.execution.telemetry import environment_tags, record_execution
from toxtrail.experiment import Experiment

if TYPE_CHECKING:
    import torch

    from toxtrail.backends.assets import AssetStore
    from toxtrail.backends.huggingface.weights.load import HuggingFaceProver
    from toxtrail.backends.huggingface.weights.resolve import HuggingFaceWeights
    from toxtrail.backends.mlflow.tracker import MlflowTracker
    from toxtrail.provenance.identity import ModelIdentity


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


@click.group("stage", cls=Stages, short_help="Run one stage by hand; DVC calls these.")
@click.pass_obj
def stage(experiment: Experiment) -> None:
    """Run one stage by hand; DVC calls these, `toxtrail run` calls DVC.

    \b
    Examples:
      toxtrail stage prompts
      toxtrail stage generate smollm2-instruct
    """
    from toxtrail.cli.init import require_same_code

    if experiment.exists:
        require_same_code(experiment)


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
    from toxtrail.stages import model

    models = experiment.config.models
    if key not in models:
        raise ConfigError(f'models has no "{key}".{did_you_mean(key, models)}')
    model.run(
        experiment.store, key, models[key], make_weights(experiment), make_verifier(experiment)
    )
    _tell_doubts(experiment, key)
    for adapter in experiment.store.read_card(key).adapters:
        if adapter.brings:
            files = " and ".join(what for what, _ in adapter.brings)
            warn(f"{key}: the adapter has its own {files}, which is used in place of the base's.")


@stage.command("finetune")
@click.argument("key")
@click.pass_obj
def finetune_command(experiment: Experiment, key: str) -> None:
    """Train a LoRA adapter on its parent."""
    from toxtrail.backends.compute.devices import environment_info, pick_device, set_num_threads
    from toxtrail.backends.huggingface.training.lora import HuggingFaceTuner
    from toxtrail.stages import finetune

    finetunes, runtime = experiment.config.finetunes, experiment.config.runtime
    if key not in finetunes:
        raise ConfigError(f'finetunes has no "{key}".{did_you_mean(key, finetunes)}')
    device, threads = pick_device(runtime.device), set_num_threads(runtime.threads)
    weights = make_weights(experiment)
    tuner = HuggingFaceTuner(weights, device, runtime.checkpoint_steps, progress())
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
    _tell_doubts(experiment, key)


@stage.command("generate")
@click.argument("variant")
@click.pass_obj
def generate_command(experiment: Experiment, variant: str) -> None:
    """Generate continuations of every prompt."""
    from toxtrail.backends.compute.devices import environment_info, set_num_threads
    from toxtrail.backends.huggingface.generation.generator import HuggingFaceModel
    from toxtrail.backends.huggingface.weights.load import load_model
    from toxtrail.backends.huggingface.weights.logit_probe import require_differs_from_parent
    from toxtrail.backends.protocols import Decoding
    from toxtrail.stages import generate

    config, store, variant_config = experiment.config, experiment.store, experiment.variant(variant)
    settings, runtime = config.generation, config.runtime
    if variant_config.served_as is not None:
        from toxtrail.cli.stage_served import generate_from_server

        generate_from_server(experiment, variant, variant_config.served_as)
        return
    if relaunch_distributed(experiment.root, runtime.processes, ("generate", variant)):
        return
    with process_group(runtime.device) as group:
        device, threads = group.device, set_num_threads(runtime.threads, group.here)
        card, folder = store.read_card(variant), store.model_dir(variant)
        parent = _parent_probe(experiment, card, settings.dtype, device)
        loaded = load_model(card, folder, make_weights(experiment), settings.dtype, device)
        if parent:
            require_differs_from_parent(card, parent[0], loaded.probe, parent[1])
        decoding = Decoding(
            settings.max_new_tokens, settings.temperature, settings.top_p, settings.template
        )
        model = HuggingFaceModel(
            loaded.model, loaded.tokenizer, decoding, runtime.batch_tokens, runtime.engine, warn
        )
        plan = {
            "threads": threads,
            "batch_tokens": runtime.batch_tokens,
            "engine": model.engine,
            "attention": model.attention,
            "linear": model.linear,
            "dtype": settings.dtype,
            "device": device,
            "processes": group.of,
        }
        output = store.generations_path(variant_config.family, variant)
        with record_execution(store, "generate", variant, output, plan, group.number == 0) as cost:
            cost |= generate.run(
                store,
                variant,
                variant_config,
                settings,
                model,
                environment_info(device),
                progress(),
                group,
            )


@stage.command("score")
@click.argument("variant")
@click.pass_obj
def score_command(experiment: Experiment, variant: str) -> None:
    """Score every continuation with every scorer."""
    from toxtrail.backends.compute.devices import environment_info, set_num_threads
    from toxtrail.backends.scorers.load import load_scorer
    from toxtrail.stages import score

    store, runtime = experiment.store, experiment.config.runtime
    family, config = experiment.variant(variant).family, experiment.config.scoring.scorers
    if relaunch_distributed(experiment.root, runtime.processes, ("score", variant)):
        return
    with process_group(runtime.device) as group:
        device, threads = group.device, set_num_threads(runtime.threads, group.here)
        assets = make_asset_store(experiment)
        judges = [
            score.NamedScorer(
                name,
                load_scorer(scorer_config, assets, device, runtime.score_batch),
                scorer_config.head,
            )
            for name, scorer_config in config.items()
        ]
        plan = {"threads": threads, "score_batch": runtime.score_batch, "processes": group.of}
        output = store.scores_path(family, variant)
        with record_execution(store, "score", variant, output, plan, group.number == 0) as cost:
            cost |= score.run(
                store, variant, family, config, judges, environment_info(device), progress(), group
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

    variant_config, facts = experiment.variant(variant), environment_tags(experiment.root)
    for remark in track.run_variant(
        experiment.store, variant, variant_config, make_tracker(experiment), facts
    ):
        warn(remark)


def track_comparison(experiment: Experiment, family: str) -> None:
    """Publish a family's comparison. See track_variant."""
    from toxtrail.stages import track

    (family,), facts = experiment.families((family,)), environment_tags(experiment.root)
    tracker = make_tracker(experiment)
    for remark in track.run_comparison(experiment.store, family, tracker, facts):
        warn(remark)


@stage.command("report")
@click.pass_obj
def report_command(experiment: Experiment) -> None:
    """Write one self-contained HTML file."""
    from toxtrail.stages import report

    report.run(experiment.store, list(experiment.config.families))


def warn(text: str) -> None:
    """Print a warning of a running stage."""
    echo(text, fg="yellow", err=True)


def doubts_of(experiment: Experiment) -> dict[str, list[str]]:
    """Return variant -> caveats of its identity, for identified weights."""
    from contextlib import suppress

    from toxtrail.audit.verify.weights import weak_marks
    from toxtrail.errors import DataError

    store, cards = experiment.store, {}
    for key in experiment.config.variants:
        if (store.model_dir(key) / "model.json").is_file():
            with suppress(DataError):  # a damaged card is what `verify` is about
                cards[key] = store.read_card(key)
    return weak_marks(experiment.config, cards)


def _tell_doubts(experiment: Experiment, key: str) -> None:
    for line in doubts_of(experiment).get(key, ()):
        warn(f"weak: {key}: {line}.")


def make_asset_store(experiment: Experiment, more: Sequence[str] = ()) -> AssetStore:
    """Return the asset cache of this experiment.

    Args:
        more: files and folders outside of it that the user named on the command line.
    """
    from toxtrail.backends.assets import AssetStore, default_cache

    outside = (*experiment.config.outside, *more)
    return AssetStore(default_cache(), experiment.root, progress(), outside)


def make_weights(experiment: Experiment) -> HuggingFaceWeights:
    """Return the resolver of weights."""
    from toxtrail.backends.assets import default_cache
    from toxtrail.backends.huggingface.weights.resolve import HuggingFaceWeights

    return HuggingFaceWeights(make_asset_store(experiment), default_cache(), progress())


def make_verifier(experiment: Experiment) -> HuggingFaceProver:
    """Return the verifier of weights."""
    from toxtrail.backends.compute.devices import pick_device, set_num_threads
    from toxtrail.backends.huggingface.weights.load import HuggingFaceProver

    runtime = experiment.config.runtime
    set_num_threads(runtime.threads)
    return HuggingFaceProver(make_weights(experiment), pick_device(runtime.device))


def _parent_probe(
    experiment: Experiment, card: ModelIdentity, dtype: str, device: str
) -> tuple[ModelIdentity, torch.Tensor] | None:
    """The parent's card and its logits on the probe sentences; None if `prove` compares the two,
    or there is nothing to compare with. Called first: two models need not fit into memory at once.
    """
    from toxtrail.backends.huggingface.weights.load import adds_one_adapter, load_model
    from toxtrail.stages.model import build_model_identity

    parent = experiment.config.variants[card.key].parent
    if parent is None:
        return None
    store, weights, models = experiment.store, make_weights(experiment), experiment.config.models
    exists = (store.model_dir(parent) / "model.json").is_file()
    if not exists and parent not in models:
        echo(f"{parent} is not made yet: {card.key} was not compared with it.", err=True)
        return None
    parent_card = (
        store.read_card(parent) if exists else build_model_identity(parent, models[parent], weights)
    )
    if adds_one_adapter(card, parent_card):
        return None
    return parent_card, load_model(
        parent_card, store.model_dir(parent), weights, dtype, device
    ).probe


def make_tracker(experiment: Experiment) -> MlflowTracker:
    """Return the MLflow store of this experiment, or that of MLflow's variables outside of one.

    Raises:
        ConfigError: there is none.
    """
    from toxtrail.backends.mlflow.tracker import MlflowTracker

    if experiment.exists:
        return MlflowTracker(experiment.root, experiment.config.tracking.experiment)
    name = os.environ.get("MLFLOW_EXPERIMENT_NAME")
    if not (name and os.environ.get("MLFLOW_TRACKING_URI")):
        raise ConfigError(
            "No params.yaml here or above. Go to an experiment's folder, give one with "
            "`toxtrail -C FOLDER ...`, or set MLFLOW_TRACKING_URI and MLFLOW_EXPERIMENT_NAME to "
            "read a team's server from anywhere."
        )
    return MlflowTracker(Path.cwd(), name)
