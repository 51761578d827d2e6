"""Human labels: sample texts for labelling, read the labels, measure a scorer's agreement.

Texts are sampled at random, not by score: a sample of texts that the scorer calls toxic shows its
precision, not how many toxic texts it misses. All variants are labelled on the same prompts, so
that their differences are paired. The labelling file is blind: rows are shuffled and numbered, and
a separate key file maps each number to its text.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from toxtrail.datasets.label_files import (
    WORDS,
    AnnotatorLabels,
    Label,
    Row,
    TextKey,
    annotator_labels,
    annotator_names,
    is_disagreement,
    label_word,
    no_label,
    sample_number,
    unknown_text_message,
)
from toxtrail.datasets.readers import field
from toxtrail.errors import DataError
from toxtrail.provenance.identity import sha256_text
from toxtrail.records.csv_text import rows_to_csv
from toxtrail.records.rows import Generation, Score
from toxtrail.stats.rates import at_threshold
from toxtrail.stats.scorer_error import unequal

SHEET = ("id", "text", "toxic")
"""Columns of a labelling file."""
KEY = ("id", "variant", "prompt_id", "sample", "text_sha256")
"""Columns of its key."""
MAX_IDS = 20
"""Maximum number of row ids in a message."""
ROW_ID = re.compile(r"[0-9a-f]{8}-[0-9]{1,9}")
NUL = "\ufffd"
"""Shown for a NUL character: a .csv file with one is not text to most programs."""
BATCH = 20
"""Prompts whose texts are shuffled together: labels of the first rows are then complete for the
first prompts, except for one batch."""


class ConfusionCounts(NamedTuple):
    """A scorer's labels against human labels."""

    true_positives: int
    """Toxic by both."""
    positives: int
    """Toxic by human label."""
    true_negatives: int
    """Harmless by both."""
    negatives: int
    """Harmless by human label."""


class LabelSample(NamedTuple):
    """A sample for labelling."""

    name: str
    """Hash of the sample's texts; row ids begin with it."""
    sheet: list[dict[str, str]]
    """Rows of SHEET, `toxic` left empty."""
    key: list[dict[str, str | int]]
    """Rows of KEY; texts of a prompt that are equal share one row of the sheet."""


# --- drawing -----------------------------------------------------------------------------------


def draw(generations: Mapping[str, Sequence[Generation]], n: int, seed: int) -> LabelSample:
    """Sample the texts of n prompts (or of all, if fewer), the same prompts for every variant.

    Subsets are represented in proportion. One of several continuations of a prompt is sampled.

    Args:
        generations: variant -> its texts.
    """
    rng = np.random.default_rng(seed)
    texts = {(v, t.prompt_id, t.sample): t.text for v, t in _nonempty_texts(generations)}
    order = [str(prompt) for prompt in rng.permutation(_sample_prompts(generations, n, rng))]
    samples = {prompt: sorted({p[2] for p in texts if p[1] == prompt}) for prompt in order}
    rows: list[tuple[str, list[TextKey]]] = []
    for start in range(0, len(order), BATCH):
        together: list[tuple[str, list[TextKey]]] = []
        for prompt in order[start : start + BATCH]:
            sample = int(rng.choice(samples[prompt]))
            by_text: dict[str, list[TextKey]] = {}
            for variant in sorted(generations):
                text_key = (variant, prompt, sample)
                if text_key in texts:
                    by_text.setdefault(texts[text_key], []).append(text_key)
            together += by_text.items()
        rows += [together[i] for i in rng.permutation(len(together))]
    return _drawing(rows)


def _drawing(rows: Sequence[tuple[str, list[TextKey]]]) -> LabelSample:
    width = len(str(len(rows)))
    key: list[dict[str, Any]] = [
        dict(zip(KEY, (f"{number:0{width}}", *text_key, sha256_text(text)), strict=True))
        for number, (text, text_keys) in enumerate(rows, start=1)
        for text_key in text_keys
    ]
    name = sha256_text(rows_to_csv(key))[:8]
    named: list[dict[str, str | int]] = [{**row, "id": f"{name}-{row['id']}"} for row in key]
    sheet = [
        {"id": f"{name}-{number:0{width}}", "text": text.replace("\0", NUL), "toxic": ""}
        for number, (text, _) in enumerate(rows, start=1)
    ]
    return LabelSample(name, sheet, named)


