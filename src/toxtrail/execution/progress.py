"""Progress of long operations: a bar in a terminal, occasional lines in a log."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from toxtrail.console import cell, console, echo, has_escapes, shown
from toxtrail.execution.memory import peak_mib

if TYPE_CHECKING:
    from rich.progress import Progress as RichProgress
    from rich.text import Text  # noqa: TID251  the type alone

    from toxtrail.backends.protocols import Progress, ProgressCallback

LOG_SECONDS = 15.0
NOTEWORTHY_SECONDS = 1.0
"""Hashing and downloads shorter than this are not logged."""


def progress() -> Progress:
    """Yield a progress bar if standard error is a terminal with escape codes, else log lines."""
    return ProgressBars() if has_escapes(sys.stderr) else LogProgress()


class ProgressBars:
    """Rich bars with done, total, rate, time left and memory."""

    @contextmanager
    def bar(
        self, label: str, total: int | None, unit: str, completed: int = 0
    ) -> Iterator[ProgressCallback]:
        """Show a bar during the block."""
        start, tokens_done = time.monotonic(), 0
        with _rich(unit) as bars:
            task = bars.add_task(shown(label), total=total, completed=completed, more="")

            def advance(done: int, *, tokens: int = 0) -> None:
                nonlocal tokens_done
                tokens_done += tokens
                bars.update(task, advance=done, more=_more(tokens_done, time.monotonic() - start))

            yield advance


class LogProgress:
    """Log lines every few seconds and at the end."""

    @contextmanager
    def bar(
        self, label: str, total: int | None, unit: str, completed: int = 0
    ) -> Iterator[ProgressCallback]:
        """Write lines during the block."""
        start = last = time.monotonic()
        all_done, tokens_done = completed, 0

        def line() -> str:
            seconds = time.monotonic() - start
            return _line(label, all_done, total, unit, seconds, completed) + _more(
                tokens_done, seconds
            )

        def advance(done: int, *, tokens: int = 0) -> None:
            nonlocal all_done, tokens_done, last
            all_done, tokens_done = all_done + done, tokens_done + tokens
            if time.monotonic() - last >= LOG_SECONDS and all_done != total:
                last = time.monotonic()
                echo(line(), err=True)

        yield advance
        if unit in ("bytes", "files") and time.monotonic() - start < NOTEWORTHY_SECONDS:
            return
        echo(line(), err=True)


def _line(label: str, done: int, total: int | None, unit: str, seconds: float, initial: int) -> str:
    if unit == "bytes":
        done, total, unit, initial = done >> 20, total and total >> 20, "MiB", initial >> 20
    rate = (done - initial) / seconds if seconds else 0.0
    if initial and done == initial:
        return f"{label}: {done} of {total} {unit}, all of them cached"
    share = f" of {total}" if total is not None else ""
    left = f", {(total - done) / rate:.0f} s left" if total and rate and done < total else ""
    return f"{label}: {done}{share} {unit}, {rate:.1f} {unit}/s{left}"


def _more(tokens: int, seconds: float) -> str:
    """Return tokens per second and memory, if tokens are counted."""
    if not tokens or not seconds:
        return ""
    return f", {tokens / seconds:.0f} tokens/s, {peak_mib() / 1024:.1f} GiB"


def _rich(unit: str) -> RichProgress:
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

    class Speed(ProgressColumn):
        """Units per second."""

        def render(self, task: Task) -> Text:
            return cell(f"{unit}, {task.speed or 0:.1f}/s", "progress.data.speed")

    amounts: tuple[ProgressColumn, ...] = (MofNCompleteColumn(), Speed())
    if unit == "bytes":
        amounts = (DownloadColumn(), TransferSpeedColumn())
    return Progress(
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        *amounts,
        TimeRemainingColumn(),
        TextColumn("{task.fields[more]}", markup=False),
        console=console(err=True),
    )
