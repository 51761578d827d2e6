"""Choose and create the backends of an experiment: assets, weights, models, scorers, MLflow."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from toxtrail.config.plugins import SCORERS, EngineConfig, usage_problem
from toxtrail.config.sections import RESERVED_ARGUMENTS
from toxtrail.console import echo, warn
from toxtrail.errors import ConfigError, did_you_mean
from toxtrail.execution.progress import progress
from toxtrail.experiment import Experiment
from toxtrail.redaction import redacted

if TYPE_CHECKING:
    import torch

    from toxtrail.backends.assets import AssetStore
    from toxtrail.backends.huggingface.generation.generator import PromptEncoder
    from toxtrail.backends.huggingface.training.lora import HuggingFaceTuner
    from toxtrail.backends.huggingface.weights.load import HuggingFaceProver
    from toxtrail.backends.huggingface.weights.resolve import HuggingFaceWeights
    from toxtrail.backends.mlflow.tracker import MlflowTracker
    from toxtrail.backends.openai_api.chat_server import ApiModel
    from toxtrail.backends.openai_api.client import Client
    from toxtrail.backends.openai_api.server import ServedVariant
    from toxtrail.backends.protocols import Decoding, LanguageModel, Scorer
    from toxtrail.config.schema import Config, GenerationConfig, RuntimeConfig, ServerConfig
    from toxtrail.config.scorer_kinds.base import ScorerConfig
    from toxtrail.execution.distributed import ProcessGroup
    from toxtrail.execution.score_rows import NamedScorer
    from toxtrail.provenance.identity import ModelIdentity


class Generator(NamedTuple):
    """Model that continues prompts, and its settings to be recorded."""

    model: LanguageModel
    environment: Mapping[str, str]
    settings: Mapping[str, Any]
    """Settings for its execution record."""


def make_asset_store(experiment: Experiment, more: Sequence[str] = ()) -> AssetStore:
    """Return the asset cache of this experiment.

    Args:
        more: files and folders outside the experiment that the user named on the command line.
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


def make_tuner(experiment: Experiment, device: str) -> HuggingFaceTuner:
    """Return the trainer of adapters."""
    from toxtrail.backends.huggingface.training.lora import HuggingFaceTuner

    steps = experiment.config.runtime.checkpoint_steps
    return HuggingFaceTuner(make_weights(experiment), device, steps, progress())


@contextmanager
def open_generator(
    experiment: Experiment, variant: str, group: ProcessGroup
) -> Iterator[Generator]:
    """Return the model of a variant for the block: on a server if params.yaml defines one, with
    vLLM or a plug-in if it is the engine, else in this process."""
    from toxtrail.execution.plugin_generator import plugin_generator
    from toxtrail.execution.vllm_generator import vllm_generator

    api_name = experiment.config.api_name_of(variant)
    served_model_name = experiment.variant(variant).served_model_name
    engine = experiment.config.generation.engine
    if api_name is not None:
        yield _api_generator(experiment, variant, api_name)
    elif served_model_name is not None:
        yield _served_generator(experiment, variant, served_model_name)
    elif engine == "vllm":
        with vllm_generator(experiment, variant) as generator:
            yield generator
    elif isinstance(engine, EngineConfig):
        with plugin_generator(experiment, variant, engine, group) as generator:
            yield generator
    else:
        yield _local_generator(experiment, variant, group)


def _local_generator(experiment: Experiment, variant: str, group: ProcessGroup) -> Generator:
    from toxtrail.backends.compute.devices import environment_info, set_num_threads
    from toxtrail.backends.huggingface.generation.generator import HuggingFaceModel
    from toxtrail.backends.huggingface.weights.load import load_model
    from toxtrail.backends.huggingface.weights.logit_probe import require_differs_from_parent
    from toxtrail.backends.huggingface.weights.quantization import quantization_in_memory

    store, settings, runtime = (
        experiment.store,
        experiment.config.generation,
        experiment.config.runtime,
    )
    device, threads = group.device, set_num_threads(runtime.threads, group.here)
    card, folder = store.read_card(variant), store.model_dir(variant)
    parent = _parent_probe(experiment, card, settings.dtype, device)
    loaded = load_model(card, folder, make_weights(experiment), settings.dtype, device)
    if parent:
        require_differs_from_parent(card, parent[0], loaded.probe, parent[1])
    model = HuggingFaceModel(
        loaded.model,
        loaded.tokenizer,
        make_decoding(settings),
        runtime.batch_tokens,
        runtime.engine,
        warn,
    )
    recorded = {
        **prompt_settings(experiment, variant, model.encoder),
        "threads": threads,
        "batch_tokens": runtime.batch_tokens,
        "engine": model.engine,
        "attention": model.attention,
        "linear": model.linear,
        "dtype": settings.dtype,
        "device": device,
        "processes": group.of,
    }
    environment = environment_info(device)
    if quantization := quantization_in_memory(loaded.model):
        environment["weights"] = quantization
    return Generator(model, environment, recorded)