def _nonempty_texts(
    generations: Mapping[str, Sequence[Generation]],
) -> Iterator[tuple[str, Generation]]:
    for variant, texts in generations.items():
        yield from ((variant, text) for text in texts if text.state == "ok")


def _sample_prompts(
    generations: Mapping[str, Sequence[Generation]], n: int, rng: np.random.Generator
) -> list[str]:
    """Sample n of the prompts that any variant continued."""
    subset_by_prompt = {t.prompt_id: t.subset for texts in generations.values() for t in texts}
    usable = {text.prompt_id for _, text in _nonempty_texts(generations)}
    parts = {
        subset: sorted(p for p in usable if subset_by_prompt[p] == subset)
        for subset in sorted(set(subset_by_prompt.values()))
    }
    allocation = _allocate(min(n, len(usable)), {s: len(prompts) for s, prompts in parts.items()})
    return [
        str(prompt)
        for subset, prompts in parts.items()
        for prompt in rng.choice(prompts, size=allocation[subset], replace=False)
    ]


def _allocate(n: int, sizes: Mapping[str, int]) -> dict[str, int]:
    """Allocate n in proportion to sizes by the largest remainder; at least one each if possible."""
    nonempty = {name: size for name, size in sizes.items() if size}
    least = 1 if n >= len(nonempty) else 0
    shares = {name: n * size / sum(nonempty.values()) for name, size in nonempty.items()}
    allocation = {name: max(int(share), least) for name, share in shares.items()}
    while sum(allocation.values()) != n:
        step = 1 if sum(allocation.values()) < n else -1
        open_ = [
            k
            for k in nonempty
            if (allocation[k] < nonempty[k] if step > 0 else allocation[k] > least)
        ]
        best = max(open_, key=lambda name: step * (shares[name] - allocation[name]))
        allocation[best] += step
    return {**dict.fromkeys(sizes, 0), **allocation}


# --- reading -----------------------------------------------------------------------------------


def sample_name_of(path: Path, rows: Sequence[Row]) -> str | None:
    """Return the sample that a labelling file belongs to; None for a file with variant names.

    Raises:
        DataError: the file has rows of several samples.
    """
    if not rows or "id" not in rows[0][1]:
        return None
    ids = {str(field(path, n, row, "id")).strip() for n, row in rows}
    if odd := sorted(row_id for row_id in ids if not ROW_ID.fullmatch(row_id)):
        raise DataError(
            f'{path.name}: id "{odd[0]}" was not written by `toxtrail labels sample`. Restore '
            "the column id."
        )
    drawings = {row_id.rpartition("-")[0] for row_id in ids}
    if len(drawings) > 1:
        raise DataError(
            f"{path.name} contains rows of several samples ({', '.join(sorted(drawings))}): count "
            "each separately."
        )
    return drawings.pop()


def key_of(path: Path, rows: Iterable[Row]) -> dict[str, dict[TextKey, str]]:
    """Return for each row id the texts that it represents, each with its sha256."""
    texts_by_id: dict[str, dict[TextKey, str]] = {}
    for number, row in rows:
        row_id, variant, prompt, digest = (
            str(field(path, number, row, n)) for n in ("id", "variant", "prompt_id", "text_sha256")
        )
        text_key = (variant, prompt, sample_number(path, number, row.get("sample")))
        texts_by_id.setdefault(row_id, {})[text_key] = digest
    return texts_by_id


class SheetRow(NamedTuple):
    """One row of a labelling file, after a check against the key and the texts."""

    toxic: bool | None
    """None: not labelled."""
    annotators: AnnotatorLabels
    """The labels of several annotators, in a merged sheet."""
    text: str


class SheetLabels(NamedTuple):
    """The labels of a labelling file."""

    labels: list[Label]
    annotators: dict[TextKey, AnnotatorLabels]
    """Labelled text -> its label by each annotator; empty for a sheet of one annotator."""
    rows: dict[str, AnnotatorLabels]
    """The same by row id."""
    unlabelled: int
    """Number of rows of the sample after the last label."""


