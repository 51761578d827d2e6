"""Names say what they name, and what a person reads is plain English."""

from __future__ import annotations

import ast
import re
import tokenize
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
    r"""\b(
    held\s+against | hold(?:s|ing)?\s+[\w ]{0,30}against | lies? | lying | borne | be\s+had
    | asked\s+of | stands? | whole | is\s+no\s+[a-z]+ | are\s+no\s+[a-z]+ | anew | so\s+many
    | in\s+peace | go(?:es)?\s+on | went\s+on | said\s+of | says?\s+(?:of|so) | taken\s+for
    | strangers? | nobody | somebody | look(?:ed|ing)\s+at | knows?\s+(?:of|no|nothing)
    | made\s+(?:again|here) | makes?\s+it\s+again | (?:told|tells?)\s+apart | to\s+the\s+byte
    | for\s+ever | without\s+end | (?:the|its|a|with)\s+cure | as\s+ever | at\s+hand
    | (?:is|are|was|were|be|been)\s+asked | in\s+vain | the\s+likeliest | speaks?\s+of
    | sits?\s+on | as\s+(?:it|they)\s+stand | people's | made[- ]up
    )\b""",
    re.I | re.X,
)
PERMITTED = re.compile(
    r"\b(there\s+(?:is|are)\s+no|(?:is|are)\s+no\s+(?:longer|more|better|wider)|whole\s+numbers?"
    r"|she looked at him)\b",
    re.I,
)
CLIPPED = re.compile(r"(Of|What|Whose|Who|Which|Where|How|Under|By|That|As)\b")
"""First words of a docstring that is not a noun phrase and does not begin with a verb."""

ROOT = Path(__file__).resolve().parents[1]
PAGES = sorted(
    [
        *ROOT.glob("*.md"),
        *ROOT.glob("docs/*.md"),
        *ROOT.glob("data/sources/*.md"),
        *ROOT.glob("src/toxtrail/presets/**/*.yaml"),
    ]
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
    """String constants and comments."""
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            yield node.lineno, node.value
    with path.open("rb") as lines:
        for token in tokenize.tokenize(lines.readline):
            if token.type == tokenize.COMMENT:
                yield token.start[0], token.string


def odd_phrases(text: str) -> list[str]:
    return [match[0] for match in PHRASES.finditer(PERMITTED.sub("", text))]


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.relative_to(SOURCE).as_posix())
def test_texts_are_plain(path):
    if path in EXEMPT:
        return
    odd = [(line, phrase) for line, text in texts(path) for phrase in odd_phrases(text)]
    assert odd == []


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.relative_to(SOURCE).as_posix())
def test_docstrings_have_a_subject_or_a_verb(path):
    if path in EXEMPT:
        return
    clipped = [
        (node.lineno, node.value.value[:60])
        for node in ast.walk(ast.parse(path.read_text("utf-8")))
        if isinstance(node, ast.Expr)
        and isinstance(node.value, ast.Constant)
        and isinstance(node.value.value, str)
        and CLIPPED.match(node.value.value.strip())
    ]
    assert clipped == []


@pytest.mark.parametrize("path", PAGES, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_pages_are_plain(path):
    prose = re.sub(r"^```.*?^```", "", path.read_text("utf-8"), flags=re.M | re.S)
    assert odd_phrases(re.sub(r"`[^`\n]*`", "", prose)) == []
