"""A table in every form: cells are escaped, alignment is the column's."""

from __future__ import annotations

from markdown_it import MarkdownIt

from toxtrail.reporting.table import (
    DETAIL_PRIORITY,
    Column,
    Field,
    Table,
    as_html,
    as_latex,
    as_markdown,
    build_table,
    move_constants_to_title,
    number_columns,
    text_columns,
)

ROWS = [("a|b", "<b>", "higher"), ("c_d", "50 %", "lower")]
TABLE = Table("50 % & more", (Column("name"), Column("rate", "right"), Column("verdict")), ROWS)


def test_markdown_has_one_row_for_each_and_no_more_columns():
    page = MarkdownIt("commonmark").enable("table").render(as_markdown(TABLE))
    assert page.count("<tr>") == 3
    assert page.count("<td") == 6
    assert "&lt;b&gt;" in page


def test_latex_escapes_and_closes_what_it_opens():
    text = as_latex(TABLE)
    assert r"\caption{50 \% \& more}" in text
    assert r"c\_d & 50 \% & lower \\" in text
    assert text.count(r"\begin") == text.count(r"\end{longtable}") == 1
    assert r"\begin{longtable}{lrl}" in text


def test_what_is_the_same_in_every_row_moves_to_the_title():
    rows = [("a", "base (parent)", "one", "1"), ("b", "base (parent)", "one", "2")]
    columns = (*text_columns("variant", "against", "subset"), *number_columns("n"))
    table = move_constants_to_title(Table("T", columns, rows), {"against", "subset", "n"})
    assert table.title == "T; against base (parent); subset one"
    assert table.columns == [Column("variant"), Column("n", "right")]
    assert table.rows == [["a", "1"], ["b", "2"]]


def test_a_single_row_keeps_its_columns():
    table = Table("T", text_columns("variant", "subset"), [("a", "one")])
    assert move_constants_to_title(table, {"subset"}) == table


def test_a_name_that_looks_like_a_mark_of_alignment_is_a_name():
    table = Table(None, text_columns("lr>"), [("1",)])
    assert as_markdown(table).splitlines()[:2] == [r"| lr\> |", "| --- |"]


def test_html_escapes_and_marks_numbers_totals_and_verdicts():
    columns = (*text_columns("variant", "subset"), *number_columns("rate"), Column("verdict"))
    rows = [("<b>", "all", "50 %", "higher (fragile)"), ("c", "a&b", "1 %", "")]
    page = as_html(Table("t<", columns, rows, note="n>"), element_id="x")
    assert "<caption>t&lt;</caption>" in page
    assert '<tr class="all" data-subset="all"><th scope="row">&lt;b&gt;</th>' in page
    assert '<tr data-subset="a&amp;b">' in page
    assert '<td class="n" data-label="rate">50 %</td>' in page
    assert '<td class="higher" data-label="verdict">higher (fragile)</td>' in page
    assert '<p class="soft">n&gt;</p>' in page


def test_html_shows_details_on_demand_and_keeps_them_in_the_page():
    columns = (Column("variant"), Column("rate"), Column("k", "right", DETAIL_PRIORITY))
    page = as_html(Table(None, columns, [("a", "1 %", "4")]))
    assert '<input type="checkbox"> more columns: k</label>' in page
    assert '<td class="n detail" data-label="k">4</td>' in page
    assert "checkbox" not in as_html(Table(None, columns[:2], [("a", "1 %")]))


def test_fields_make_columns_and_cells():
    fields = [Field("name", lambda row: row["a"]), Field("n", lambda row: row["b"], "right")]
    table = build_table("T", fields, [{"a": "x", "b": 1}])
    assert table == Table("T", [Column("name"), Column("n", "right")], [["x", 1]])
