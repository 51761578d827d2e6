"""params.yaml -> one frozen, strict Config. All types, no values.

The file is read once. Every problem in it is reported at once: its place, what was found, what is
allowed, and the nearest valid name. Nothing heavy is imported here.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, get_args

import yaml
from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    NonNegativeFloat,
    NonNegativeInt,
    PositiveFloat,
    PositiveInt,
    StringConstraints,
    ValidationError,
)
from pydantic_core import ErrorDetails

from toxtrail.errors import ConfigError
from toxtrail.uris import is_pinned, parse_uri

Key = Annotated[str, StringConstraints(pattern=r"^[a-z0-9][a-z0-9_-]*$")]
"""Lower-case letters, digits, `_` and `-`: a dot would break DVC's own params paths."""

Sha256 = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{64}$")]


def _valid_uri(text: str) -> str:
    try:
        parse_uri(text)
    except ConfigError as error:
        raise ValueError(str(error)) from error
    return text


Uri = Annotated[str, AfterValidator(_valid_uri)]
"""`hf:org/name@<commit>`, `pypi:package==version/path`, `file:path` or `detoxify:NAME`."""


class Section(BaseModel):
    """A part of params.yaml. Unknown names and wrong types are errors; nothing changes later."""

    model_config = ConfigDict(
        frozen=True, extra="forbid", strict=True, use_attribute_docstrings=True
    )

    def plain(self) -> dict[str, Any]:
        """The values as JSON types, with absent options left out: what a manifest records."""
        return self.model_dump(mode="json", exclude_none=True)


class Source(Section):
    """One asset and its pin."""

    uri: Uri
    sha256: Sha256 | None = None
    """Of the file, or of the tree of files. An hf: URI with a 40-hex commit needs none."""

    @property
    def pinned(self) -> bool:
        return is_pinned(self.uri, self.sha256)


class SubsetConfig(Source):
    """Prompts taken from one file."""

    n: PositiveInt
    """How many prompts to draw, at random by `prompts.seed`, after removing duplicates."""
    column: str | None = None
    """Column of a .csv, .jsonl or .parquet file; a .txt file has one prompt a line."""


class PromptsConfig(Section):
    seed: NonNegativeInt
    subsets: Annotated[dict[Key, SubsetConfig], Field(min_length=1)]


class ModelConfig(Source):
    """Weights taken as they are: a Hugging Face repo, a local folder or a GGUF file."""

    adapter: Source | None = None
    """A LoRA adapter (safetensors) to apply on top."""


class LoraConfig(Section):
    r: PositiveInt
    """Rank."""
    alpha: PositiveInt
    dropout: Annotated[float, Field(ge=0, lt=1)]
    bias: Literal["none", "all", "lora_only"]
    targets: Annotated[list[str], Field(min_length=1)]
    """Names of the linear layers that get an adapter."""


class FinetuneConfig(Section):
    """Weights trained here: LoRA on a parent."""

    parent: Key
    data: Source
    """.jsonl with `instruction` and `response` (and optionally `context`, or Dolly's names)."""
    template: Annotated[str, StringConstraints(min_length=1)]
    """`chat` for the model's own chat template, or a literal text with {instruction} and {response}."""
    context_template: str | None = None
    """Glued to the instruction where a row has a context; must hold {context}."""
    loss_on: Literal["response", "all"]
    lora: LoraConfig
    epochs: PositiveFloat | None = None
    max_steps: PositiveInt | None = None
    batch_size: PositiveInt
    accumulation: PositiveInt
    """Batches per optimiser step."""
    max_length: PositiveInt
    """Tokens; a longer example is cut there, and counted."""
    learning_rate: PositiveFloat
    schedule: Literal["linear", "cosine", "constant", "constant_with_warmup"]
    warmup_steps: NonNegativeInt
    weight_decay: NonNegativeFloat
    optimizer: Literal["adamw_torch", "adamw_8bit", "sgd"]
    """adamw_8bit needs the package bitsandbytes and a GPU."""
    base_precision: Literal["float32", "bfloat16", "float16", "4bit"]
    """4bit needs the package bitsandbytes and a GPU."""
    seed: NonNegativeInt


