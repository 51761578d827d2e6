"""Generate: how does the variant continue every prompt?

reads   data/prompts.parquet, models/<variant>/
writes  data/generations/<family>/<variant>.parquet    (prompt_id, sample) -> text, tokens, state
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from toxtrail.artifacts import Store
from toxtrail.backends.base import Completion, EncodedPrompt, LanguageModel, Progress
from toxtrail.config import GenerationConfig
from toxtrail.errors import BackendError
from toxtrail.identity import Manifest, sha256_text
from toxtrail.journal import Journal
from toxtrail.pipeline import manifest_of
from toxtrail.records import Generation, Prompt, State


class Row(NamedTuple):
    """One continuation still to be made."""

    prompt: Prompt
    sample: int
    encoded: EncodedPrompt


def row_seed(seed: int, prompt_id: str, sample: int) -> int:
    """Seed of one continuation: the variant is left out, so base and tuned model draw alike."""
    return int(sha256_text(f"{seed}|{prompt_id}|{sample}")[:15], 16)


def plan_batches(rows: Sequence[Row], max_new_tokens: int, batch_tokens: int) -> list[list[Row]]:
    """Rows of like length together, longest first, each batch within a budget of padded tokens.

    The plan is made over all rows whatever was done before, so a resumed run repeats it exactly.
    """
    ordered = sorted(
        rows, key=lambda row: (-len(row.encoded.token_ids), row.prompt.prompt_id, row.sample)
    )
    batches: list[list[Row]] = []
    room = 0
    for row in ordered:
        if room == 0:
            batches.append([])
            room = max(1, batch_tokens // (len(row.encoded.token_ids) + max_new_tokens))
        batches[-1].append(row)
        room -= 1
    return batches


def generate(
    prompts: Sequence[Prompt],
    model: LanguageModel,
    config: GenerationConfig,
    batch_tokens: int,
    journal: Journal,
    progress: Progress,
) -> list[Generation]:
    """Continue every prompt `config.samples` times.

    Args:
        batch_tokens: padded tokens in one batch.
        journal: batches that were done before are taken from it; each new one is added to it.

    Raises:
        BackendError: more than `config.max_error_share` of the rows failed.
    """
    rows = encoded_rows(prompts, model, config.samples)
    unfit = [_unfit(row) for row in rows if not row.encoded.fits]
    fit = [row for row in rows if row.encoded.fits]
    generations = list(unfit)
    with progress.bar("generate", len(rows), "rows") as advance:
        advance(len(unfit))
        for number, batch in enumerate(plan_batches(fit, config.max_new_tokens, batch_tokens)):
            if number not in journal.done:
                journal.add(number, complete(batch, model, config.seed))
            generations += [_from_journal(values) for values in journal.done[number]]
            advance(len(batch))
    _refuse_many_errors(generations, config.max_error_share)
    return generations


def run(
    store: Store,
    variant: str,
    family: str,
    config: GenerationConfig,
    model: LanguageModel,
    batch_tokens: int,
    environment: Mapping[str, str],
    progress: Progress,
) -> Path:
    """Read, generate, write."""
    manifest = manifest_for(store, variant, config, environment)
    with store.journal(manifest, {"batch_tokens": batch_tokens}) as journal:
        rows = generate(store.read_prompts(), model, config, batch_tokens, journal, progress)
        store.write_generations(family, variant, rows, manifest)
        journal.discard()
    return store.generations(family, variant)


def manifest_for(
    store: Store, variant: str, config: GenerationConfig, environment: Mapping[str, str]
) -> Manifest:
    """The identity of what this stage is about to make."""
    card = store.model(variant) / "model.json"
    return manifest_of(
        "generate",
        variant,
        {"generation": config.plain()},
        {"prompts": store.input(store.prompts), "model": store.input(card)},
        environment,
        store.read_card(variant),
    )


def encoded_rows(prompts: Sequence[Prompt], model: LanguageModel, samples: int) -> list[Row]:
    """Every continuation to be made, in the order of the prompts."""
    return [
        Row(prompt, sample, encoded)
        for prompt in prompts
        for encoded in [model.encode(prompt.text)]
        for sample in range(samples)
    ]


def complete(batch: Sequence[Row], model: LanguageModel, seed: int) -> list[Generation]:
    """One batch, each row with a seed of its own."""
    completions = model.complete(
        [row.encoded for row in batch],
        [row_seed(seed, row.prompt.prompt_id, row.sample) for row in batch],
    )
    return [
        _generation(row, completion) for row, completion in zip(batch, completions, strict=True)
    ]


def _generation(row: Row, completion: Completion) -> Generation:
    state: State = "ok" if completion.text.strip() else "empty"
    return Generation(
        prompt_id=row.prompt.prompt_id,
        sample=row.sample,
        subset=row.prompt.subset,
        state="error" if completion.error else state,
        text=completion.text,
        token_ids=completion.token_ids,
        prompt_tokens=len(row.encoded.token_ids),
        finish_reason=completion.finish_reason,
        error=completion.error,
    )


def _unfit(row: Row) -> Generation:
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
    )


def _from_journal(values: Sequence[object]) -> Generation:
    row = Generation(*values)  # type: ignore[arg-type]
    return row._replace(token_ids=tuple(row.token_ids))


def _refuse_many_errors(rows: Sequence[Generation], allowed: float) -> None:
    failed = [row for row in rows if row.state == "error"]
    if len(failed) > allowed * len(rows):
        raise BackendError(
            f"{len(failed)} of {len(rows)} rows failed (generation.max_error_share allows "
            f"{allowed:.1%}); the first: {failed[0].prompt_id}: {failed[0].error}."
        )
