"""The rows exchanged between stages, and their Arrow schemas.

Every table is sorted by its key, so that equal rows give equal bytes.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any, Literal, NamedTuple, get_args

import pyarrow as pa

RowStatus = Literal["ok", "empty", "unfinished", "filtered", "truncated", "error"]
"""ok: text to score. empty: the model stopped at once or wrote only white space. unfinished: the
model's thought did not end, so there is no answer. filtered: a server withheld the answer, by a
content filter or as a refusal outside of the text. truncated: the prompt does not fit the model's
window, so there is no continuation of *this* prompt. error: the model or a scorer failed on this
row. Only `ok` rows are scored; all are counted."""

FinishReason = Literal["stop", "length", "none", "unknown"]
"""stop: an end-of-sequence token. length: max_new_tokens reached. none: nothing was generated.
unknown: the text comes from a file that does not say."""


Role = Literal["system", "user", "assistant"]


class Turn(NamedTuple):
    """One message of a conversation."""

    role: Role
    text: str
    learned: bool = True
    """Whether it may be learned; else it is context only."""


class Prompt(NamedTuple):
    """One prompt, continued by every variant."""

    prompt_id: str
    """`<subset>-<first 12 hex digits of its content's sha256>`: independent of position and file.
    """
    subset: str
    text: str
    source: str
    """URI of its source."""
    source_row: int
    """Row in the source, from 0."""
    language: str | None = None
    """Language as in params.yaml, a BCP 47 tag."""
    covariates: Mapping[str, float | None] | None = None
    """Name -> value in the source; None if missing."""
    cluster: str | None = None
    """Name of its cluster (template, identity term, author), in any subset; None for a prompt that
    is a cluster of its own."""
    earlier: tuple[Turn, ...] = ()
    """Messages before it, if it is the last message of a conversation."""

    @property
    def turns(self) -> tuple[Turn, ...]:
        """Return all messages; the last is the prompt's text."""
        return (*self.earlier, Turn("user", self.text))

    @property
    def content(self) -> str:
        """Return the text that identifies it; see `prompt_content`."""
        return prompt_content(self.turns)

    @property
    def transcript(self) -> str:
        """Return all messages for display, each with its role; without earlier ones, the text."""
        if not self.earlier:
            return self.text
        return "\n\n".join(f"[{turn.role}] {turn.text}" for turn in self.turns)


def prompt_content(turns: Sequence[Turn]) -> str:
    """Return the text that identifies a prompt: its own if it is the only message, else canonical
    JSON of all messages, [[role, text], ...]."""
    if len(turns) == 1:
        return turns[0].text
    pairs = [[turn.role, turn.text] for turn in turns]
    return json.dumps(pairs, ensure_ascii=False, separators=(",", ":"))


class InstructionExample(NamedTuple):
    """Instruction and answer for training."""

    instruction: str
    context: str
    """Material that the instruction refers to; may be empty."""
    response: str
    earlier: tuple[Turn, ...] = ()
    """Earlier messages of a conversation, beginning with a system message if there is one."""
    learn_instruction: bool = True
    """Whether the instruction is learned with `loss_on: all`."""


class TrainingSplit(NamedTuple):
    """Examples for training, and held-out examples."""

    learned: Sequence[InstructionExample]
    held_out: Sequence[InstructionExample]


class Generation(NamedTuple):
    """One continuation of one prompt by one variant."""

    prompt_id: str
    sample: int
    """Sample index, 0..k-1."""
    subset: str
    state: RowStatus
    text: str
    """Text decoded from `token_ids`; without the thought, if `generation.thought` is declared."""
    token_ids: tuple[int, ...]
    """The continuation's own tokens, without the end-of-sequence token."""
    prompt_tokens: int
    finish_reason: FinishReason
    error: str
    """Why the row has no text; empty for `ok`, `empty` and `unfinished`."""
    thought: str | None = None
    """Text before `text`, with its markers; None without a thought."""
    thought_tokens: int | None = None
    """Number of tokens of the thought, the first ones of `token_ids`; None without a thought."""
    server_model: str | None = None
    """Model name in the response of a server to which chat messages were sent; None for all other
    rows, as in the columns below."""
    server_fingerprint: str | None = None
    """`system_fingerprint` in that response."""
    server_software: str | None = None
    """`Server` header of that response."""
    server_date: str | None = None
    """Day of that response, in UTC."""
    server_tokens: int | None = None
    """Tokens of thought and answer as the server counts them (`usage.completion_tokens`)."""
    cluster: str | None = None
    """Cluster of the prompt."""
    language: str | None = None
    """Language of the prompt."""

    @property
    def key(self) -> tuple[str, int]:
        return self.prompt_id, self.sample


