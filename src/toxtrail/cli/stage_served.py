"""`toxtrail stage generate` of a variant that a server serves."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from toxtrail.cli.stage import make_weights, warn
from toxtrail.errors import ConfigError
from toxtrail.execution.distributed import process_group
from toxtrail.execution.progress import progress
from toxtrail.execution.telemetry import record_execution
from toxtrail.experiment import Experiment
from toxtrail.redaction import redacted

if TYPE_CHECKING:
    from toxtrail.backends.openai_api.server import ServedVariant
    from toxtrail.backends.protocols import Decoding
    from toxtrail.config.schema import Config, ServerConfig


def generate_from_server(experiment: Experiment, variant: str, name: str) -> None:
    """Generate with a server; only the first process sends requests."""
    from toxtrail.backends.protocols import Decoding
    from toxtrail.stages import generate

    config, store, variant_config = experiment.config, experiment.store, experiment.variant(variant)
    settings, server = config.generation, server_config(config, variant)
    decoding = Decoding(
        settings.max_new_tokens, settings.temperature, settings.top_p, settings.template
    )
    with process_group("cpu") as group:
        served = connect_server(experiment, variant, name, decoding)
        plan = {
            "server": redacted(server.url),
            "concurrency": server.concurrency,
            "probe": served.agreement,
        }
        output = store.generations_path(variant_config.family, variant)
        with record_execution(store, "generate", variant, output, plan, group.number == 0) as cost:
            cost |= generate.run(
                store,
                variant,
                variant_config,
                settings,
                served.model,
                served.environment,
                progress(),
                group,
            )


def server_config(config: Config, variant: str) -> ServerConfig:
    """Return the server of a variant.

    Raises:
        ConfigError: params.yaml has none.
    """
    server = (config.runtime.servers or {}).get(variant)
    if server is None:
        raise ConfigError(
            f"variants.{variant}.served_as says that a server holds its weights; runtime.servers."
            f"{variant} must say where: {{url: http://HOST:8000/v1, concurrency: 16, timeout: 300, "
            "tries: 6}."
        )
    return server


def connect_server(
    experiment: Experiment, variant: str, name: str, decoding: Decoding
) -> ServedVariant:
    """Connect to the server of a variant, after its probe matches the model card."""
    from toxtrail.backends.openai_api.client import Client
    from toxtrail.backends.openai_api.server import connect, local_parts

    store, server = experiment.store, server_config(experiment.config, variant)
    card, parent = store.read_card(variant), experiment.variant(variant).parent
    parent_exists = parent is not None and (store.model_dir(parent) / "model.json").is_file()
    client = Client(
        server.url,
        server.concurrency,
        server.timeout,
        server.tries,
        os.environ.get("TOXTRAIL_SERVER_KEY"),
    )
    served = connect(
        client,
        name,
        card,
        store.read_card(parent).probe if parent and parent_exists else None,
        local_parts(card, store.model_dir(variant), make_weights(experiment)),
        decoding,
        server.concurrency,
    )
    warn(f'{variant} is made as "{name}" by {server.url}, {served.listing}: {served.agreement}.')
    if not served.unlike_parent:
        warn(f"The probe cannot tell {variant} from {parent}: the server may serve either.")
    return served
