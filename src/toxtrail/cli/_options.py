"""Option types shared by commands."""

from __future__ import annotations

import math
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import click


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
