"""Selection of prompts: filtering the rows of a source, and sampling from them."""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Iterable, Mapping
from decimal import Decimal
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from toxtrail.config.schema import ColumnFilter, Scalar, SubsetConfig
from toxtrail.datasets.readers import field, holds_text_alone, read_texts
from toxtrail.datasets.readers.conversations import parse_prompt
from toxtrail.errors import ConfigError, DataError
from toxtrail.provenance.identity import sha256_text
from toxtrail.records.rows import Prompt, Turn, prompt_content

NUMBER = re.compile(r"[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)(e[+-]?[0-9]+)?|nan")
"""Number in a text cell; nan is a missing value. float() would also accept 1_000 and other
digits."""


class Candidate(NamedTuple):
    """Distinct prompt of a source that meets all conditions (the first row of equal ones)."""

    row: int
    group: str
    """Value of the `balance` column; empty without one."""
    covariates: Mapping[str, float | None] | None
    cluster: str | None = None
    """Cluster; None if the source has no cluster column."""
    conversation: tuple[Turn, ...] = ()
    """Its messages, if there are several."""


class Selection(NamedTuple):
    """Candidates of a subset, with counts of rows."""

    candidates: Mapping[str, Candidate]
    """Candidates by their content: the text, or the messages of a conversation as JSON."""
    rows: int
    """Number of rows read."""
    blank: int
    """Number of rows without a text."""
    left: Mapping[str, int]
    """Condition -> number of rows that meet it and all conditions before it."""
    duplicates: int
    """Number of rows that meet all conditions and repeat an earlier text."""


def read_subset(path: Path, key: str, config: SubsetConfig) -> Selection:
    """Return every prompt of a subset's file that may be sampled; an error names the subset."""
    try:
        return filter_candidates(path, config)
    except (ConfigError, DataError) as error:
        raise type(error)(f"prompts.subsets.{key}: {error}") from None


def filter_candidates(path: Path, config: SubsetConfig) -> Selection:
    """Return every prompt that may be sampled.

    Raises:
        DataError: a column is missing or has values of the wrong type, or a conversation is not a
            prompt.
        ConfigError: columns are configured for a plain text file.
    """
    _refuse_columns_of_text(path, config)
    where = {describe_filter(name, one): (name, one) for name, one in (config.where or {}).items()}
    left = dict.fromkeys(where, 0)
    candidates: dict[str, Candidate] = {}
    rows = blank = duplicates = 0

    def parse(path: Path, number: int, cell: object) -> tuple[Turn, ...]:
        return parse_prompt(path, number, config.column or "", cell)

    for number, turns, row in read_texts(path, config.column, config.delimiter, parse):
        rows += 1
        content = prompt_content(turns)
        if not content:
            blank += 1
            continue
        cells = RowView(path, number, row)
        if not _meets_all(cells, where, left):
            continue
        if content in candidates:
            duplicates += 1
            continue
        conversation = turns if len(turns) > 1 else ()
        candidates[content] = Candidate(number, *_kept(cells, config), conversation)
    return Selection(candidates, rows, blank, left, duplicates)


def sample_prompts(
    selection: Selection, subset: str, config: SubsetConfig, seed: int
) -> list[Prompt]:
    """Sample n distinct texts, or take all.

    Each text is ranked by a hash of (seed, subset, text), and the n lowest are taken: the sample
    depends neither on the order of the file nor on other subsets, and a larger n contains the
    smaller sample. If balanced, the lowest of each value are taken.

    Raises:
        ConfigError: fewer than n distinct texts, or fewer texts of a value than needed.
    """
    place = f"prompts.subsets.{subset}"
    if not selection.candidates:
        raise ConfigError(f"{place}: no prompt is left of {config.uri}: {_funnel(selection)}.")
    ranked = sorted(selection.candidates, key=lambda text: sha256_text(f"{seed}|{subset}|{text}"))
    taken = (
        ranked[: _number(place, selection, config)]
        if config.balance is None
        else _balanced(place, ranked, selection, config)
    )
    return [_prompt(subset, text, selection.candidates[text], config) for text in taken]


