"""Score: how toxic is each continuation?

reads   data/generations/<family>/<variant>.parquet
writes  data/scores/<family>/<variant>.parquet    (prompt_id, sample, scorer) -> toxicity, all heads
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack

from toxtrail.backends.protocols import ProcessGroup, Progress
from toxtrail.config.scorer_kinds.base import ScorerConfig
from toxtrail.execution.score_rows import (
    NamedScorer,
    collect_scores,
    rows_identity,
    score_generations,
)
from toxtrail.pipeline import manifest_of
from toxtrail.provenance.identity import Manifest
from toxtrail.records.rows import Generation
from toxtrail.storage.artifacts import ArtifactStore
from toxtrail.storage.row_journal import RowJournal


def run(
    store: ArtifactStore,
    variant: str,
    family: str,
    config: Mapping[str, ScorerConfig],
    scorers: Sequence[NamedScorer],
    environment: Mapping[str, str],
    progress: Progress,
    group: ProcessGroup,
) -> dict[str, float]:
    """Read, score, write; of several processes, the first one writes."""
    manifest = score_manifest(store, variant, family, config, environment)
    generations, start = store.read_generations(family, variant), time.monotonic()
    with ExitStack() as files:
        journals = _score(store, generations, scorers, manifest, files, progress, group)
        texts = len(generations) * len(scorers)
        work = {"texts_per_second": texts / (time.monotonic() - start)}
        group.wait()
        _write(store, family, generations, journals, manifest, group)
        group.wait()
    return work


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


def _score(
    store: ArtifactStore,
    generations: Sequence[Generation],
    scorers: Sequence[NamedScorer],
    manifest: Manifest,
    files: ExitStack,
    progress: Progress,
    group: ProcessGroup,
) -> dict[str, tuple[NamedScorer, RowJournal]]:
    """Score the texts with one scorer after the other; return their journals, still open."""
    journals: dict[str, tuple[NamedScorer, RowJournal]] = {}
    for scorer in scorers:
        identity, label = rows_identity(manifest, scorer.name), f"{manifest.key} by {scorer.name}"
        rows = files.enter_context(store.row_journal("score", label, identity, group.number))
        journals[scorer.name] = scorer, rows
        score_generations(generations, scorer, rows, progress, group)
        rows.sync()
    return journals


def _write(
    store: ArtifactStore,
    family: str,
    generations: Sequence[Generation],
    journals: Mapping[str, tuple[NamedScorer, RowJournal]],
    manifest: Manifest,
    group: ProcessGroup,
) -> None:
    """Write the scores of all processes as one file; only the first process does."""
    if group.number != 0:
        return
    for _, rows in journals.values():
        rows.reload()
    scores = collect_scores(generations, journals)
    store.write_scores(family, str(manifest.key), scores, manifest)
    for _, rows in journals.values():
        rows.delete_other_identities()