class Score(NamedTuple):
    """Score of one continuation by one scorer."""

    prompt_id: str
    sample: int
    subset: str
    scorer: str
    state: RowStatus
    toxicity: float | None
    """The scorer's declared head, in [0, 1]; None unless state is `ok`."""
    heads: Mapping[str, float] | None
    """Every head of the scorer, in [0, 1]."""
    windows: int
    """Number of windows of the text (the row has the maximum of each head); 0 if unscored."""
    cluster: str | None = None
    """Cluster of the prompt."""
    other: float | None = None
    """For a guard model: probability of answers that its configuration does not name, in [0, 1]."""
    error: str | None = None
    """Why a text has no score, if the scorer failed."""
    refusal: float | None = None
    """Probability that the text is a refusal, in [0, 1], of a guard with a question about it;
    None if it gave no answer. It never counts as toxicity."""

    @property
    def key(self) -> tuple[str, int, str]:
        return self.prompt_id, self.sample, self.scorer


def generation_problem(row: Generation) -> str:
    """Return what is invalid in a generation row; empty if it is valid."""
    if row.state not in get_args(RowStatus):
        return f"its state is {row.state!r}; states are {', '.join(get_args(RowStatus))}"
    if row.finish_reason not in get_args(FinishReason):
        return f"its finish_reason is {row.finish_reason!r}"
    if not isinstance(row.text, str) or not isinstance(row.error, str):
        return "its text or its error is not a string"
    counts = (row.sample, row.prompt_tokens, *row.token_ids)
    if set(map(type, counts)) != {int} or min(counts) < 0:
        return "its sample, prompt_tokens or token_ids contain something other than numbers from 0"
    if (row.thought is None) != (row.thought_tokens is None):
        return "it has one of thought and thought_tokens without the other"
    if row.thought is not None and not isinstance(row.thought, str):
        return "its thought is not a string"
    if row.thought_tokens is not None and row.thought_tokens not in range(len(row.token_ids) + 1):
        return f"its thought_tokens is {row.thought_tokens} of {len(row.token_ids)} tokens"
    return _server_problem(row)


def _server_problem(row: Generation) -> str:
    """Return which column of a server's response is invalid; empty if none is."""
    for name in SERVER_COLUMNS:
        value, kind = getattr(row, name), int if name == "server_tokens" else str
        if value is not None and type(value) is not kind:
            return f"its {name} is {value!r}"
    return "" if (row.server_tokens or 0) >= 0 else f"its server_tokens is {row.server_tokens}"


def score_problem(row: Score) -> str:
    """Return what is invalid in a score row; empty if it is valid."""
    if row.state not in get_args(RowStatus):
        return f"its state is {row.state!r}; states are {', '.join(get_args(RowStatus))}"
    if (row.toxicity is None) == (row.state == "ok"):
        return f"its state is {row.state} and its toxicity {row.toxicity}: only ok rows have one"
    if row.toxicity is not None and not is_share(row.toxicity):
        return f"its toxicity is {row.toxicity}, not a number from 0 to 1"
    for name, value in (("other", row.other), ("refusal", row.refusal)):
        if value is not None and not is_share(value):
            return f"its {name} is {value}, not a number from 0 to 1"
    odd = [name for name, value in (row.heads or {}).items() if not is_share(value)]
    return f"its head {odd[0]} is not a number from 0 to 1" if odd else ""


