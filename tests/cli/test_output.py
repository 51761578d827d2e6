"""Tables in every form: what is wide folds, what is coloured reads without colour."""

from __future__ import annotations

import click
import pytest
from click.testing import CliRunner

from toxtrail.cli._output import fit_to_terminal, format_options, print_table, print_tables
from toxtrail.reporting.table import Column, Table, number_columns, text_columns

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


@pytest.mark.parametrize("size", [10, 30, 60])
@pytest.mark.parametrize("width", [80, 120])
def test_a_name_breaks_at_a_separator_and_a_number_never(size, width, capsys, monkeypatch):
    monkeypatch.setattr("toxtrail.cli._output.terminal_width", lambda: width)
    name = LONG[:size].rstrip("-")
    rows = [[name, f"{name}-b", "+12.3", "[12.3, 45.6]", "higher"]]
    columns = (
        *text_columns("variant", "against"),
        *number_columns("difference", "interval"),
        Column("verdict"),
    )
    print_table(Table(None, columns, rows))
    lines = capsys.readouterr().out.splitlines()
    assert max(map(len, lines)) <= width
    assert any("+12.3" in line and "higher" in line for line in lines)
    cells = [line.split("   ")[0].strip() for line in lines if line.startswith("  smollm2")]
    assert cells == [name] or cells[0].endswith("-")


def test_what_has_no_room_is_named(monkeypatch):
    monkeypatch.setattr("toxtrail.cli._output.terminal_width", lambda: 40)
    table = Table(
        None,
        [*text_columns("name", "kind"), *number_columns("rate")],
        [["a" * 16, "k" * 20, "1.0"]],
    )
    tables, notes = fit_to_terminal([table], ["kind", "rate"])
    assert [column.name for column in tables[0].columns] == ["name", "rate"]
    assert "kind" in notes[0]
    assert "rate" not in notes[0]
