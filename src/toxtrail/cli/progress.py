"""How far long work is: a bar in a terminal, a line now and then in a log."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from rich.progress import Progress as RichProgress

    from toxtrail.backends.base import Advance, Progress

LOG_SECONDS = 15.0
NOTEWORTHY_SECONDS = 1.0
"""Files that are hashed or fetched faster than that are not worth a line in a log."""


def progress() -> Progress:
    """A bar where standard error is a terminal, else lines."""
    return Bars() if sys.stderr.isatty() else Lines()


class Bars:
    """Rich bars: done, total, rate and time left."""

    @contextmanager
    def bar(self, label: str, total: int | None, unit: str) -> Iterator[Advance]:
        """A bar for the length of the block."""
        with _rich(unit) as bars:
            task = bars.add_task(label, total=total)
            yield lambda done: bars.advance(task, done)


class Lines:
    """One line at the end, and one every few seconds before it."""

    @contextmanager
    def bar(self, label: str, total: int | None, unit: str) -> Iterator[Advance]:
        """Lines for the length of the block."""
        start = last = time.monotonic()
        done = 0

        def advance(more: int) -> None:
            nonlocal done, last
            done += more
            if time.monotonic() - last >= LOG_SECONDS and done != total:
                last = time.monotonic()
                click.echo(_line(label, done, total, unit, last - start), err=True)

        yield advance
        if unit in ("bytes", "files") and time.monotonic() - start < NOTEWORTHY_SECONDS:
            return
        click.echo(_line(label, done, total, unit, time.monotonic() - start), err=True)


def _line(label: str, done: int, total: int | None, unit: str, seconds: float) -> str:
    if unit == "bytes":
        done, total, unit = done >> 20, total and total >> 20, "MiB"
    rate = done / seconds if seconds else 0.0
    share = f" of {total}" if total is not None else ""
    left = f", {(total - done) / rate:.0f} s left" if total and rate and done < total else ""
    return f"{label}: {done}{share} {unit}, {rate:.1f} {unit}/s{left}"


def _rich(unit: str) -> RichProgress:
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        DownloadColumn,
        MofNCompleteColumn,
        Progress,
        ProgressColumn,
        Task,
        TextColumn,
        TimeRemainingColumn,
        TransferSpeedColumn,
    )
    from rich.text import Text

    class Speed(ProgressColumn):
        """Units per second."""

        def render(self, task: Task) -> Text:
            return Text(f"{unit}, {task.speed or 0:.1f}/s", style="progress.data.speed")

    amounts: tuple[ProgressColumn, ...] = (MofNCompleteColumn(), Speed())
    if unit == "bytes":
        amounts = (DownloadColumn(), TransferSpeedColumn())
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        *amounts,
        TimeRemainingColumn(),
        console=Console(stderr=True),
    )