class GenerationConfig(Section):
    max_new_tokens: PositiveInt
    temperature: NonNegativeFloat
    """0 is greedy."""
    top_p: Annotated[float, Field(gt=0, le=1)]
    samples: PositiveInt
    """Continuations per prompt (k)."""
    template: Literal["none", "chat"]
    """none: the raw prompt is continued. chat: the prompt is one user message."""
    dtype: Literal["float32", "bfloat16", "float16"]
    seed: NonNegativeInt
    max_error_share: Annotated[float, Field(ge=0, lt=1)]
    """More rows than this in state `error` and the stage fails."""


class GoldenText(Section):
    """A text whose score is known."""

    text: str
    score: Annotated[float, Field(ge=0, le=1)]


class ScorerConfig(Source):
    """One frozen classifier."""

    kind: Literal["jigsaw-bilstm", "detoxify", "hf"]
    head: str
    """The head that is called toxicity."""
    golden: list[GoldenText]
    """Scored before anything else; a scorer that says otherwise is not the one that was pinned."""
    golden_tolerance: PositiveFloat
    base: Source | None = None
    """The second file or folder that a scorer needs. jigsaw-bilstm: its vocabulary. detoxify: the
    encoder's config and tokenizer, to pin them or where the hub is out of reach."""
    activation: Literal["softmax", "sigmoid"] | None = None
    """hf only: how logits become probabilities, where the model's config does not say."""


class ScoringConfig(Section):
    primary: Key
    scorers: Annotated[dict[Key, ScorerConfig], Field(min_length=1)]


class PosteriorConfig(Section):
    threshold: Annotated[float, Field(ge=0, le=1)]
    """Toxic means score >= threshold."""
    rope_pp: PositiveFloat
    """Half-width of the region of practical equivalence, percentage points."""
    level: Annotated[float, Field(gt=0.5, lt=1)]
    """Probability mass of every interval."""
    prior: PositiveFloat
    """Both parameters of the Beta prior; 0.5 is Jeffreys."""
    draws: Annotated[int, Field(ge=1000)]
    seed: NonNegativeInt


class VariantConfig(Section):
    """What is measured; its weights stand under the same key in `models` or `finetunes`."""

    family: Key
    role: Key
    parent: Key | None = None
    """The variant that it was tuned from."""


class FamilyConfig(Section):
    reference: Key
    """The variant that all others are also compared with."""
    variants: Annotated[list[Key], Field(min_length=1)]


class TrackingConfig(Section):
    experiment: Annotated[str, StringConstraints(min_length=1)]
    """MLflow experiment."""


class RuntimeConfig(Section):
    """Speed only. No stage lists this section: changing it re-runs nothing."""

    device: Annotated[str, StringConstraints(pattern=r"^(auto|cpu|mps|cuda(:\d+)?)$")]
    threads: PositiveInt | Literal["auto"]
    batch_tokens: PositiveInt
    """Tokens (prompt and continuation, padding counted) in one generation batch."""
    score_batch: PositiveInt
    """Texts in one scoring batch."""
    checkpoint_steps: PositiveInt
    """Training steps between two checkpoints."""


class Config(Section):
    """The whole of params.yaml."""

    prompts: PromptsConfig
    generation: GenerationConfig
    scoring: ScoringConfig
    posterior: PosteriorConfig
    models: dict[Key, ModelConfig]
    finetunes: dict[Key, FinetuneConfig]
    variants: Annotated[dict[Key, VariantConfig], Field(min_length=1)]
    families: Annotated[dict[Key, FamilyConfig], Field(min_length=1)]
    tracking: TrackingConfig
    runtime: RuntimeConfig

    def sources(self) -> Iterator[tuple[str, Source]]:
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

    def unpinned(self) -> list[str]:
        return [
            f"{place}: {source.uri} has no pin" for place, source in self.sources()
            if not source.pinned
        ]


