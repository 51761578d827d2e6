"""What the stages ask of the world: Protocols and the plain values that cross the border."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, NamedTuple, Protocol

from toxtrail.config.schema import FinetuneConfig
from toxtrail.provenance.identity import Adapter, BaseWeights, FileHash, Manifest, ModelCard, Probe
from toxtrail.records.rows import FinishReason, Lessons


class Advance(Protocol):
    """Told how much has been done since it was last called."""

    def __call__(self, done: int, *, tokens: int = 0) -> None:
        """`done` units (bytes, rows, steps), and tokens where the work is counted in them too."""
        ...


class Together(Protocol):
    """The processes that share a stage's work."""

    number: int
    of: int

    def wait(self) -> None:
        """Until all have come as far."""
        ...


class Alone:
    """One process does it all."""

    number = 0
    of = 1

    def wait(self) -> None:
        """There is nobody to wait for."""


class Progress(Protocol):
    """Where long work shows how far it is."""

    def bar(
        self, label: str, total: int | None, unit: str, known: int = 0
    ) -> AbstractContextManager[Advance]:
        """A bar that ends with the `with` block.

        Args:
            unit: a plural: rows, bytes, steps.
            known: how many of the total were done before.
        """
        ...


class Silent:
    """Progress shown to nobody."""

    @contextmanager
    def bar(self, label: str, total: int | None, unit: str, known: int = 0) -> Iterator[Advance]:
        def advance(done: int, *, tokens: int = 0) -> None: ...

        yield advance


# --- assets -----------------------------------------------------------------------------------


@dataclass(frozen=True)
class Asset:
    """A verified local copy of a pinned file or folder."""

    uri: str
    path: Path
    """The file, or the folder that holds `files`."""
    resolved: str
    """40-hex commit, package version, or the sha256 itself."""
    sha256: str
    """Of the file, or of the tree (identity.tree_sha256)."""
    files: tuple[FileHash, ...]
    """Relative to the folder; for a single file, its own name."""


class Assets(Protocol):
    """Addresses to verified local files."""

    def fetch(self, uri: str, sha256: str | None) -> Asset:
        """A verified local copy.

        Raises:
            BackendError: it cannot be had, or its content is not what the pin says (both hashes
            shown).
        """
        ...


# --- language models ---------------------------------------------------------------------------


class Weights(Protocol):
    """Turns addresses into identity cards."""

    def describe(self, uri: str, sha256: str | None) -> BaseWeights:
        """Fetch weights (convert a GGUF file once) and hash everything that decides an answer."""
        ...

    def describe_adapter(
        self, key: str, uri: str, sha256: str | None, base: BaseWeights
    ) -> Adapter:
        """Fetch a LoRA adapter, and prove that it fits the base and changes it."""
        ...


class Prover(Protocol):
    """Shows that a card's weights load, and are what the card says."""

    def prove(self, card: ModelCard, folder: Path) -> Probe:
        """Load them twice; `folder` is models/<variant>.

        Raises:
            BackendError: two loads differ, an adapter changes nothing, a logit is not finite.
        """
        ...


class Trained(NamedTuple):
    """What a fine-tune leaves besides the adapter's files."""

    steps: int
    losses: tuple[tuple[int, float], ...]
    """(step, mean training loss of that step in nats per token)."""
    cut_examples: int
    """Examples longer than max_length, cut there."""
    held_out_losses: tuple[tuple[int, float], ...]
    """(step, mean loss on the held-out examples), before the first step, after each epoch and at
    the end; empty if there are none."""


class Tuner(Protocol):
    """Trains a LoRA adapter."""

    def tune(
        self,
        parent: ModelCard,
        parent_folder: Path,
        lessons: Lessons,
        recipe: FinetuneConfig,
        out: Path,
        scratch: Path,
        manifest: Manifest,
    ) -> Trained:
        """Write the adapter (safetensors) to the empty folder `out`; resume from `scratch`.

        The manifest goes into the file's metadata: an adapter that is passed on says what made it.
        """
        ...


@dataclass(frozen=True)
class Decoding:
    """How tokens are drawn. Part of a generation's identity."""

    max_new_tokens: int
    temperature: float
    """0 is greedy."""
    top_p: float
    template: Literal["none", "chat"]
    """none: the raw prompt is continued. chat: one user message in the model's own template."""


