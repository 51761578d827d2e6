"""The command line: parse options, call the library, print the result."""

from __future__ import annotations

import gc
import importlib
import os
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any

import click

from toxtrail import __version__
from toxtrail.console import echo, finish, prepare, shown
from toxtrail.errors import ConfigError, DataError, problem_of
from toxtrail.experiment import Experiment

COMMANDS = (
    "quick",
    "init",
    "run",
    "status",
    "variants",
    "scorers",
    "texts",
    "runs",
    "compare",
    "flips",
    "gate",
    "diff",
    "plan",
    "published",
    "labels",
    "contamination",
    "audit",
    "verify",
    "report",
    "card",
    "ui",
    "check",
    "sign",
    "export",
    "pin",
    "doctor",
    "upgrade",
    "merge",
    "stage",
)
"""In the order of use; each is defined in the module of its name."""


class Commands(click.Group):
    """Command group that imports a command's module on demand and prints errors as one message."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """List all commands, in the order of use."""
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Return the command, or None."""
        if cmd_name not in COMMANDS:
            return None
        command = getattr(importlib.import_module(f"toxtrail.cli.{cmd_name}"), cmd_name)
        assert isinstance(command, click.Command)
        return command

    def make_context(
        self,
        info_name: str | None,
        args: list[str],
        parent: click.Context | None = None,
        **extra: Any,
    ) -> click.Context:
        """Parse the options of this group."""
        with _usage_errors_shown():
            return super().make_context(info_name, args, parent, **extra)

    def invoke(self, ctx: click.Context) -> Any:
        """Run the command; exit 1 with a message for an error that the user can act on."""
        try:
            with _usage_errors_shown():
                return super().invoke(ctx)
        except KeyboardInterrupt:
            echo(
                "Interrupted. Finished work is kept: run the same command again to continue.",
                err=True,
            )
            ctx.exit(130)
        except BrokenPipeError:  # the reader closed the pipe: click exits silently
            raise
        except Exception as error:
            message = problem_of(error)
            if message is None:
                raise
            echo("Error: ", fg="red", nl=False, err=True)
            echo(message, err=True)
            if isinstance(error, ConfigError | DataError) and (advice := _pull_advice(ctx.obj)):
                echo(advice, err=True)
            ctx.exit(1)


def _pull_advice(experiment: Experiment | None) -> str | None:
    """Return a note if results are missing because they were not pulled."""
    if experiment is None or not experiment.exists:
        return None
    if not (experiment.root / "dvc.lock").is_file():
        return None
    from toxtrail.auditing.status.not_pulled import pull_advice

    return pull_advice(experiment.root)


@contextmanager
def _usage_errors_shown() -> Iterator[None]:
    """Escape control characters in usage errors, which repeat what was typed."""
    try:
        yield
    except click.ClickException as error:
        error.message = shown(error.message, keep="\n")  # type: ignore[misc]
        raise


@click.group(
    cls=Commands,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)
@click.option(
    "-C",
    "--directory",
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    default=Path(),
    help="The experiment's folder (default: this one or the nearest above it with a params.yaml).",
)
@click.version_option(__version__, prog_name="toxtrail")
@click.pass_context
def cli(ctx: click.Context, directory: Path) -> None:
    """Measure how fine-tuning changes a language model's toxicity, and trace every number to the
    fine-tune that produced it.

    \b
    Examples:
      toxtrail quick BASE TUNED      create an experiment, run it and print the result
      toxtrail check                 validate params.yaml, files and pins
      toxtrail run                   run all outdated stages (the same as `dvc repro`)
      toxtrail compare               compare variants as a table
      toxtrail audit VARIANT         trace a result to its weights, data, parameters and commit
      toxtrail ui                    open the MLflow UI
    """
    ctx.obj = Experiment(directory)


ARITHMETIC = {"OMP_WAIT_POLICY": "passive", "ONEDNN_MAX_CPU_ISA": "AVX512_CORE_BF16"}
"""Settings of OpenMP and oneDNN, which read them once; variables set by the user are kept.

Waiting threads sleep: torch's default threads spin, which takes up to ten times as long on a busy
machine (benchmarks/RESULTS.md). Intel's matrix unit (AMX) is not used: with it, the bits of a row
of a bfloat16 product depend on the number of rows multiplied together.
"""


GARBAGE_COLLECTION = (50_000, 20, 20)
"""Thresholds of Python's collector of reference cycles (`gc.set_threshold`). With Python's own, a
fifth of the time of importing torch, transformers, DVC and MLflow is spent looking for cycles."""


def main() -> None:
    """Run the `toxtrail` command."""
    gc.set_threshold(*GARBAGE_COLLECTION)
    for name, value in ARITHMETIC.items():
        os.environ.setdefault(name, value)
    prepare()
    for number in (signal.SIGTERM, signal.SIGHUP):
        if signal.getsignal(number) is not signal.SIG_IGN:  # as under nohup
            signal.signal(number, _stop)
    try:
        cli()
    finally:
        finish()


def _stop(number: int, _: FrameType | None) -> None:
    """Exit normally on SIGTERM or a closed terminal, so that temporary files are removed and runs
    are marked failed."""
    sys.exit(128 + number)
