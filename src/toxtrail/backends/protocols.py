"""Protocols that the stages use, and the plain values that they exchange with the backends."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, NamedTuple, Protocol

from toxtrail.config.schema import FinetuneConfig
from toxtrail.provenance.identity import (
    Adapter,
    BaseWeights,
    FileHash,
    LogitProbe,
    Manifest,
    ModelIdentity,
)
from toxtrail.records.rows import FinishReason, RowStatus, TrainingSplit, Turn
from toxtrail.records.thought import ThoughtMarkers


class ProgressCallback(Protocol):
    """Callback that receives the work done since its last call."""

    def __call__(self, done: int, *, tokens: int = 0) -> None:
        """Add `done` units (bytes, rows, steps), and tokens where they are counted too."""
        ...


class ProcessGroup(Protocol):
    """The processes that share a stage's work."""

    number: int
    of: int

    def wait(self) -> None:
        """Wait until all processes have reached this point."""
        ...


class SingleProcess:
    """A single process that does all the work."""

    number = 0
    of = 1

    def wait(self) -> None:
        """Return at once: there is no other process."""


class Progress(Protocol):
    """Display of the progress of long work."""

    def bar(
        self, label: str, total: int | None, unit: str, completed: int = 0
    ) -> AbstractContextManager[ProgressCallback]:
        """Show a bar that ends with the `with` block.

        Args:
            unit: a plural: rows, bytes, steps.
            completed: how many of the total were done before.
        """
        ...


class NoProgress:
    """Progress without any display."""

    @contextmanager
    def bar(
        self, label: str, total: int | None, unit: str, completed: int = 0
    ) -> Iterator[ProgressCallback]:
        def advance(done: int, *, tokens: int = 0) -> None: ...

        yield advance


# --- assets -----------------------------------------------------------------------------------


@dataclass(frozen=True)
class Asset:
    """A verified local copy of a pinned file or folder."""

    uri: str
    path: Path
    """The file, or the folder that contains `files`."""
    resolved: str
    """40-hex commit, package version, or the sha256 itself."""
    sha256: str
    """Hash of the file, or of the tree (identity.tree_sha256)."""
    files: tuple[FileHash, ...]
    """Paths relative to the folder; for a single file, its name."""


class Assets(Protocol):
    """Resolver of addresses to verified local files."""

    def fetch(self, uri: str, sha256: str | None) -> Asset:
        """Fetch a verified local copy.

        Raises:
            BackendError: it is not available, or its content differs from the pin (the message has
            both hashes).
        """
        ...


# --- language models ---------------------------------------------------------------------------


class WeightsResolver(Protocol):
    """Resolver of addresses to hashed descriptions of weights."""

    def describe(self, uri: str, sha256: str | None) -> BaseWeights:
        """Fetch weights (convert a GGUF file once), and hash what affects their output."""
        ...

    def describe_adapter(
        self, key: str, uri: str, sha256: str | None, base: BaseWeights
    ) -> Adapter:
        """Fetch a LoRA adapter, and check that it fits the base and changes it."""
        ...


class WeightsVerifier(Protocol):
    """Verifier that a variant's weights load and match its model card."""

    def prove(self, card: ModelIdentity, folder: Path) -> LogitProbe:
        """Load them twice; `folder` is models/<variant>.

        Raises:
            BackendError: two loads differ, an adapter changes nothing, a logit is not finite.
        """
        ...


class TrainingResult(NamedTuple):
    """The result of a fine-tune besides the adapter's files."""

    steps: int
    losses: tuple[tuple[int, float], ...]
    """(step, mean training loss of that step in nats per token)."""
    cut_examples: int
    """Number of examples longer than max_length, truncated there."""
    held_out_losses: tuple[tuple[int, float], ...]
    """(step, mean loss on the held-out examples), before the first step, after each epoch and at
    the end; empty if there are no held-out examples."""


class Finetuner(Protocol):
    """Trainer of LoRA adapters."""

    def tune(
        self,
        parent: ModelIdentity,
        parent_folder: Path,
        lessons: TrainingSplit,
        recipe: FinetuneConfig,
        out: Path,
        scratch: Path,
        manifest: Manifest,
    ) -> TrainingResult:
        """Write the adapter (safetensors) to the empty folder `out`; resume from `scratch`.

        The manifest goes into the file's metadata, so a copied adapter still records its origin.
        """
        ...


