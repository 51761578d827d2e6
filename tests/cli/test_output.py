"""Tables in every form: what is wide folds, what is coloured reads without colour."""

from __future__ import annotations

import click
import pytest
from click.testing import CliRunner
from markdown_it import MarkdownIt

from toxtrail.cli._output import (
    Table,
    as_latex,
    as_markdown,
    format_options,
    print_table,
    print_tables,
)
from toxtrail.cli.compare_tables import _without_constants

ROWS = [("a|b", "<b>", "higher"), ("c_d", "50 %", "lower")]
TABLE = Table("50 % & more", ("name", "rate>", "verdict"), ROWS)


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


def test_a_pipe_gets_no_escape_codes_and_no_control_characters(capsys):
    print_table("t", ("name", "verdict"), [("\x1b[31mred\x07", "higher")])
    shown = capsys.readouterr().out
    assert "\x1b" not in shown
    assert "\\x1b[31mred\\x07" in shown


def test_what_is_the_same_in_every_row_moves_to_the_title():
    rows = [("a", "base (parent)", "one", "1"), ("b", "base (parent)", "one", "2")]
    table = _without_constants(Table("T", ("variant", "against", "subset", "n>"), rows))
    assert table.title == "T; against base (parent); subset one"
    assert table.columns == ["variant", "n>"]
    assert table.rows == [["a", "1"], ["b", "2"]]


def test_a_single_row_keeps_its_columns():
    table = Table("T", ("variant", "subset"), [("a", "one")])
    assert _without_constants(table) == table


@pytest.mark.parametrize("form", ["json", "csv", None])
def test_a_form_is_one_of_those_offered(form):
    @click.command()
    @format_options("json", "csv")
    def command(form):
        click.echo(str(form))

    done = CliRunner().invoke(command, [f"--{form}"] if form else [])
    assert done.output.strip() == str(form)
    assert CliRunner().invoke(command, ["--latex"]).exit_code == 2


def test_notes_are_escaped_in_their_form(capsys):
    print_tables("md", [], ["a*b"])
    print_tables("latex", [], ["50 %"])
    assert capsys.readouterr().out == "a\\*b\n\n50 \\%\n\n"
