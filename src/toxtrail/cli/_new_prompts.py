"""The prompts of a new experiment: from a file, from the package, or those of files of texts."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from toxtrail.errors import DataError

if TYPE_CHECKING:
    from toxtrail.backends.assets import AssetStore
    from toxtrail.config.schema import Config
    from toxtrail.datasets.generated_texts.common import GeneratedText

DEFAULT_N = 200
SOURCES = "data/sources"
TEXTS_SUBSET = "texts"
"""Subset of the prompts that files of texts have in common."""


class Choice(NamedTuple):
    """A setting that was chosen for the user."""

    setting: str
    value: str
    reason: str

    def __str__(self) -> str:
        """Return one line."""
        return f"{self.setting}: {self.value} ({self.reason})"


class NewPrompts(NamedTuple):
    """Prompts of a new experiment."""

    subsets: dict[str, dict[str, Any]]
    """Entries of prompts.subsets."""
    files: dict[str, bytes]
    """Files of the experiment that contain them."""
    settings: dict[str, Any]
    """Other settings that the prompts need: dotted path -> value."""
    choices: list[Choice]


def even_shares(n: int, sizes: Mapping[str, int]) -> dict[str, int]:
    """Divide n as evenly as the sizes allow; what does not fit is left out.

    Returns:
        Name -> its share, without names whose share is 0.
    """
    shares = dict.fromkeys(sizes, 0)
    rest = min(n, sum(sizes.values()))
    while rest:
        free = [name for name in sizes if shares[name] < sizes[name]]
        step = max(1, min(rest // len(free), *(sizes[name] - shares[name] for name in free)))
        for name in free[:rest]:
            shares[name] += step
            rest -= step
    return {name: share for name, share in shares.items() if share}


def prompts_of_file(path: Path, column: str | None, n: int | None) -> NewPrompts:
    """Return the prompts of a user's file, which is copied into the experiment.

    Raises:
        ConfigError, DataError: it cannot be read, has no prompts, or its column is not clear.
    """
    from toxtrail.auditing.lineage.parent_claims import slug
    from toxtrail.config.schema import SubsetConfig
    from toxtrail.datasets.prompt_selection import read_subset
    from toxtrail.provenance.identity import sha256_file
    from toxtrail.regular_files import read_bytes

    column = column or _prompt_column(path)
    key, name = slug(path.stem), f"{SOURCES}/{path.name}"
    key = "prompts" if key == "all" else key
    entry = {"uri": f"file:{name}", "sha256": sha256_file(path)}
    entry |= {"column": column} if column else {}
    whole = SubsetConfig.model_validate({**entry, "n": "all"})
    candidates = read_subset(path, key, whole).candidates
    if not candidates:
        raise DataError(f"--prompts: {path} has no prompts.")
    limit = n or DEFAULT_N
    number: int | str = limit if limit < len(candidates) else "all"
    is_chat = any(candidate.conversation for candidate in candidates.values())
    taken = min(limit, len(candidates))
    where = f"column {column} of {path.name}" if column else path.name
    return NewPrompts(
        subsets={key: {**entry, "n": number}},
        files={name: read_bytes(path)},
        settings={"generation.template": "chat"} if is_chat else {},
        choices=[_number_choice(taken, len(candidates), where, n)],
    )


def prompts_of_package(config: Config, assets: AssetStore, n: int | None) -> NewPrompts:
    """Return the prompts of the preset, the same number of each subset where possible.

    Raises:
        BackendError: one of their files cannot be downloaded.
    """
    from toxtrail.datasets.prompt_selection import read_subset

    subsets = config.prompts.subsets
    sizes = {
        key: len(read_subset(assets.fetch(one.uri, one.sha256).path, key, one).candidates)
        for key, one in subsets.items()
    }
    shares = even_shares(n or DEFAULT_N, sizes)
    names = ", ".join(f"{share} {name}" for name, share in shares.items())
    where = f"those of the package: {names}; --prompts FILE takes your own"
    return NewPrompts(
        subsets={key: {**subsets[key].plain(), "n": share} for key, share in shares.items()},
        files={},
        settings={},
        choices=[_number_choice(sum(shares.values()), sum(sizes.values()), where, n)],
    )


def prompts_of_texts(
    base: Sequence[GeneratedText], others: Sequence[Sequence[GeneratedText]], n: int | None
) -> NewPrompts:
    """Return the prompts that files of texts have in common, in the order of the first file.

    Raises:
        DataError: there are none.
    """
    from toxtrail.analysis.text_comparison import shared_prompts
    from toxtrail.analysis.text_matching import match_texts
    from toxtrail.provenance.identity import sha256_bytes

    shared = [shared_prompts(base, texts) for texts in (others or [base])]
    common = set.intersection(*({prompt.text for prompt in one.prompts} for one in shared))
    prompts = [prompt for prompt in shared[0].prompts if prompt.text in common]
    if not prompts:
        raise DataError("No prompt is in all files of texts. Prompts are matched by their text.")
    samples = min(one.samples for one in shared)
    missing = max(
        match_texts(prompts, texts, samples).counts.missing_texts for texts in (base, *others)
    )
    share = missing / (len(prompts) * samples)
    lines = "".join(json.dumps({"prompt": p.text}, ensure_ascii=False) + "\n" for p in prompts)
    content, name = lines.encode(), f"{SOURCES}/prompts.jsonl"
    entry = {"uri": f"file:{name}", "sha256": sha256_bytes(content), "column": "prompt"}
    number: int | str = n if n is not None and n < len(prompts) else "all"
    settings: dict[str, Any] = {"generation.samples": samples}
    choices = [
        Choice("prompts", f"{min(n or len(prompts), len(prompts))}", "those in all files of texts"),
        Choice("generation.samples", str(samples), "texts of each prompt that all files have"),
    ]
    if share > MISSING_LIMIT:
        settings["generation.max_error_share"] = min(0.99, math.ceil(share * 100) / 100)
        choices.append(Choice(
            "generation.max_error_share", str(settings["generation.max_error_share"]),
            f"{missing} texts are missing in one of the files; they are counted as not scored",
        ))  # fmt: skip
    return NewPrompts({TEXTS_SUBSET: {**entry, "n": number}}, {name: content}, settings, choices)


MISSING_LIMIT = 0.01
"""Share of missing texts up to which generation.max_error_share of the preset is kept."""


def _number_choice(taken: int, available: int, where: str, n: int | None) -> Choice:
    limit = "--n" if n is not None else f"--n, default {DEFAULT_N}"
    number = f"all {taken}" if taken == available else f"{taken} of {available}"
    return Choice("prompts", number, f"{where}; {limit}")


def _prompt_column(path: Path) -> str | None:
    """Return the column of a table with a recognised name, or its only one; None for a .txt file.

    Raises:
        ConfigError: there is none, or several.
    """
    from toxtrail.datasets.generated_texts.table import PROMPT_COLUMNS, choose_column
    from toxtrail.datasets.readers import read_rows

    if path.suffix.lower() == ".txt":
        return None
    _, row = next(read_rows(path), (0, {}))
    if not row:
        raise DataError(f"--prompts: {path} has no rows.")
    if len(row) == 1:
        return next(iter(row))
    names = PROMPT_COLUMNS if set(PROMPT_COLUMNS) & row.keys() else ("text",)
    return choose_column(path, row, "column", names)
