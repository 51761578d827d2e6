"""Rows of a model that is known by its name on a server only."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from toxtrail.backends.protocols import Completion
from toxtrail.provenance.identity import ApiResponses
from toxtrail.records.rows import Generation, Prompt
from toxtrail.records.words import word_numbers


def server_row(
    prompt: Prompt, sample: int, prompt_words: int, completion: Completion
) -> Generation:
    """Return the row of a response; its lengths are in words."""
    answer = completion.answer
    assert answer is not None
    thought = answer.thought
    return Generation(
        prompt_id=prompt.prompt_id,
        sample=sample,
        subset=prompt.subset,
        state=answer.state,
        text=completion.text,
        token_ids=completion.token_ids,
        prompt_tokens=prompt_words,
        finish_reason=completion.finish_reason,
        error=completion.error,
        thought=thought,
        thought_tokens=None if thought is None else len(word_numbers(thought)),
        server_model=answer.model,
        server_fingerprint=answer.fingerprint,
        server_software=answer.software,
        server_date=answer.date,
        server_tokens=answer.tokens,
        cluster=prompt.cluster,
        language=prompt.language,
    )


def api_responses(rows: Sequence[Generation]) -> ApiResponses:
    """Return what the server stated in all responses."""
    dates = _distinct(row.server_date for row in rows)
    counts = [row.server_tokens for row in rows if row.server_tokens is not None]
    return ApiResponses(
        models=_distinct(row.server_model for row in rows),
        fingerprints=_distinct(row.server_fingerprint for row in rows),
        software=_distinct(row.server_software for row in rows),
        dates=(dates[0], dates[-1]) if dates else (),
        completion_tokens=sum(counts) if counts else None,
    )


def _distinct(values: Iterable[str | None]) -> tuple[str, ...]:
    return tuple(sorted({value for value in values if value is not None}))
