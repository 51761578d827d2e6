"""The one way to the terminal: secrets are masked, and no foreign text moves a cursor."""

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
    """Replaces a standard output that was closed before the program started."""

    def write(self, text: str) -> int:
        """Libraries may print; nothing comes of it."""
        return len(text)


def shown(text: object, keep: str = "") -> str:
    """Any text as a terminal may get it.

    Args:
        keep: control characters to leave as they are (line breaks between our own lines).
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
    """A message: lines on standard output or standard error.

    Raises:
        ToxtrailError: standard output is closed.
    """
    if not err:
        _refuse_closed()
    line = shown(text, keep="\n\t")
    styled = line if fg is None and bold is None else click.style(line, fg=fg, bold=bold)
    # By name, or click would write UTF-8 where the environment asks for ASCII.
    click.echo(styled, file=sys.stderr if err else sys.stdout, err=err, nl=nl)


def echo_data(text: str) -> None:
    """Text for a program, on standard output: as it is, unless a terminal would interpret it."""
    _refuse_closed()
    exact = text if not sys.stdout.isatty() else escape_control_chars(text, keep="\n")
    click.echo(exact, nl=False, color=True)  # or click would leave out some of it


def console(width: int | None = None, *, err: bool = False) -> Console:
    """Rich's, for tables, trees and bars; their texts are `cell`s."""
    from rich.console import Console

    if not err:
        _refuse_closed()
    return Console(width=width, highlight=False, markup=False, emoji=False, stderr=err)


def cell(text: object, style: str = "") -> Text:
    """A text of a table, a tree or a bar, on one line."""
    from rich.text import Text

    return Text(shown(text), style=style)


def joined(*cells: Text) -> Text:
    """Cells as one."""
    from rich.text import Text

    return Text("").join(cells)


def lines(cells: Sequence[Text]) -> Text:
    """Cells below one another, as one."""
    from rich.text import Text

    return Text("\n").join(cells)


def prepare() -> None:
    """Make this process's streams, warnings, logs and last words safe; called once, at its start.

    Warnings of libraries are for their developers: they are shown only to those who ask for them
    (`python -W`, PYTHONWARNINGS).
    """
    _open_streams()
    warnings.showwarning = _show_warning
    logging.setLogRecordFactory(SafeRecord)
    sys.excepthook = print_crash


def finish() -> None:
    """Hand on what was printed. What cannot be is dropped, so that Python does not try it again at
    its exit: the failure was reported when it happened.
    """
    try:
        sys.stdout.flush()
    except OSError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)


class SafeRecord(logging.LogRecord):
    """A line of a library's log."""

    def getMessage(self) -> str:  # noqa: N802  logging's own name
        """As it may be shown."""
        return shown(super().getMessage(), keep="\n\t")


def print_crash(
    kind: type[BaseException], error: BaseException, trace: TracebackType | None
) -> None:
    """The traceback of a bug."""
    lines = "".join(traceback.format_exception(kind, error, trace))
    echo(lines, err=True, nl=False)


def _show_warning(message: Any, category: type[Warning], *where: Any, **more: Any) -> None:
    if sys.warnoptions:
        echo(f"{category.__name__}: {message}", err=True)


def _refuse_closed() -> None:
    if isinstance(sys.stdout, ClosedOutput):
        raise ToxtrailError(
            "Standard output is closed: nothing can be shown. Open it, or send it to a file."
        )


def _open_streams() -> None:
    """A closed standard stream would lend its number to the next file that is opened, and what a
    library prints would go into that file. Characters that a terminal has not are escaped.
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
