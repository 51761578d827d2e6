"""Output to the terminal: secrets are masked, and control characters in foreign text are
escaped."""

from __future__ import annotations

import io
import logging
import os
import sys
import traceback
import warnings
from collections.abc import Sequence
from types import TracebackType
from typing import TYPE_CHECKING, Any

import click

from toxtrail.errors import ToxtrailError
from toxtrail.redaction import redacted
from toxtrail.text_escaping import escape_control_chars

if TYPE_CHECKING:
    from rich.console import Console
    from rich.text import Text


class ClosedOutput(io.TextIOBase):
    """Replacement for a standard output that was closed before the program started."""

    def write(self, text: str) -> int:
        """Discard the text, which libraries may print."""
        return len(text)


def shown(text: object, keep: str = "") -> str:
    """Return a text that is safe to print.

    Args:
        keep: control characters to leave unchanged (line breaks between toxtrail's own lines).
    """
    return escape_control_chars(redacted(str(text)), keep)


def echo(
    text: object = "",
    *,
    err: bool = False,
    nl: bool = True,
    fg: str | None = None,
    bold: bool | None = None,
) -> None:
    """Print a message on standard output or standard error.

    Raises:
        ToxtrailError: standard output is closed.
    """
    if not err:
        _refuse_closed()
    line = shown(text, keep="\n\t")
    styled = line if fg is None and bold is None else click.style(line, fg=fg, bold=bold)
    # By name, or click would write UTF-8 where the environment asks for ASCII.
    click.echo(styled, file=sys.stderr if err else sys.stdout, err=err, nl=nl)


def warn(text: str) -> None:
    """Print a warning to standard error."""
    echo(text, fg="yellow", err=True)


def echo_data(text: str) -> None:
    """Print machine-readable text on standard output, unchanged unless it is a terminal."""
    _refuse_closed()
    exact = text if not sys.stdout.isatty() else escape_control_chars(text, keep="\n")
    click.echo(exact, nl=False, color=True)  # or click would leave out some of it


def console(width: int | None = None, *, err: bool = False) -> Console:
    """Return a Rich console for tables, trees and bars, whose texts are `cell`s."""
    from rich.console import Console

    if not err:
        _refuse_closed()
    return Console(width=width, highlight=False, markup=False, emoji=False, stderr=err)


def cell(text: object, style: str = "") -> Text:
    """Return a one-line text of a table, a tree or a bar."""
    from rich.text import Text

    return Text(shown(text), style=style)


def joined(*cells: Text) -> Text:
    """Join cells into one."""
    from rich.text import Text

    return Text("").join(cells)


def lines(cells: Sequence[Text]) -> Text:
    """Join cells into one, one below the other."""
    from rich.text import Text

    return Text("\n").join(cells)


def prepare() -> None:
    """Make this process's streams, warnings, logs and crash output safe; called once, at its start.

    Warnings of libraries are intended for developers: they are shown only on request (`python -W`,
    PYTHONWARNINGS).
    """
    _open_streams()
    warnings.showwarning = _show_warning
    logging.setLogRecordFactory(SafeRecord)
    sys.excepthook = print_crash


def finish() -> None:
    """Flush the output. Output that cannot be written is dropped, so that Python does not retry at
    exit: the failure was already reported."""
    try:
        sys.stdout.flush()
    except OSError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)


class SafeRecord(logging.LogRecord):
    """Log record whose message is safe to print."""

    def getMessage(self) -> str:  # noqa: N802  logging's own name
        """Return the message in a form that is safe to print."""
        return shown(super().getMessage(), keep="\n\t")


def print_crash(
    kind: type[BaseException], error: BaseException, trace: TracebackType | None
) -> None:
    """Print the traceback of a bug."""
    lines = "".join(traceback.format_exception(kind, error, trace))
    echo(lines, err=True, nl=False)


def _show_warning(message: Any, category: type[Warning], *where: Any, **more: Any) -> None:
    if sys.warnoptions:
        echo(f"{category.__name__}: {message}", err=True)


def _refuse_closed() -> None:
    if isinstance(sys.stdout, ClosedOutput):
        raise ToxtrailError("Standard output is closed. Open it, or send it to a file.")


def _open_streams() -> None:
    """Open closed standard streams and escape characters that the terminal does not support.

    The file descriptor of a closed standard stream would be reused by the next opened file, and
    output of a library would be written into that file.
    """
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            os.set_inheritable(os.open(os.devnull, os.O_RDWR), True)
    if sys.stdout is None:
        sys.stdout = ClosedOutput()
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
