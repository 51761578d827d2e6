"""Connect to a server that a model is known by its name on, and find its request format.

Nothing is known of the weights, so nothing can be compared with them. What the server states is
recorded.
"""

from __future__ import annotations

from typing import NamedTuple

from toxtrail.backends.openai_api.chat_format import ChatFormat, next_format
from toxtrail.backends.openai_api.chat_model import ChatModel
from toxtrail.backends.openai_api.chat_reply import ChatReply
from toxtrail.backends.openai_api.client import Client, RefusedError, UnansweredError
from toxtrail.backends.openai_api.connection import (
    ModelListing,
    read_listing,
    refuse_other_address,
)
from toxtrail.backends.protocols import Decoding
from toxtrail.errors import BackendError, ConfigError, did_you_mean
from toxtrail.records.rows import Turn

BACKEND = "openai-api-chat"
FIRST_MESSAGE = Turn("user", "Hello.")
"""Sent once to find the request format."""
FORMAT_STATUS = (400, 422)
"""Status with which servers reject a field."""


class ApiModel(NamedTuple):
    """A connected server."""

    model: ChatModel
    environment: dict[str, str]
    """The request format and the model name in responses, for manifests. It contains nothing that
    may change from one response to the next."""
    listing: str
    """Whether its list of models has the name, as text."""


def connect_chat(client: Client, name: str, decoding: Decoding, concurrency: int) -> ApiModel:
    """Find the server's request format.

    Args:
        name: of the model on the server.

    Raises:
        ConfigError: the server has no model of this name, or rejects a generation setting.
        BackendError: no request format works.
    """
    listed = read_listing(client, name)
    terms, first = _find_format(client, name, decoding, listed)
    environment = {
        "backend": BACKEND,
        "server_answers_as": client.masked(first.model or "no name"),
        **terms.to_environment(),
    }
    model = ChatModel(client, name, decoding, terms, concurrency, first.model)
    return ApiModel(model, environment, client.masked(listed.says_of(name)))


def _find_format(
    client: Client, name: str, decoding: Decoding, listed: ModelListing
) -> tuple[ChatFormat, ChatReply]:
    terms = ChatFormat()
    while True:
        try:
            model = ChatModel(client, name, decoding, terms, 1, None)
            return terms, model.request((FIRST_MESSAGE,), 0)
        except UnansweredError as error:
            refuse_other_address(client, error)
            raise
        except RefusedError as error:
            if error.status in (404, 405):
                raise _not_found(client, name, listed, error) from None
            if error.status not in FORMAT_STATUS:
                raise
            terms = next_format(terms, decoding, error.server_message)


def _not_found(
    client: Client, name: str, listed: ModelListing, error: RefusedError
) -> ConfigError | BackendError:
    """Return an error that tells which is missing: the address, the API, or the model."""
    refuse_other_address(client, error)
    if listed.names and name not in listed.names:
        return ConfigError(
            f'The server has no model "{name}" ({error}).{did_you_mean(name, listed.names)} '
            "Write a name that it lists after api: in models."
        )
    return BackendError(
        f'{error}. If it has "{name}", it does not offer OpenAI\'s chat completions API (POST '
        "/v1/chat/completions)."
    )
