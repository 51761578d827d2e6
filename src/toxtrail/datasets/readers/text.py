"""Text of a user file: valid UTF-8, and not a file of another format under a wrong name."""

from __future__ import annotations

import re
import unicodedata
from pathlib import Path
from typing import NamedTuple

from toxtrail.errors import DataError
from toxtrail.regular_files import read_bytes


class Format(NamedTuple):
    """Unsupported file format."""

    start: bytes
    """First bytes of such a file."""
    name: str
    cure: str


def _encoded(start: bytes, name: str) -> Format:
    return Format(
        start, f"text in {name}", f"Convert it: iconv -f {name} -t UTF-8 FILE > NEW_FILE."
    )


UNPACK = "Unpack it, and name the unpacked file."
EXPORT = "Export the table as a .csv file in UTF-8."
BINARY = (
    Format(b"PK", "a ZIP archive (.xlsx and .ods spreadsheets are such archives)", EXPORT),
    Format(b"\xd0\xcf\x11\xe0", "an old Microsoft Office file (.xls, .doc)", EXPORT),
    Format(b"\x1f\x8b", "compressed with gzip", UNPACK),
    Format(b"BZh", "compressed with bzip2", UNPACK),
    Format(b"\xfd7zXZ\x00", "compressed with xz", UNPACK),
    Format(b"\x28\xb5\x2f\xfd", "compressed with zstd", UNPACK),
    Format(b"7z\xbc\xaf", "a 7z archive", UNPACK),
    Format(b"Rar!", "a RAR archive", UNPACK),
    Format(b"PAR1", "a Parquet file", "Name it .parquet."),
    Format(b"ARROW1", "an Arrow file", "Write it as .parquet."),
    Format(b"SQLite format 3\x00", "an SQLite database", EXPORT),
    Format(b"\x89HDF", "an HDF5 file", EXPORT),
    _encoded(b"\xff\xfe\x00\x00", "UTF-32"),
    _encoded(b"\x00\x00\xfe\xff", "UTF-32"),
    _encoded(b"\xff\xfe", "UTF-16"),
    _encoded(b"\xfe\xff", "UTF-16"),
)
"""Formats detected only in files that are not UTF-8 text."""

POINTERS = (
    Format(
        b"version https://git-lfs.github.com/spec/",
        "a Git LFS pointer, not the file itself",
        "Fetch the file: git lfs pull.",
    ),
    Format(
        b"/annex/objects/",
        "a git-annex pointer, not the file itself",
        "Fetch the file: git annex get.",
    ),
    Format(b"%PDF-", "a PDF file", EXPORT),
    Format(b"{\\rtf", "an RTF document", "Save it as plain text in UTF-8."),
)
"""Text files that refer to the data."""

PAGE = re.compile(rb"\s*(<!doctype html|<html[\s>]|<\?xml\s)", re.IGNORECASE)
ANSWERS = (b"404: Not Found", b"Not Found", b"Entry not found", b"Repository not found")
"""Error responses of servers in place of a file."""

CONFLICT = re.compile(r"^<{7} .*?^={7}\r?$.*?^>{7} ", re.MULTILINE | re.DOTALL)
"""Git's markers of a merge conflict."""

INVISIBLE = frozenset(
    "\u034f\u115f\u1160\u17b4\u17b5\u2800\u3164\uffa0"
    + "".join(map(chr, (*range(0xFE00, 0xFE10), *range(0xE0100, 0xE01F0))))
)
"""Invisible characters that Unicode does not classify as spaces, controls or formats: fillers and
variation selectors."""


def read_text(path: Path) -> str:
    """Return the file's text without a byte order mark.

    Raises:
        DataError: the file is empty, not UTF-8, binary, a pointer or web page in place of the data,
            or
            contains an unresolved merge conflict.
    """
    content = read_bytes(path, limit=None)
    refuse_pages(path, content)
    try:
        text = content.decode("utf-8").lstrip("\ufeff")
    except UnicodeDecodeError as error:
        raise _not_utf8(path, content, error) from None
    if "\x00" in text:
        raise _binary(path, content) or DataError(
            f"{path.name}, line {line_of(text, text.index(chr(0)))}: found a NUL byte, so this is "
            "not UTF-8 text. If it is UTF-16: iconv -f UTF-16 -t UTF-8 FILE > NEW_FILE."
        )
    if not text.strip():
        raise DataError(f"{path.name} is empty.")
    if line := conflict_line(text):
        raise DataError(
            f"{path.name}, line {line}: found the markers of an unresolved merge conflict "
            "(<<<<<<<, =======, >>>>>>>). Resolve it: keep one version and delete the markers."
        )
    return text


def read_lines(path: Path) -> list[str]:
    """Return the file's lines for any type of line end."""
    lines = read_text(path).replace("\r\n", "\n").replace("\r", "\n").split("\n")
    return lines[:-1] if lines[-1] == "" else lines


def refuse_pages(path: Path, content: bytes) -> None:
    """Reject text files that do not contain the data.

    Raises:
        DataError: the text is a pointer, a web page, or a server's error.
    """
    start = content.removeprefix(b"\xef\xbb\xbf")
    for pointer in POINTERS:
        if start.startswith(pointer.start):
            raise DataError(f"{path.name} is {pointer.name}. {pointer.cure}")
    if PAGE.match(start) and start.rstrip().endswith(b">"):
        raise DataError(
            f"{path.name} is a web page (HTML or XML), not data. Download the file itself."
        )
    if start.strip() in ANSWERS:
        raise DataError(
            f'{path.name} contains only a server\'s response ("{start.strip().decode()}"), no '
            "data. Download the file again."
        )


def conflict_line(text: str) -> int | None:
    """Return the line number, from 1, of the first unresolved merge conflict."""
    match = CONFLICT.search(text) if "\n>>>>>>> " in text else None
    return line_of(text, match.start()) if match else None


def line_of(text: str, position: int) -> int:
    """Return the line number, from 1, of a character."""
    return text.count("\n", 0, position) + 1


def is_blank(text: str) -> bool:
    """Return whether a text has no visible characters: only spaces, controls, zero-width
    characters."""
    return all(c in INVISIBLE or unicodedata.category(c) in BLANK for c in text)


BLANK = frozenset(("Cc", "Cf", "Zs", "Zl", "Zp"))
"""Unicode categories of invisible characters."""


def _binary(path: Path, content: bytes) -> DataError | None:
    signature = next(
        (candidate for candidate in BINARY if content.startswith(candidate.start)), None
    )
    return signature and DataError(f"{path.name} is {signature.name}. {signature.cure}")


def _not_utf8(path: Path, content: bytes, error: UnicodeDecodeError) -> DataError:
    line = content.count(b"\n", 0, error.start) + 1
    return _binary(path, content) or DataError(
        f"{path.name}, line {line}: byte 0x{content[error.start]:02x} is not UTF-8 text "
        f"({error.reason}, byte {error.start} of the file). Convert the file, for example: iconv "
        "-f WINDOWS-1252 -t UTF-8 FILE > NEW_FILE."
    )