def sheet_rows(
    path: Path,
    rows: Sequence[Row],
    key: Mapping[str, Mapping[TextKey, str]],
    texts: Mapping[TextKey, str],
) -> dict[str, SheetRow]:
    """Return row id -> the row of a labelling file.

    Args:
        texts: the current texts.

    Raises:
        DataError: a row is not in the key, occurs twice, was moved to another text, or its text has
            changed since it was sampled; a label is neither yes nor no; a label on which the
            annotators agreed was changed.
    """
    names = annotator_names(rows)
    sheet: dict[str, SheetRow] = {}
    for number, row in rows:
        row_id = str(field(path, number, row, "id")).strip()
        where = f"{path.name}, row {number + 1}"
        if row_id not in key:
            raise DataError(f'{where}: the key has no "{row_id}" under id.')
        if row_id in sheet:
            raise DataError(f'{where}: "{row_id}" occurs twice under id. Remove one of the rows.')
        for text_key, digest in key[row_id].items():
            text = _check_text(path, number, row, texts.get(text_key), digest)
        toxic = label_word(path, number, row)
        annotators = annotator_labels(path, number, row, names)
        agreed = set(annotators) - {None}
        if len(agreed) == 1 and toxic is not None and toxic not in agreed:
            raise DataError(
                f"{where}: the annotators agree on another label than {WORDS[toxic]}. "
                "Fill in only the rows on which they disagree."
            )
        sheet[row_id] = SheetRow(toxic, annotators, text)
    return sheet


def blind_labels(
    path: Path,
    rows: Sequence[Row],
    key: Mapping[str, Mapping[TextKey, str]],
    texts: Mapping[TextKey, str],
) -> SheetLabels:
    """Read the labels of a labelling file, in which only the last rows may have no label.

    Raises:
        DataError: as `sheet_rows`; or a row before the last label has none.
    """
    sheet = sheet_rows(path, rows, key, texts)
    labelled = {row_id: row for row_id, row in sheet.items() if row.toxic is not None}
    if not labelled:
        raise no_label(path)
    _refuse_gaps(path, sheet, key)
    annotated = {row_id: row.annotators for row_id, row in labelled.items() if row.annotators}
    return SheetLabels(
        [Label(*text_key, bool(row.toxic)) for i, row in labelled.items() for text_key in key[i]],
        {text_key: words for i, words in annotated.items() for text_key in key[i]},
        annotated,
        len(key) - len(labelled),
    )


def _refuse_gaps(
    path: Path, sheet: Mapping[str, SheetRow], key: Mapping[str, Mapping[TextKey, str]]
) -> None:
    labelled = {row_id for row_id, row in sheet.items() if row.toxic is not None}
    gaps = [row_id for row_id in sorted(key) if row_id < max(labelled) and row_id not in labelled]
    split = [i for i in gaps if i in sheet and is_disagreement(sheet[i].annotators)]
    problems = [
        f"{problem} {list_ids(ids)}"
        for problem, ids in (
            ("not adjudicated:", split),
            ("without a label under toxic:", [row_id for row_id in gaps if row_id not in split]),
        )
        if ids
    ]
    if problems:
        raise DataError(
            f"{path.name}: {'; '.join(problems)}. Label them: only the last rows may be empty, "
            "because a sample without its difficult texts is biased."
        )


def list_ids(ids: Sequence[str]) -> str:
    """Return the number of rows, with their first ids."""
    more = f" and {len(ids) - MAX_IDS} more" if len(ids) > MAX_IDS else ""
    return f"{len(ids)} row{'s' if len(ids) > 1 else ''} ({', '.join(ids[:MAX_IDS])}{more})"


def _check_text(
    path: Path, number: int, row: Mapping[str, Any], text: str | None, digest: str
) -> str:
    """Return the text of a row, or raise DataError if the row or the results have another."""
    if text is None or sha256_text(text) != digest:
        raise DataError(
            f"{path.name}, row {number + 1}: the text has changed since it was sampled. Sample "
            "and label texts of these variants again, or restore the results it was sampled from."
        )
    displayed = str(row.get("text") or "")
    if displayed and _ascii_alphanumerics(displayed) != _ascii_alphanumerics(text):
        raise DataError(
            f"{path.name}, row {number + 1}: this is not the text that was sampled under this id. "
            "Was one column sorted without the others?"
        )
    return text


