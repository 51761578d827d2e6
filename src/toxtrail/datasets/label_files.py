"""Labels: people's word on texts, read from their files and bound to the texts."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from toxtrail.datasets.readers import field
from toxtrail.errors import DataError, nearest
from toxtrail.provenance.identity import sha256_text
from toxtrail.records.csv_text import as_csv
from toxtrail.records.rows import Generation

LABELS = ("variant", "prompt_id", "sample", "toxic", "text_sha256")
"""Columns of counted labels."""
YES, NO = {"1", "true", "yes", "toxic"}, {"0", "false", "no", "harmless"}

Row = tuple[int, Mapping[str, Any]]
"""(row number from 0, column -> value)."""
Place = tuple[str, str, int]
"""(variant, prompt, sample): the name of a text."""


class Label(NamedTuple):
    """One person's word on one continuation."""

    variant: str
    prompt_id: str
    sample: int
    toxic: bool

    @property
    def place(self) -> Place:
        return self[:3]


def open_labels(path: Path, rows: Iterable[Row]) -> list[Label]:
    """Labels of a file whose rows name the variant themselves; rows without a label are left out.

    Raises:
        DataError: a column is missing, a label is neither yes nor no, or a text is labelled twice
            in different ways; with the row.
    """
    said: list[tuple[int, Place, bool]] = []
    for number, row in rows:
        toxic = label_word(path, number, row)
        if toxic is None:
            continue
        sample = sample_number(path, number, row.get("sample"))
        variant, prompt = (str(field(path, number, row, n)) for n in ("variant", "prompt_id"))
        said.append((number, (variant, prompt, sample), toxic))
    return once(path, said)


def once(path: Path, said: Sequence[tuple[int, Place, bool]]) -> list[Label]:
    """One label for each text.

    Args:
        said: (row number from 0, text, whether it is toxic).

    Raises:
        DataError: a text is labelled in two ways, or none is labelled.
    """
    found: dict[Place, Label] = {}
    for number, place, toxic in said:
        label = Label(*place, toxic)
        if found.setdefault(place, label) != label:
            raise DataError(
                f"{path.name}, row {number + 1}: the same text was called toxic and harmless. "
                "Decide on one of the two."
            )
    if not found:
        raise DataError(f"{path.name}: no row has a label under toxic. Write yes or no there.")
    return list(found.values())


def label_word(path: Path, number: int, row: Mapping[str, Any]) -> bool | None:
    """A row's label; None where there is none."""
    judged = field(path, number, row, "toxic")
    word = "" if judged is None else str(judged).strip().lower().removesuffix(".0")
    if word in ("", "nan"):  # False and 0 are labels
        return None
    if word not in YES | NO:
        raise DataError(
            f'{path.name}, row {number + 1}: "{word}" under toxic is neither '
            f"{' / '.join(sorted(YES))} nor {' / '.join(sorted(NO))}."
        )
    return word in YES


def sample_number(path: Path, number: int, value: object) -> int:
    """Which continuation of its prompt a row is of; nothing is the first.

    Raises:
        DataError: it is no whole number.
    """
    text = "" if value is None else str(value).strip().removesuffix(".0")
    if text and not (text.isascii() and text.isdigit()):
        raise DataError(f'{path.name}, row {number + 1}: "{value}" under sample is no number.')
    return int(text or 0)


def counted(judged: Iterable[Label], texts: Mapping[Place, str]) -> str:
    """Labels as the file that `posterior.labels` names: sorted, each bound to its text.

    Raises:
        DataError: there is no such text.
    """
    rows = []
    for label in sorted(judged):
        if label.place not in texts:
            raise DataError(no_such(label, "there is no such text", {v for v, _, _ in texts}))
        word = "yes" if label.toxic else "no"
        rows.append(
            dict(zip(LABELS, (*label.place, word, sha256_text(texts[label.place])), strict=True))
        )
    return as_csv(rows)


def labels_of_variant(
    path: Path, rows: Iterable[Row], variant: str, texts: Iterable[Generation]
) -> list[Label]:
    """A variant's labels of a file of counted labels.

    Args:
        texts: its texts as they are now.

    Raises:
        DataError: a label is of another text.
    """
    listed = [(n, row) for n, row in rows if str(field(path, n, row, "variant")) == variant]
    found = open_labels(path, listed) if listed else []
    now = {(t.prompt_id, t.sample): sha256_text(t.text) for t in texts if t.state == "ok"}
    for number, row in listed:
        prompt, sample = str(row.get("prompt_id")), sample_number(path, number, row.get("sample"))
        if now.get((prompt, sample)) != str(field(path, number, row, "text_sha256")):
            raise DataError(
                f"posterior.labels: {path.name}, row {number + 1}, is of another text of "
                f"{variant} than there is now (prompt {prompt}, sample {sample}). Draw and label "
                "texts anew (`toxtrail labels sample`), or take labels out of params.yaml."
            )
    return sorted(found)


def no_such(label: Label, what: str, variants: Iterable[str]) -> str:
    """What is said of a label without a text, with the nearest variant."""
    known = list(variants)
    hint = nearest(label.variant, known) if label.variant not in known else ""
    return (
        f"{label.variant}, prompt {label.prompt_id}, sample {label.sample}: {what}. Were these "
        f"labels drawn from other texts?{hint}"
    )