class EncodedPrompt(NamedTuple):
    """A prompt as the model will see it."""

    token_ids: tuple[int, ...]
    fits: bool
    """Whether the prompt and max_new_tokens fit the model's window."""
    unknown_token: int | None = None
    """A token of the tokenizer that the model has no embedding for, if there is one in it."""


class Completion(NamedTuple):
    """What the model wrote after a prompt."""

    token_ids: tuple[int, ...]
    """Without the end-of-sequence token."""
    text: str
    finish_reason: FinishReason
    error: str
    """Empty, or why these tokens must not be used (for example non-finite logits)."""


class LanguageModel(Protocol):
    """A loaded variant."""

    def encode(self, text: str) -> EncodedPrompt: ...

    def complete(
        self, prompts: Sequence[EncodedPrompt], seeds: Sequence[int]
    ) -> Iterator[tuple[int, Completion]]:
        """Continue each prompt; each is yielded with its number as soon as it is done. A row's draw
        depends on its own prompt and seed alone."""
        ...


# --- scorers -----------------------------------------------------------------------------------


class ScoredText(NamedTuple):
    """All heads of one scorer for one text."""

    heads: Mapping[str, float]
    """Head name -> probability in [0, 1]."""
    windows: int
    """Into how many windows the text was cut; each head is the maximum over them."""


class Scorer(Protocol):
    """A frozen classifier."""

    @property
    def heads(self) -> tuple[str, ...]: ...

    def score(self, texts: Sequence[str]) -> list[ScoredText]:
        """Score each text, in order; batches are its own affair."""
        ...


# --- trackers ----------------------------------------------------------------------------------


@dataclass(frozen=True)
class DatasetInput:
    """A dataset that a run has read."""

    name: str
    source: str
    sha256: str
    context: str
    """`evaluation` or `training`."""


@dataclass(frozen=True)
class LoggedAdapter:
    """A fine-tuned adapter, shown as a logged model without copying its weights elsewhere."""

    name: str
    sha256: str
    tags: Mapping[str, str]
    params: Mapping[str, str]


@dataclass(frozen=True)
class RunContent:
    """Everything one tracked run shows. Two equal contents are the same run."""

    name: str
    content_key: str
    manifest: str
    """Canonical JSON, stored as manifest.json; the seal is its sha256."""
    description: str
    """Markdown for the run page; EXPERIMENT in a link becomes the experiment's id."""
    tags: Mapping[str, str]
    params: Mapping[str, str | int | float]
    metrics: Mapping[str, float]
    """Non-finite values are left out by the tracker and listed in a tag."""
    curves: Mapping[str, Sequence[tuple[int, float]]] = field(default_factory=dict)
    """Metric name -> (step, value)."""
    inputs: Sequence[DatasetInput] = ()
    files: Mapping[str, Path] = field(default_factory=dict)
    """Artifact path -> local file."""
    texts: Mapping[str, str] = field(default_factory=dict)
    """Artifact path -> content."""
    tables: Mapping[str, Mapping[str, Sequence[object]]] = field(default_factory=dict)
    """Artifact path (JSON, split form) -> columns."""
    adapter: LoggedAdapter | None = None
    primary_metric: str = ""
    """The metric that the tracker's page shows first."""
    notes: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    """Content key of another run -> tags put onto it: no part of either run's identity."""


EXPERIMENT = "{experiment}"
"""Stands for the experiment's id in a description."""


class Published(NamedTuple):
    """The run that now stands for a content."""

    run_id: str
    created: bool
    """False if a sealed run of this content already stood there."""
    payload: Mapping[str, str]
    """Artifact path -> sha256 of the bytes stored."""
    remarks: tuple[str, ...] = ()
    """What a person should know of other runs of this content, or of what the store refused."""


class TrackedRun(NamedTuple):
    """One run as read back from the store."""

    run_id: str
    name: str
    status: str
    start_time: int
    """Milliseconds since the epoch."""
    tags: Mapping[str, str]
    params: Mapping[str, str]
    metrics: Mapping[str, float]
    artifact_uri: str = ""
    """Where the store keeps its files."""


class Tracker(Protocol):
    """Where runs are shown."""

    def publish(self, run: RunContent) -> Published:
        """Find or create the one sealed run of this content."""
        ...

    def runs(self, filter_string: str) -> list[TrackedRun]:
        """Runs of the experiment that match an MLflow filter, newest first."""
        ...
