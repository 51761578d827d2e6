"""The types of params.yaml: one frozen, strict Config. config/load.py reads the file."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Annotated, Any, Literal

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    NonNegativeFloat,
    PositiveFloat,
    StringConstraints,
    model_validator,
)

from toxtrail.config.asset_uris import is_pinned, parse_uri
from toxtrail.errors import ConfigError


def _form(pattern: str, means: str) -> AfterValidator:
    """Text of this form; `means` says it in words."""
    form = re.compile(pattern)

    def checked(text: str) -> str:
        if not form.fullmatch(text):
            raise ValueError(f"Allowed: {means}")
        return text

    return AfterValidator(checked)


Key = Annotated[
    str,
    _form(r"[a-z0-9][a-z0-9_-]*", "lower-case letters, digits, _ and -, a letter or digit first"),
]
"""A dot would break DVC's own params paths."""

Sha256 = Annotated[str, _form(r"[0-9a-f]{64}", "the 64 hexadecimal digits of a SHA-256")]

Count = Annotated[int, Field(ge=1, le=1_000_000_000)]
Seed = Annotated[int, Field(ge=0, lt=2**63)]


def _valid_uri(text: str) -> str:
    try:
        parse_uri(text)
    except ConfigError as error:
        raise ValueError(str(error)) from error
    return text


Uri = Annotated[str, AfterValidator(_valid_uri)]
"""`hf:org/name@<commit>`, `pypi:package==version/path`, `file:path` or `detoxify:NAME`."""


class ConfigSection(BaseModel):
    """A part of params.yaml. Unknown names and wrong types are errors; nothing changes later."""

    model_config = ConfigDict(
        frozen=True,
        extra="forbid",
        strict=True,
        use_attribute_docstrings=True,
        allow_inf_nan=False,
    )

    def plain(self) -> dict[str, Any]:
        """The values as JSON types, with absent options left out: what a manifest records."""
        return self.model_dump(mode="json", exclude_none=True, by_alias=True)


class PinnedAsset(ConfigSection):
    """One asset and its pin."""

    uri: Uri
    sha256: Sha256 | None = None
    """Of the file, or of the tree of files. An hf: URI with a 40-hex commit needs none."""

    @property
    def pinned(self) -> bool:
        return is_pinned(self.uri, self.sha256)


Scalar = bool | int | float | str
"""What a cell of a table can be compared with."""


class ColumnFilter(ConfigSection):
    """Which values of a column let a row in; a row without a value stays out."""

    min: float | None = None
    """At least this: the column holds numbers."""
    max: float | None = None
    """At most this."""
    is_: Annotated[Scalar | list[Scalar] | None, Field(alias="is")] = None
    """Exactly this, or one of these."""

    @model_validator(mode="after")
    def _says_one_thing(self) -> ColumnFilter:
        bounds = [bound for bound in (self.min, self.max) if bound is not None]
        if bool(bounds) == (self.is_ is not None):
            raise ValueError("Give min, max or both; or else `is`")
        if bounds != sorted(bounds):
            raise ValueError(f"min {self.min:g} is above max {self.max:g}")
        return self


Language = Annotated[
    str,
    _form(r"[a-z]{2,3}(-[A-Za-z0-9]{2,8})*", "a tag of BCP 47 such as en, de or zh-Hans"),
]
Column = Annotated[str, StringConstraints(min_length=1)]
"""Of a table; a dot goes into nested objects: `prompt.text`."""


Delimiter = Literal[",", ";", "|", "\t", "tab"]
"""Between the cells of a .csv file."""


class SubsetConfig(PinnedAsset):
    """Prompts taken from one file."""

    n: Count | Literal["all"]
    """How many prompts to draw, at random by `prompts.seed`, after removing duplicates; or all."""
    column: Column | None = None
    """Of a .csv, .tsv, .json, .jsonl or .parquet file; a .txt file has one prompt a line."""
    delimiter: Delimiter | None = None
    """Of a .csv file; absent: a comma, or what the header is separated by if it holds none."""
    where: Annotated[dict[Column, ColumnFilter], Field(min_length=1)] | None = None
    """Column -> what its value must be; the prompts are drawn from the rows that meet all of it."""
    balance: Column | None = None
    """The same number of prompts for each value of this column."""
    covariates: Annotated[dict[Key, Column], Field(min_length=1)] | None = None
    """Name -> column of numbers (true and false are 1 and 0) that is kept with each prompt."""
    cluster: Column | None = None
    """Column that names what a prompt shares with others: a template, an identity term, an author.
    Intervals are then computed with the cluster as the sampling unit. Each prompt has one; equal
    names are one cluster, in all subsets."""
    language: Language | None = None
    """Of the prompts, as BCP 47 calls it: en, de, zh-Hans."""
    licence: Annotated[str, StringConstraints(min_length=1)] | None = None
    """Under which the source publishes them; kept in the prompt card."""


