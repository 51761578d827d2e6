"""Options that every command reads alike."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import click
import pytest
from click.testing import CliRunner

from toxtrail.cli import COMMANDS, cli
from toxtrail.cli._options import NewPath, Number, refuse_several
from toxtrail.cli._output import format_options


def commands(group=cli, prefix=()):
    names = list(COMMANDS) if group is cli else group.list_commands(None)
    for name in names:
        command = group.get_command(None, name)
        if isinstance(command, click.Group):
            yield from commands(command, (*prefix, name))
        yield (*prefix, name), command


def test_every_option_for_a_number_refuses_nan_and_inf():
    found = 0
    for name, command in commands():
        for param in command.params:
            if isinstance(param.type, click.types.FloatParamType):
                assert isinstance(param.type, Number), (name, param.name)
                found += 1
    assert found > 3


@pytest.mark.parametrize("text", ["nan", "NaN", "inf", "-inf", "infinity", "1e999", "-1e999"])
def test_what_is_no_finite_number_is_refused(text):
    for kind in (Number(0, 1), Number(), Number(min=0), Number(max=1, max_open=True)):
        with pytest.raises(click.BadParameter, match="not a finite number"):
            kind.convert(text, None, None)
    assert Number(0, 1).convert("0.25", None, None) == 0.25
    with pytest.raises(click.BadParameter):
        Number(0, 1).convert("2", None, None)


def test_a_new_file_needs_its_folder(tmp_path):
    (tmp_path / "file").touch()
    assert NewPath().convert(str(tmp_path / "x.csv"), None, None) == tmp_path / "x.csv"
    assert NewPath().convert("x.csv", None, None) == Path("x.csv")
    for path in (tmp_path / "none" / "x.csv", tmp_path / "file" / "x.csv"):
        with pytest.raises(click.BadParameter, match="folder") as raised:
            NewPath().convert(str(path), None, None)
        assert str(path.parent) in raised.value.message
    assert sorted(p.name for p in tmp_path.iterdir()) == ["file"]


FORMS = ("json", "csv", "md", "latex")


@pytest.mark.parametrize("other", FORMS)
@pytest.mark.parametrize("one", FORMS)
def test_two_forms_of_output_exclude_each_other(one, other):
    @click.command()
    @format_options(*FORMS)
    def command(form):
        click.echo(form)

    done = CliRunner().invoke(command, [f"--{one}", f"--{other}"])
    if one == other:
        assert done.output == f"{one}\n"
    else:
        assert done.exit_code == 2
        assert f"--{one}" in done.output
        assert f"--{other}" in done.output


def test_exclusive_options_are_named():
    refuse_several({"--a": 1, "--b": None, "--c": False})
    with pytest.raises(click.UsageError, match="--a and --c"):
        refuse_several({"--a": "x", "--b": None, "--c": True})


def as_reader(*command):
    """The command as somebody whom permissions bind: root passes them over."""
    drop = "-dac_override,-dac_read_search,-fowner"
    if os.geteuid() == 0:
        return ["setpriv", f"--bounding-set={drop}", f"--inh-caps={drop}", *command]
    return list(command)


def test_a_folder_that_may_only_be_read_is_named(tmp_path):
    tmp_path.chmod(0o555)
    command = as_reader(str(Path(sys.executable).with_name("toxtrail")), "sign", "--new-key")
    done = subprocess.run(
        [*command, str(tmp_path / "key.pem")], capture_output=True, text=True, check=False
    )
    assert done.returncode == 2
    assert str(tmp_path) in done.stderr
    assert "Traceback" not in done.stderr
