"""What a library raises over somebody's file -> one error that names the file and what to do."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from toxtrail.errors import BackendError, ToxtrailError, is_of_the_system
from toxtrail.text_escaping import clipped, visible

SHOWN = 300
"""Characters of a library's message that are shown."""


@contextmanager
def library_errors(what: str, cure: str) -> Iterator[None]:
    """Wrap calls into one library: any exception of it becomes a BackendError.

    Which types a library raises for a file of the wrong form is written nowhere (TypeError,
    AttributeError, KeyError, a panic of Rust code ...), so all are taken. Nothing but the library's
    calls belongs inside: a bug of ours keeps its traceback. What the system refused (memory, disk,
    permissions) says nothing of the file and passes.

    Args:
        what: whose file, and what could not be done with it.
        cure: what to do, one sentence.

    Raises:
        BackendError: with type and message of what was raised.
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
    """Type and message of an exception, safe to show."""
    return summary(type(error).__name__, str(error))


def summary(name: str, message: str) -> str:
    """What an exception is called, and what it says, in one line."""
    return f"{name}: {clipped(visible(' '.join(message.split()) or 'no message'), SHOWN)}"


def _is_panic(error: BaseException) -> bool:
    """Rust libraries (tokenizers, safetensors) raise their panics as no Exception."""
    return type(error).__name__ == "PanicException"