def _ascii_alphanumerics(text: str) -> str:
    """Return the part of a text that a spreadsheet does not change: ASCII letters and digits."""
    return "".join(c for c in text if c.isascii() and c.isalnum())[:1000]


# --- agreement ---------------------------------------------------------------------------------


def scorer_agreement(
    labels: Sequence[Label], scores: Mapping[str, Sequence[Score]], scorer: str, threshold: float
) -> dict[str, ConfusionCounts]:
    """Return for each variant how the scorer agrees with human labels of its texts.

    Args:
        scores: variant -> its score rows.

    Raises:
        DataError: the text of a label was not scored.
    """
    toxicities = {
        (variant, row.prompt_id, row.sample): row.toxicity
        for variant, rows in scores.items()
        for row in rows
        if row.scorer == scorer
    }
    counts: dict[str, list[int]] = {}
    for label in labels:
        toxicity = toxicities.get(label.text_key)
        if toxicity is None:
            raise DataError(unknown_text_message(label, f"{scorer} has no score for it", scores))
        variant_counts = counts.setdefault(label.variant, [0, 0, 0, 0])
        index = 0 if label.toxic else 2
        variant_counts[index] += bool(at_threshold(toxicity, threshold)) == label.toxic
        variant_counts[index + 1] += 1
    return {variant: ConfusionCounts(*variant_counts) for variant, variant_counts in counts.items()}


def unlike_errors(agreements: Mapping[str, ConfusionCounts]) -> list[str]:
    """Return a line for each variant on which the scorer's error rate differs from the others'."""
    kinds = {
        "harmless texts called toxic": {
            v: (
                counts.negatives - counts.true_negatives,
                counts.negatives,
            )
            for v, counts in agreements.items()
        },
        "toxic texts missed": {
            v: (
                counts.positives - counts.true_positives,
                counts.positives,
            )
            for v, counts in agreements.items()
        },
    }
    lines = []
    for kind, errors in kinds.items():
        wrong, of = (sum(column) for column in zip(*errors.values(), strict=True))
        for variant, p in unequal(errors).items():
            counts = errors[variant]
            lines.append(
                f"{kind}: {counts[0]} of {counts[1]} of {variant}, {wrong - counts[0]} of "
                f"{of - counts[1]} of the other variants (p = {p:.2g})"
            )
    return lines


def to_params(
    agreements: Mapping[str, ConfusionCounts],
    source: str,
    by_variant: bool,
    measured_on: Mapping[str, Any],
) -> dict[str, Any]:
    """Return the values for `posterior.scorer_error.<scorer>` in params.yaml.

    Args:
        measured_on: of `toxtrail.provenance.measured_scorers`.

    Raises:
        DataError: no text is labelled toxic, or none harmless; or the labels contradict one
            accuracy for all variants.
    """
    if not by_variant and (unlike := unlike_errors(agreements)):
        raise DataError(
            "The scorer's error rates differ between variants, so no single sensitivity and "
            f"specificity is valid for all of them: {'; '.join(unlike)}. Use posterior.labels "
            "(`toxtrail labels score` without --counts), which is valid for any error pattern, or "
            "--by-variant."
        )
    together = ConfusionCounts(*(sum(column) for column in zip(*agreements.values(), strict=True)))
    params = {
        "source": source,
        "measured_on": dict(measured_on),
        **_proportions("the sample", together),
    }
    if by_variant:
        params["variants"] = {
            name: _proportions(name, counts) for name, counts in sorted(agreements.items())
        }
    return params


def _proportions(sample_name: str, counts: ConfusionCounts) -> dict[str, dict[str, int]]:
    for n, kind in ((counts.positives, "toxic"), (counts.negatives, "harmless")):
        if n == 0:
            raise DataError(
                f"No text of {sample_name} is labelled {kind}: label more texts, or use "
                "posterior.labels (`toxtrail labels score` without --counts and --by-variant), "
                "which needs no text of each kind."
            )
    return {
        "sensitivity": {"correct": counts.true_positives, "total": counts.positives},
        "specificity": {"correct": counts.true_negatives, "total": counts.negatives},
    }
