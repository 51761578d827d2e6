"""Send a bounded number of requests in parallel."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from multiprocessing.pool import ThreadPool
from typing import TypeVar

from toxtrail.backends.openai_api.client import Client, UnansweredError
from toxtrail.errors import BackendError

Reply = TypeVar("Reply")

GIVE_UP_AFTER = 20
"""Consecutive rows without a response after which the server is considered down. Our choice."""


def in_parallel(
    client: Client, concurrency: int, count: int, ask: Callable[[int], Reply]
) -> Iterator[tuple[int, Reply | str]]:
    """Send the requests 0 to count - 1; yield each number as soon as its response arrives, with the
    reply, or with the reason why there is none.

    Args:
        concurrency: number of parallel requests.
        ask: sends a request by its number; may raise UnansweredError.

    Raises:
        BackendError: many requests in a row have no response, or `ask` raises it.
    """

    def ask_for(number: int) -> tuple[int, Reply | str]:
        try:
            return number, ask(number)
        except UnansweredError as error:
            return number, str(error)

    silent, threads = 0, min(concurrency, count)
    # an interrupted run does not wait for pending responses
    with ThreadPool(threads or 1) as pool, ExitStack() as unfinished:
        unfinished.callback(client.stop)
        for number, reply in pool.imap_unordered(ask_for, range(count)):
            silent = silent + 1 if isinstance(reply, str) else 0
            if silent >= GIVE_UP_AFTER:
                raise BackendError(
                    f"{silent} consecutive requests had no response; the last: {reply}. "
                    "Finished rows are kept: run again when the server is back."
                )
            yield number, reply
        unfinished.pop_all()
