"""Several servers with the same weights, among which requests are divided."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from itertools import count
from typing import TYPE_CHECKING, Any, TypeVar

from toxtrail.backends.openai_api.client import Client, UnansweredError
from toxtrail.backends.openai_api.server import ServedVariant
from toxtrail.errors import BackendError

if TYPE_CHECKING:
    from requests import Response

Read = TypeVar("Read")


class ReplicaClient(Client):
    """Client that sends each request to the next server, and to the others if it does not
    respond; several threads may share it."""

    def __init__(self, clients: Sequence[Client]) -> None:
        self._clients = tuple(clients)
        self._turn = count()

    def post(self, path: str, body: Mapping[str, Any], read: Callable[[Response], Read]) -> Read:
        """Send JSON to a server, and read the response. See `Client.post`.

        Raises:
            UnansweredError: no server gave a readable response; with the last one's address.
        """
        first, problem = next(self._turn), UnansweredError("there is no server", None)
        for offset in range(len(self._clients)):
            try:
                return self._clients[(first + offset) % len(self._clients)].post(path, body, read)
            except UnansweredError as error:
                problem = error
        raise problem

    def masked(self, text: str) -> str:
        """Mask secrets in a server's text; all servers have the same key."""
        return self._clients[0].masked(text)

    def stop(self) -> None:
        """Start no further attempt, in any thread."""
        for client in self._clients:
            client.stop()


def joined(clients: Sequence[Client], served: Sequence[ServedVariant]) -> ServedVariant:
    """Return one variant for several checked servers of it.

    Raises:
        BackendError: two of them differ, so that rows would not have one origin.
    """
    first = served[0]
    for client, other in zip(clients, served, strict=True):
        names = sorted({*first.environment, *other.environment})
        for name in names:
            was, now = first.environment.get(name), other.environment.get(name)
            if was != now:
                raise BackendError(
                    f"{client.url}: {name} is {now}, that of {clients[0].url} is {was}. Start the "
                    "same version with the same settings on all servers of a variant."
                )
    if len(clients) == 1:
        return first
    return first._replace(
        model=first.model.through(ReplicaClient(clients)),
        agreement=f"{first.agreement}, on each of {len(clients)} servers",
        unlike_parent=all(variant.unlike_parent for variant in served),
    )