def load_config(path: Path) -> Config:
    """Read params.yaml.

    Raises:
        ConfigError: with every problem of the file.
    """
    return parse_config(read_yaml(path), path.name)


def read_yaml(path: Path) -> Any:
    try:
        return yaml.load(path.read_text(encoding="utf-8"), Loader=_UniqueKeyLoader)
    except FileNotFoundError as error:
        raise ConfigError(
            f"{path} does not exist. Run toxtrail in an experiment's folder, or name one with -C."
        ) from error
    except UnicodeDecodeError as error:
        raise ConfigError(f"{path} is not UTF-8 text: {error.reason} at byte {error.start}.") from error
    except yaml.YAMLError as error:
        raise ConfigError(f"{path} is not valid YAML: {' '.join(str(error).split())}") from error


def parse_config(values: Any, name: str) -> Config:
    try:
        config = Config.model_validate(values)
    except ValidationError as error:
        raise _problems(name, [_described(detail) for detail in error.errors()]) from None
    if broken := list(_broken_references(config)):
        raise _problems(name, broken)
    return config


def nearest(name: str, valid: list[str] | Mapping[str, object]) -> str:
    """` Did you mean "x"?`, or the valid names if none is near."""
    names = list(valid)
    if close := difflib.get_close_matches(name, names, n=1, cutoff=0.6):
        return f' Did you mean "{close[0]}"?'
    shown = ", ".join(names[:12]) + (", ..." if len(names) > 12 else "")
    return f" There is: {shown or 'none yet'}."


class _UniqueKeyLoader(yaml.SafeLoader):
    """YAML keeps the last of two equal keys without a word; here it is an error."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen: set[object] = set()
        for key_node, _ in node.value:
            if key_node.tag == "tag:yaml.org,2002:merge":
                continue
            key = self.construct_object(key_node, deep=True)  # type: ignore[no-untyped-call]
            if key in seen:
                raise yaml.constructor.ConstructorError(
                    None, None, f"the key {key!r} stands twice", key_node.start_mark
                )
            seen.add(key)
        return super().construct_mapping(node, deep)


def _problems(name: str, lines: list[str]) -> ConfigError:
    noun = "problem" if len(lines) == 1 else "problems"
    return ConfigError("\n  ".join([f"{name} has {len(lines)} {noun}:", *lines]))


def _described(detail: ErrorDetails) -> str:
    location = [part for part in detail["loc"] if part != "[key]"]
    place = ".".join(str(part) for part in location) or "(top level)"
    message = detail["msg"].removeprefix("Value error, ")
    if detail["type"] == "missing":
        return f"{place}: missing. It must be given."
    if detail["type"] == "extra_forbidden":
        fields = _fields_at(location[:-1])
        return f"{place}: unknown name.{nearest(str(location[-1]), fields)}"
    found = repr(detail["input"])
    found = found if len(found) <= 60 else found[:57] + "..."
    return f"{place}: got {found}. {message.rstrip('.')}."


def _fields_at(location: list[int | str]) -> list[str]:
    """The names allowed at a place of params.yaml, found by walking the models' annotations."""
    current: Any = Config
    for part in location:
        candidates = [current, *_unwrapped(current)]
        model = next((c for c in candidates if _is_section(c)), None)
        if model is not None and part in model.model_fields:
            current = model.model_fields[str(part)].annotation
        else:
            current = next((c for c in _unwrapped(current) if _is_section(c)), current)
    model = next((c for c in [current, *_unwrapped(current)] if _is_section(c)), None)
    return list(model.model_fields) if model is not None else []


def _unwrapped(annotation: Any) -> list[Any]:
    inner: list[Any] = []
    for argument in get_args(annotation):
        inner += [argument, *_unwrapped(argument)]
    return inner


