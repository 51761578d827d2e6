"""Run several requests in parallel threads."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Iterator
from typing import Generic, TypeVar

Result = TypeVar("Result")


class _Workers(Generic[Result]):
    """Threads that share the numbers 0 to count - 1.

    They are daemon threads, unlike those of concurrent.futures: an interrupted run does not wait
    for pending responses.
    """

    def __init__(self, work: Callable[[int], Result], count: int) -> None:
        self.results = queue.SimpleQueue[Result | BaseException]()
        self.ended = threading.Event()
        self._work = work
        self._numbers = queue.SimpleQueue[int]()
        for number in range(count):
            self._numbers.put(number)

    def start(self, width: int) -> None:
        for _ in range(width):
            threading.Thread(target=self._run, daemon=True).start()

    def _run(self) -> None:
        while not self.ended.is_set():
            try:
                self.results.put(self._work(self._numbers.get_nowait()))
            except queue.Empty:
                return
            except BaseException as error:  # noqa: BLE001  raised again by the thread that waits
                self.results.put(error)
                return


def side_by_side(
    work: Callable[[int], Result], count: int, width: int, stop: Callable[[], None]
) -> Iterator[Result]:
    """Call `work` with 0 to count - 1, `width` at a time; yield each result when it is ready.

    Args:
        stop: called if it ends before all are finished.
    """
    workers, done = _Workers(work, count), 0
    workers.start(min(width, count))
    try:
        while done < count:
            result = workers.results.get()
            if isinstance(result, BaseException):
                raise result
            done += 1
            yield result
    finally:
        workers.ended.set()
        if done < count:
            stop()
