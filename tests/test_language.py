"""Names say what they name, and what a person reads is plain English."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

import toxtrail

SOURCE = Path(toxtrail.__file__).parent
FILES = sorted(SOURCE.rglob("*.py"))
EMPTY_NAMES = {
    "found", "one", "own", "place", "known", "wanted", "asked", "said", "who", "drawn", "made",
    "shown", "kept", "held", "judged", "given", "here", "there", "seen", "again", "thing", "things",
    "stuff", "tmp", "temp", "foo", "bar", "misc", "helper", "util",
}  # fmt: skip
PHRASES = re.compile(
    r"\b(held against|hold(?:s|ing)? [\w ]{0,30}against|lies|borne|be had|asked of|stands?|whole"
    r"|is no [a-z]+|are no [a-z]+)\b",
    re.I,
)
PERMITTED = re.compile(
    r"\b(there\s+(?:is|are)\s+no|(?:is|are) no (?:longer|more|better|wider)|whole numbers?)\b", re.I
)
EXEMPT = {
    SOURCE / "analysis" / "response_flags" / "refused.py",  # data: English that models write
    SOURCE / "backends" / "huggingface" / "training" / "examples.py",  # a marker put into templates
}


def bound_names(tree: ast.AST) -> Iterator[tuple[str, int]]:
    """Assignment targets, loop variables, parameters, functions and classes."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            yield node.id, node.lineno
        elif isinstance(node, ast.arg):
            yield node.arg, node.lineno
        elif isinstance(
            node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef | ast.ExceptHandler
        ):
            yield node.name or "", node.lineno


def test_names_say_what_they_name():
    names = [
        (f"{path.relative_to(SOURCE)}:{line}", name)
        for path in FILES
        for name, line in bound_names(ast.parse(path.read_text("utf-8")))
    ]
    empty = [(where, name) for where, name in names if name.strip("_").lower() in EMPTY_NAMES]
    assert len(empty) <= 0.005 * len(names), empty


def texts(path: Path) -> Iterator[tuple[int, str]]:
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            yield node.lineno, node.value


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.relative_to(SOURCE).as_posix())
def test_texts_are_plain(path):
    if path in EXEMPT:
        return
    odd = [
        (line, match[0])
        for line, text in texts(path)
        for match in PHRASES.finditer(PERMITTED.sub("", text))
    ]
    assert odd == []
