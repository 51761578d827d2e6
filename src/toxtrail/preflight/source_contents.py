"""Can the sources be read as params.yaml asks? Found out before anything runs, of those that are
here."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Protocol

from toxtrail.backends.assets.cached import Present
from toxtrail.backends.checkpoint_files.weight_files import inspect_weights
from toxtrail.backends.scorers.heads import known_heads
from toxtrail.config.asset_uris import FileUri, parse_uri
from toxtrail.config.schema import Config, FinetuneConfig, InstructionData, Source, SubsetConfig
from toxtrail.datasets.prompt_selection import draw
from toxtrail.datasets.readers.csv_rows import TAB, shown, unusual_delimiter
from toxtrail.errors import ToxtrailError, nearest
from toxtrail.stages.finetune import found_in, lessons_of
from toxtrail.stages.prompts import selected


class Here(Protocol):
    """Knows what of an asset lies on this machine."""

    def present(self, uri: str, resolved: str | None) -> Present | None: ...


def unreadable_sources(config: Config, assets: Here) -> list[str]:
    """One line for each source of prompts or instructions that is here and does not hold what is
    asked of it: a column that is not there, nothing left by a filter, too few prompts."""
    seed = config.prompts.seed
    asked: list[tuple[Source, Callable[[Path], None]]] = [
        *(
            (own, partial(_draw, key=key, config=own, seed=seed))
            for key, own in config.prompts.subsets.items()
        ),
        *((own.data, partial(_learn, key=k, config=own)) for k, own in config.finetunes.items()),
    ]
    return [line for source, read in asked for line in _problem(source, assets, read)]


def unknown_heads(config: Config, assets: Here) -> list[str]:
    """One line for each scorer that has no head of the configured name, where that is known."""
    found = []
    for key, scorer in config.scoring.scorers.items():
        here = assets.present(scorer.uri, None) if scorer.kind == "hf" else None
        heads = known_heads(scorer, here.root if here else None)
        if heads and scorer.head not in heads:
            found.append(
                f'scoring.scorers.{key}.head: {scorer.uri} has no head "{scorer.head}".'
                f"{nearest(scorer.head, heads)}"
            )
    return found


def damaged_weights(config: Config, assets: Here) -> list[str]:
    """One line for each local model, adapter and classifier whose files of weights are not whole,
    or lie outside what is hashed; headers are read, no data."""
    asked: list[tuple[str, Source]] = [
        *((place, own) for place, own in config.sources() if place.startswith("models.")),
        *(
            (f"scoring.scorers.{key}", own)
            for key, own in config.scoring.scorers.items()
            if own.kind == "hf"
        ),
    ]
    found = []
    for place, source in asked:
        local = isinstance(parse_uri(source.uri), FileUri)  # a repo may be here in part
        here = assets.present(source.uri, None) if local else None
        if here is None:
            continue
        single = len(here.files) == 1 and here.files[0].suffix.lower() == ".gguf"
        hashed = {file.relative_to(here.root).as_posix() for file in here.files}
        try:
            inspect_weights(here.files[0] if single else here.root, source.uri, hashed)
        except ToxtrailError as error:
            found.append(f"{place}: {error}")
    return found


def detected_delimiters(config: Config, assets: Here) -> list[str]:
    """One line for each .csv source that is here and whose delimiter is found by its header."""
    asked: list[tuple[str, SubsetConfig | InstructionData]] = [
        *((f"prompts.subsets.{key}", own) for key, own in config.prompts.subsets.items()),
        *((f"finetunes.{key}.data", own.data) for key, own in config.finetunes.items()),
    ]
    return [
        f"{place}: {own.uri} is read with the delimiter {shown(mark)}, because its header has no "
        f"comma. To say the same in params.yaml: delimiter: {TAB if mark == chr(9) else repr(mark)}"
        for place, own in asked
        if own.delimiter is None and (mark := _detected(own, assets))
    ]


def _detected(source: Source, assets: Here) -> str | None:
    here = assets.present(source.uri, None)
    if here is None or len(here.files) != 1:
        return None
    try:
        return unusual_delimiter(here.files[0], None)
    except ToxtrailError:
        return None  # `unreadable_sources` names it


def _learn(path: Path, key: str, config: FinetuneConfig) -> None:
    lessons_of(key, found_in(path, key, config), config)


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
