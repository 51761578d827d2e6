"""Whatever a message, table, log or crash holds: a terminal gets plain text without secrets."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys

import click
import pytest
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st
from rich.tree import Tree

from toxtrail.cli import Commands
from toxtrail.cli._output import print_csv, print_json, print_table, print_tables
from toxtrail.console import cell, console, echo, is_ascii_locale, shown
from toxtrail.errors import BackendError, ToxtrailError
from toxtrail.execution.progress import progress
from toxtrail.reporting.table import Column, Table

HOSTILE = "\x1b]52;c;aGk=\x07\x1b[2J\x9b31m\u202e\u2066\u200b\r\x08"
ADDRESS = "postgresql://bob:hunter22@host/db"


def output_of(function, *arguments, **options):
    @click.command()
    def command():
        function(*arguments, **options)

    done = CliRunner().invoke(command, [])
    assert done.exception is None, done.exception
    return done.output


def is_plain(text):
    return all(c.isprintable() or c == "\n" for c in text)


def table_of(text):
    return Table(text, [Column(text)], [[text]])


PRINTERS = {
    "message": lambda text: echo(text),
    "styled": lambda text: echo(text, fg="red", bold=True),
    "title": lambda text: print_table(Table(text, [Column("a")], [["1"]])),
    "column": lambda text: print_table(Table(None, [Column(text)], [["1"]])),
    "cell": lambda text: print_table(Table(None, [Column("a")], [[text]])),
    "note": lambda text: print_tables("text", [], [text], [text]),
    "markdown": lambda text: print_tables("md", [table_of(text)], [text]),
    "latex": lambda text: print_tables("latex", [table_of(text)], [text]),
    "json": lambda text: print_json({text: [text, {"a": (text,)}]}),
}  # fmt: skip


@pytest.mark.parametrize("name", list(PRINTERS))
@pytest.mark.parametrize("text", [HOSTILE, f"x {ADDRESS} {HOSTILE}", "[red]x[/] [/bold] :smile:"])
def test_no_printer_passes_on_escape_codes_or_passwords(name, text):
    output = output_of(PRINTERS[name], text)
    assert is_plain(output)
    assert "hunter22" not in output


@given(st.text(max_size=80))
def test_every_message_is_plain_text(text):
    assert is_plain(shown(text, keep="\n"))
    assert shown(text).isprintable()


def test_csv_for_a_program_holds_the_cells_as_they_are():
    assert HOSTILE.replace("\r", "") in output_of(print_csv, [{"a": HOSTILE.replace("\r", "")}])
    assert "hunter22" not in output_of(print_csv, [{"a": ADDRESS}])
    assert "hunter22" in output_of(print_csv, [{"a": ADDRESS}], texts=True)
    assert json.loads(output_of(print_json, {"a": ADDRESS}, texts=True)) == {"a": ADDRESS}


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (BackendError(f"{ADDRESS} says {HOSTILE}"), 1),
        (click.UsageError(f"{ADDRESS} says {HOSTILE}"), 2),
        (click.BadParameter(f"{ADDRESS} says {HOSTILE}"), 2),
        (PermissionError(13, "Permission denied", f"/x/{HOSTILE}/{ADDRESS}"), 1),
    ],
)
def test_no_error_passes_on_escape_codes_or_passwords(error, code):
    group = Commands("toxtrail")

    @click.command()
    def fail():
        raise error

    group.get_command = lambda ctx, name: fail
    done = CliRunner().invoke(group, ["fail"])
    assert done.exit_code == code
    assert is_plain(done.output)
    assert "hunter22" not in done.output
    assert "Error: " in done.output


def test_an_error_holds_no_secret_from_the_start():
    assert str(ToxtrailError(ADDRESS)) == "postgresql://***@host/db"


def run(code, **options):
    """A process of its own, prepared as the command is."""
    return subprocess.run(
        [sys.executable, "-c", f"from toxtrail.console import *; prepare()\n{code}"],
        capture_output=True, text=True, check=False, **options,
    )  # fmt: skip


def test_a_crash_a_log_and_a_warning_are_plain_text_too():
    done = run(
        f"import logging, warnings\nlogging.warning('%s %s', {ADDRESS!r}, {HOSTILE!r})\n"
        f"warnings.warn('quiet')\nraise ValueError({ADDRESS + HOSTILE!r})"
    )
    assert done.returncode == 1
    assert is_plain(done.stderr)
    assert "hunter22" not in done.stderr
    assert "quiet" not in done.stderr
    assert "ValueError: postgresql://***@host/db" in done.stderr


def test_a_warning_is_shown_to_those_who_ask_for_it():
    done = run("import warnings; warnings.warn('loud', FutureWarning)",
               env={**os.environ, "PYTHONWARNINGS": "default"})  # fmt: skip
    assert "FutureWarning: loud" in done.stderr


@pytest.mark.parametrize(
    "names",
    [
        {"PYTHONIOENCODING": "ascii"},
        {"LANG": "C"},
        {"LC_ALL": "POSIX"},
        {"LC_ALL": "C", "LC_CTYPE": "C.UTF-8"},
    ],
)
def test_a_terminal_without_unicode_gets_ascii_and_data_stay_what_they_are(names):
    code = (
        "from toxtrail.cli._output import *; from toxtrail.reporting.table import *\n"
        r"echo('\u2212\u00b1 \u2192 \u2026 \u00e9')"
        "\nprint_table(Table('\u2265', text_columns('m\u00fc', 'ma'), [['1', '\u25b2']]))"
    )
    env = {k: v for k, v in os.environ.items() if not k.startswith(("LC_", "LANG", "PYTHON"))}
    done = run(code, env={**env, **names})
    assert done.returncode == 0, done.stderr
    assert done.stdout.isascii()
    assert done.stdout.splitlines()[0] == r"-+- -> ... \xe9"
    assert r"m\xfc  ma" in done.stdout
    assert run(r"echo_data('\u00e9')", env={**env, **names}).stdout == "é"


@pytest.mark.parametrize(
    ("names", "is_ascii"),
    [
        ({}, False),
        ({"LANG": "en_US.UTF-8"}, False),
        ({"LANG": "C"}, True),
        ({"LANG": "C", "LC_CTYPE": "C.UTF-8"}, True),
        ({"LC_ALL": "C.UTF-8", "LANG": "C"}, False),
        ({"LC_ALL": "", "LANG": "POSIX"}, True),
        ({"LC_ALL": "C", "PYTHONIOENCODING": "utf-8"}, False),
    ],
)
def test_the_locale_says_whether_people_read_ascii(names, is_ascii):
    assert is_ascii_locale(names) == is_ascii


class Terminal(io.StringIO):
    """A stream that says it is a terminal."""

    def isatty(self):
        return True


@pytest.mark.parametrize(
    ("names", "has_colour"),
    [({}, True), ({"NO_COLOR": ""}, True), ({"NO_COLOR": "0"}, False), ({"TERM": "dumb"}, False)],
)
def test_no_color_and_a_dumb_terminal_send_no_escape_codes(names, has_colour, monkeypatch):
    out, err = Terminal(), Terminal()
    monkeypatch.setattr(sys, "stdout", out)
    monkeypatch.setattr(sys, "stderr", err)
    monkeypatch.delenv("NO_COLOR", raising=False)
    for name, value in {"TERM": "xterm-256color", **names}.items():
        monkeypatch.setenv(name, value)
    echo("x", fg="red", bold=True)
    print_table(Table("t", [Column("a")], [["higher"]]))
    print_tables("text", [], ["note"], ["head"])
    with progress().bar("label", 2, "rows") as advance:
        advance(2)
    tree = Tree(cell("root", "bold"), guide_style="dim")
    tree.add(cell("leaf"))
    console().print(tree)
    assert ("\x1b" in out.getvalue()) == has_colour
    assert ("\x1b" in err.getvalue()) == has_colour


def test_characters_that_the_terminal_has_not_are_escaped():
    done = run(
        r"echo('\u00e9\u4e00\udc80'); print('\u00e9')",
        env={**os.environ, "PYTHONIOENCODING": "ascii"},
    )
    assert (done.stdout, done.returncode) == ("\\xe9\\u4e00\\xdc80\n\\xe9\n", 0)


def test_a_closed_standard_output_is_an_error_and_never_a_file(tmp_path):
    target = tmp_path / "data"
    code = (
        "from toxtrail.console import *; prepare()\n"
        f"file = open({str(target)!r}, 'w')\n"
        "import os, subprocess; print('lost'); subprocess.run(['echo', 'lost'], check=True)\n"
        "assert file.fileno() > 2\n"
        "try: echo('x')\n"
        "except Exception as error: echo(error, err=True)"
    )
    done = subprocess.run(
        f'"{sys.executable}" -c "$CODE" >&-', shell=True, capture_output=True, text=True,
        check=False, env={**os.environ, "CODE": code},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "Standard output is closed" in done.stderr
    assert target.read_text() == ""