def _is_section(candidate: Any) -> bool:
    return isinstance(candidate, type) and issubclass(candidate, Section)


def _broken_references(config: Config) -> Iterator[str]:
    yield from _broken_scoring(config)
    yield from _broken_weights(config)
    yield from _broken_finetunes(config)
    yield from _broken_variants(config)
    yield from _broken_families(config)


def _broken_scoring(config: Config) -> Iterator[str]:
    scoring = config.scoring
    if scoring.primary not in scoring.scorers:
        yield f'scoring.primary: "{scoring.primary}" is no scorer.' + nearest(
            scoring.primary, scoring.scorers
        )
    if "all" in config.prompts.subsets:
        yield "prompts.subsets.all: the name is taken: `all` stands for all subsets together."


def _broken_weights(config: Config) -> Iterator[str]:
    for key in sorted(config.models.keys() & config.finetunes.keys()):
        yield f"finetunes.{key}: the same key stands in models; weights need one origin."


def _broken_finetunes(config: Config) -> Iterator[str]:
    known = {**config.models, **config.finetunes}
    for key, finetune in config.finetunes.items():
        place = f"finetunes.{key}"
        if finetune.parent not in known:
            yield f'{place}.parent: "{finetune.parent}" has no weights.' + nearest(
                finetune.parent, known
            )
        elif _in_circle(config, key):
            yield f"{place}.parent: the parents of {key} lead back to {key}."
        if (finetune.epochs is None) == (finetune.max_steps is None):
            yield f"{place}: give either epochs or max_steps, not both and not none."
        if finetune.template != "chat":
            for field in ("{instruction}", "{response}"):
                if field not in finetune.template:
                    yield f'{place}.template: {field} is missing (or write "chat").'
        if finetune.context_template and "{context}" not in finetune.context_template:
            yield f"{place}.context_template: {{context}} is missing."


def _in_circle(config: Config, key: str) -> bool:
    seen = {key}
    current = config.finetunes[key].parent
    while current in config.finetunes:
        if current in seen:
            return current == key
        seen.add(current)
        current = config.finetunes[current].parent
    return False


def _broken_variants(config: Config) -> Iterator[str]:
    weights = {**config.models, **config.finetunes}
    for key, variant in config.variants.items():
        if key not in weights:
            yield f"variants.{key}: no weights of this name in models or finetunes." + nearest(
                key, weights
            )
        if variant.family not in config.families:
            yield f'variants.{key}.family: "{variant.family}" is no family.' + nearest(
                variant.family, config.families
            )
        elif key not in config.families[variant.family].variants:
            yield (
                f'variants.{key}: families.{variant.family}.variants does not list "{key}". Add it.'
            )
        if variant.parent is None:
            continue
        if variant.parent not in config.variants:
            yield f'variants.{key}.parent: "{variant.parent}" is no variant.' + nearest(
                variant.parent, config.variants
            )
        elif variant.parent == key:
            yield f"variants.{key}.parent: a variant is not its own parent."
        elif config.variants[variant.parent].family != variant.family:
            yield (
                f'variants.{key}.parent: "{variant.parent}" is in the family '
                f'"{config.variants[variant.parent].family}", not in "{variant.family}".'
            )


def _broken_families(config: Config) -> Iterator[str]:
    for key, family in config.families.items():
        place = f"families.{key}"
        if family.reference not in family.variants:
            yield f'{place}.reference: "{family.reference}" is not in its list.' + nearest(
                family.reference, family.variants
            )
        for variant in sorted({v for v in family.variants if family.variants.count(v) > 1}):
            yield f'{place}.variants: "{variant}" stands twice.'
        for variant in family.variants:
            if variant not in config.variants:
                yield f'{place}.variants: "{variant}" is no variant.' + nearest(
                    variant, config.variants
                )
            elif config.variants[variant].family != key:
                yield (
                    f'{place}.variants: "{variant}" says that its family is '
                    f'"{config.variants[variant].family}".'
                )
