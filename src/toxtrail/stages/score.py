"""Score: how toxic is each continuation?

reads   data/generations/<family>/<variant>.parquet
writes  data/scores/<family>/<variant>.parquet    (prompt_id, sample, scorer) -> toxicity, all heads
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from toxtrail.artifacts import Store
from toxtrail.backends.base import Progress, ScoredText, Scorer
from toxtrail.config import ScorerConfig
from toxtrail.errors import BackendError
from toxtrail.identity import Manifest
from toxtrail.journal import Journal
from toxtrail.pipeline import manifest_of
from toxtrail.records import Generation, Score


class Judge(NamedTuple):
    """A scorer under its name in params.yaml."""

    name: str
    scorer: Scorer
    head: str
    """The head that is called toxicity."""


def score(
    generations: Sequence[Generation],
    judges: Sequence[Judge],
    batch_size: int,
    journal: Journal,
    progress: Progress,
) -> list[Score]:
    """Score every `ok` continuation with every judge; other rows keep their state and no score.

    Raises:
        BackendError: a score is missing, NaN or outside [0, 1].
    """
    readable = [row for row in generations if row.state == "ok"]
    scores = [_unscored(row, judge) for row in generations if row.state != "ok" for judge in judges]
    with progress.bar("score", len(readable) * len(judges), "texts") as advance:
        for number, (judge, batch) in enumerate(_batches(readable, judges, batch_size)):
            if number not in journal.done:
                journal.add(number, _judged(batch, judge))
            scores += [Score(*values) for values in journal.done[number]]
            advance(len(batch))
    return scores


def run(
    store: Store,
    variant: str,
    family: str,
    config: Mapping[str, ScorerConfig],
    judges: Sequence[Judge],
    batch_size: int,
    environment: Mapping[str, str],
    progress: Progress,
) -> Path:
    """Read, score, write."""
    manifest = manifest_for(store, variant, family, config, environment)
    with store.journal(manifest, {"batch_size": batch_size}) as journal:
        rows = score(store.read_generations(family, variant), judges, batch_size, journal, progress)
        store.write_scores(family, variant, rows, manifest)
        journal.discard()
    return store.scores(family, variant)


def manifest_for(
    store: Store,
    variant: str,
    family: str,
    config: Mapping[str, ScorerConfig],
    environment: Mapping[str, str],
) -> Manifest:
    """The identity of what this stage is about to make."""
    return manifest_of(
        "score",
        variant,
        {"scorers": {name: scorer.plain() for name, scorer in config.items()}},
        {"generations": store.input(store.generations(family, variant))},
        environment,
    )


def _batches(
    rows: Sequence[Generation], judges: Sequence[Judge], size: int
) -> Iterator[tuple[Judge, Sequence[Generation]]]:
    for judge in judges:
        for start in range(0, len(rows), size):
            yield judge, rows[start : start + size]


def _judged(batch: Sequence[Generation], judge: Judge) -> list[Score]:
    scored = judge.scorer.score([row.text for row in batch])
    if len(scored) != len(batch):
        raise BackendError(
            f"The scorer {judge.name} answered {len(scored)} of {len(batch)} texts. Nothing "
            "was kept."
        )
    return [_scored(row, judge, text) for row, text in zip(batch, scored, strict=True)]


def _scored(row: Generation, judge: Judge, text: ScoredText) -> Score:
    for head, value in text.heads.items():
        if not 0 <= value <= 1:
            raise BackendError(
                f"The scorer {judge.name} gave {row.prompt_id} (sample {row.sample}) {head} = "
                f"{value}; "
                "a score is in [0, 1]. Check that its output went through a sigmoid or softmax."
            )
    return Score(
        prompt_id=row.prompt_id,
        sample=row.sample,
        subset=row.subset,
        scorer=judge.name,
        state="ok",
        toxicity=text.heads[judge.head],
        heads=dict(text.heads),
        windows=text.windows,
    )


def _unscored(row: Generation, judge: Judge) -> Score:
    return Score(
        prompt_id=row.prompt_id,
        sample=row.sample,
        subset=row.subset,
        scorer=judge.name,
        state=row.state,
        toxicity=None,
        heads=None,
        windows=0,
    )
