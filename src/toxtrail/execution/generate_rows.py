"""Generate the missing rows of a variant, and collect all rows."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, NamedTuple

from toxtrail.backends.protocols import (
    Completion,
    EncodedPrompt,
    LanguageModel,
    ProcessGroup,
    Progress,
)
from toxtrail.config.schema import GenerationConfig
from toxtrail.errors import BackendError, ConfigError, DataError
from toxtrail.execution.server_rows import server_row
from toxtrail.provenance.identity import Manifest, sha256_text
from toxtrail.records.rows import Generation, Prompt, RowStatus, generation_problem
from toxtrail.records.thought import ThoughtMarkers, split_thought
from toxtrail.storage.row_journal import RowJournal


class GenerationRequest(NamedTuple):
    """Request for one continuation."""

    prompt: Prompt
    sample: int
    encoded: EncodedPrompt

    @property
    def key(self) -> str:
        """Key of its row: the id contains the subset and a part of the hash; the complete hash is
        added."""
        return f"{self.prompt.prompt_id}|{sha256_text(self.prompt.content)}|{self.sample}"

    @property
    def failed_key(self) -> str:
        """Key of its row if it failed; another run retries it, because a server may be available
        again."""
        return f"{self.key}|failed"


JOURNAL_VALUES = len(Generation._fields) - 2
"""Fields of a row in the journal: all except cluster and language, which belong to the prompt."""


def row_seed(seed: int, prompt_id: str, sample: int) -> int:
    """Return the seed of one continuation; it does not depend on the variant, so base and tuned
    model use the same random numbers."""
    return int(sha256_text(f"{seed}|{prompt_id}|{sample}")[:15], 16)


def generate(
    prompts: Sequence[Prompt],
    model: LanguageModel,
    config: GenerationConfig,
    rows: RowJournal,
    progress: Progress,
    group: ProcessGroup,
) -> dict[str, float]:
    """Continue every prompt `config.samples` times; rows that exist in `rows` are not generated
    again.

    Returns:
        The work of this process: rows, tokens, and both per second.

    Raises:
        ConfigError: a prompt is a conversation, and `config` does not allow it.
    """
    refuse_conversations(prompts, config)
    requests = encode_requests(prompts, model, config.samples)
    share = requests_of_rank(group, requests, config.samples)
    missing = [row for row in share if row.key not in rows]
    start, tokens = time.monotonic(), 0
    label, finished = f"generate {rows.label}", len(share) - len(missing)
    with progress.bar(label, len(share), "rows", finished) as advance:
        for row, generation in generate_rows(missing, model, config):
            key = row.failed_key if generation.state == "error" else row.key
            rows.add(key, generation[:JOURNAL_VALUES])
            advance(1, tokens=len(generation.token_ids))
            tokens += len(generation.token_ids)
    seconds = max(time.monotonic() - start, 1e-9)
    return {
        "rows": len(missing),
        "tokens": tokens,
        "rows_per_second": len(missing) / seconds,
        "tokens_per_second": tokens / seconds,
    }


def refuse_conversations(prompts: Iterable[Prompt], config: GenerationConfig) -> None:
    """Raise ConfigError for a conversation that cannot be sent with these settings."""
    for prompt in prompts:
        if prompt.earlier and config.template == "none":
            raise ConfigError(
                f'generation.template: "none", but {prompt.prompt_id} is a conversation of '
                f"{len(prompt.turns)} messages. Write template: chat, or leave out prompts.subsets."
                f"{prompt.subset}."
            )
        given = [f"generation.{n}" for n in ("system", "turns") if getattr(config, n) is not None]
        if given and prompt.earlier and prompt.earlier[0].role == "system":
            raise ConfigError(
                f"{given[0]}: {prompt.prompt_id} includes a system message, which must be the "
                f"first message. Remove {' and '.join(given)}, or leave out prompts.subsets."
                f"{prompt.subset}."
            )


def requests_of_rank(
    group: ProcessGroup, rows: Sequence[GenerationRequest], samples: int
) -> list[GenerationRequest]:
    """Return the requests of this process: every n-th prompt with all its samples.

    The division does not depend on existing rows, so that each row is generated exactly once.
    """
    return [row for i, row in enumerate(rows) if i // samples % group.of == group.number]


def collect_generations(
    prompts: Sequence[Prompt], config: GenerationConfig, rows: RowJournal
) -> list[Generation]:
    """Return every requested row.

    Raises:
        BackendError: more than `config.max_error_share` of the rows failed.
        DataError: a row is missing, because a process that shares the work failed.
    """
    requests = [
        GenerationRequest(prompt, sample, EncodedPrompt((), fits=True))
        for prompt in prompts
        for sample in range(config.samples)
    ]
    missing = [row for row in requests if row.key not in rows and row.failed_key not in rows]
    if missing:
        raise DataError(
            f"{len(missing)} of {len(requests)} rows were not made, the first of "
            f"{missing[0].prompt.prompt_id}: a process that shares the work has failed. Run again."
        )
    generations = [_journal_row(request, rows) for request in requests]
    refuse_many_errors(generations, config.max_error_share)
    return generations


def rows_identity(manifest: Manifest) -> dict[str, Any]:
    """Return everything that determines a row; this excludes which other rows are requested."""
    assert manifest.model is not None
    others = ("samples", "max_error_share")
    settings = {k: v for k, v in manifest.params["generation"].items() if k not in others}
    return {
        "key": manifest.key,
        "model": manifest.model.fingerprint,
        "generation": settings,
        "served_model_name": manifest.params.get("served_model_name"),
        "code": manifest.code_sha256,
        "environment": manifest.environment,
    }


def encode_requests(
    prompts: Sequence[Prompt], model: LanguageModel, samples: int
) -> list[GenerationRequest]:
    """Return every requested continuation, in the order of the prompts."""
    return [
        GenerationRequest(prompt, sample, encoded)
        for prompt in prompts
        for encoded in [model.encode(prompt.text, prompt.earlier)]
        for sample in range(samples)
    ]


def generate_rows(
    rows: Sequence[GenerationRequest], model: LanguageModel, config: GenerationConfig
) -> Iterator[tuple[GenerationRequest, Generation]]:
    """Yield each row as soon as it is finished; each has a separate seed."""
    fit = []
    for row in rows:
        if row.encoded.fits:
            fit.append(row)
        else:
            yield row, _too_long(row)
    seeds = [row_seed(config.seed, row.prompt.prompt_id, row.sample) for row in fit]
    for number, completion in model.complete([row.encoded for row in fit], seeds):
        yield fit[number], _generation(fit[number], completion, config.markers)


def _generation(
    row: GenerationRequest, completion: Completion, markers: ThoughtMarkers | None
) -> Generation:
    if completion.answer is not None:
        return server_row(row.prompt, row.sample, len(row.encoded.token_ids), completion)
    thought, text, state = split_thought(completion.text, markers, row.encoded.opens_thought)
    return Generation(
        prompt_id=row.prompt.prompt_id,
        sample=row.sample,
        subset=row.prompt.subset,
        state="error" if completion.error else state,
        text=text,
        token_ids=completion.token_ids,
        prompt_tokens=len(row.encoded.token_ids),
        finish_reason=completion.finish_reason,
        error=completion.error,
        thought=thought,
        thought_tokens=_thought_tokens(completion, thought, state, markers),
        cluster=row.prompt.cluster,
        language=row.prompt.language,
    )


def _thought_tokens(
    completion: Completion, thought: str | None, state: RowStatus, markers: ThoughtMarkers | None
) -> int | None:
    """Return the number of tokens of a thought: up to its last end marker."""
    if thought is None or markers is None:
        return None
    if state == "unfinished":
        return len(completion.token_ids)
    return completion.thought_ends[thought.count(markers.end) - 1]


def _too_long(row: GenerationRequest) -> Generation:
    return Generation(
        prompt_id=row.prompt.prompt_id,
        sample=row.sample,
        subset=row.prompt.subset,
        state="truncated",
        text="",
        token_ids=(),
        prompt_tokens=len(row.encoded.token_ids),
        finish_reason="none",
        error="the prompt and its continuation do not fit the model's window",
        cluster=row.prompt.cluster,
        language=row.prompt.language,
    )


def _journal_row(request: GenerationRequest, rows: RowJournal) -> Generation:
    """Return the journal's row of a continuation.

    Raises:
        DataError: it belongs to another continuation, or has invalid values.
    """
    values = rows[request.key if request.key in rows else request.failed_key]
    if len(values) == JOURNAL_VALUES:
        row = Generation(*values)
        prompt = request.prompt
        row = row._replace(
            token_ids=tuple(row.token_ids), cluster=prompt.cluster, language=prompt.language
        )
        requested = (request.prompt.prompt_id, request.sample, request.prompt.subset)
        recorded = (row.prompt_id, row.sample, row.subset)
        problem = generation_problem(row) if recorded == requested else f"it is of {recorded}"
    else:
        problem = f"it has {len(values)} values"
    if problem:
        raise DataError(
            f"{rows.folder}: the row of {request.prompt.prompt_id}, sample {request.sample}, is "
            f"damaged: {problem}. Delete the folder to regenerate its rows."
        )
    return row


def refuse_many_errors(rows: Sequence[Generation], allowed: float) -> None:
    """Raise BackendError if a larger share of the rows failed."""
    failed = [row for row in rows if row.state == "error"]
    if len(failed) > allowed * len(rows):
        raise BackendError(
            f"{len(failed)} of {len(rows)} rows failed (generation.max_error_share allows "
            f"{allowed:.1%}); the first: {failed[0].prompt_id}: {failed[0].error}."
        )