def describe_filter(column: str, where: ColumnFilter) -> str:
    """Format a condition: `prompt.toxicity >= 0.5 and <= 0.9`, `kind is a or b`."""
    if where.is_ is not None:
        wanted = where.is_ if isinstance(where.is_, list) else [where.is_]
        return f"{column} is {' or '.join(_spelled(one) for one in wanted)}"
    bounds = ((">=", where.min), ("<=", where.max))
    return f"{column} " + " and ".join(f"{sign} {b:g}" for sign, b in bounds if b is not None)


class RowView(NamedTuple):
    """Row with its position. In a CSV file, where all cells are text, numbers and booleans are
    parsed."""

    path: Path
    number: int
    row: Mapping[str, Any]

    def value(self, column: str) -> Any:
        """Return the value of a column; None if it is missing."""
        value = field(self.path, self.number, self.row, column)
        if value == "" or (isinstance(value, float) and math.isnan(value)):
            return None
        return value

    def number_of(self, column: str, what: str) -> float | None:
        """Return the value as a number; true and false are 1 and 0.

        Raises:
            DataError: the value is not a number.
        """
        value = self.value(column)
        if value is None:
            return None
        number = _number_in(value, holds_text_alone(self.path))
        if number is None:
            raise DataError(
                f"{self.path.name}, row {self.number + 1}: {column} holds "
                f"{_kind(value)}; {what} needs numbers."
            )
        return None if math.isnan(number) else number

    def is_one_of(self, column: str, wanted: Iterable[Scalar]) -> bool:
        """Return whether the value is one of these; true is not 1."""
        value = self.value(column)
        return any(_same(value, one, holds_text_alone(self.path)) for one in wanted)

    def label(self, column: str, what: str = "balance") -> str:
        """Return the value as a name; empty if it is missing.

        Raises:
            DataError: the value is a list or an object.
        """
        value = self.value(column)
        if isinstance(value, Mapping | list):
            raise DataError(
                f"{self.path.name}, row {self.number + 1}: {column} holds {_kind(value)}; {what} "
                "needs names or numbers."
            )
        return "" if value is None else _spelled(value)

    def cluster(self, column: str) -> str:
        """Return the name of the cluster, stripped; 1.0 and 1 are the same name.

        Raises:
            DataError: the value is missing, or a list or an object.
        """
        value = self.value(column)
        if isinstance(value, float) and value.is_integer():
            return str(int(value))
        name = self.label(column, "cluster").strip()
        if not name:
            raise DataError(
                f"{self.path.name}, row {self.number + 1}: {column} is empty; cluster needs a name "
                "in each row. Write one (a unique one for a prompt that shares nothing), or "
                "exclude the row with where."
            )
        return name


def _refuse_columns_of_text(path: Path, config: SubsetConfig) -> None:
    asked = [
        name for name in ("where", "balance", "covariates", "cluster") if getattr(config, name)
    ]
    if path.suffix.lower() == ".txt" and asked:
        raise ConfigError(
            f"{path.name} is plain text, one prompt a line: it has no columns for "
            f"{' and '.join(asked)}. Remove {'it' if len(asked) == 1 else 'them'}."
        )


def _meets_all(
    cells: RowView, where: Mapping[str, tuple[str, ColumnFilter]], left: dict[str, int]
) -> bool:
    for name, (column, condition) in where.items():
        if not meets(cells, column, condition):
            return False
        left[name] += 1
    return True


def meets(cells: RowView, column: str, where: ColumnFilter) -> bool:
    """Return whether a row meets one condition. See `filter_candidates`."""
    if where.is_ is not None:
        wanted = where.is_ if isinstance(where.is_, list) else [where.is_]
        return cells.is_one_of(column, wanted)
    number = cells.number_of(column, "where with min or max")
    if number is None:
        return False
    return (where.min is None or number >= where.min or _equal(number, where.min)) and (
        where.max is None or number <= where.max or _equal(number, where.max)
    )


