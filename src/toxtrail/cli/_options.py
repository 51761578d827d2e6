"""Option types shared by commands."""

from __future__ import annotations

import math
import os
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import click
from click.core import ParameterSource

from toxtrail.config.sections import PROJECT_ID, PROJECT_ID_FORM
from toxtrail.experiment import Experiment


class Number(click.FloatRange):
    """Finite number within bounds; "nan" and "inf" are rejected."""

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> float:
        """Return the number, or raise a usage error."""
        number = click.FLOAT.convert(value, param, ctx)
        if not math.isfinite(number):
            self.fail(f"{value!r} is not a finite number.", param, ctx)
        return float(super().convert(value, param, ctx))


class NewPath(click.Path):
    """Output file or folder in an existing folder: a mistyped path creates no folders."""

    def __init__(self, dir_okay: bool = False) -> None:
        super().__init__(dir_okay=dir_okay, path_type=Path)

    def convert(
        self,
        value: str | os.PathLike[str],
        param: click.Parameter | None,
        ctx: click.Context | None,
    ) -> Path:
        """Return the path, or raise a usage error."""
        path = Path(os.fsdecode(super().convert(value, param, ctx)))
        folder = path.absolute().parent
        if not folder.is_dir():
            what = "is not a folder" if folder.exists() else "does not exist"
            self.fail(f"the folder {folder} {what}. Create it first, or give another.", param, ctx)
        if not os.access(folder, os.W_OK):
            self.fail(f"no write permission for the folder {folder}. Give another.", param, ctx)
        return path


def _select_project(ctx: click.Context, _: click.Parameter, project: str | None) -> None:
    if project is None:
        return
    if not re.fullmatch(PROJECT_ID, project):
        raise click.BadParameter(
            f"{project!r} is not the id of a project. Allowed: {PROJECT_ID_FORM}. `toxtrail runs "
            "--all-projects` shows the ids."
        )
    experiment: Experiment = ctx.obj
    refuse_several({"--project": project, "--all-projects": experiment.all_projects})
    experiment.selected_project = project


def _select_all_projects(ctx: click.Context, _: click.Parameter, is_given: bool) -> None:
    if not is_given:
        return
    experiment: Experiment = ctx.obj
    refuse_several({"--project": experiment.selected_project, "--all-projects": is_given})
    experiment.all_projects = True


project_option: Callable[[Any], Any] = click.option(
    "--project",
    metavar="ID",
    expose_value=False,
    callback=_select_project,
    help="Read the MLflow runs of this project (default: the experiment's own).",
)
"""Sets the project whose runs the command's experiment reads."""

all_projects_option: Callable[[Any], Any] = click.option(
    "--all-projects",
    is_flag=True,
    expose_value=False,
    callback=_select_all_projects,
    help="Read the MLflow runs of all projects.",
)


def project_options(command: Any) -> Any:
    """Add --project and --all-projects."""
    return project_option(all_projects_option(command))


def directory_option(ctx: click.Context) -> Path | None:
    """Return the folder that was given by -C before the command; None if it was not."""
    parent = ctx.parent
    if parent is None or parent.get_parameter_source("directory") is ParameterSource.DEFAULT:
        return None
    folder: Path = parent.params["directory"]
    return folder


def refuse_several(options: Mapping[str, object]) -> None:
    """Reject mutually exclusive options.

    Args:
        options: option as it is typed -> its value; one that is false, empty or None is not given.

    Raises:
        UsageError: several are given.
    """
    names = [name for name, value in options.items() if value]
    if len(names) > 1:
        raise click.UsageError(f"{' and '.join(names)} are mutually exclusive. Give one of them.")


def model_options(command: Any) -> Any:
    """Add the options of an experiment that is made from models: prompts, scorer and n."""
    options = (
        click.option(
            "--prompts",
            type=click.Path(exists=True, dir_okay=False, path_type=Path),
            metavar="FILE",
            help="Prompts: .txt (one a line), .csv, .tsv, .json, .jsonl or .parquet (default: "
            "neutral prompts and RealToxicityPrompts of the package).",
        ),
        click.option(
            "--column", metavar="NAME", help="Column of the prompts in FILE (default: detected)."
        ),
        click.option(
            "--scorer",
            metavar="NAME",
            help="Scorer: jigsaw-bilstm, or a name of `toxtrail scorers` (default: "
            "detoxify-unbiased if it can be downloaded, else jigsaw-bilstm).",
        ),
        click.option(
            "--n",
            type=click.IntRange(1),
            metavar="N",
            help="Maximum number of prompts (default: 200; all of files of texts).",
        ),
    )
    for option in reversed(options):
        command = option(command)
    return command