def is_share(value: object) -> bool:
    """Return whether a value is a number from 0 to 1; NaN is not."""
    return isinstance(value, int | float) and 0 <= value <= 1


def to_arrow_table(rows: Sequence[Any], schema: pa.Schema) -> pa.Table:
    """Return rows as an Arrow table."""
    columns = {name: [_arrow(getattr(row, name)) for row in rows] for name in schema.names}
    return pa.Table.from_pydict(columns, schema=schema)


def _arrow(value: object) -> object:
    """Convert maps to lists of pairs, tuples to lists and messages to maps, as Arrow requires."""
    if isinstance(value, Mapping):
        return list(value.items())
    if isinstance(value, tuple) and value and isinstance(value[0], Turn):
        return [{"role": turn.role, "text": turn.text} for turn in value]
    return list(value) if isinstance(value, tuple) else value


MESSAGE_FIELDS = [
    pa.field("role", pa.string(), nullable=False),
    pa.field("text", pa.string(), nullable=False),
]
PROMPT_SCHEMA = pa.schema(
    [
        pa.field("prompt_id", pa.string(), nullable=False),
        pa.field("subset", pa.string(), nullable=False),
        pa.field("text", pa.string(), nullable=False),
        pa.field("source", pa.string(), nullable=False),
        pa.field("source_row", pa.int64(), nullable=False),
        pa.field("language", pa.string()),
        pa.field("covariates", pa.map_(pa.string(), pa.float64())),
        pa.field("cluster", pa.string()),
        pa.field("earlier", pa.list_(pa.struct(MESSAGE_FIELDS))),
    ]
)
OPTIONAL_PROMPT_COLUMNS = frozenset({"language", "covariates", "cluster", "earlier"})
"""Columns that a file of prompts has only if one of its prompts has a value."""

GENERATION_SCHEMA = pa.schema(
    [
        pa.field("prompt_id", pa.string(), nullable=False),
        pa.field("sample", pa.int32(), nullable=False),
        pa.field("subset", pa.string(), nullable=False),
        pa.field("state", pa.string(), nullable=False),
        pa.field("text", pa.string(), nullable=False),
        pa.field("token_ids", pa.list_(pa.int32()), nullable=False),
        pa.field("prompt_tokens", pa.int32(), nullable=False),
        pa.field("finish_reason", pa.string(), nullable=False),
        pa.field("error", pa.string(), nullable=False),
        pa.field("thought", pa.string()),
        pa.field("thought_tokens", pa.int32()),
        pa.field("server_model", pa.string()),
        pa.field("server_fingerprint", pa.string()),
        pa.field("server_software", pa.string()),
        pa.field("server_date", pa.string()),
        pa.field("server_tokens", pa.int32()),
        pa.field("cluster", pa.string()),
        pa.field("language", pa.string()),
    ]
)
SERVER_COLUMNS = (
    "server_model",
    "server_fingerprint",
    "server_software",
    "server_date",
    "server_tokens",
)
"""Columns of generations by a model known by its name on a server only."""
GENERATION_OPTIONS = frozenset(
    {"thought", "thought_tokens", *SERVER_COLUMNS, "cluster", "language"}
)
"""Columns that a file of generations has only if one of its rows has a value."""
SCORE_OPTIONS = frozenset({"cluster", "other", "error", "refusal"})
"""Columns that a file of scores has only if one of its rows has a value."""

SCORE_SCHEMA = pa.schema(
    [
        pa.field("prompt_id", pa.string(), nullable=False),
        pa.field("sample", pa.int32(), nullable=False),
        pa.field("subset", pa.string(), nullable=False),
        pa.field("scorer", pa.string(), nullable=False),
        pa.field("state", pa.string(), nullable=False),
        pa.field("toxicity", pa.float64()),
        pa.field("heads", pa.map_(pa.string(), pa.float64())),
        pa.field("windows", pa.int32(), nullable=False),
        pa.field("cluster", pa.string()),
        pa.field("other", pa.float64()),
        pa.field("error", pa.string()),
        pa.field("refusal", pa.float64()),
    ]
)
