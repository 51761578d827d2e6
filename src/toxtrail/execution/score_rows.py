"""Score the texts without a score in the journal, and collect the scores of all rows."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from toxtrail.backends.protocols import ProcessGroup, Progress, ScoredText, Scorer
from toxtrail.config.schema import ScoringConfig
from toxtrail.errors import BackendError, DataError
from toxtrail.provenance.identity import Manifest, canonical_json, sha256_text
from toxtrail.records.rows import Generation, Prompt, Score, score_problem
from toxtrail.storage.row_journal import RowJournal

TEXTS_PER_CALL = 512
"""Number of texts per call of a scorer: enough of equal length to fill its batches, and few enough
to lose in a killed run."""
TEXTS_PER_REQUEST = 8
"""Number of texts per call and parallel request of a scorer on a server."""


class NamedScorer(NamedTuple):
    """A scorer under its name in params.yaml."""

    name: str
    scorer: Scorer
    head: str
    """The head used as toxicity."""
    sees_prompt: bool = False
    """Whether it scores a continuation together with its prompt."""
    environment: Mapping[str, str] = {}
    """Metadata of its server, if it runs on one."""
    texts_per_call: int = TEXTS_PER_CALL

    @property
    def converted(self) -> dict[str, str]:
        """Name -> SHA-256 of the copy that was loaded in place of pickled weights."""
        return dict(getattr(self.scorer, "converted", {}))


class ScoringInput(NamedTuple):
    """Rows to score."""

    generations: Sequence[Generation]
    prompts: Mapping[str, str]
    """Prompt id -> text; empty if no scorer sees the prompt."""


class ScoringRequest(NamedTuple):
    """Input of a scorer."""

    text: str
    prompt: str | None
    """None for a scorer that sees the continuation only."""

    @property
    def key(self) -> str:
        """Key under which the score is kept in a journal."""
        if self.prompt is None:
            return sha256_text(self.text)
        return sha256_text(canonical_json([self.prompt, self.text]))


def score_generations(
    texts: ScoringInput,
    scorer: NamedScorer,
    rows: RowJournal,
    progress: Progress,
    group: ProcessGroup,
) -> None:
    """Score the text of every `ok` continuation; equal texts once, and known ones not again.

    Raises:
        BackendError: a score is missing, NaN or outside [0, 1].
        DataError: the text of a prompt is unknown.
    """
    scored_rows = [row for row in texts.generations if row.state == "ok"]
    requests = {
        request.key: request
        for request in (scoring_request(row, scorer, texts.prompts) for row in scored_rows)
    }
    ordered = sorted(requests, key=lambda key: (_length(requests[key]), key))
    share = ordered[group.number :: group.of]
    missing = [key for key in share if key not in rows]
    label, finished = f"score {rows.label}", len(share) - len(missing)
    with progress.bar(label, len(share), "texts", finished) as advance:
        for start in range(0, len(missing), scorer.texts_per_call):
            keys = missing[start : start + scorer.texts_per_call]
            for key, scored in zip(
                keys, score_checked([requests[k] for k in keys], scorer), strict=True
            ):
                values = [dict(scored.heads), *scored[1:-1]]
                rows.add(failed_key(key) if scored.is_temporary else key, values)
            advance(len(keys))


def collect_scores(
    texts: ScoringInput, journals: Mapping[str, tuple[NamedScorer, RowJournal]]
) -> list[Score]:
    """Return every continuation with every scorer; rows that are not `ok` keep their state and have
    no score."""
    return [
        _scored(row, scorer, rows, scoring_request(row, scorer, texts.prompts).key)
        if row.state == "ok"
        else _unscored(row, scorer)
        for scorer, rows in journals.values()
        for row in texts.generations
    ]


def refuse_many_errors(scores: Sequence[Score], allowed: float) -> None:
    """Raise if a scorer left a larger share of the texts without a score.

    Raises:
        BackendError: with the number of texts, and the most frequent reason.
    """
    texts = Counter(score.scorer for score in scores if score.state == "ok" or score.error)
    errors = Counter((score.scorer, score.error) for score in scores if score.error)
    for (scorer, reason), count in errors.most_common():
        failed = sum(number for (name, _), number in errors.items() if name == scorer)
        if failed > allowed * texts[scorer]:
            raise BackendError(
                f"The scorer {scorer} gave no score to {failed} of {texts[scorer]} texts "
                f"(scoring.max_error_share allows {allowed:.1%}); the most frequent reason, of "
                f"{count}: {reason}. Correct the scorer's options, or raise the share."
            )


def scoring_request(
    row: Generation, scorer: NamedScorer, prompts: Mapping[str, str]
) -> ScoringRequest:
    """Return the input of a scorer for a row.

    Args:
        prompts: prompt id -> text.

    Raises:
        DataError: the scorer needs the prompt, and its text is unknown.
    """
    if not scorer.sees_prompt:
        return ScoringRequest(row.text, None)
    if row.prompt_id not in prompts:
        raise DataError(
            f"The prompt {row.prompt_id} is not in data/prompts.parquet, but the scorer "
            f"{scorer.name} sees prompts. Run `dvc repro` to bring both up to date."
        )
    return ScoringRequest(row.text, prompts[row.prompt_id])


def score_params(config: ScoringConfig) -> dict[str, Any]:
    """Return the parameters in the manifest of scores."""
    scorers = {name: scorer.plain() for name, scorer in config.scorers.items()}
    return {"scorers": scorers, "max_error_share": config.max_error_share}


SEES_PROMPT, LAST_MESSAGE = "sees_prompt", "the last message of a conversation"
"""Field of a manifest: the part of a conversation that is shown to scorers that see the prompt. It
determines no row, because a row's key contains what was shown."""


