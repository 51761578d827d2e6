"""Regenerate and rescore samples from their recorded identity."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from toxtrail.audit.lineage.context import AuditContext
from toxtrail.audit.verify.context import DAMAGE_ERRORS
from toxtrail.backends.huggingface.generation.generate_engine import length_sorted_batches
from toxtrail.backends.huggingface.generation.packed_engine import EngineRequest
from toxtrail.backends.protocols import LanguageModel, Progress
from toxtrail.config.schema import GenerationConfig
from toxtrail.execution.generate_rows import (
    GenerationRequest,
    encode_requests,
    generate_rows,
    row_seed,
)
from toxtrail.execution.score_rows import (
    NamedScorer,
    ScoringInput,
    score_checked,
    scoring_request,
)
from toxtrail.records.rows import Generation, Prompt, Score
from toxtrail.storage.artifacts import ArtifactStore, read_json

Key = tuple[str, int]
"""(prompt_id, sample)."""


class Plan(NamedTuple):
    """Recorded settings of a generation run."""

    engine: str | None
    batch_tokens: int | None
    threads: int | None
    source: str
    """Location of the record; empty if there is none."""


class Reproduction(NamedTuple):
    """Regenerated sample compared with the recorded one."""

    variant: str
    prompt_id: str
    sample: int
    exact: bool
    """Whether tokens, text and state are equal."""
    tokens: int
    """Number of recorded tokens."""
    same_tokens: int
    """Length of the common prefix."""
    differing_tokens: int
    """Number of positions that differ, including missing ones."""
    score_change: float | None
    """Largest absolute difference of a scorer's toxicity; None if not scored."""


def draw(rows: Sequence[Generation], n: int, seed: int, variant: str) -> list[Key]:
    """Sample n rows at random, at most all."""
    keys = sorted(row.key for row in rows)
    return sorted(random.Random(f"{seed}|{variant}").sample(keys, min(n, len(keys))))


def recorded_plan(
    store: ArtifactStore, variant: str, output_sha256: str, scene: AuditContext
) -> Plan:
    """Return the plan from the local execution record, else from an MLflow run of this file."""
    path = store.execution_record_path("generate", variant)
    record = read_json(path) if path.is_file() else {}
    if record.get("output_sha256") == output_sha256:
        return _plan(record, path.relative_to(store.root).as_posix())
    for run in scene.runs:
        try:
            record = run.executions().get("generate", {})
        except DAMAGE_ERRORS:
            continue  # damaged: verification names it
        if record.get("output_sha256") == output_sha256:
            return _plan(record, f"MLflow run {run.run_id[:8]}")
    return Plan(None, None, None, "")


def regenerate(
    prompts: Sequence[Prompt],
    model: LanguageModel,
    config: GenerationConfig,
    plan: Plan,
    keys: Sequence[Key],
    progress: Progress,
) -> dict[Key, Generation]:
    """Regenerate the requested rows.

    The packed engine needs no other rows; with transformers' own generate each row is generated in
    its original batch, as the other rows can change a near tie.

    Returns:
        At least the requested rows, by key.
    """
    rows = encode_requests(prompts, model, config.samples)
    chosen = [row for row in rows if (row.prompt.prompt_id, row.sample) in set(keys)]
    if plan.engine == "plain" and plan.batch_tokens:
        chosen = _whole_batches(rows, chosen, config, plan.batch_tokens)
    generations: dict[Key, Generation] = {}
    with progress.bar("reproduce", len(chosen), "rows") as advance:
        for _, row in generate_rows(chosen, model, config.seed):
            generations[row.key] = row
            advance(1)
    return generations


def _whole_batches(
    rows: Sequence[GenerationRequest],
    chosen: Sequence[GenerationRequest],
    config: GenerationConfig,
    budget: int,
) -> list[GenerationRequest]:
    """Return the chosen rows and those that shared a batch with one of them."""
    fit = [row for row in rows if row.encoded.fits]
    asks = [
        EngineRequest(
            n, row.encoded.token_ids, row_seed(config.seed, row.prompt.prompt_id, row.sample)
        )
        for n, row in enumerate(fit)
    ]
    keys = {row.key for row in chosen}
    all_batches = [
        [fit[ask.number] for ask in b]
        for b in length_sorted_batches(asks, config.max_new_tokens, budget)
    ]
    shared = [
        row for batch in all_batches if any(row.key in keys for row in batch) for row in batch
    ]
    return [*shared, *(row for row in chosen if not row.encoded.fits)]


def rescored(
    texts: ScoringInput, judges: Sequence[NamedScorer]
) -> dict[tuple[str, int, str], float]:
    """Return (prompt_id, sample, scorer) -> toxicity for rows with a text, and a score of it."""
    readable = [row for row in texts.generations if row.state == "ok"]
    toxicities: dict[tuple[str, int, str], float] = {}
    for judge in judges:
        requests = [scoring_request(row, judge, texts.prompts) for row in readable]
        scored = score_checked(requests, judge) if requests else []
        for row, result in zip(readable, scored, strict=True):
            if not result.error:
                toxicities[*row.key, judge.name] = result.heads[judge.head]
    return toxicities


def compare_rows(
    variant: str,
    recorded: Generation,
    regenerated: Generation | None,
    scores: Sequence[Score],
    rescored_values: Mapping[tuple[str, int, str], float],
) -> Reproduction:
    """Compare one row; a row that exceeds the model's window is not generated on either side."""
    if regenerated is None:
        exact = recorded.state == "truncated"
        return Reproduction(variant, *recorded.key, exact, len(recorded.token_ids), 0, 0, None)
    was, now = recorded.token_ids, regenerated.token_ids
    same = next((i for i, (a, b) in enumerate(zip(was, now, strict=False)) if a != b), None)
    prefix = min(len(was), len(now)) if same is None else same
    matches = sum(a == b for a, b in zip(was, now, strict=False))
    changes = [
        abs(score.toxicity - rescored_values[score.key])
        for score in scores
        if score.toxicity is not None and score.key in rescored_values
    ]
    return Reproduction(
        variant,
        *recorded.key,
        (was, recorded.text, recorded.state) == (now, regenerated.text, regenerated.state),
        len(was),
        prefix,
        max(len(was), len(now)) - matches,
        max(changes, default=None),
    )


def differing_environment(
    recorded: Mapping[str, str], present: Mapping[str, str]
) -> dict[str, Any]:
    """Return field -> [recorded, present] where the two differ."""
    return {
        name: [recorded.get(name), present.get(name)]
        for name in sorted({**recorded, **present})
        if recorded.get(name) != present.get(name)
    }


def _plan(record: Mapping[str, Any], source: str) -> Plan:
    settings = record["settings"]
    engine, tokens, threads = (settings.get(k) for k in ("engine", "batch_tokens", "threads"))
    return Plan(engine, tokens, threads, source)