def _served_generator(experiment: Experiment, variant: str, name: str) -> Generator:
    server = server_config(experiment.config, variant)
    decoding = make_decoding(experiment.config.generation)
    served = connect_server(experiment, variant, name, decoding)
    recorded = {
        **prompt_settings(experiment, variant, served.model.encoder),
        "server": redacted(server.url),
        "concurrency": server.concurrency,
        "probe": served.agreement,
    }
    return Generator(served.model, served.environment, recorded)


def _api_generator(experiment: Experiment, variant: str, name: str) -> Generator:
    api = connect_api(experiment, variant, name, make_decoding(experiment.config.generation))
    server = server_config(experiment.config, variant)
    recorded = {
        "server": redacted(server.url),
        "concurrency": server.concurrency,
        "listing": api.listing,
    }
    return Generator(api.model, api.environment, recorded)


def connect_api(experiment: Experiment, variant: str, name: str, decoding: Decoding) -> ApiModel:
    """Connect to the server of a variant that is known by its name on it only."""
    from toxtrail.backends.openai_api.chat_server import connect_chat

    server = server_config(experiment.config, variant)
    api = connect_chat(make_client(server), name, decoding, server.concurrency)
    warn(
        f'{variant} is what {server.url} calls "{name}", {api.listing}; it answers as '
        f"{api.environment['server_answers_as']}. Its weights are not known: nothing verifies them."
    )
    if (left_out := api.environment["fields_not_sent"]) != "none":
        warn(f"{variant}: the server rejects {left_out}, so requests are sent without.")
    return api


def prompt_settings(experiment: Experiment, variant: str, encoder: PromptEncoder) -> dict[str, Any]:
    """Return the input that the chat template makes of a prompt, and the arguments that it does not
    read, for the execution record.

    Raises:
        ConfigError: the template of no model in params.yaml reads an argument.
    """
    arguments = experiment.config.generation.template_arguments or {}
    read = encoder.template_variables() if arguments else frozenset[str]()
    unread = [name for name in arguments if name not in read]
    if unread:
        refuse_unread(unread, read, _variables_of_models(experiment))
        warn(
            f"The chat template of {variant} does not read {', '.join(unread)}: no effect on "
            "its prompts."
        )
    prompt_format = encoder.prompt_format()
    return {
        **({"prompt_format": prompt_format} if prompt_format is not None else {}),
        **({"template_arguments_without_effect": unread} if unread else {}),
    }


def refuse_unread(
    unread: Sequence[str], read: frozenset[str], others: Iterator[frozenset[str]]
) -> None:
    """Raise ConfigError for an argument that no chat template reads.

    Args:
        unread: arguments that the template of this variant does not read.
        read: variables that it reads.
        others: variables that the templates of the other models read.
    """
    known, missing = set(read), set(unread)
    while missing and (variables := next(others, None)) is not None:
        known |= variables
        missing -= variables
    if missing:
        name = min(missing)
        raise ConfigError(
            f'generation.template_arguments: no chat template reads "{name}".'
            f"{did_you_mean(name, sorted(known - RESERVED_ARGUMENTS))}"
        )


def _variables_of_models(experiment: Experiment) -> Iterator[frozenset[str]]:
    """Yield the variables that the chat template of each model in params.yaml reads; its files are
    fetched if they are not here."""
    from toxtrail.backends.huggingface.weights.chat_template import template_variables
    from toxtrail.backends.huggingface.weights.load import verify_files
    from toxtrail.backends.huggingface.weights.model_identity import build_model_identity

    store, weights = experiment.store, make_weights(experiment)
    for key, model in experiment.config.models.items():
        if model.has_weights:
            folder = store.model_dir(key)
            exists = (folder / "model.json").is_file()
            card = store.read_card(key) if exists else build_model_identity(key, model, weights)
            tokenizer = verify_files(card, folder, weights).tokenizer()
            if tokenizer.chat_template is not None:
                yield template_variables(tokenizer, "generation.template")


