"""Other people's text made harmless where it is shown: terminal, spreadsheet, Markdown, LaTeX.

A continuation may hold escape codes, bidi overrides, formulas or markup. Nothing here changes what
is stored; it changes what is shown.
"""

from __future__ import annotations

import re
import unicodedata
from itertools import groupby

FORMULA = frozenset("=+-@\t\r\n＝＋－＠")
"""First characters that make a spreadsheet compute."""

MARKDOWN = re.compile(r"[\\`*_\[\]<>|~&$!#]")
LATEX = {
    "\\": r"\textbackslash{}", "{": r"\{", "}": r"\}", "$": r"\$", "&": r"\&", "#": r"\#",
    "%": r"\%", "_": r"\_", "^": r"\textasciicircum{}", "~": r"\textasciitilde{}",
    "<": r"\textless{}", ">": r"\textgreater{}", "|": r"\textbar{}",
}  # fmt: skip


MOST_MARKS = 8
"""Combining marks on one character; no script takes more, and a pile of them covers other lines."""


def escape_control_chars(text: str, keep: str = "") -> str:
    """Control characters, escape codes, bidi overrides and invisible characters shown, not sent;
    more than `MOST_MARKS` combining marks in a row cut off, with their number.

    Args:
        keep: characters to leave as they are (a page may keep line breaks).
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


def truncate_text(text: str, limit: int) -> str:
    """At most so many characters, and how many were left out."""
    if len(text) <= limit:
        return text
    return f"{text[:limit]} [... {len(text) - limit:,} characters more]"


def escape_formula(value: object) -> object:
    """A cell that no spreadsheet takes for a formula."""
    if isinstance(value, bool):
        return str(value).lower()
    return f"'{value}" if isinstance(value, str) and value[:1] in FORMULA else value


def escape_markdown(text: str) -> str:
    """Text that Markdown shows as it is: no markup, no HTML, no link, no mention."""
    escaped = MARKDOWN.sub(lambda m: f"\\{m[0]}", escape_control_chars(text))
    for pattern, entity in (("@", "&#64;"), ("://", "&#58;//"), ("www.", "www&#46;")):
        escaped = escaped.replace(pattern, entity)
    return escaped


def escape_latex(text: str) -> str:
    """Text that LaTeX prints as it is."""
    return "".join(LATEX.get(c, c) for c in escape_control_chars(text)).replace("--", "-{}-")
