"""Score the texts that a journal has no score of yet, and collect the scores of all rows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from toxtrail.backends.protocols import ProcessGroup, Progress, ScoredText, Scorer
from toxtrail.errors import BackendError, DataError
from toxtrail.provenance.identity import Manifest, sha256_text
from toxtrail.records.rows import Generation, Score, score_problem
from toxtrail.storage.row_journal import RowJournal

TEXTS_PER_CALL = 512
"""Texts that a scorer gets at once: enough of like length to fill its batches, and no more than a
killed run may lose."""


class NamedScorer(NamedTuple):
    """A scorer under its name in params.yaml."""

    name: str
    scorer: Scorer
    head: str
    """The head that is called toxicity."""


def score_generations(
    generations: Sequence[Generation],
    scorer: NamedScorer,
    rows: RowJournal,
    progress: Progress,
    group: ProcessGroup,
) -> None:
    """Score the text of every `ok` continuation; equal texts once, known ones not again.

    Raises:
        BackendError: a score is missing, NaN or outside [0, 1].
    """
    texts = {text_key(row.text): row.text for row in generations if row.state == "ok"}
    ordered = sorted(texts, key=lambda key: (len(texts[key]), key))
    share = ordered[group.number :: group.of]
    missing = [key for key in share if key not in rows]
    label, finished = f"score {rows.label}", len(share) - len(missing)
    with progress.bar(label, len(share), "texts", finished) as advance:
        for start in range(0, len(missing), TEXTS_PER_CALL):
            keys = missing[start : start + TEXTS_PER_CALL]
            for key, scored in zip(
                keys, _score_checked([texts[k] for k in keys], scorer), strict=True
            ):
                rows.add(key, [dict(scored.heads), scored.windows])
            advance(len(keys))


def collect_scores(
    generations: Sequence[Generation], journals: Mapping[str, tuple[NamedScorer, RowJournal]]
) -> list[Score]:
    """Every continuation by every scorer; rows that are not `ok` keep their state and no score."""
    return [
        _scored(row, scorer, rows) if row.state == "ok" else _unscored(row, scorer)
        for scorer, rows in journals.values()
        for row in generations
    ]


def rows_identity(manifest: Manifest, scorer: str) -> dict[str, Any]:
    """What decides the score of a text."""
    return {
        "scorer": manifest.params["scorers"][scorer],
        "code": manifest.code_sha256,
        "environment": manifest.environment,
    }


def text_key(text: str) -> str:
    """Under which the score of a text is kept."""
    return sha256_text(text)


def _score_checked(texts: Sequence[str], scorer: NamedScorer) -> list[ScoredText]:
    scored = scorer.scorer.score(texts)
    if len(scored) != len(texts):
        raise BackendError(
            f"The scorer {scorer.name} returned scores for {len(scored)} of {len(texts)} texts. "
            "None was kept."
        )
    for text, result in zip(texts, scored, strict=True):
        for head, value in result.heads.items():
            if not 0 <= value <= 1:
                raise BackendError(
                    f"The scorer {scorer.name} gave the text with the sha256 {text_key(text)[:12]} "
                    f"{head} = {value}; a score is in [0, 1]. Check that its output went through "
                    "a sigmoid or softmax."
                )
    return scored


def _scored(row: Generation, scorer: NamedScorer, rows: RowJournal) -> Score:
    heads, windows = rows[text_key(row.text)]
    scored = Score(
        prompt_id=row.prompt_id,
        sample=row.sample,
        subset=row.subset,
        scorer=scorer.name,
        state="ok",
        toxicity=heads.get(scorer.head),
        heads=heads,
        windows=windows,
        cluster=row.cluster,
    )
    if problem := score_problem(scored):
        raise DataError(
            f"{rows.folder}: the score of {row.prompt_id}, sample {row.sample}, is damaged: "
            f"{problem}. Delete the folder to regenerate its rows."
        )
    return scored


def _unscored(row: Generation, scorer: NamedScorer) -> Score:
    return Score(
        prompt_id=row.prompt_id,
        sample=row.sample,
        subset=row.subset,
        scorer=scorer.name,
        state=row.state,
        toxicity=None,
        heads=None,
        windows=0,
        cluster=row.cluster,
    )
