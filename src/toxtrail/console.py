"""Output to the terminal: secrets are masked, and control characters in foreign text are escaped.

NO_COLOR and TERM=dumb are honoured: nothing but text is sent. A stream that cannot encode a
character gets its ASCII form or an escape.
"""

from __future__ import annotations

import atexit
import io
import logging
import os
import sys
import traceback
import warnings
from collections.abc import Mapping, Sequence
from types import TracebackType
from typing import TYPE_CHECKING, Any, TextIO

import click

from toxtrail.errors import ToxtrailError
from toxtrail.redaction import redacted
from toxtrail.text_escaping import escape_control_chars, escape_unencodable

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


def shown_on(stream: TextIO, text: object, keep: str = "") -> str:
    """Return a text that is safe to print on a stream and has only characters of its encoding."""
    return escape_unencodable(shown(text, keep), stream.encoding or "utf-8")


def has_escapes(stream: TextIO) -> bool:
    """Return whether colours and cursor movements may be sent: to a terminal, unless NO_COLOR is
    set (no-color.org) or TERM is dumb."""
    is_plain = bool(os.environ.get("NO_COLOR")) or os.environ.get("TERM") == "dumb"
    return stream.isatty() and not is_plain


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
    # By name, or click would write UTF-8 where the environment asks for ASCII.
    stream = sys.stderr if err else sys.stdout
    line = shown_on(stream, text, keep="\n\t")
    if has_escapes(stream) and (fg is not None or bold is not None):
        line = click.style(line, fg=fg, bold=bold)
    click.echo(line, file=stream, err=err, nl=nl, color=has_escapes(stream))


def warn(text: str) -> None:
    """Print a warning to standard error."""
    echo(text, fg="yellow", err=True)


def echo_data(text: str) -> None:
    """Print machine-readable text on standard output, unchanged and in UTF-8 unless it is a
    terminal."""
    _refuse_closed()
    if sys.stdout.isatty():
        exact = escape_control_chars(text, keep="\n")
        click.echo(escape_unencodable(exact, sys.stdout.encoding), nl=False)
    else:
        click.echo(text, nl=False, color=True)  # or click would leave out some of it


def echo_lines(lines: Sequence[str]) -> None:
    """Print lines that are safe to print, with their colours, on standard output."""
    _refuse_closed()
    click.echo("\n".join(lines), file=sys.stdout, color=has_escapes(sys.stdout))


def console(width: int | None = None, *, err: bool = False) -> Console:
    """Return a Rich console for trees and bars, whose texts are `cell`s."""
    from rich.console import Console

    if not err:
        _refuse_closed()
    stream = sys.stderr if err else sys.stdout
    return Console(
        file=stream,
        width=width,
        highlight=False,
        markup=False,
        emoji=False,
        color_system="auto" if has_escapes(stream) else None,
    )


def cell(text: object, style: str = "") -> Text:
    """Return a one-line text of a tree or a bar."""
    from rich.text import Text

    return Text(shown_on(sys.stdout, text), style=style)


def joined(*cells: Text) -> Text:
    """Join cells into one."""
    from rich.text import Text

    return Text("").join(cells)


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
    if "colorama" in sys.modules and not has_escapes(sys.stdout):
        atexit.unregister(sys.modules["colorama"].initialise.reset_all)  # as DVC's registers it
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
    is_ascii = is_ascii_locale(os.environ)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            encoding = "ascii" if is_ascii else stream.encoding
            stream.reconfigure(encoding=encoding, errors="backslashreplace")


def is_ascii_locale(environ: Mapping[str, str]) -> bool:
    """Return whether the locale is set to C or POSIX, whose characters are ASCII; Python writes
    UTF-8 there (PEP 538 sets LC_CTYPE to C.UTF-8, PEP 540). PYTHONIOENCODING and PYTHONUTF8
    precede."""
    if environ.get("PYTHONIOENCODING") or environ.get("PYTHONUTF8"):
        return False
    ctype = environ.get("LC_CTYPE", "")
    names = (environ.get("LC_ALL"), "" if ctype == "C.UTF-8" else ctype, environ.get("LANG"))
    return next(filter(None, names), "") in ("C", "POSIX")