def make_decoding(settings: GenerationConfig) -> Decoding:
    """Return the decoding parameters."""
    from toxtrail.backends.protocols import Decoding
    from toxtrail.records.rows import Turn

    system = () if settings.system is None else (Turn("system", settings.system),)
    return Decoding(
        settings.max_new_tokens,
        settings.temperature,
        settings.top_p,
        settings.template,
        (*system, *(Turn(turn.role, turn.content) for turn in settings.turns or ())),
        settings.template_arguments or {},
        settings.markers,
    )


def _parent_probe(
    experiment: Experiment, card: ModelIdentity, dtype: str, device: str
) -> tuple[ModelIdentity, torch.Tensor] | None:
    """Return the parent's card and its logits on the probe sentences; None if `prove` compares the
    two, or there is nothing to compare.

    Called first, because two models may not fit into memory at the same time.
    """
    from toxtrail.backends.huggingface.weights.load import adds_one_adapter, load_model
    from toxtrail.backends.huggingface.weights.model_identity import build_model_identity

    parent = experiment.config.variants[card.key].parent
    if parent is None:
        return None
    store, weights, models = experiment.store, make_weights(experiment), experiment.config.models
    exists = (store.model_dir(parent) / "model.json").is_file()
    if not exists and parent not in models:
        echo(f"{parent} is not made yet: {card.key} was not compared with it.", err=True)
        return None
    if parent in models and not models[parent].has_weights:
        echo(f"{parent} has no weights: {card.key} was not compared with it.", err=True)
        return None
    parent_card = (
        store.read_card(parent) if exists else build_model_identity(parent, models[parent], weights)
    )
    if adds_one_adapter(card, parent_card):
        return None
    return parent_card, load_model(
        parent_card, store.model_dir(parent), weights, dtype, device
    ).probe


def make_scorers(
    experiment: Experiment, configs: Mapping[str, ScorerConfig], device: str
) -> list[NamedScorer]:
    """Return these scorers of an experiment, loaded, or found on their servers."""
    assets, runtime = make_asset_store(experiment), experiment.config.runtime
    return make_named_scorers(configs, assets, device, runtime)


def make_named_scorers(
    configs: Mapping[str, ScorerConfig], assets: AssetStore, device: str, runtime: RuntimeConfig
) -> list[NamedScorer]:
    """Return these scorers, loaded, or found on their servers.

    Raises:
        ConfigError: a plug-in is missing, or not the pinned one.
    """
    from toxtrail.backends.scorers.load import load_scorer
    from toxtrail.execution.score_rows import NamedScorer

    for name, config in configs.items():
        if problem := usage_problem(f"scoring.scorers.{name}", SCORERS, config.kind, config):
            raise ConfigError(problem)
    return [
        _connected_scorer(name, config, assets, runtime)
        if config.is_served
        else NamedScorer(
            name,
            load_scorer(config, assets, device, runtime.score_batch_size),
            config.head_name,
            config.sees_prompt,
        )
        for name, config in configs.items()
    ]


def _connected_scorer(
    name: str, config: ScorerConfig, assets: AssetStore, runtime: RuntimeConfig
) -> NamedScorer:
    from toxtrail.backends.scorers.load import connect_scorer
    from toxtrail.execution.score_rows import TEXTS_PER_REQUEST, NamedScorer

    reason = f"scoring.scorers.{name}.served_model_name is set: its weights are on a server"
    server = _server_config(runtime, name, reason)
    connected = connect_scorer(config, assets, make_client(server), server.concurrency)
    measured = sum(golden.score is not None for golden in config.golden)
    checked = (
        f"its {measured} golden score(s) match"
        if measured
        else ("no golden text has a score, so nothing verifies which weights it uses")
    )
    warn(f"{name} is scored by {server.url}, {connected.listing}: {checked}.")
    return NamedScorer(
        name,
        connected.scorer,
        config.head_name,
        config.sees_prompt,
        connected.environment,
        TEXTS_PER_REQUEST * server.concurrency,
    )