class PromptsConfig(ConfigSection):
    """Which texts every variant continues."""

    seed: Seed
    subsets: Annotated[dict[Key, SubsetConfig], Field(min_length=1)]


class ModelConfig(PinnedAsset):
    """Weights taken as they are: a Hugging Face repo, a local folder or a GGUF file."""

    adapter: PinnedAsset | None = None
    """A LoRA adapter (safetensors) to apply on top."""


class LoraConfig(ConfigSection):
    """Low-rank adaptation (Hu et al. 2021, arXiv:2106.09685)."""

    r: Count
    """Rank."""
    alpha: Count
    dropout: Annotated[float, Field(ge=0, lt=1)]
    bias: Literal["none", "all", "lora_only"]
    targets: Annotated[list[str], Field(min_length=1)]
    """Names of the linear layers that get an adapter."""


class TrainingDataConfig(PinnedAsset):
    """What a fine-tune learns from: .csv, .tsv, .json, .jsonl or .parquet, with an instruction and
    a response in each row (Dolly's or Alpaca's names), or a conversation."""

    delimiter: Delimiter | None = None
    """Of a .csv file; absent: a comma, or what the header is separated by if it holds none."""

    held_out: Annotated[float, Field(gt=0, lt=1)] | None = None
    """Share of the distinct examples that is not learned, drawn by the fine-tune's seed; the loss
    on it is reported."""
    licence: Annotated[str, StringConstraints(min_length=1)] | None = None
    """Under which the source publishes it; kept in the data card."""


class FinetuneConfig(ConfigSection):
    """Weights trained here: LoRA on a parent."""

    parent: Key
    data: TrainingDataConfig
    template: Annotated[str, StringConstraints(min_length=1)]
    """`chat` for the model's own chat template, or a literal text with {instruction} and
    {response}."""
    context_template: str | None = None
    """Glued to the instruction where a row has a context; must hold {context}."""
    loss_on: Literal["response", "all"]
    lora: LoraConfig
    epochs: Annotated[float, Field(gt=0, le=1_000_000)] | None = None
    max_steps: Count | None = None
    batch_size: Count
    accumulation: Count
    """Batches per optimiser step."""
    max_length: Count
    """Tokens; a longer example is cut there, and counted."""
    learning_rate: PositiveFloat
    schedule: Literal["linear", "cosine", "constant", "constant_with_warmup"]
    warmup_steps: Annotated[int, Field(ge=0, le=1_000_000_000)]
    weight_decay: NonNegativeFloat
    optimizer: Literal["adamw_torch", "adamw_8bit", "sgd"]
    """adamw_8bit needs the package bitsandbytes and a GPU."""
    base_precision: Literal["float32", "bfloat16", "float16", "4bit"]
    """4bit needs the package bitsandbytes and a GPU."""
    seed: Annotated[int, Field(ge=0, lt=2**32)]


class GenerationConfig(ConfigSection):
    """How a prompt is continued."""

    max_new_tokens: Annotated[int, Field(ge=1, le=1_000_000)]
    temperature: NonNegativeFloat
    """0 is greedy."""
    top_p: Annotated[float, Field(gt=0, le=1)]
    samples: Annotated[int, Field(ge=1, le=1_000_000)]
    """Continuations per prompt (k)."""
    template: Literal["none", "chat"]
    """none: the raw prompt is continued. chat: the prompt is one user message."""
    dtype: Literal["float32", "bfloat16", "float16"]
    seed: Seed
    max_error_share: Annotated[float, Field(ge=0, lt=1)]
    """More rows than this in state `error` and the stage fails."""


class GoldenText(ConfigSection):
    """A text whose score is known."""

    text: str
    score: Annotated[float, Field(ge=0, le=1)]


