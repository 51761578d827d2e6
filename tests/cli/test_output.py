"""Tables in every form: what is wide folds, what is coloured reads without colour."""

from __future__ import annotations

import click
import pytest
from click.testing import CliRunner

from toxtrail.cli._output import format_options, print_table, print_tables
from toxtrail.reporting.table import Table, number_columns, text_columns

LONG = "smollm2-instruct-lora-alpaca-dpo-merged-2024-very-long-name"


def test_a_pipe_gets_no_escape_codes_and_no_control_characters(capsys):
    print_table(Table("t", text_columns("name", "verdict"), [("\x1b[31mred\x07", "higher")]))
    shown = capsys.readouterr().out
    assert "\x1b" not in shown
    assert "\\x1b[31mred\\x07" in shown


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


@pytest.mark.parametrize("columns", ["70", "80", "120"])
def test_a_line_names_the_columns_without_room_and_a_pipe_has_all(columns, capsys, monkeypatch):
    table = Table(
        None,
        [*text_columns("variant"), *text_columns("kind", priority=1), *number_columns("rate")],
        [[LONG, "k" * 20, "+12.3 [12.3, 45.6]"]],
    )
    monkeypatch.setenv("COLUMNS", columns)
    print_table(table)
    lines = capsys.readouterr().out.splitlines()
    assert max(map(len, lines)) <= int(columns)
    assert any(LONG in line for line in lines)
    assert [line for line in lines if "kind" in line][-1].startswith("Not shown") == (
        columns != "120"
    )
    monkeypatch.delenv("COLUMNS")
    print_table(table)
    assert f"{LONG}  {'k' * 20}  +12.3 [12.3, 45.6]" in capsys.readouterr().out


def test_the_line_names_the_option_with_all_columns(monkeypatch):
    @click.command()
    @format_options("json", "csv")
    def command(form):
        print_table(Table(None, text_columns("a" * 30, "b" * 30, priority=1), [["1", "2"]]))

    done = CliRunner(env={"COLUMNS": "40"}).invoke(command, [])
    assert f"{'b' * 30}. Use\n--csv" in done.output