def scoring_environment(scorers: Sequence[NamedScorer], device: str) -> dict[str, str]:
    """Return what can change the last bits of a score, for manifests: versions and hardware, and
    the servers of scorers as `<scorer>.<field>`."""
    from toxtrail.backends.compute.devices import environment_info

    servers = {
        f"{scorer.name}.{field}": value
        for scorer in scorers
        for field, value in scorer.environment.items()
    }
    return {**environment_info(device), **servers}


def load_scorers(experiment: Experiment, configs: Mapping[str, ScorerConfig]) -> dict[str, Scorer]:
    """Return these scorers, loaded onto the device of params.yaml."""
    from toxtrail.backends.compute.devices import pick_device, set_num_threads

    runtime = experiment.config.runtime
    set_num_threads(runtime.threads)
    scorers = make_scorers(experiment, configs, pick_device(runtime.device))
    return {named.name: named.scorer for named in scorers}


def server_config(config: Config, variant: str) -> ServerConfig:
    """Return the server of a variant.

    Raises:
        ConfigError: params.yaml has none.
    """
    name = config.api_name_of(variant)
    reason = f"variants.{variant}.served_model_name is set: its weights are on a server"
    if name is not None:
        reason = f"models.{variant}.uri is api:{name}, a model on a server"
    return _server_config(config.runtime, variant, reason)


def _server_config(runtime: RuntimeConfig, key: str, reason: str) -> ServerConfig:
    server = (runtime.servers or {}).get(key)
    if server is None:
        raise ConfigError(
            f"{reason}. Set runtime.servers.{key} to {{url: http://HOST:8000/v1, concurrency: 16, "
            "timeout: 300, max_attempts: 6}."
        )
    return server


def make_client(server: ServerConfig, url: str | None = None) -> Client:
    """Return the client of a server.

    Args:
        url: of one of its replicas; None: its own.
    """
    from toxtrail.backends.openai_api.client import Client

    return Client(
        url or server.url,
        server.concurrency,
        server.timeout,
        server.max_attempts,
        os.environ.get("TOXTRAIL_SERVER_KEY"),
    )


def connect_server(
    experiment: Experiment, variant: str, name: str, decoding: Decoding
) -> ServedVariant:
    """Connect to the server of a variant, after its probe matches the model card."""
    from toxtrail.backends.openai_api.replicas import joined
    from toxtrail.backends.openai_api.server import connect, local_parts

    store, server = experiment.store, server_config(experiment.config, variant)
    card, parent = store.read_card(variant), experiment.variant(variant).parent
    parent_exists = parent is not None and (store.model_dir(parent) / "model.json").is_file()
    parent_probe = store.read_card(parent).probe if parent and parent_exists else None
    local = local_parts(card, store.model_dir(variant), make_weights(experiment))
    clients = [make_client(server, url) for url in (server.url, *(server.replicas or ()))]
    served = joined(
        clients,
        [
            connect(client, name, card, parent_probe, local, decoding, server.concurrency)
            for client in clients
        ],
    )
    warn(
        f'{variant} is generated as "{name}" by {server.url}, {served.listing}: {served.agreement}.'
    )
    if not served.unlike_parent:
        warn(
            f"The probe does not distinguish {variant} from {parent}: the server may serve either."
        )
    return served


def has_mlflow_variables() -> bool:
    """Return whether MLflow's variables name a store and an experiment in it."""
    return all(os.environ.get(f"MLFLOW_{name}") for name in ("TRACKING_URI", "EXPERIMENT_NAME"))


def make_tracker(experiment: Experiment) -> MlflowTracker:
    """Return the MLflow store of this experiment, or that of MLflow's variables outside of one,
    restricted to the runs of `experiment.project`.

    Raises:
        ConfigError: there is none.
    """
    from toxtrail.backends.mlflow.tracker import MlflowTracker

    if experiment.exists:
        experiment.warn_of_replaced_experiment()
        tracking = experiment.config.tracking
        return MlflowTracker(experiment.root, tracking.experiment, experiment.project)
    name = os.environ.get("MLFLOW_EXPERIMENT_NAME")
    if not name or not has_mlflow_variables():
        raise ConfigError(
            "No params.yaml here or above. Go to an experiment's folder, give one with "
            "`toxtrail -C FOLDER ...`, or set MLFLOW_TRACKING_URI and MLFLOW_EXPERIMENT_NAME to "
            "read a team's server from anywhere."
        )
    return MlflowTracker(Path.cwd(), name, experiment.project)
