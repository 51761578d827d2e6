"""Escaping of foreign text for display: terminal, spreadsheet, Markdown, LaTeX.

A continuation may contain escape codes, bidi overrides, formulas or markup. Stored text is not
changed.
"""

from __future__ import annotations

import re
import unicodedata
from functools import partial
from itertools import groupby

FORMULA = frozenset("=+-@\t\r\n＝＋－＠")
"""First characters of spreadsheet formulas."""

MARKDOWN = re.compile(r"[\\`*_\[\]<>|~&$!#]")
LATEX = {
    "\\": r"\textbackslash{}", "{": r"\{", "}": r"\}", "$": r"\$", "&": r"\&", "#": r"\#",
    "%": r"\%", "_": r"\_", "^": r"\textasciicircum{}", "~": r"\textasciitilde{}",
    "<": r"\textless{}", ">": r"\textgreater{}", "|": r"\textbar{}",
}  # fmt: skip


MOST_MARKS = 8
"""Maximum number of combining marks on one character; no script needs more, and many marks cover
other lines."""


def escape_control_chars(text: str, keep: str = "") -> str:
    """Escape control characters, escape codes, bidi overrides and invisible characters; truncate
    more than `MOST_MARKS` consecutive combining marks, with their number.

    Args:
        keep: characters to leave unchanged (a page may keep line breaks).
    """
    if text.isascii() and text.isprintable():
        return text
    escaped = "".join(c if c.isprintable() or c in keep else f"\\x{ord(c):02x}" for c in text)
    return escaped if escaped.isascii() else _with_few_marks(escaped)


def _with_few_marks(text: str) -> str:
    parts = []
    for are_marks, run in groupby(text, key=lambda c: unicodedata.category(c)[0] == "M"):
        part = "".join(run)
        over = len(part) - MOST_MARKS if are_marks else 0
        parts.append(part if over <= 0 else f"{part[:MOST_MARKS]}[{over} marks more]")
    return "".join(parts)


ASCII = {
    "─": "-", "━": "-", "│": "|", "├": "+", "└": "+", "−": "-", "–": "-", "—": "-", "±": "+-",
    "×": "x", "→": "->", "…": "...", "▲": "^", "▼": "v", "≥": ">=", "≤": "<=", "·": ".", "•": "*",
    "‘": "'", "’": "'", "“": '"', "”": '"',
}  # fmt: skip
"""Typographic character -> its form in ASCII."""


def escape_unencodable(text: str, encoding: str) -> str:
    """Return the text in an encoding that may lack some of its characters: typographic ones as
    ASCII, others escaped."""
    if text.isascii():
        return text
    return "".join(map(partial(_in_encoding, encoding), text))


def _in_encoding(encoding: str, char: str) -> str:
    try:
        char.encode(encoding)
    except UnicodeEncodeError:
        return ASCII.get(char, char.encode("ascii", "backslashreplace").decode())
    return char


def truncate_text(text: str, limit: int) -> str:
    """Truncate a text, with the number of omitted characters."""
    if len(text) <= limit:
        return text
    return f"{text[:limit]} [... {len(text) - limit:,} characters more]"


def escape_formula(value: object) -> object:
    """Escape a cell so that no spreadsheet interprets it as a formula."""
    if isinstance(value, bool):
        return str(value).lower()
    return f"'{value}" if isinstance(value, str) and value[:1] in FORMULA else value


def escape_markdown(text: str) -> str:
    """Escape a text for Markdown: no markup, no HTML, no link, no mention."""
    escaped = MARKDOWN.sub(lambda m: f"\\{m[0]}", escape_control_chars(text))
    for pattern, entity in (("@", "&#64;"), ("://", "&#58;//"), ("www.", "www&#46;")):
        escaped = escaped.replace(pattern, entity)
    return escaped


def escape_latex(text: str) -> str:
    """Escape a text for LaTeX."""
    return "".join(LATEX.get(c, c) for c in escape_control_chars(text)).replace("--", "-{}-")
