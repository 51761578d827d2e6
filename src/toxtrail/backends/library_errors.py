"""Convert a library's exceptions to one error that names the file and what to do."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from toxtrail.errors import BackendError, ToxtrailError, is_of_the_system
from toxtrail.text_escaping import escape_control_chars, truncate_text

MAX_MESSAGE = 300
"""Largest number of characters of a library's message in an error."""


@contextmanager
def library_errors(what: str, cure: str) -> Iterator[None]:
    """Wrap calls into one library: any exception it raises becomes a BackendError.

    The types that a library raises for an invalid file are not documented (TypeError,
    AttributeError, KeyError, a panic of Rust code ...), so all are caught. Only calls to the
    library belong inside: our own bugs keep their traceback. Errors of the system (memory, disk,
    permissions) are not about the file and are re-raised.

    Args:
        what: the file, and what failed.
        cure: what to do, one sentence.

    Raises:
        BackendError: with the type and message of the exception.
    """
    try:
        yield
    except (ToxtrailError, KeyboardInterrupt, SystemExit, GeneratorExit):
        raise
    except BaseException as error:
        if is_of_the_system(error) or not (isinstance(error, Exception) or _is_panic(error)):
            raise
        raise BackendError(f"{what} ({described(error)}). {cure}") from error


def described(error: BaseException) -> str:
    """Format the type and message of an exception, safe to display."""
    return summary(type(error).__name__, str(error))


def summary(name: str, message: str) -> str:
    """Format the name and message of an exception on one line."""
    text = escape_control_chars(" ".join(message.split()) or "no message")
    return f"{name}: {truncate_text(text, MAX_MESSAGE)}"


def _is_panic(error: BaseException) -> bool:
    """Return whether it is a panic of a Rust library, which is not a subclass of Exception."""
    return type(error).__name__ == "PanicException"