def prompts_to_show(prompts: Sequence[Prompt]) -> tuple[dict[str, str], dict[str, str]]:
    """Return the text of each prompt for scorers that see it, and the manifest field on
    conversations."""
    texts = {prompt.prompt_id: prompt.text for prompt in prompts}
    return texts, {SEES_PROMPT: LAST_MESSAGE} if any(p.earlier for p in prompts) else {}


def rows_identity(manifest: Manifest, scorer: str) -> dict[str, Any]:
    """Return everything that determines the score of a text; this excludes the servers of other
    scorers, and the scorer's languages."""
    options = {k: v for k, v in manifest.params["scorers"][scorer].items() if k != "languages"}
    converted = (manifest.converted or {}).get(scorer)
    environment = {
        name: value
        for name, value in manifest.environment.items()
        if name.partition(".")[0] == scorer or ("." not in name and name != SEES_PROMPT)
    }
    return {
        "scorer": options,
        "code": manifest.code_sha256,
        "environment": environment,
        **({"converted": converted} if converted else {}),
    }


def _length(request: ScoringRequest) -> int:
    return len(request.text) + len(request.prompt or "")


def score_checked(requests: Sequence[ScoringRequest], scorer: NamedScorer) -> list[ScoredText]:
    """Score texts; each gets a score of every head, or the reason why it has none.

    Raises:
        BackendError: a score is missing, NaN or outside [0, 1].
    """
    texts = [request.text for request in requests]
    prompts = [request.prompt for request in requests if request.prompt is not None]
    scored = scorer.scorer.score(texts, prompts if scorer.sees_prompt else None)
    if len(scored) != len(texts):
        raise BackendError(
            f"The scorer {scorer.name} returned scores for {len(scored)} of {len(texts)} texts. "
            "None was kept."
        )
    for text, result in zip(texts, scored, strict=True):
        optional = {"other": result.other, "refusal": result.refusal}
        values = {**result.heads, **{k: v for k, v in optional.items() if v is not None}}
        for head, value in values.items():
            if not 0 <= value <= 1:
                raise BackendError(
                    f"The scorer {scorer.name} gave the text with the sha256 "
                    f"{sha256_text(text)[:12]} "
                    f"{head} = {value}; a score is in [0, 1]. Check that its output went through "
                    "a sigmoid or softmax."
                )
    return scored


def failed_key(key: str) -> str:
    """Return the key of a text that a server did not score; another run retries it."""
    return f"{key}|failed"


def _scored(row: Generation, scorer: NamedScorer, rows: RowJournal, key: str) -> Score:
    heads, windows, other, error, refusal = rows[key if key in rows else failed_key(key)]
    scored = Score(
        prompt_id=row.prompt_id,
        sample=row.sample,
        subset=row.subset,
        scorer=scorer.name,
        state="error" if error else "ok",
        toxicity=None if error else heads.get(scorer.head),
        heads=heads or None,
        windows=windows,
        cluster=row.cluster,
        other=other,
        error=error or None,
        refusal=refusal,
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