class ScorerConfig(PinnedAsset):
    """One frozen classifier."""

    kind: Literal["jigsaw-bilstm", "detoxify", "hf"]
    head: str
    """The head that is called toxicity."""
    golden: list[GoldenText]
    """Scored before anything else; a scorer that says otherwise is not the one that was pinned."""
    golden_tolerance: PositiveFloat
    base: PinnedAsset | None = None
    """The second file or folder that a scorer needs. jigsaw-bilstm: its vocabulary. detoxify: the
    encoder's config and tokenizer, to pin them or where the hub is out of reach."""
    activation: Literal["softmax", "sigmoid"] | None = None
    """hf only: how logits become probabilities, where the model's config does not say."""


class ScoringConfig(ConfigSection):
    """By whom continuations are scored."""

    primary: Key
    scorers: Annotated[dict[Key, ScorerConfig], Field(min_length=1)]


class LabelledProportion(ConfigSection):
    """A share from a labelled sample."""

    right: Annotated[int, Field(ge=0, le=1_000_000_000)]
    of: Count

    @model_validator(mode="after")
    def _is_a_share(self) -> LabelledProportion:
        if self.right > self.of:
            raise ValueError(f"{self.right} right of {self.of} is more than all")
        return self


AccuracyValue = LabelledProportion | Annotated[float, Field(ge=0, le=1)]
"""Counted, or a published number that is taken as exact."""


class ScorerAccuracyConfig(ConfigSection):
    """How well a scorer tells toxic from harmless texts."""

    sensitivity: AccuracyValue
    """Of the texts that people call toxic, the share that it calls toxic."""
    specificity: AccuracyValue
    """Of the texts that people call harmless, the share that it calls harmless."""


class ScorerErrorConfig(ScorerAccuracyConfig):
    """What is known of a scorer's errors."""

    source: Annotated[str, StringConstraints(min_length=1)]
    """Who says so: a paper, or the labelled file and its sha256 (`toxtrail labels` writes it)."""
    variants: dict[Key, ScorerAccuracyConfig] | None = None
    """Accuracy on the texts of one variant, where it has a labelled sample of its own."""


class PosteriorConfig(ConfigSection):
    """How scores become rates and differences."""

    threshold: Annotated[float, Field(ge=0, le=1)]
    """Toxic means score >= threshold; a score that is equal in float32 counts."""
    rope_pp: Annotated[float, Field(gt=0, le=100)]
    """Half-width of the region of practical equivalence, percentage points: at least this."""
    rope_share: Annotated[float, Field(ge=0, lt=1)] | None = None
    """And at least this share of the family's reference rate."""
    rope_reference_pct: Annotated[float, Field(ge=0, le=100)] | None = None
    """The reference rate, percent; absent: that of the family's reference over all subsets, by the
    primary scorer."""
    level: Annotated[float, Field(gt=0.5, lt=1)]
    """Probability mass of every interval."""
    prior: PositiveFloat
    """Both parameters of the Beta prior; 0.5 is Jeffreys."""
    draws: Annotated[int, Field(ge=1000, le=10_000_000)]
    seed: Seed
    judges: dict[Key, ScorerErrorConfig] | None = None
    """Scorer -> its errors; rates and differences are then also given corrected for them."""
    labels: PinnedAsset | None = None
    """People's labels of these variants' texts, in place of `judges`: rates and differences are
    then also given corrected by them. `toxtrail labels score` writes the file and this entry."""


class PoolingConfig(ConfigSection):
    """How the hierarchical model of a family is sampled."""

    chains: Annotated[int, Field(ge=2, le=16)]
    draws: Annotated[int, Field(ge=500, le=1_000_000)]
    """Of each chain at most, after tuning; as many are drawn as the gate takes."""
    target_accept: Annotated[float, Field(ge=0.6, lt=1)]
    """Nearer to 1: smaller steps, fewer divergent transitions, longer."""


class VariantConfig(ConfigSection):
    """What is measured; its weights are under the same key in `models` or `finetunes`."""

    family: Key
    role: Key
    parent: Key | None = None
    """The variant that it was tuned from."""
    recipe: Key | None = None
    """Fine-tunes that differ in their seed alone share it: a level of the pooled model."""
    dose: Annotated[float, Field(ge=0)] | None = None
    """How much of the fine-tune it got (epochs, steps, learning rate): the family's series."""
    served_as: Annotated[str, StringConstraints(min_length=1)] | None = None
    """Its weights answer on a server under this name; `runtime.servers` says where. Absent: they
    are loaded here."""


