"""Can the sources be read as params.yaml asks? Found out before anything runs, of those that are
here."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Protocol

from toxtrail.backends.assets.present import Present
from toxtrail.config import Config, Source, SubsetConfig
from toxtrail.errors import ToxtrailError
from toxtrail.stages.prompts import selected
from toxtrail.stages.selection import draw


class Here(Protocol):
    """Knows what of an asset lies on this machine."""

    def present(self, uri: str, resolved: str | None) -> Present | None: ...


def unreadable_sources(config: Config, assets: Here) -> list[str]:
    """One line for each prompt source that is here and does not hold what is asked of it: a
    column that is not there, nothing left by a filter, too few prompts."""
    seed = config.prompts.seed
    return [
        line
        for key, subset in config.prompts.subsets.items()
        for line in _problem(subset, assets, partial(_draw, key=key, config=subset, seed=seed))
    ]


def _draw(path: Path, key: str, config: SubsetConfig, seed: int) -> None:
    draw(selected(path, key, config), key, config, seed)


def _problem(source: Source, assets: Here, read: Callable[[Path], None]) -> Iterator[str]:
    here = assets.present(source.uri, None)
    if here is None or len(here.files) != 1:
        return
    try:
        read(here.files[0])
    except ToxtrailError as error:
        yield str(error)
