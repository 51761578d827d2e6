"""Kinds of option values that several commands take."""

from __future__ import annotations

import math
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import click


class Number(click.FloatRange):
    """A finite number within bounds: "nan" and "inf" are numbers to Python, and to no option."""

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> float:
        """The number, or a usage error."""
        number = click.FLOAT.convert(value, param, ctx)
        if not math.isfinite(number):
            self.fail(f"{value!r} is not a finite number.", param, ctx)
        return float(super().convert(value, param, ctx))


class NewPath(click.Path):
    """A file or folder to be made, in a folder that is there: a mistyped path makes no folders."""

    def __init__(self, dir_okay: bool = False) -> None:
        super().__init__(dir_okay=dir_okay, path_type=Path)

    def convert(
        self,
        value: str | os.PathLike[str],
        param: click.Parameter | None,
        ctx: click.Context | None,
    ) -> Path:
        """The path, or a usage error."""
        path = Path(os.fsdecode(super().convert(value, param, ctx)))
        folder = path.absolute().parent
        if not folder.is_dir():
            what = "is not a folder" if folder.exists() else "does not exist"
            self.fail(f"the folder {folder} {what}. Make it first, or name another.", param, ctx)
        if not os.access(folder, os.W_OK):
            self.fail(f"you may not write into the folder {folder}. Name another.", param, ctx)
        return path


def refuse_several(given: Mapping[str, object]) -> None:
    """At most one of these options may be given.

    Args:
        given: option as it is typed -> its value; one that is false, empty or None is not given.

    Raises:
        UsageError: several are.
    """
    names = [name for name, value in given.items() if value]
    if len(names) > 1:
        raise click.UsageError(f"{' and '.join(names)} exclude each other. Give one of them.")
