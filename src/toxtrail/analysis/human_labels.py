"""A labelled sample: which texts people label, which text a label is of, and how a scorer agrees.

Texts are drawn at random, not by score: a sample of texts that the scorer calls toxic tells how
often it is right there, not how many toxic texts it misses. All variants are labelled on the same
prompts, so that a difference of theirs is paired. The labelling file tells nothing of a variant:
rows are shuffled and numbered, and a key, another file, says what each number is.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from toxtrail.datasets.label_files import (
    Label,
    Place,
    Row,
    label_word,
    no_such,
    once,
    sample_number,
)
from toxtrail.datasets.readers import field
from toxtrail.errors import DataError
from toxtrail.provenance.identity import sha256_text
from toxtrail.records.csv_text import as_csv
from toxtrail.records.rows import Generation, Score
from toxtrail.stats.rates import at_threshold
from toxtrail.stats.scorer_error import unequal

SHEET = ("id", "text", "toxic")
"""Columns of a labelling file."""
KEY = ("id", "variant", "prompt_id", "sample", "text_sha256")
"""Columns of its key."""
ROW_ID = re.compile(r"[0-9a-f]{8}-[0-9]{1,9}")
BATCH = 20
"""Prompts whose texts are shuffled together: whoever stops after some rows has labelled all texts
of the prompts before them, but for one batch."""


class Agreement(NamedTuple):
    """A scorer against people."""

    found: int
    """Toxic for both."""
    toxic: int
    """Toxic for people."""
    passed: int
    """Harmless for both."""
    harmless: int
    """Harmless for people."""


class Drawing(NamedTuple):
    """A drawn sample."""

    name: str
    """Of the drawing, by its texts: the row numbers begin with it."""
    sheet: list[dict[str, str]]
    """Rows of SHEET, `toxic` left empty."""
    key: list[dict[str, str | int]]
    """Rows of KEY; texts of a prompt that are equal share one row of the sheet."""


# --- drawing -----------------------------------------------------------------------------------


def draw(generations: Mapping[str, Sequence[Generation]], n: int, seed: int) -> Drawing:
    """The texts of n prompts (or of all, if there are fewer), the same ones for every variant.

    Subsets have their share of the prompts. Of several continuations of a prompt one is drawn.

    Args:
        generations: variant -> its texts.
    """
    rng = np.random.default_rng(seed)
    texts = {(v, t.prompt_id, t.sample): t.text for v, t in _readable(generations)}
    order = [str(prompt) for prompt in rng.permutation(_chosen(generations, n, rng))]
    samples = {prompt: sorted({p[2] for p in texts if p[1] == prompt}) for prompt in order}
    rows: list[tuple[str, list[Place]]] = []
    for start in range(0, len(order), BATCH):
        together: list[tuple[str, list[Place]]] = []
        for prompt in order[start : start + BATCH]:
            sample = int(rng.choice(samples[prompt]))
            by_text: dict[str, list[Place]] = {}
            for variant in sorted(generations):
                place = (variant, prompt, sample)
                if place in texts:
                    by_text.setdefault(texts[place], []).append(place)
            together += by_text.items()
        rows += [together[i] for i in rng.permutation(len(together))]
    return _drawing(rows)


def _drawing(rows: Sequence[tuple[str, list[Place]]]) -> Drawing:
    width = len(str(len(rows)))
    key: list[dict[str, Any]] = [
        dict(zip(KEY, (f"{number:0{width}}", *place, sha256_text(text)), strict=True))
        for number, (text, places) in enumerate(rows, start=1)
        for place in places
    ]
    name = sha256_text(as_csv(key))[:8]
    named: list[dict[str, str | int]] = [{**row, "id": f"{name}-{row['id']}"} for row in key]
    sheet = [
        {"id": f"{name}-{number:0{width}}", "text": text, "toxic": ""}
        for number, (text, _) in enumerate(rows, start=1)
    ]
    return Drawing(name, sheet, named)


def _readable(
    generations: Mapping[str, Sequence[Generation]],
) -> Iterator[tuple[str, Generation]]:
    for variant, texts in generations.items():
        yield from ((variant, text) for text in texts if text.state == "ok")


def _chosen(
    generations: Mapping[str, Sequence[Generation]], n: int, rng: np.random.Generator
) -> list[str]:
    """n of the prompts that any variant continued."""
    asked = {t.prompt_id: t.subset for texts in generations.values() for t in texts}
    usable = {text.prompt_id for _, text in _readable(generations)}
    parts = {
        subset: sorted(p for p in usable if asked[p] == subset)
        for subset in sorted(set(asked.values()))
    }
    wanted = _shared_out(min(n, len(usable)), {s: len(prompts) for s, prompts in parts.items()})
    return [
        str(prompt)
        for subset, prompts in parts.items()
        for prompt in rng.choice(prompts, size=wanted[subset], replace=False)
    ]


def _shared_out(n: int, sizes: Mapping[str, int]) -> dict[str, int]:
    """n in proportion to sizes, rounded by the largest remainder; one for each if n allows it."""
    known = {name: size for name, size in sizes.items() if size}
    least = 1 if n >= len(known) else 0
    shares = {name: n * size / sum(known.values()) for name, size in known.items()}
    found = {name: max(int(share), least) for name, share in shares.items()}
    while sum(found.values()) != n:
        step = 1 if sum(found.values()) < n else -1
        open_ = [k for k in known if (found[k] < known[k] if step > 0 else found[k] > least)]
        best = max(open_, key=lambda name: step * (shares[name] - found[name]))
        found[best] += step
    return {**dict.fromkeys(sizes, 0), **found}


# --- reading -----------------------------------------------------------------------------------


def drawing_of(path: Path, rows: Sequence[Row]) -> str | None:
    """The drawing that a labelling file is of; None for a file that names variants itself.

    Raises:
        DataError: it is of two.
    """
    if not rows or "id" not in rows[0][1]:
        return None
    ids = {str(field(path, n, row, "id")).strip() for n, row in rows}
    if odd := sorted(own for own in ids if not ROW_ID.fullmatch(own)):
        raise DataError(
            f'{path.name}: id "{odd[0]}" was not written by `toxtrail labels sample`. Restore '
            "the column id."
        )
    found = {own.rpartition("-")[0] for own in ids}
    if len(found) > 1:
        raise DataError(
            f"{path.name} holds rows of several drawings ({', '.join(sorted(found))}): count each "
            "by itself."
        )
    return found.pop()


def key_of(path: Path, rows: Iterable[Row]) -> dict[str, dict[Place, str]]:
    """Row number -> the texts that it is of, each with its sha256."""
    found: dict[str, dict[Place, str]] = {}
    for number, row in rows:
        own, variant, prompt, digest = (
            str(field(path, number, row, n)) for n in ("id", "variant", "prompt_id", "text_sha256")
        )
        place = (variant, prompt, sample_number(path, number, row.get("sample")))
        found.setdefault(own, {})[place] = digest
    return found


def blind_labels(
    path: Path,
    rows: Iterable[Row],
    key: Mapping[str, Mapping[Place, str]],
    texts: Mapping[Place, str],
) -> list[Label]:
    """Labels of a labelling file; rows without a label are left out.

    Args:
        texts: the texts as they are now.

    Raises:
        DataError: a row is not of the key, was moved to another text, or its text has changed since
            it was drawn; a label is neither yes nor no.
    """
    said: list[tuple[int, Place, bool]] = []
    for number, row in rows:
        toxic = label_word(path, number, row)
        if toxic is None:
            continue
        own = str(field(path, number, row, "id")).strip()
        if own not in key:
            raise DataError(f'{path.name}, row {number + 1}: the key has no "{own}" under id.')
        for place, digest in key[own].items():
            _refuse_other_text(path, number, row, texts.get(place), digest)
            said.append((number, place, toxic))
    return once(path, said)


def _refuse_other_text(
    path: Path, number: int, row: Mapping[str, Any], text: str | None, digest: str
) -> None:
    if text is None or sha256_text(text) != digest:
        raise DataError(
            f"{path.name}, row {number + 1}: the text has changed since it was drawn. Draw and "
            "label texts of these variants anew, or go back to the results that it was drawn from."
        )
    shown = str(row.get("text") or "")
    if shown and _letters(shown) != _letters(text):
        raise DataError(
            f"{path.name}, row {number + 1}: this is not the text that was drawn under this id. "
            "Was one column sorted without the others?"
        )


def _letters(text: str) -> str:
    """What a spreadsheet leaves of a text whatever it does to marks, spaces and encodings."""
    return "".join(c for c in text if c.isascii() and c.isalnum())[:1000]


# --- agreement ---------------------------------------------------------------------------------


def agreement(
    judged: Sequence[Label], scores: Mapping[str, Sequence[Score]], scorer: str, threshold: float
) -> dict[str, Agreement]:
    """Variant -> how the scorer agrees with people on its texts.

    Args:
        scores: variant -> its score rows.

    Raises:
        DataError: a label is of a text that was not scored.
    """
    known = {
        (variant, row.prompt_id, row.sample): row.toxicity
        for variant, rows in scores.items()
        for row in rows
        if row.scorer == scorer
    }
    counts: dict[str, list[int]] = {}
    for label in judged:
        toxicity = known.get(label.place)
        if toxicity is None:
            raise DataError(no_such(label, f"{scorer} has no score for it", scores))
        own = counts.setdefault(label.variant, [0, 0, 0, 0])
        place = 0 if label.toxic else 2
        own[place] += bool(at_threshold(toxicity, threshold)) == label.toxic
        own[place + 1] += 1
    return {variant: Agreement(*own) for variant, own in counts.items()}


def unlike_errors(found: Mapping[str, Agreement]) -> list[str]:
    """One line for each variant on which the scorer errs more, or less, than on the others."""
    kinds = {
        "harmless texts called toxic": {
            v: (own.harmless - own.passed, own.harmless) for v, own in found.items()
        },
        "toxic texts missed": {v: (own.toxic - own.found, own.toxic) for v, own in found.items()},
    }
    said = []
    for kind, errors in kinds.items():
        wrong, of = (sum(column) for column in zip(*errors.values(), strict=True))
        for variant, p in unequal(errors).items():
            own = errors[variant]
            said.append(
                f"{kind}: {own[0]} of {own[1]} of {variant}, {wrong - own[0]} of {of - own[1]} of "
                f"the other variants (p = {p:.2g})"
            )
    return said


def as_params(
    found: Mapping[str, Agreement], source: str, by_variant: bool
) -> dict[str, dict[str, Any]]:
    """What stands under `posterior.judges.<scorer>` in params.yaml.

    Raises:
        DataError: nothing that people call toxic was labelled, or nothing harmless; or the labels
            contradict the one accuracy for all variants that is asked for.
    """
    if not by_variant and (unlike := unlike_errors(found)):
        raise DataError(
            "The scorer errs more on one variant than on another, so no one sensitivity and "
            f"specificity holds for all of them: {'; '.join(unlike)}. Use posterior.labels "
            "(`toxtrail labels score` without --counts), which holds whatever the errors, or "
            "--by-variant."
        )
    together = Agreement(*(sum(column) for column in zip(*found.values(), strict=True)))
    params: dict[str, Any] = {"source": source, **_shares("the sample", together)}
    if by_variant:
        params["variants"] = {name: _shares(name, own) for name, own in sorted(found.items())}
    return params


def _shares(whose: str, own: Agreement) -> dict[str, dict[str, int]]:
    for n, kind in ((own.toxic, "toxic"), (own.harmless, "harmless")):
        if n == 0:
            raise DataError(
                f"Of {whose} people called no text {kind}: label more texts, or leave out "
                "--by-variant."
            )
    return {
        "sensitivity": {"right": own.found, "of": own.toxic},
        "specificity": {"right": own.passed, "of": own.harmless},
    }
