"""Find a server's request format, and read its metadata."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from toxtrail.backends.openai_api.client import Client, RefusedError, UnansweredError
from toxtrail.backends.openai_api.completions import (
    CompletionResponse,
    CompletionsApi,
    RequestFormat,
)
from toxtrail.errors import BackendError, ConfigError, did_you_mean

if TYPE_CHECKING:
    from requests import Response

BACKEND = "openai-api"
LISTED = 8
"""Largest number of model names in a message."""
LIST_TRIES = 2
"""Attempts to read the list of models, which is optional."""


class ModelListing(NamedTuple):
    """A server's list of models."""

    names: tuple[str, ...]
    entry: Mapping[str, Any]
    """Entry of the requested model; empty if it is not listed."""
    software: str
    """The `Server` header; empty if there is none."""

    def says_of(self, name: str) -> str:
        """Describe whether the name is listed."""
        if name in self.names:
            return "which lists this name"
        if self.names:
            return f"which does not list this name (it lists {', '.join(self.names[:LISTED])})"
        return "which lists no models"


def server_environment(
    client: Client,
    name: str,
    listed: ModelListing,
    terms: RequestFormat,
    first: CompletionResponse,
) -> dict[str, str]:
    """Describe a server and how requests are sent, for manifests.

    Args:
        name: of the model on the server.
        first: the server's first response.
    """
    metadata = {
        "server_software": listed.software,
        "server_version": _read_version(client),
        "server_answers_as": first.model,
        "server_fingerprint": first.fingerprint,
        **{f"server_{key}": listed.entry.get(key) for key in ("owned_by", "root", "parent")},
    }
    if listed.names and name not in listed.names:
        metadata["server_lists"] = ", ".join(listed.names[:LISTED])
    return {
        "backend": BACKEND,
        "served_model_name": name,
        **{k: client.masked(v) for k, v in metadata.items() if isinstance(v, str) and v},
        "prompts_sent_as": "token ids" if terms.as_tokens else "text",
        "unasked_penalties": "off" if terms.beyond_openai else "as the server has them",
    }


def read_listing(client: Client, name: str) -> ModelListing:
    """Read GET /v1/models, without `created`, which vLLM changes each time."""

    def read(response: Response) -> ModelListing:
        body = response.json()
        data = body.get("data") if isinstance(body, dict) else None
        if not isinstance(data, list):
            raise ValueError("it lists no models")
        entries = {e["id"]: e for e in data if isinstance(e, dict) and isinstance(e.get("id"), str)}
        software = response.headers.get("Server", "")
        return ModelListing(tuple(entries), entries.get(name, {}), software)

    try:
        return client.get(f"{client.url}/models", read, LIST_TRIES)
    except RefusedError as error:
        if error.status in (401, 403):
            raise
        return ModelListing((), {}, "")  # some gateways list nothing
    except UnansweredError as error:
        if error.status is None:
            raise
        return ModelListing((), {}, "")


def _read_version(client: Client) -> str | None:
    """Read vLLM's /version; None for other servers."""

    def read(response: Response) -> str | None:
        try:
            body = response.json()
        except ValueError:
            return None
        return str(body["version"]) if isinstance(body, dict) and "version" in body else None

    try:
        return client.get(f"{client.url.removesuffix('/v1')}/version", read)
    except (RefusedError, UnansweredError):
        return None


def find_format(
    client: Client,
    options: Sequence[tuple[RequestFormat, CompletionsApi]],
    ids: list[int],
    name: str,
    listed: ModelListing,
) -> tuple[RequestFormat, CompletionResponse]:
    """Return the first format in which the server reads a probe sentence as the right tokens."""
    problem = ""
    for terms, model in options:
        sent = model.sent(ids)
        if sent is None:
            continue
        try:
            reply = model.request(sent, 0)
        except RefusedError as error:
            if error.status in (404, 405):
                raise _not_found(client, name, listed, error) from None
            if error.status in (401, 403):
                raise
            problem = str(error)
            continue
        except UnansweredError as error:
            refuse_other_address(client, error)
            raise
        problem = model.misread(ids, reply)
        if not problem:
            return terms, reply
    raise BackendError(
        f'The server accepted none of {len(options)} request formats for "{name}", neither token '
        f"ids nor text. The last error: {problem}."
    )


def _not_found(
    client: Client, name: str, listed: ModelListing, error: RefusedError
) -> ConfigError | BackendError:
    """Return an error that tells which is missing: the address, the API, or the model."""
    refuse_other_address(client, error)
    if listed.names and name not in listed.names:
        return ConfigError(
            f'The server has no model "{name}" ({error}).{did_you_mean(name, listed.names)} '
            "Set served_model_name to a name that it lists."
        )
    reason = f'It lists the model "{name}", so' if listed.names else f'If it has "{name}",'
    return BackendError(
        f"{error}. {reason} it does not offer OpenAI's completions API, which toxtrail needs (POST "
        "/v1/completions): it formats and tokenizes prompts itself. A server "
        "with only the chat API (/v1/chat/completions) can be measured without known weights, as "
        "a model api:NAME; vLLM, SGLang and llama.cpp's server offer both."
    )


def refuse_other_address(client: Client, error: BackendError) -> None:
    """Raise ConfigError if the API is below /v1 and the URL does not include it."""
    if client.url.endswith("/v1"):
        return

    def lists(response: Response) -> bool:
        body = response.json()
        return isinstance(body, dict) and isinstance(body.get("data"), list)

    try:
        lists_models = client.get(f"{client.url}/v1/models", lists, 1)
    except (RefusedError, UnansweredError):
        return
    if lists_models:
        raise ConfigError(
            f"The server's API is below /v1. Set url: {client.url}/v1 at runtime.servers. ({error})"
        ) from None