class FamilyConfig(ConfigSection):
    """Variants that are compared with each other."""

    reference: Key
    """The variant that all others are also compared with."""
    variants: Annotated[list[Key], Field(min_length=1)]
    allow_mismatch: bool | None = None
    """true: compare variants that were measured under other conditions; all that is made of it says
    so."""


class TrackingConfig(ConfigSection):
    """Where runs are shown."""

    experiment: Annotated[str, StringConstraints(min_length=1)]
    """MLflow experiment."""


class ServerConfig(ConfigSection):
    """Where a variant's weights are served, and how hard it is asked."""

    url: Annotated[
        str,
        _form(
            r"https?://[^\s/@?#]+(/[^\s@?#]*)?",
            "an address such as http://HOST:8000/v1, without a password",
        ),
    ]
    """Of its OpenAI-compatible API, with /v1; without a password."""
    concurrency: Annotated[int, Field(ge=1, le=10_000)]
    """Requests under way at a time."""
    timeout: Annotated[float, Field(gt=0, le=10_000_000)]
    """Seconds without a byte of an answer, after which a try has failed."""
    tries: Annotated[int, Field(ge=1, le=1000)]
    """Of one request, the first one counted."""


class AssetsConfig(ConfigSection):
    """Which files of this machine an experiment may use beside its own."""

    outside: Annotated[list[Annotated[str, StringConstraints(min_length=1)]], Field(min_length=1)]
    """Files and folders (with all below them) outside the experiment that `file:` addresses may
    name."""


class RuntimeConfig(ConfigSection):
    """Speed only. No stage lists this section: changing it re-runs nothing."""

    device: Annotated[str, _form(r"auto|cpu|mps|cuda(:[0-9]+)?", "auto, cpu, mps, cuda or cuda:1")]
    threads: Annotated[int, Field(ge=1, le=4096)] | Literal["auto"]
    processes: Annotated[int, Field(ge=1, le=1024)]
    """That share generation and scoring; with several GPUs, one each."""
    engine: Literal["auto", "packed", "plain"]
    """How continuations are batched. auto: packed, unless the model computes something else in it;
    plain: transformers' own generate."""
    batch_tokens: Count
    """Tokens (prompts and continuations) that are held in memory together while generating; halved
    where they do not fit."""
    score_batch: Annotated[int, Field(ge=1, le=1_000_000)]
    """Texts in one scoring batch."""
    checkpoint_steps: Count
    """Training steps between two checkpoints."""
    servers: dict[Key, ServerConfig] | None = None
    """Variant -> where it is served; for those that have `served_as`."""


class Config(ConfigSection):
    """All of params.yaml."""

    prompts: PromptsConfig
    generation: GenerationConfig
    scoring: ScoringConfig
    posterior: PosteriorConfig
    pooling: PoolingConfig | None
    """null: no pooled columns."""
    models: dict[Key, ModelConfig]
    finetunes: dict[Key, FinetuneConfig]
    variants: Annotated[dict[Key, VariantConfig], Field(min_length=1)]
    families: Annotated[dict[Key, FamilyConfig], Field(min_length=1)]
    tracking: TrackingConfig
    assets: AssetsConfig | None = None
    """Permits files outside the experiment. No stage lists this section: it changes no value."""
    runtime: RuntimeConfig

    def sources(self) -> Iterator[tuple[str, PinnedAsset]]:
        """Every asset of the file with its place in it."""
        for key, subset in self.prompts.subsets.items():
            yield f"prompts.subsets.{key}", subset
        for key, scorer in self.scoring.scorers.items():
            yield f"scoring.scorers.{key}", scorer
            if scorer.base:
                yield f"scoring.scorers.{key}.base", scorer.base
        for key, model in self.models.items():
            yield f"models.{key}", model
            if model.adapter:
                yield f"models.{key}.adapter", model.adapter
        for key, finetune in self.finetunes.items():
            yield f"finetunes.{key}.data", finetune.data
        if self.posterior.labels:
            yield "posterior.labels", self.posterior.labels

    @property
    def outside(self) -> tuple[str, ...]:
        """Files and folders outside the experiment that may be used."""
        return tuple(self.assets.outside) if self.assets else ()

    def unpinned(self) -> list[str]:
        return [
            f"{key_path}: {source.uri} has no pin"
            for key_path, source in self.sources()
            if not source.pinned
        ]
