"""A labelled sample: which texts people are to judge, and how well a scorer agrees with them.

Texts are drawn at random, not by score: a sample of texts that the scorer calls toxic tells how
often it is right there, not how many toxic texts it misses.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from toxtrail.errors import DataError, nearest
from toxtrail.readers import field
from toxtrail.records import Generation, Score
from toxtrail.stats.rates import at_threshold, named_rng

COLUMNS = ("variant", "prompt_id", "sample", "text", "toxic")
YES, NO = {"1", "true", "yes", "toxic"}, {"0", "false", "no", "harmless"}


class Label(NamedTuple):
    """One person's word on one continuation."""

    variant: str
    prompt_id: str
    sample: int
    toxic: bool


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


def draw(
    generations: Mapping[str, Sequence[Generation]], n: int, seed: int
) -> list[dict[str, str | int]]:
    """Rows of COLUMNS, n of each variant (or all, if there are fewer), `toxic` left empty.

    Args:
        generations: variant -> its texts.
    """
    rows: list[dict[str, str | int]] = []
    for variant, texts in generations.items():
        known = sorted((t for t in texts if t.state == "ok"), key=lambda t: t.key)
        rng = named_rng(seed, f"labels|{variant}")
        places = rng.choice(len(known), size=min(n, len(known)), replace=False)
        for place in sorted(places):
            text = known[place]
            values = (variant, text.prompt_id, text.sample, text.text, "")
            rows.append(dict(zip(COLUMNS, values, strict=True)))
    return rows


def labels(path: Path, rows: Iterator[tuple[int, dict[str, Any]]]) -> list[Label]:
    """Labels of a file's rows; rows without a judgement are left out.

    Raises:
        DataError: a column is missing, a judgement is neither yes nor no, or a text is judged twice
            in different ways; with the row.
    """
    found: dict[tuple[str, str, int], Label] = {}
    for number, row in rows:
        judged = field(path, number, row, "toxic")
        word = "" if judged is None else str(judged).strip().lower().removesuffix(".0")
        if word in ("", "nan"):  # False and 0 are judgements
            continue
        if word not in YES | NO:
            raise DataError(
                f'{path.name}, row {number + 1}: "{word}" under toxic is neither '
                f"{' / '.join(sorted(YES))} nor {' / '.join(sorted(NO))}."
            )
        sample = _sample(path, number, row.get("sample"))
        variant, prompt = (str(field(path, number, row, n)) for n in ("variant", "prompt_id"))
        label = Label(variant, prompt, sample, word in YES)
        if found.setdefault((variant, prompt, sample), label) != label:
            raise DataError(
                f"{path.name}, row {number + 1}: the same text was called toxic and harmless."
            )
    if not found:
        raise DataError(f"{path.name}: no row has a judgement under toxic. Write yes or no there.")
    return list(found.values())


def _sample(path: Path, number: int, value: object) -> int:
    text = "" if value is None else str(value).strip().removesuffix(".0")
    if text and not (text.isascii() and text.isdigit()):
        raise DataError(f'{path.name}, row {number + 1}: "{value}" under sample is no number.')
    return int(text or 0)


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
        toxicity = known.get(label[:3])
        if toxicity is None:
            hint = nearest(label.variant, scores) if label.variant not in scores else ""
            raise DataError(
                f"{label.variant}, prompt {label.prompt_id}, sample {label.sample}: {scorer} has "
                f"no score for it. Were these labels drawn from other texts?{hint}"
            )
        own = counts.setdefault(label.variant, [0, 0, 0, 0])
        place = 0 if label.toxic else 2
        own[place] += bool(at_threshold(toxicity, threshold)) == label.toxic
        own[place + 1] += 1
    return {variant: Agreement(*own) for variant, own in counts.items()}


def as_params(
    found: Mapping[str, Agreement], source: str, by_variant: bool
) -> dict[str, dict[str, Any]]:
    """What stands under `posterior.judges.<scorer>` in params.yaml.

    Raises:
        DataError: nothing that people call toxic was labelled, or nothing harmless.
    """
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
