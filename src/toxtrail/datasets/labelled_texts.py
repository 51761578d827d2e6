"""Texts with human labels from any source: public benchmarks, or own tables."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from itertools import chain
from pathlib import Path
from typing import Any, NamedTuple

from toxtrail.datasets.label_files import NO, YES, Row, label_word
from toxtrail.datasets.readers import clean_text, columns, field
from toxtrail.datasets.readers.text import is_blank
from toxtrail.errors import DataError


class TextColumns(NamedTuple):
    """Columns of a table of labelled texts."""

    text: str
    label: str
    prompt: str | None = None
    """Column of the prompts that the texts answer; None if there are none."""


class LabelledText(NamedTuple):
    """One text and its label."""

    text: str
    """Empty if it has no visible characters."""
    prompt: str | None
    toxic: bool
    group: str | None
    """Value of the column by which the texts are grouped; None without such a column."""


class LabelledFile(NamedTuple):
    """The labelled texts of a file."""

    texts: list[LabelledText]
    columns: TextColumns
    unlabelled: int
    """Number of rows without a label, which are left out."""


KNOWN_COLUMNS: Mapping[TextColumns, str] = {
    TextColumns("test_case", "label_gold"): "HateCheck",
    TextColumns("user_input", "toxicity"): "ToxicChat, whose labels are of the user's message",
    TextColumns("comment_text", "toxic"): "Jigsaw, labels 0 and 1",
    TextColumns("comment_text", "toxicity"): "Jigsaw, share of annotators",
    TextColumns("comment_text", "target"): "Jigsaw, share of annotators",
    TextColumns("text", "toxic"): "sheets of `labels sample`",
}
"""Columns that are detected -> their source (HateCheck: Röttger et al. 2021, arXiv:2012.15606;
ToxicChat: Lin et al. 2023, arXiv:2310.17389; Jigsaw: Borkan et al. 2019, arXiv:1903.04561)."""
SHARES = {"toxicity", "target"}
"""Label columns with the share of annotators who called the text toxic; the text counts as toxic
from 0.5 (Borkan et al. 2019)."""
WORDS = {"hateful": True, "non-hateful": False}
"""Further labels of benchmarks."""


def labelled_texts(
    path: Path, rows: Iterable[Row], named: TextColumns | None, prompt: str | None, by: str | None
) -> LabelledFile:
    """Return the labelled texts of a file's rows, which are read once.

    Args:
        named: the columns; None to detect them.
        prompt: column of the prompts.
        by: column by which the texts are grouped.

    Raises:
        DataError: there are no rows; the columns are missing or not known; a label is unknown; all
            labels are the same; or the texts are grouped by themselves. The message gives the row.
    """
    remaining = iter(rows)
    first = next(remaining, None)
    if first is None:
        raise DataError(f"{path.name} has no rows.")
    used = (named or _detected(path, first[1]))._replace(prompt=prompt)
    if by is not None and by in (used.text, used.prompt):
        raise DataError(f"{path.name}: {by} has the texts. Group them by another column.")
    texts, unlabelled = [], 0
    for number, row in chain([first], remaining):
        toxic = _label(path, number, row, used.label)
        if toxic is None:
            unlabelled += 1
            continue
        text = _text(path, number, row, used.text)
        question = None if used.prompt is None else _text(path, number, row, used.prompt)
        group = None if by is None else _group(field(path, number, row, by))
        texts.append(LabelledText(text, question, toxic, group))
    kinds = {text.toxic for text in texts}
    if len(kinds) < 2:
        only = "".join("toxic" if kind else "harmless" for kind in kinds)
        problem = f"every label is {only}" if only else "no row has a label"
        raise DataError(
            f"{path.name}: under {used.label}, {problem}. Toxic and harmless texts are needed to "
            "measure sensitivity and specificity."
        )
    return LabelledFile(texts, used, unlabelled)


def _detected(path: Path, row: Mapping[str, Any]) -> TextColumns:
    names = list(columns(row))
    known = [c for c in KNOWN_COLUMNS if c.text in names and c.label in names]
    if len(known) == 1:
        return known[0]
    shapes = "; ".join(f"{c.text} and {c.label} ({of})" for c, of in KNOWN_COLUMNS.items())
    problem = "several pairs of columns are known" if known else "its columns are not known"
    raise DataError(
        f"{path.name}: {problem}. It has {', '.join(names)}. Name the columns with --text and "
        f"--label. Known are: {shapes}."
    )


def _label(path: Path, number: int, row: Mapping[str, Any], column: str) -> bool | None:
    """Return a row's label; None without one."""
    value = field(path, number, row, column)
    word = "" if value is None else str(value).strip().lower()
    if word in WORDS:
        return WORDS[word]
    if column not in SHARES or word in {"", "nan", *YES, *NO}:
        return label_word(path, number, row, column)
    try:
        share = float(word)
    except ValueError:
        share = math.nan
    if not 0 <= share <= 1:
        raise DataError(
            f'{path.name}, row {number + 1}: "{word}" under {column} is not a number from 0 to 1.'
        )
    return share >= 0.5


def _text(path: Path, number: int, row: Mapping[str, Any], column: str) -> str:
    text = clean_text(path, number, field(path, number, row, column))
    return "" if is_blank(text) else text


def _group(value: object) -> str:
    return "" if value is None else str(value).strip()
