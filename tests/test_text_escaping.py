"""Whatever a model writes: it is shown, and nothing obeys it."""

from __future__ import annotations

import csv
import io
import re
import string

import pytest
from hypothesis import given
from hypothesis import strategies as st
from markdown_it import MarkdownIt

from toxtrail.records.csv_text import rows_to_csv
from toxtrail.reporting.flip_browser import script_safe_json
from toxtrail.text_escaping import (
    FORMULA,
    LATEX,
    MOST_MARKS,
    escape_control_chars,
    escape_formula,
    escape_latex,
    escape_markdown,
    truncate_text,
)

HOSTILE = (
    "\x1b[2J\x1b]0;owned\x07", "\x9b31m", "a\rb", "a\nb", "\u202egnp", "\u2066x\u2069", "\u200b",
    "\ufeff", "\u2028", "=cmd|'/c calc'!A1", "+1", "-1", "@SUM(A1)", "\t=1", "＝1",
    "<script>x</script>",
    "</script><img src=x onerror=x>", '" onmouseover="x', "'; x //", "[x](javascript:x)", "![x](y)",
    "`x`", "| a | b |", "**x**", "<!--", "-->", "]]>", "http://x.example", "www.x.example",
    r"\input{x}", "$x$", "%", "{}", "\\", "--", "``", "''",
)  # fmt: skip
texts = st.one_of(
    st.text(max_size=60),
    st.sampled_from(HOSTILE),
    st.lists(st.sampled_from(HOSTILE), max_size=4).map("".join),
)


@given(texts)
def test_what_is_shown_is_printable_and_plain_text_stays_as_it_is(text):
    assert escape_control_chars(text).isprintable()
    assert escape_control_chars(escape_control_chars(text)) == escape_control_chars(text)
    if text.isprintable() and not re.search(rf"[\u0300-\u036f]{{{MOST_MARKS + 1}}}", text):
        assert escape_control_chars(text) == text


@given(st.integers(0, 400))
def test_a_pile_of_combining_marks_is_cut_off(count):
    pile = "\u0301" * count
    assert escape_control_chars(f"a{pile}b").count("\u0301") == min(count, MOST_MARKS)
    if count <= MOST_MARKS:
        assert escape_control_chars(f"a{pile}b") == f"a{pile}b"


def test_writing_with_marks_stays_as_it_is():
    for text in ("हिन्दी में लिखा", "ภาษาไทยที่มีสระ", "שָׁלוֹם", "Tiếng Việt", "བོད་སྐད་", "👩\u200d🚀"):
        assert escape_control_chars(text.replace("\u200d", "")) == text.replace("\u200d", "")


@given(texts)
def test_a_page_may_keep_line_breaks_and_nothing_else(text):
    assert escape_control_chars(text, keep="\n").replace("\n", "").isprintable()


@given(st.lists(texts, min_size=1, max_size=4))
def test_no_cell_of_a_csv_file_is_a_formula_and_every_cell_comes_back(cells):
    rows = [{f"c{place}": cell for place, cell in enumerate(cells)}]
    (row,) = list(csv.DictReader(io.StringIO(rows_to_csv(rows), newline="")))
    for place, cell in enumerate(cells):
        read = row[f"c{place}"]
        assert read[:1] not in FORMULA or read == ""
        assert read == escape_formula(cell)
        assert read in (cell, f"'{cell}")


@pytest.mark.parametrize("value", [1.5, -2, None, 0])
def test_numbers_are_no_formulas(value):
    assert escape_formula(value) == value


@given(texts)
def test_markdown_shows_the_text_and_makes_nothing_of_it(text):
    page = (
        MarkdownIt("commonmark")
        .enable("table")
        .render(f"| a |\n|---|\n| {escape_markdown(text)} |\n")
    )
    tags = set(re.findall(r"</?([a-z]+)", page))
    assert tags <= {"table", "thead", "tbody", "tr", "th", "td"}
    assert page.count("<td>") == 1


@given(texts)
def test_latex_gets_no_command_of_the_texts(text):
    escaped = escape_latex(text)
    for known in sorted(LATEX.values(), key=len, reverse=True):
        escaped = escaped.replace(known, "")
    escaped = escaped.replace("-{}-", "")
    assert not set(escaped) & set("\\{}$&#%_^~")


@given(texts)
def test_data_in_a_page_holds_no_markup_and_reads_back(text):
    import json

    script = script_safe_json({"text": text.encode("utf-8", "replace").decode()})
    assert not set(script) & set("<>&\u2028\u2029")
    assert json.loads(script)["text"] == text.encode("utf-8", "replace").decode()


@given(st.text(string.ascii_letters, max_size=50), st.integers(0, 20))
def test_a_clipped_text_says_how_much_is_missing(text, limit):
    shown = truncate_text(text, limit)
    if len(text) <= limit:
        assert shown == text
    else:
        assert shown.startswith(text[:limit])
        assert str(len(text) - limit) in shown