@dataclass(frozen=True)
class Decoding:
    """Decoding parameters. Part of a generation's identity."""

    max_new_tokens: int
    temperature: float
    """0 is greedy."""
    top_p: float
    template: Literal["none", "chat"]
    """none: the raw prompt is continued. chat: a user message in the model's chat template."""
    earlier: tuple[Turn, ...] = ()
    """Messages before each prompt, for `chat`: a system message, then user and assistant."""
    template_arguments: Mapping[str, Any] = field(default_factory=dict)
    """Further variables of the chat template: JSON values by name."""
    thought: ThoughtMarkers | None = None
    """Markers of a thought; None: continuations have none."""


class EncodedPrompt(NamedTuple):
    """A tokenized prompt."""

    token_ids: tuple[int, ...]
    fits: bool
    """Whether the prompt and max_new_tokens fit the model's context window."""
    unknown_token: int | None = None
    """First token id in the prompt for which the model has no embedding, if any."""
    opens_thought: bool = False
    """Whether the prompt ends with the begin marker of a thought."""
    messages: tuple[Turn, ...] = ()
    """Messages that are sent to a server in place of tokens: `token_ids` are then numbers of
    words."""


class ServerAnswer(NamedTuple):
    """Statements of a server to which messages were sent, on one row."""

    state: RowStatus
    thought: str | None = None
    """Thought before the answer; it may have been kept apart by the server."""
    model: str | None = None
    fingerprint: str | None = None
    software: str | None = None
    date: str | None = None
    """Day of the response, in UTC."""
    tokens: int | None = None
    """Number of tokens as the server counts them."""


class Completion(NamedTuple):
    """The model's continuation of a prompt."""

    token_ids: tuple[int, ...]
    """Without the end-of-sequence token."""
    text: str
    finish_reason: FinishReason
    error: str
    """Empty, or the reason why these tokens must not be used (for example non-finite logits)."""
    thought_ends: tuple[int, ...] = ()
    """For each end marker of a thought, the number of tokens up to it."""
    answer: ServerAnswer | None = None
    """Set if messages were sent to a server: `text` is the answer then, and `token_ids` are numbers
    of words, of the thought and of the answer."""


class LanguageModel(Protocol):
    """A loaded variant."""

    def encode(self, text: str, earlier: Sequence[Turn] = ()) -> EncodedPrompt:
        """Tokenize a prompt, which is the last message of a conversation if there are earlier
        ones."""
        ...

    def complete(
        self, prompts: Sequence[EncodedPrompt], seeds: Sequence[int]
    ) -> Iterator[tuple[int, Completion]]:
        """Continue each prompt; yield each with its index as soon as it is finished. A row's sample
        depends only on its own prompt and seed."""
        ...


class ModelFiles(NamedTuple):
    """Verified files of a variant, for the engine of a plug-in."""

    base: Path
    """Folder of the base weights, their config and their tokenizer."""
    adapters: tuple[Path, ...]
    """Folders of LoRA adapters, in the order in which they are applied."""


class EngineModule(Protocol):
    """Interface of the module of a plug-in that generates; `config` is an instance of its class of
    options."""

    def open_model(
        self, config: Any, files: ModelFiles, decoding: Decoding, dtype: str, device: str
    ) -> AbstractContextManager[LanguageModel]:
        """Load a variant; its model is used in the `with` block only."""
        ...


# --- scorers -----------------------------------------------------------------------------------


class ScoredText(NamedTuple):
    """All heads of one scorer for one text."""

    heads: Mapping[str, float]
    """Head name -> probability in [0, 1]."""
    windows: int
    """Number of windows the text was split into; each head is the maximum over them."""
    other: float | None = None
    """Probability of answers that the scorer's configuration does not name, in [0, 1]; None if the
    scorer gives no answers."""
    error: str = ""
    """Why the text has no score; empty if it has one."""
    refusal: float | None = None
    """Probability that the text is a refusal, of a guard that answered a question about it."""
    is_temporary: bool = False
    """Whether another run may give it a score, because a server did not give one."""