def _kept(
    cells: RowView, config: SubsetConfig
) -> tuple[str, dict[str, float | None] | None, str | None]:
    group = "" if config.balance is None else cells.label(config.balance)
    cluster = None if config.cluster is None else cells.cluster(config.cluster)
    if config.covariates is None:
        return group, None, cluster
    covariates = {
        name: cells.number_of(column, f"the covariate {name}")
        for name, column in config.covariates.items()
    }
    return group, covariates, cluster


def _number(place: str, selection: Selection, config: SubsetConfig) -> int:
    there = len(selection.candidates)
    if config.n == "all":
        return there
    if there < config.n:
        raise ConfigError(
            f"{place}.n: got {config.n}, but {config.uri} has {there} distinct texts"
            f"{f' ({_funnel(selection)})' if selection.left else ''}. Use at most this number, or "
            "write n: all."
        )
    return config.n


def _balanced(
    place: str, ranked: Iterable[str], selection: Selection, config: SubsetConfig
) -> list[str]:
    there = Counter(one.group for one in selection.candidates.values())
    counts = ", ".join(f"{name or '(nothing)'}: {count}" for name, count in sorted(there.items()))
    least = min(there.values())
    wanted = least * len(there) if config.n == "all" else config.n
    if "" in there:
        raise ConfigError(
            f"{place}.balance: {there['']} rows have no value of {config.balance} ({counts}). "
            "Exclude them with where, or balance another column."
        )
    if wanted % len(there):
        raise ConfigError(
            f"{place}.n: {wanted} prompts cannot be divided equally among the {len(there)} "
            f"values of {config.balance} ({counts}). Use a multiple of {len(there)}."
        )
    share = wanted // len(there)
    if share > least:
        raise ConfigError(
            f"{place}.n: {wanted} prompts are {share} of each value of {config.balance}, but there "
            f"are {counts}. Use at most {least * len(there)}, or write n: all."
        )
    taken: Counter[str] = Counter()
    drawn = []
    for text in ranked:
        group = selection.candidates[text].group
        if taken[group] < share:
            taken[group] += 1
            drawn.append(text)
    return drawn


def _prompt(subset: str, content: str, one: Candidate, config: SubsetConfig) -> Prompt:
    key = f"{subset}-{sha256_text(content)[:12]}"
    *earlier, last = one.conversation or (Turn("user", content),)
    own = (config.language, one.covariates, one.cluster, tuple(earlier))
    return Prompt(key, subset, last.text, config.uri, one.row, *own)


def _funnel(selection: Selection) -> str:
    """Return the number of rows remaining after each condition."""
    steps = [f"{selection.rows} rows read"]
    if selection.blank:
        steps.append(f"{selection.rows - selection.blank} have a text")
    steps += [f"{count} left by {name}" for name, count in selection.left.items()]
    return ", ".join(steps)


def _spelled(value: object) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


def _kind(value: object) -> str:
    if isinstance(value, str):
        return "text"
    return "an object" if isinstance(value, Mapping) else f"a {type(value).__name__}"


def _number_in(value: object, from_text: bool) -> float | None:
    if isinstance(value, int | float | Decimal):
        found = float(value)
        return found if not math.isinf(found) else None
    if from_text and isinstance(value, str):
        text = value.strip().lower()
        if text in ("true", "false"):
            return float(text == "true")
        return _number_in(float(text), from_text) if NUMBER.fullmatch(text) else None
    return None


def _same(value: object, wanted: Scalar, from_text: bool) -> bool:
    if isinstance(wanted, bool):
        return value is wanted or (from_text and str(value).strip().lower() == _spelled(wanted))
    if isinstance(wanted, int | float):
        number = None if isinstance(value, bool) else _number_in(value, from_text)
        return number is not None and _equal(number, wanted)
    return value == wanted


def _equal(number: float, wanted: float) -> bool:
    """Return whether a cell contains this number, in double or single precision.

    The float32 nearest to 0.7 is below the float64 of the same digits. An integer that single
    precision rounds is another number.
    """
    if number == wanted or float(wanted).is_integer():
        return number == wanted
    with np.errstate(over="ignore", under="ignore"):
        return number == float(np.float32(wanted))
