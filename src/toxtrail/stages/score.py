"""Score: how toxic is each continuation?

reads   data/generations/<family>/<variant>.parquet, and data/prompts.parquet for scorers that see
        the prompt
writes  data/scores/<family>/<variant>.parquet    (prompt_id, sample, scorer) -> toxicity, all heads
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack

from toxtrail.backends.protocols import ProcessGroup, Progress
from toxtrail.config.schema import ScoringConfig
from toxtrail.execution.score_rows import (
    NamedScorer,
    ScoringInput,
    collect_scores,
    prompts_to_show,
    refuse_many_errors,
    rows_identity,
    score_generations,
    score_params,
)
from toxtrail.pipeline import manifest_of
from toxtrail.provenance.identity import InputFile, Manifest
from toxtrail.storage.artifacts import ArtifactStore
from toxtrail.storage.row_journal import RowJournal


def run(
    store: ArtifactStore,
    variant: str,
    family: str,
    config: ScoringConfig,
    scorers: Sequence[NamedScorer],
    environment: Mapping[str, str],
    progress: Progress,
    group: ProcessGroup,
) -> dict[str, float]:
    """Read, score, write; of several processes, the first one writes."""
    texts, inputs, sees = _read(store, family, variant, scorers)
    manifest = score_manifest(variant, inputs, config, scorers, {**environment, **sees})
    start = time.monotonic()
    with ExitStack() as files:
        journals = _score(store, texts, scorers, manifest, files, progress, group)
        work = len(texts.generations) * len(scorers) / (time.monotonic() - start)
        group.wait()
        _write(store, family, texts, journals, manifest, config.max_error_share, group)
        group.wait()
    return {"texts_per_second": work}


def score_manifest(
    variant: str,
    inputs: Mapping[str, InputFile],
    config: ScoringConfig,
    scorers: Sequence[NamedScorer],
    environment: Mapping[str, str],
) -> Manifest:
    """Return the manifest of this stage's output."""
    manifest = manifest_of("score", variant, score_params(config), inputs, environment)
    converted = {scorer.name: scorer.converted for scorer in scorers if scorer.converted}
    return manifest.model_copy(update={"converted": converted or None})


def _read(
    store: ArtifactStore, family: str, variant: str, scorers: Sequence[NamedScorer]
) -> tuple[ScoringInput, dict[str, InputFile], dict[str, str]]:
    """Read the continuations, and the prompts if a scorer sees them; return their files too."""
    files = {"generations": store.generations_path(family, variant)}
    prompts, sees = dict[str, str](), dict[str, str]()
    if any(scorer.sees_prompt for scorer in scorers):
        files["prompts"] = store.prompts_path
        prompts, sees = prompts_to_show(store.read_prompts())
    texts = ScoringInput(store.read_generations(family, variant), prompts)
    return texts, {name: store.describe_input(path) for name, path in files.items()}, sees


def _score(
    store: ArtifactStore,
    texts: ScoringInput,
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
        score_generations(texts, scorer, rows, progress, group)
        rows.sync()
    return journals


def _write(
    store: ArtifactStore,
    family: str,
    texts: ScoringInput,
    journals: Mapping[str, tuple[NamedScorer, RowJournal]],
    manifest: Manifest,
    max_error_share: float,
    group: ProcessGroup,
) -> None:
    """Write the scores of all processes as one file; only the first process does."""
    if group.number != 0:
        return
    for _, rows in journals.values():
        rows.reload()
    scores = collect_scores(texts, journals)
    refuse_many_errors(scores, max_error_share)
    store.write_scores(family, str(manifest.key), scores, manifest)
    for _, rows in journals.values():
        rows.delete_other_identities()