class Scorer(Protocol):
    """A frozen classifier."""

    @property
    def heads(self) -> tuple[str, ...]: ...

    def score(self, texts: Sequence[str], prompts: Sequence[str] | None = None) -> list[ScoredText]:
        """Score each text, in order; the scorer chooses its batches.

        Args:
            prompts: of each text, for a scorer that sees the prompt; None for all others.
        """
        ...


# --- trackers ----------------------------------------------------------------------------------


@dataclass(frozen=True)
class DatasetInput:
    """A dataset that a run used."""

    name: str
    source: str
    sha256: str
    context: str
    """`evaluation` or `training`."""
    schema: str = ""
    """Columns, as JSON in MLflow's format; empty if unknown."""
    profile: str = ""
    """Numbers of rows and other facts, as JSON."""


@dataclass(frozen=True)
class LoggedWeights:
    """The weights of a variant, as a logged model: their hashes and results, without a copy."""

    name: str
    kind: str
    """`LoRA adapter` or `base weights`."""
    sha256: str
    tags: Mapping[str, str]
    params: Mapping[str, str]
    metrics: Sequence[str] = ()
    """Metrics of the run that the model has too."""
    description: str = ""
    """Markdown for the model's page. See RunContent.description."""


class TrackingFacts(NamedTuple):
    """Facts of one publication: when, where and by whom. They are not part of any identity."""

    tags: Mapping[str, str]
    hashes: Mapping[str, str]


@dataclass(frozen=True)
class RunContent:
    """Complete content of one tracked run. Two equal contents are the same run."""

    name: str
    content_key: str
    manifest: str
    """Canonical JSON, stored as manifest.json; the seal is its sha256."""
    description: str
    """Markdown for the run page; EXPERIMENT in a link is replaced with the experiment's id."""
    tags: Mapping[str, str]
    params: Mapping[str, str | int | float]
    metrics: Mapping[str, float]
    """The tracker leaves out non-finite values and lists them in a tag."""
    hashes: Mapping[str, str] = field(default_factory=dict)
    """Listed in the run's record.json."""
    curves: Mapping[str, Sequence[tuple[int, float]]] = field(default_factory=dict)
    """Metric name -> (step, value)."""
    inputs: Sequence[DatasetInput] = ()
    files: Mapping[str, Path] = field(default_factory=dict)
    """Artifact path -> local file."""
    texts: Mapping[str, str] = field(default_factory=dict)
    """Artifact path -> content."""
    tables: Mapping[str, Mapping[str, Sequence[object]]] = field(default_factory=dict)
    """Artifact path (JSON, split form) -> columns."""
    weights: LoggedWeights | None = None
    model_metrics: Mapping[str, str] = field(default_factory=dict)
    """Metric -> content key of another run, whose logged model has this metric too."""
    primary_metric: str = ""
    """The metric shown first on the tracker's page."""
    notes: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    """Content key of another run -> tags to set on it: not part of either run's identity."""


EXPERIMENT_PLACEHOLDER = "{experiment}"
"""Placeholder for the experiment's id in a description."""


class PublishedRun(NamedTuple):
    """The run that has a given content."""

    run_id: str
    created: bool
    """False if a sealed run of this content already existed."""
    payload: Mapping[str, str]
    """Artifact path -> sha256 of the stored bytes."""
    remarks: tuple[str, ...] = ()
    """Notes for the user on other runs of this content, or on what the store refused."""


class TrackedRun(NamedTuple):
    """One run as read from the store."""

    run_id: str
    name: str
    status: str
    start_time: int
    """Milliseconds since the epoch."""
    tags: Mapping[str, str]
    params: Mapping[str, str]
    metrics: Mapping[str, float]
    artifact_uri: str = ""
    """Location of its artifacts in the store."""


class Tracker(Protocol):
    """Store in which runs are tracked."""

    def publish(self, run: RunContent) -> PublishedRun:
        """Find or create the one sealed run of this content."""
        ...

    def runs(self, filter_string: str) -> list[TrackedRun]:
        """List the experiment's runs that match an MLflow filter, newest first."""
        ...
