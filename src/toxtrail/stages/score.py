"""Score: how toxic is each continuation?

reads   data/generations/<family>/<variant>.parquet
writes  data/scores/<family>/<variant>.parquet    (prompt_id, sample, scorer) -> toxicity, all heads
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from typing import Any, NamedTuple

from toxtrail.backends.protocols import ProcessGroup, Progress, ScoredText, Scorer
from toxtrail.config.schema import ScorerConfig
from toxtrail.errors import BackendError, DataError
from toxtrail.pipeline import manifest_of
from toxtrail.provenance.identity import Manifest, sha256_text
from toxtrail.records.rows import Generation, Score, score_problem
from toxtrail.storage.artifacts import ArtifactStore
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
    judge: NamedScorer,
    rows: RowJournal,
    progress: Progress,
    together: ProcessGroup,
) -> None:
    """Score the text of every `ok` continuation; equal texts once, known ones not again.

    Raises:
        BackendError: a score is missing, NaN or outside [0, 1].
    """
    texts = {text_key(row.text): row.text for row in generations if row.state == "ok"}
    ordered = sorted(texts, key=lambda key: (len(texts[key]), key))
    share = ordered[together.number :: together.of]
    generation_scores = [key for key in share if key not in rows]
    label, finished = f"score {rows.label}", len(share) - len(generation_scores)
    with progress.bar(label, len(share), "texts", finished) as advance:
        for start in range(0, len(generation_scores), TEXTS_PER_CALL):
            keys = generation_scores[start : start + TEXTS_PER_CALL]
            for key, scored in zip(
                keys, _score_checked([texts[k] for k in keys], judge), strict=True
            ):
                rows.add(key, [dict(scored.heads), scored.windows])
            advance(len(keys))


def collect_scores(
    generations: Sequence[Generation], judges: Mapping[str, tuple[NamedScorer, RowJournal]]
) -> list[Score]:
    """Every continuation by every judge; rows that are not `ok` keep their state and no score."""
    return [
        _scored(row, judge, rows) if row.state == "ok" else _unscored(row, judge)
        for judge, rows in judges.values()
        for row in generations
    ]


def run(
    store: ArtifactStore,
    variant: str,
    family: str,
    config: Mapping[str, ScorerConfig],
    judges: Sequence[NamedScorer],
    environment: Mapping[str, str],
    progress: Progress,
    together: ProcessGroup,
) -> dict[str, float]:
    """Read, score, write; of several processes, the first one writes."""
    manifest = score_manifest(store, variant, family, config, environment)
    generations, start = store.read_generations(family, variant), time.monotonic()
    with ExitStack() as open_files:
        held: dict[str, tuple[NamedScorer, RowJournal]] = {}
        for judge in judges:
            identity = rows_identity(manifest, judge.name)
            place = f"{variant} by {judge.name}"
            rows = store.row_journal("score", place, identity, together.number)
            held[judge.name] = judge, open_files.enter_context(rows)
            score_generations(generations, judge, rows, progress, together)
            rows.sync()
        work = {"texts_per_second": len(generations) * len(judges) / (time.monotonic() - start)}
        together.wait()
        if together.number == 0:
            for _, rows in held.values():
                rows.reload()
            store.write_scores(family, variant, collect_scores(generations, held), manifest)
            for _, rows in held.values():
                rows.delete_other_identities()
        together.wait()
    return work


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


def score_manifest(
    store: ArtifactStore,
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
        {"generations": store.describe_input(store.generations_path(family, variant))},
        environment,
    )


def _score_checked(texts: Sequence[str], judge: NamedScorer) -> list[ScoredText]:
    scored = judge.scorer.score(texts)
    if len(scored) != len(texts):
        raise BackendError(
            f"The scorer {judge.name} answered {len(scored)} of {len(texts)} texts. None of them "
            "was kept."
        )
    for text, found in zip(texts, scored, strict=True):
        for head, value in found.heads.items():
            if not 0 <= value <= 1:
                raise BackendError(
                    f"The scorer {judge.name} gave the text with the sha256 {text_key(text)[:12]} "
                    f"{head} = {value}; a score is in [0, 1]. Check that its output went through "
                    "a sigmoid or softmax."
                )
    return scored


def _scored(row: Generation, judge: NamedScorer, rows: RowJournal) -> Score:
    heads, windows = rows[text_key(row.text)]
    scored = Score(
        prompt_id=row.prompt_id,
        sample=row.sample,
        subset=row.subset,
        scorer=judge.name,
        state="ok",
        toxicity=heads.get(judge.head),
        heads=heads,
        windows=windows,
        cluster=row.cluster,
    )
    if problem := score_problem(scored):
        raise DataError(
            f"{rows.folder}: the score of {row.prompt_id}, sample {row.sample}, is damaged: "
            f"{problem}. Delete the folder to make its rows anew."
        )
    return scored


def _unscored(row: Generation, judge: NamedScorer) -> Score:
    return Score(
        prompt_id=row.prompt_id,
        sample=row.sample,
        subset=row.subset,
        scorer=judge.name,
        state=row.state,
        toxicity=None,
        heads=None,
        windows=0,
        cluster=row.cluster,
    )
