"""Schema of params.yaml: one frozen, strict Config. config/load.py reads the file."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Annotated, Literal

from pydantic import (
    AfterValidator,
    BeforeValidator,
    Field,
    NonNegativeFloat,
    PositiveFloat,
    SerializeAsAny,
    StringConstraints,
    model_validator,
)

from toxtrail.config.asset_uris import api_model_name
from toxtrail.config.plugins import BACKENDS, SCORERS, EngineConfig
from toxtrail.config.scorer_kinds.base import ScorerConfig
from toxtrail.config.sections import (
    ConfigSection,
    Count,
    Key,
    Language,
    ModelUri,
    PinnedAsset,
    ProjectId,
    Seed,
    ServedModelName,
    Sha256,
    TemplateArguments,
    form,
)
from toxtrail.errors import ConfigError
from toxtrail.records.thought import ThoughtMarkers

Scalar = bool | int | float | str
"""Value that a table cell can be compared with."""


class ColumnFilter(ConfigSection):
    """Condition on a column; a row without a value never meets it."""

    min: float | None = None
    """Minimum of a numeric column (inclusive)."""
    max: float | None = None
    """Maximum of a numeric column (inclusive)."""
    is_: Annotated[Scalar | list[Scalar] | None, Field(alias="is")] = None
    """Allowed value, or list of allowed values."""

    @model_validator(mode="after")
    def _says_one_thing(self) -> ColumnFilter:
        bounds = [bound for bound in (self.min, self.max) if bound is not None]
        if bool(bounds) == (self.is_ is not None):
            raise ValueError("Give min, max or both; or else `is`")
        if bounds != sorted(bounds):
            raise ValueError(f"min {self.min:g} is above max {self.max:g}")
        return self


Column = Annotated[str, StringConstraints(min_length=1)]
"""Column of a table; a dot selects a nested field: `prompt.text`."""


Delimiter = Literal[",", ";", "|", "\t", "tab"]
"""Cell separator of a .csv file."""


class SubsetConfig(PinnedAsset):
    """Prompts from one file."""

    n: Count | Literal["all"]
    """Number of prompts to sample (with `prompts.seed`) after removing duplicates; or all."""
    column: Column | None = None
    """Text column of a .csv, .tsv, .json, .jsonl or .parquet file; a .txt file has one prompt per
    line. In the last three, it may contain conversations: lists of messages."""
    delimiter: Delimiter | None = None
    """Cell separator of a .csv file; default: a comma, or, if the header has none, the one detected
    in it."""
    where: Annotated[dict[Column, ColumnFilter], Field(min_length=1)] | None = None
    """Column -> condition; prompts are sampled from the rows that meet all conditions."""
    balance: Column | None = None
    """Column; the same number of prompts is sampled for each of its values."""
    covariates: Annotated[dict[Key, Column], Field(min_length=1)] | None = None
    """Name -> numeric column (true and false are 1 and 0) that is kept with each prompt."""
    cluster: Column | None = None
    """Column that identifies what a prompt shares with others: a template, an identity term, an
    author. Intervals then use the cluster as the sampling unit. Each prompt needs a value; equal
    values are one cluster, in all subsets."""
    language: Language | None = None
    """Language of the prompts as a BCP 47 tag: en, de, zh-Hans. Continuations in another language
    are counted."""
    license: Annotated[str, StringConstraints(min_length=1)] | None = None
    """License stated by the source; kept in the prompt card."""


def _visible(text: str) -> str:
    if not text.strip():
        raise ValueError("It is blank")
    return text


VisibleText = Annotated[str, AfterValidator(_visible)]


class PromptsConfig(ConfigSection):
    """Prompts that every variant continues."""

    seed: Seed
    subsets: Annotated[dict[Key, SubsetConfig], Field(min_length=1)]


TextsFormat = Literal["table", "lm-eval", "inspect", "garak"]


class TextsConfig(ConfigSection):
    """Settings for reading a file of generated texts."""

    format: TextsFormat
    """table: one row per text. lm-eval: samples_*.jsonl of lm-evaluation-harness. inspect: a log of
    Inspect (.eval or .json). garak: a report of garak (*.report.jsonl)."""
    prompt: Column | None = None
    """Column of the prompts; for other formats than a table, a field with the prompt instead of the
    text sent to the model (for example `doc.question`)."""
    text: Column | None = None
    """Text column of a table."""
    sample: Column | None = None
    """Numeric column of a table that orders the texts of a prompt; default: the order of rows."""
    delimiter: Delimiter | None = None
    """Cell separator of a .csv file; default: a comma, or, if the header has none, the one detected
    in it."""

    @model_validator(mode="after")
    def _columns_belong_to_tables(self) -> TextsConfig:
        if self.format == "table" and (self.prompt is None or self.text is None):
            raise ValueError("A table needs the columns prompt and text")
        others = [n for n in ("text", "sample", "delimiter") if getattr(self, n) is not None]
        if self.format != "table" and others:
            raise ValueError(f"Only a table has {', '.join(others)}")
        return self


class ModelConfig(PinnedAsset):
    """Existing weights: a Hugging Face repo, a local folder or a GGUF file. With `texts`, a file of
    texts that were generated elsewhere; nothing is loaded then. With `api:NAME`, a model on a
    server, to which chat messages are sent; its weights are not known."""

    uri: ModelUri
    adapter: PinnedAsset | None = None
    """A LoRA adapter (safetensors) to apply on top."""
    texts: TextsConfig | None = None
    """Settings for reading the file of texts."""

    @property
    def api_name(self) -> str | None:
        """Name on a server, of a model that is known by it only; None for all others."""
        return api_model_name(self.uri)

    @property
    def has_weights(self) -> bool:
        """Whether it is neither a file of texts nor a name on a server."""
        return self.texts is None and self.api_name is None

    @property
    def pinned(self) -> bool:
        return self.api_name is not None or super().pinned


class LoraConfig(ConfigSection):
    """Low-rank adaptation (Hu et al. 2021, arXiv:2106.09685)."""

    r: Count
    """Rank."""
    alpha: Count
    dropout: Annotated[float, Field(ge=0, lt=1)]
    bias: Literal["none", "all", "lora_only"]
    targets: Annotated[list[str], Field(min_length=1)]
    """Names of the linear layers to adapt."""


class TrainingDataConfig(PinnedAsset):
    """Training data of a fine-tune: .csv, .tsv, .json, .jsonl or .parquet, with an instruction and
    a response in each row (Dolly's or Alpaca's columns), or a conversation."""

    delimiter: Delimiter | None = None
    """Cell separator of a .csv file; default: a comma, or, if the header has none, the one detected
    in it."""

    held_out: Annotated[float, Field(gt=0, lt=1)] | None = None
    """Fraction of the distinct examples that is not learned, sampled by the fine-tune's seed; the
    loss on it is reported."""
    license: Annotated[str, StringConstraints(min_length=1)] | None = None
    """License stated by the source; kept in the data card."""


class FinetuneConfig(ConfigSection):
    """Weights trained by the pipeline: LoRA on a parent."""

    parent: Key
    data: TrainingDataConfig
    template: Annotated[str, StringConstraints(min_length=1)]
    """`chat` for the model's own chat template, or a literal text with {instruction} and
    {response}."""
    context_template: str | None = None
    """Appended to the instruction if a row has a context; must contain {context}."""
    loss_on: Literal["response", "all"]
    lora: LoraConfig
    epochs: Annotated[float, Field(gt=0, le=1_000_000)] | None = None
    max_steps: Count | None = None
    batch_size: Count
    accumulation: Count
    """Batches per optimiser step."""
    max_length: Count
    """Maximum tokens per example; longer examples are truncated and counted."""
    learning_rate: PositiveFloat
    schedule: Literal["linear", "cosine", "constant", "constant_with_warmup"]
    warmup_steps: Annotated[int, Field(ge=0, le=1_000_000_000)]
    weight_decay: NonNegativeFloat
    optimizer: Literal["adamw_torch", "adamw_8bit", "sgd"]
    """adamw_8bit needs the package bitsandbytes and a GPU."""
    base_precision: Literal["float32", "bfloat16", "float16", "4bit"]
    """4bit needs the package bitsandbytes and a GPU."""
    seed: Annotated[int, Field(ge=0, lt=2**32)]


class MessageConfig(ConfigSection):
    """Message of a conversation."""

    role: Literal["user", "assistant"]
    content: VisibleText


class ThoughtConfig(ConfigSection):
    """Markers of the thought that a model writes before its answer; only the answer is scored."""

    begin: Annotated[str, StringConstraints(min_length=1)]
    """Text before a thought: <think>. The chat template may add it to the prompt."""
    end: Annotated[str, StringConstraints(min_length=1)]
    """Text after a thought: </think>. The answer is what follows its last occurrence."""

    @model_validator(mode="after")
    def _can_be_told_apart(self) -> ThoughtConfig:
        if self.begin in self.end or self.end in self.begin:
            raise ValueError("One marker contains the other")
        if any(marker != marker.strip() for marker in (self.begin, self.end)):
            raise ValueError("A marker begins or ends with white space; leave that out")
        return self


class GenerationConfig(ConfigSection):
    """Settings for generating continuations."""

    max_new_tokens: Annotated[int, Field(ge=1, le=1_000_000)]
    temperature: NonNegativeFloat
    """0 is greedy."""
    top_p: Annotated[float, Field(gt=0, le=1)]
    samples: Annotated[int, Field(ge=1, le=1_000_000)]
    """Continuations per prompt (k)."""
    template: Literal["none", "chat"]
    """none: continue the raw prompt. chat: send the prompt as a user message, or the last of a
    conversation, in the model's chat template."""
    template_arguments: Annotated[TemplateArguments, Field(min_length=1)] | None = None
    """Further variables of the chat template: `enable_thinking: false`."""
    system: VisibleText | None = None
    """System message, for template: chat."""
    turns: Annotated[list[MessageConfig], Field(min_length=1)] | None = None
    """Messages before each prompt, for template: chat: user and assistant in turn."""
    dtype: Literal["float32", "bfloat16", "float16"]
    engine: Literal["vllm"] | SerializeAsAny[EngineConfig] | None = None
    """vllm: toxtrail starts vLLM with the verified files (`runtime.vllm`). {kind: NAME, ...}: a
    plug-in generates with them. Default: the weights are loaded in this process. Near ties and
    random numbers differ between these."""
    seed: Seed
    max_error_share: Annotated[float, Field(ge=0, lt=1)]
    """Maximum share of rows in state `error`; above it the stage fails."""
    thought: ThoughtConfig | None = None
    """Markers of thoughts in continuations, also in texts from files. Default: nothing is a
    thought."""

    @property
    def markers(self) -> ThoughtMarkers | None:
        return ThoughtMarkers(self.thought.begin, self.thought.end) if self.thought else None

    @model_validator(mode="after")
    def _messages_need_a_chat_template(self) -> GenerationConfig:
        chat_only = ("template_arguments", "system", "turns")
        given = [name for name in chat_only if getattr(self, name) is not None]
        if given and self.template != "chat":
            raise ValueError(f"Only template: chat has {', '.join(given)}")
        roles = [turn.role for turn in self.turns or ()]
        if roles != ["user", "assistant"] * (len(roles) // 2):
            raise ValueError(
                "turns: write user, assistant, user, assistant, ...; the prompt is the next user "
                f"message. Got {', '.join(roles)}"
            )
        return self


class ScoringConfig(ConfigSection):
    """Scorers of the continuations."""

    primary: Key
    max_error_share: Annotated[float, Field(ge=0, lt=1)]
    """Largest share of a variant's texts that a scorer may leave without a score; above it, the
    stage fails."""
    scorers: Annotated[dict[Key, SerializeAsAny[ScorerConfig]], Field(min_length=1)]


class LabelledProportion(ConfigSection):
    """Proportion counted in a labelled sample."""

    correct: Annotated[int, Field(ge=0, le=1_000_000_000)]
    total: Count

    @model_validator(mode="after")
    def _is_a_share(self) -> LabelledProportion:
        if self.correct > self.total:
            raise ValueError(f"{self.correct} correct of {self.total} is more than all")
        return self


AccuracyValue = LabelledProportion | Annotated[float, Field(ge=0, le=1)]
"""Counted proportion, or a published number that is treated as exact."""


class ScorerAccuracyConfig(ConfigSection):
    """Accuracy of a scorer on toxic and on harmless texts."""

    sensitivity: AccuracyValue
    """Proportion of texts labelled toxic by humans that the scorer labels toxic."""
    specificity: AccuracyValue
    """Proportion of texts labelled harmless by humans that the scorer labels harmless."""


Threshold = Annotated[float, Field(ge=0, le=1)]
"""Toxic means score >= threshold; a score that is equal in float32 counts."""


class MeasuredOnConfig(ConfigSection):
    """Scorer, threshold and labels that a sensitivity and a specificity were measured with."""

    scorer: dict[Key, str]
    """Option -> value, as in scoring.scorers (a long value by its hash). For the numbers of a
    publication: `uri`, `head` and whatever else it states."""
    threshold: Threshold
    """Threshold of the scorer."""
    labels_sha256: Sha256 | None = None
    """SHA-256 of the file of labels; not given for the numbers of a publication, for which only the
    stated options are compared with those of the scorer."""

    @model_validator(mode="after")
    def _names_a_scorer(self) -> MeasuredOnConfig:
        if missing := [name for name in ("uri", "head") if name not in self.scorer]:
            raise ValueError(f"scorer: {' and '.join(missing)} must be given")
        return self


class ScorerErrorConfig(ScorerAccuracyConfig):
    """Known error rates of a scorer."""

    source: Annotated[str, StringConstraints(min_length=1)]
    """Source of the numbers: a paper, or the name of the labelled file."""
    measured_on: MeasuredOnConfig
    """Printed by `toxtrail labels score` and `toxtrail scorers bench`. The numbers are refused for
    a scorer with other options, or at another threshold."""
    variants: dict[Key, ScorerAccuracyConfig] | None = None
    """Accuracy on the texts of single variants with labelled samples of their own."""


class PosteriorConfig(ConfigSection):
    """Settings for estimating rates and differences from scores."""

    threshold: dict[Key, Threshold]
    """Scorer -> its threshold, for every scorer."""
    rope_pp: Annotated[float, Field(gt=0, le=100)]
    """Minimum half-width of the region of practical equivalence, percentage points."""
    rope_relative: Annotated[float, Field(ge=0, lt=1)] | None = None
    """Half-width as a share of the family's reference rate, if that is larger than rope_pp."""
    rope_reference_pct: Annotated[float, Field(ge=0, le=100)] | None = None
    """Reference rate in per cent; default: the rate of the family's reference over all subsets, by
    the primary scorer."""
    level: Annotated[float, Field(gt=0.5, lt=1)]
    """Probability mass of every interval."""
    prior: PositiveFloat
    """Both parameters of the Beta prior; 0.5 is Jeffreys."""
    draws: Annotated[int, Field(ge=1000, le=10_000_000)]
    seed: Seed
    scorer_error: dict[Key, ScorerErrorConfig] | None = None
    """Scorer -> error rates, for corrected rates and differences."""
    labels: PinnedAsset | None = None
    """Human labels of these variants' texts for corrected rates and differences, instead of
    `scorer_error`. `toxtrail labels score` writes the file and prints this entry."""

    def threshold_of(self, scorer: str) -> float:
        """Return the threshold of a scorer.

        Raises:
            ConfigError: there is none.
        """
        if scorer not in self.threshold:
            raise ConfigError(missing_threshold(scorer))
        return self.threshold[scorer]

    def thresholds_of(self, scorers: Iterable[str]) -> dict[str, float]:
        """Return scorer -> threshold; raise ConfigError if a scorer has none."""
        return {scorer: self.threshold_of(scorer) for scorer in scorers}


def missing_threshold(scorer: str) -> str:
    """Return the message for a scorer without a threshold."""
    return (
        f"posterior.threshold.{scorer}: missing. Set the score from which a text counts as toxic, "
        f"for example {scorer}: 0.5."
    )


class PoolingConfig(ConfigSection):
    """Sampler settings of a family's hierarchical model."""

    chains: Annotated[int, Field(ge=2, le=16)]
    draws: Annotated[int, Field(ge=500, le=1_000_000)]
    """Maximum draws per chain after tuning; the convergence checks determine the number."""
    target_accept: Annotated[float, Field(ge=0.6, lt=1)]
    """Target acceptance probability; closer to 1 means smaller steps, fewer divergences, longer
    time."""


class VariantConfig(ConfigSection):
    """Model to measure; its weights are defined under the same key in `models` or `finetunes`."""

    family: Key
    role: Key
    parent: Key | None = None
    """The variant that it was tuned from."""
    recipe: Key | None = None
    """Name shared by fine-tunes that differ in their seed only: a level of the pooled model."""
    dose: Annotated[float, Field(ge=0)] | None = None
    """Amount of fine-tuning (epochs, steps, learning rate), for the family's dose series."""
    served_model_name: ServedModelName | None = None
    """Name of the weights on a server, whose address is in `runtime.servers`. Absent: the weights
    are loaded locally."""


class FamilyConfig(ConfigSection):
    """Variants to compare with each other."""

    reference: Key
    """The variant with which all others are compared as well."""
    variants: Annotated[list[Key], Field(min_length=1)]
    allow_mismatch: bool | None = None
    """true: compare variants measured under different conditions; all output is marked."""


class TrackingConfig(ConfigSection):
    """MLflow settings."""

    experiment: Annotated[str, StringConstraints(min_length=1)]
    """Name of the MLflow experiment."""
    project: ProjectId
    """Id of this project. Each run has it as a tag, which tells the runs of several projects in one
    MLflow experiment apart."""


ServerUrl = Annotated[
    str,
    form(
        r"https?://[^\s/@?#]+(/[^\s@?#]*)?",
        "an address such as http://HOST:8000/v1, without a password",
    ),
]


class ServerConfig(ConfigSection):
    """Server of a variant or a scorer, and how requests are sent."""

    url: ServerUrl
    """URL of its OpenAI-compatible API, with /v1; without a password."""
    replicas: Annotated[list[ServerUrl], Field(min_length=1)] | None = None
    """URLs of further servers with the same weights: requests are divided among all."""
    concurrency: Annotated[int, Field(ge=1, le=10_000)]
    """Maximum number of simultaneous requests."""
    timeout: Annotated[float, Field(gt=0, le=10_000_000)]
    """Seconds without a byte of the response after which a try fails."""
    max_attempts: Annotated[int, Field(ge=1, le=1000)]
    """Maximum number of attempts per request, including the first."""


class VllmConfig(ConfigSection):
    """Settings for starting vLLM, for `generation.engine: vllm`."""

    command: Annotated[str, StringConstraints(min_length=1)] | None = None
    """`vllm` program of a Python environment: a path, or a name on PATH. Default: vllm."""
    start_timeout: Annotated[float, Field(gt=0, le=1_000_000)] | None = None
    """Seconds in which the server must be ready. Default: 900."""
    concurrency: Annotated[int, Field(ge=1, le=10_000)] | None = None
    """Maximum number of simultaneous requests. Default: 64."""
    tensor_parallel: Annotated[int, Field(ge=1, le=1024)] | None = None
    """Number of GPUs that share the model. Default: 1."""
    kv_cache_gib: Annotated[float, Field(gt=0, le=10_000)] | None = None
    """Memory for the KV cache of each GPU, or of the CPU, in GiB. Default: on GPUs, vLLM decides; 2
    on a CPU."""
    batch_invariant: bool | None = None
    """true: a row does not depend on the others in its batch (VLLM_BATCH_INVARIANT). Default: true
    where the hardware supports it."""


class AssetsConfig(ConfigSection):
    """Files outside the experiment that it may use."""

    outside: Annotated[list[Annotated[str, StringConstraints(min_length=1)]], Field(min_length=1)]
    """Files and folders (with everything below) outside the experiment that `file:` URIs may
    name."""


def _is_no_vllm(engine: object) -> object:
    if engine == "vllm":
        raise ValueError(
            "vLLM changes rows (near ties, random numbers), so it is a setting of `generation`: "
            "write generation.engine: vllm, and auto here"
        )
    return engine


class RuntimeConfig(ConfigSection):
    """Settings that affect speed only. No stage depends on this section."""

    device: Annotated[str, form(r"auto|cpu|mps|cuda(:[0-9]+)?", "auto, cpu, mps, cuda or cuda:1")]
    threads: Annotated[int, Field(ge=1, le=4096)] | Literal["auto"]
    processes: Annotated[int, Field(ge=1, le=1024)]
    """Number of processes for generation and scoring; with several GPUs, one per GPU."""
    launcher: (
        Annotated[list[Annotated[str, StringConstraints(min_length=1)]], Field(min_length=1)] | None
    ) = None
    """Command that starts the stages finetune, generate and score, for example
    [srun, --gres=gpu:1]; it must wait for the stage and pass on its environment."""
    engine: Annotated[Literal["auto", "packed", "plain"], BeforeValidator(_is_no_vllm)]
    """Batching of continuations. auto: packed, unless the model's logits differ in it; plain:
    transformers' own generate."""
    batch_tokens: Count
    """Maximum tokens (prompts and continuations) in memory during generation; halved if they do not
    fit."""
    score_batch_size: Annotated[int, Field(ge=1, le=1_000_000)]
    """Texts per scoring batch."""
    checkpoint_steps: Count
    """Training steps between two checkpoints."""
    servers: dict[Key, ServerConfig] | None = None
    """Variant or scorer -> server, for those with `served_model_name`, and for variants whose model
    is `api:NAME`."""
    vllm: VllmConfig | None = None
    """Settings for starting vLLM, for `generation.engine: vllm`."""


def _assets_of(key_path: str, model: ModelConfig) -> Iterator[tuple[str, PinnedAsset]]:
    if model.api_name is None:
        yield key_path, model
    if model.adapter:
        yield f"{key_path}.adapter", model.adapter


class Config(ConfigSection):
    """Complete content of params.yaml."""

    prompts: PromptsConfig
    generation: GenerationConfig
    scoring: ScoringConfig
    posterior: PosteriorConfig
    pooling: PoolingConfig | None
    """null disables the pooled model."""
    models: dict[Key, ModelConfig]
    finetunes: dict[Key, FinetuneConfig]
    variants: dict[Key, VariantConfig]
    families: dict[Key, FamilyConfig]
    tracking: TrackingConfig
    assets: AssetsConfig | None = None
    """Permits files outside the experiment. No stage depends on this section."""
    runtime: RuntimeConfig

    def sources(self) -> Iterator[tuple[str, PinnedAsset]]:
        """Return every asset of the file with its key path; a model on a server is none."""
        for key, subset in self.prompts.subsets.items():
            yield f"prompts.subsets.{key}", subset
        for key, scorer in self.scoring.scorers.items():
            yield f"scoring.scorers.{key}", scorer
            for option, asset in scorer.assets():
                yield f"scoring.scorers.{key}.{option}", asset
        for key, model in self.models.items():
            yield from _assets_of(f"models.{key}", model)
        for key, finetune in self.finetunes.items():
            yield f"finetunes.{key}.data", finetune.data
        if self.posterior.labels:
            yield "posterior.labels", self.posterior.labels

    def plugin_entries(self) -> Iterator[tuple[str, str, str, ConfigSection | None]]:
        """Yield (key path, group of plug-ins, kind, options) of each entry that may be a
        plug-in's."""
        for key, scorer in self.scoring.scorers.items():
            yield f"scoring.scorers.{key}", SCORERS, scorer.kind, scorer
        engine = self.generation.engine
        if isinstance(engine, EngineConfig):
            yield "generation.engine", BACKENDS, engine.kind, engine
        elif engine is not None:
            yield "generation.engine", BACKENDS, engine, None

    def texts_of(self, variant: str) -> TextsConfig | None:
        """Return how the file of texts of a variant is read; None for a variant with weights."""
        model = self.models.get(variant)
        return model.texts if model is not None else None

    def api_name_of(self, variant: str) -> str | None:
        """Return the name on a server of a variant that is known by it only; None for others."""
        model = self.models.get(variant)
        return model.api_name if model is not None else None

    def is_served(self, variant: str) -> bool:
        """Return whether a server generates the texts of a variant."""
        named = self.variants[variant].served_model_name is not None
        return named or self.api_name_of(variant) is not None

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
