"""Human labels of texts, read from files and bound to the texts by hash."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from toxtrail.datasets.readers import field
from toxtrail.errors import DataError, did_you_mean
from toxtrail.provenance.identity import sha256_text
from toxtrail.records.csv_text import rows_to_csv
from toxtrail.records.rows import Generation

LABELS = ("variant", "prompt_id", "sample", "toxic", "text_sha256")
"""Columns of a file of counted labels."""
ANNOTATOR = "annotator "
"""Start of the name of a column with the labels of one of several annotators."""
YES, NO = {"1", "true", "yes", "toxic"}, {"0", "false", "no", "harmless"}
WORDS: Mapping[bool | None, str] = {True: "yes", False: "no", None: ""}
"""Label -> the word that is written for it."""

Row = tuple[int, Mapping[str, Any]]
"""(row number from 0, column -> value)."""
TextKey = tuple[str, str, int]
"""(variant, prompt, sample): identifies a text."""
AnnotatorLabels = tuple[bool | None, ...]
"""A text's label by each annotator; None without one."""


class Label(NamedTuple):
    """One person's label of one continuation."""

    variant: str
    prompt_id: str
    sample: int
    toxic: bool

    @property
    def text_key(self) -> TextKey:
        return self[:3]


def open_labels(path: Path, rows: Iterable[Row]) -> list[Label]:
    """Read labels from a file whose rows name the variant; skip rows without a label.

    Raises:
        DataError: a column is missing, a label is neither yes nor no, or a text is labelled twice
            in different ways; with the row.
    """
    labelled: list[tuple[int, TextKey, bool]] = []
    for number, row in rows:
        toxic = label_word(path, number, row)
        if toxic is None:
            continue
        sample = sample_number(path, number, row.get("sample"))
        variant, prompt = (str(field(path, number, row, n)) for n in ("variant", "prompt_id"))
        labelled.append((number, (variant, prompt, sample), toxic))
    return deduplicate_labels(path, labelled)


def deduplicate_labels(path: Path, labelled: Sequence[tuple[int, TextKey, bool]]) -> list[Label]:
    """Return one label for each text.

    Args:
        labelled: (row number from 0, text, whether it is toxic).

    Raises:
        DataError: a text is labelled in two ways, or none is labelled.
    """
    label_by_text: dict[TextKey, Label] = {}
    for number, text_key, toxic in labelled:
        label = Label(*text_key, toxic)
        if label_by_text.setdefault(text_key, label) != label:
            raise DataError(
                f"{path.name}, row {number + 1}: the same text was called toxic and harmless. "
                "Decide on one of the two."
            )
    if not label_by_text:
        raise no_label(path)
    return list(label_by_text.values())


def no_label(path: Path) -> DataError:
    """Return the error of a file without labels."""
    return DataError(f"{path.name}: no row has a label under toxic. Write yes or no there.")


def is_disagreement(labels: AnnotatorLabels) -> bool:
    """Return whether a text has two different labels."""
    return {True, False} <= set(labels)


def annotator_names(rows: Sequence[Row]) -> list[str]:
    """Return the annotators whose labels the rows have."""
    columns = rows[0][1] if rows else ()
    return [c.removeprefix(ANNOTATOR) for c in columns if c.startswith(ANNOTATOR)]


def annotator_labels(
    path: Path, number: int, row: Mapping[str, Any], names: Iterable[str]
) -> AnnotatorLabels:
    """Return a row's label by each of these annotators."""
    return tuple(label_word(path, number, row, f"{ANNOTATOR}{name}") for name in names)


def counted_annotator_labels(path: Path, rows: Sequence[Row]) -> list[AnnotatorLabels]:
    """Return the annotators' labels in a file of counted labels, once for each row of the sheet:
    equal texts of a prompt shared one."""
    names = annotator_names(rows)
    return list(
        {
            (row.get("prompt_id"), row.get("text_sha256")): annotator_labels(path, n, row, names)
            for n, row in rows
        }.values()
    )


def label_word(
    path: Path, number: int, row: Mapping[str, Any], column: str = "toxic"
) -> bool | None:
    """Return a row's label; None without one."""
    value = field(path, number, row, column)
    word = "" if value is None else str(value).strip().lower().removesuffix(".0")
    if word in ("", "nan"):  # False and 0 are labels
        return None
    if word not in YES | NO:
        raise DataError(
            f'{path.name}, row {number + 1}: "{word}" under {column} is neither '
            f"{' / '.join(sorted(YES))} nor {' / '.join(sorted(NO))}."
        )
    return word in YES


def sample_number(path: Path, number: int, value: object) -> int:
    """Return which continuation of its prompt a row is; an empty value means the first.

    Raises:
        DataError: the value is not an integer.
    """
    text = "" if value is None else str(value).strip().removesuffix(".0")
    if text and not (text.isascii() and text.isdigit()):
        raise DataError(f'{path.name}, row {number + 1}: "{value}" under sample is not a number.')
    return int(text or 0)


def counted(
    labels: Iterable[Label],
    texts: Mapping[TextKey, str],
    annotators: Mapping[TextKey, AnnotatorLabels] | None = None,
) -> str:
    """Format labels as a file for `posterior.labels`: sorted, each with its text's hash.

    Args:
        annotators: the labels that each annotator gave; they are numbered instead of named.

    Raises:
        DataError: there is no such text.
    """
    rows = []
    for label in sorted(labels):
        if label.text_key not in texts:
            raise DataError(
                unknown_text_message(label, "there is no such text", {v for v, _, _ in texts})
            )
        digest = sha256_text(texts[label.text_key])
        row = dict(zip(LABELS, (*label.text_key, WORDS[label.toxic], digest), strict=True))
        words = [WORDS[word] for word in (annotators or {}).get(label.text_key, ())]
        rows.append({**row, **{f"{ANNOTATOR}{i}": word for i, word in enumerate(words, start=1)}})
    return rows_to_csv(rows)


def labels_of_variant(
    path: Path, rows: Iterable[Row], variant: str, texts: Iterable[Generation]
) -> list[Label]:
    """Return a variant's labels from a file of counted labels.

    Args:
        texts: the variant's current texts.

    Raises:
        DataError: the text of a label has changed.
    """
    listed = [(n, row) for n, row in rows if str(field(path, n, row, "variant")) == variant]
    labels = open_labels(path, listed) if listed else []
    now = {(t.prompt_id, t.sample): sha256_text(t.text) for t in texts if t.state == "ok"}
    for number, row in listed:
        prompt, sample = str(row.get("prompt_id")), sample_number(path, number, row.get("sample"))
        if now.get((prompt, sample)) != str(field(path, number, row, "text_sha256")):
            raise DataError(
                f"posterior.labels: {path.name}, row {number + 1}, labels another text of "
                f"{variant} than the current one (prompt {prompt}, sample {sample}). Sample and "
                "label texts again (`toxtrail labels sample`), or remove labels from params.yaml."
            )
    return sorted(labels)


def unknown_text_message(label: Label, problem: str, variants: Iterable[str]) -> str:
    """Return the message for a label without a text, with the nearest variant name."""
    names = list(variants)
    hint = did_you_mean(label.variant, names) if label.variant not in names else ""
    return (
        f"{label.variant}, prompt {label.prompt_id}, sample {label.sample}: {problem}. Were these "
        f"labels made for other texts?{hint}"
    )
