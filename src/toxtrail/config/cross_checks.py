"""Checks of references between entries of params.yaml: undefined, duplicate and circular names."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from toxtrail.config.schema import (
    Config,
    FinetuneConfig,
    ModelConfig,
    VariantConfig,
    missing_threshold,
)
from toxtrail.errors import did_you_mean


def config_problems(config: Config) -> Iterator[str]:
    """Return one line per problem: its key, the value, and what is expected."""
    yield from _broken_generation(config)
    yield from _broken_scoring(config)
    yield from _broken_weights(config)
    yield from _broken_finetunes(config)
    yield from _broken_variants(config)
    yield from _broken_families(config)
    yield from _broken_servers(config)


def _broken_generation(config: Config) -> Iterator[str]:
    generation = config.generation
    is_generated = any(config.texts_of(variant) is None for variant in config.variants)
    if generation.temperature == 0 and generation.samples > 1 and is_generated:
        yield (
            f"generation.samples: got {generation.samples}, but at temperature 0 (greedy) all "
            "continuations of a prompt are the same. Write 1, or a temperature above 0."
        )
    yield from _broken_engine(config)


def _broken_engine(config: Config) -> Iterator[str]:
    """Check that no variant has a server and would be loaded by an engine as well."""
    engine = config.generation.engine
    if engine != "vllm" and config.runtime.vllm is not None:
        yield "runtime.vllm: it has no effect without generation.engine: vllm."
    if engine is None:
        return
    name = engine if isinstance(engine, str) else engine.kind
    for key, variant in config.variants.items():
        if variant.served_model_name is not None:
            yield (
                f"variants.{key}.served_model_name: generation.engine: {name} generates without "
                "this server. Remove one of the two."
            )


def _broken_scoring(config: Config) -> Iterator[str]:
    scoring = config.scoring
    if scoring.primary not in scoring.scorers:
        yield f'scoring.primary: "{scoring.primary}" is not a scorer.' + did_you_mean(
            scoring.primary, scoring.scorers
        )
    thresholds = config.posterior.threshold
    yield from (missing_threshold(scorer) for scorer in scoring.scorers if scorer not in thresholds)
    for scorer in (name for name in thresholds if name not in scoring.scorers):
        yield f'posterior.threshold: "{scorer}" is not a scorer.' + did_you_mean(
            scorer, scoring.scorers
        )
    yield from _broken_labels(config)
    for scorer, judge in (config.posterior.scorer_error or {}).items():
        if scorer not in scoring.scorers:
            yield f'posterior.scorer_error: "{scorer}" is not a scorer.' + did_you_mean(
                scorer, scoring.scorers
            )
        for variant in judge.variants or {}:
            if variant not in config.variants:
                yield (
                    f'posterior.scorer_error.{scorer}.variants: "{variant}" is not a variant.'
                    f"{did_you_mean(variant, config.variants)}"
                )
    if "all" in config.prompts.subsets:
        yield "prompts.subsets.all: the name is taken: `all` means all subsets together."


def _broken_labels(config: Config) -> Iterator[str]:
    labels = config.posterior.labels
    if labels and config.posterior.scorer_error:
        yield (
            "posterior: scorer_error and labels are both given. Labels apply to every scorer: "
            "remove scorer_error."
        )
    if labels and labels.sha256 is None:
        yield (
            "posterior.labels.sha256: it is missing, so a changed file would not be detected. "
            "`toxtrail labels score` prints it."
        )


def _broken_weights(config: Config) -> Iterator[str]:
    for key in sorted(config.models.keys() & config.finetunes.keys()):
        yield f"finetunes.{key}: the same key is in models; weights need one origin."
    for key, model in config.models.items():
        yield from _broken_api_model(config, key, model)
        if model.texts is None:
            continue
        if model.adapter is not None:
            yield f"models.{key}.adapter: texts from a file have no weights. Remove it."
        if key in config.variants and config.variants[key].served_model_name is not None:
            yield (
                f"variants.{key}.served_model_name: models.{key} is a file of texts. "
                "Remove one of them."
            )


def _broken_api_model(config: Config, key: str, model: ModelConfig) -> Iterator[str]:
    """Check a model that is known by its name on a server only."""
    if model.api_name is None:
        return
    for name in ("sha256", "adapter", "texts"):
        if getattr(model, name) is not None:
            yield f"models.{key}.{name}: {model.uri} is a name on a server, no file. Remove it."
    if key not in config.variants:
        return
    if config.variants[key].served_model_name is not None:
        yield (
            f"variants.{key}.served_model_name: models.{key}.uri is the name on the server. Remove "
            "it."
        )
    if config.generation.template != "chat":
        yield (
            f'generation.template: got "{config.generation.template}", but {key} is {model.uri}, '
            "which is sent messages only: how a server formats a raw prompt is not known. Write "
            "template: chat."
        )


def _broken_finetunes(config: Config) -> Iterator[str]:
    known = {**config.models, **config.finetunes}
    for key, finetune in config.finetunes.items():
        key_path = f"finetunes.{key}"
        yield from _broken_recipe(key_path, finetune)
        if finetune.parent not in known:
            yield f'{key_path}.parent: "{finetune.parent}" has no weights.' + did_you_mean(
                finetune.parent, known
            )
        elif finetune.parent in config.models and not config.models[finetune.parent].has_weights:
            what = "a file of texts" if config.texts_of(finetune.parent) else "a name on a server"
            yield f"{key_path}.parent: {finetune.parent} is {what}; it has no weights."
    parents = {key: finetune.parent for key, finetune in config.finetunes.items()}
    yield from _circles("finetunes", parents)


def _broken_recipe(key_path: str, finetune: FinetuneConfig) -> Iterator[str]:
    if (finetune.epochs is None) == (finetune.max_steps is None):
        yield f"{key_path}: give exactly one of epochs and max_steps."
    if finetune.template != "chat":
        for field in ("{instruction}", "{response}"):
            if field not in finetune.template:
                yield f'{key_path}.template: {field} is missing (or write "chat").'
    if finetune.context_template and "{context}" not in finetune.context_template:
        yield f"{key_path}.context_template: {{context}} is missing."


def _circles(section: str, parents: Mapping[str, str]) -> Iterator[str]:
    """Return the keys whose chain of parents is circular."""
    for key in parents:
        line = [key]
        while (parent := parents.get(line[-1])) is not None and parent not in line:
            line.append(parent)
        if parent == key:
            cycle = " -> ".join((*line, key))
            yield f"{section}.{key}.parent: the parents of {key} lead back to {key}: {cycle}."


def _broken_variants(config: Config) -> Iterator[str]:
    weights = {**config.models, **config.finetunes}
    for key, variant in config.variants.items():
        if key not in weights:
            yield f"variants.{key}: no weights of this name in models or finetunes." + did_you_mean(
                key, weights
            )
        if variant.family not in config.families:
            yield f'variants.{key}.family: "{variant.family}" is not a family.' + did_you_mean(
                variant.family, config.families
            )
        elif key not in config.families[variant.family].variants:
            yield (
                f'variants.{key}: families.{variant.family}.variants does not list "{key}". Add it.'
            )
        if variant.parent is not None:
            yield from _broken_parent(config, key, variant, variant.parent)
    parents = {key: variant.parent for key, variant in config.variants.items() if variant.parent}
    yield from _circles(
        "variants", {key: parent for key, parent in parents.items() if parent != key}
    )
    yield from _broken_recipes(config)


def _broken_recipes(config: Config) -> Iterator[str]:
    """Check that variants of one recipe differ in their seed only; else their spread would be
    inflated."""
    groups: dict[tuple[str, str], list[str]] = {}
    for key, variant in config.variants.items():
        if variant.recipe is not None:
            groups.setdefault((variant.family, variant.recipe), []).append(key)
    for (_, recipe), (first, *others) in groups.items():
        for key in others:
            yield from (
                f'variants.{key}.recipe: "{recipe}" is also that of {first}, whose {what}. Only '
                "the seed may differ: set another recipe."
                for what in _unlike(config, first, key)
            )
        seeds = [(config.finetunes[k].seed, k) for k in (first, *others) if k in config.finetunes]
        for index, (seed, key) in enumerate(seeds):
            if twin := next(
                (other for other_seed, other in seeds[:index] if other_seed == seed), None
            ):
                yield (
                    f'variants.{key}.recipe: "{recipe}" is also that of {twin}, and both have the '
                    f"seed {seed}: they are the same fine-tune twice. Set different seeds."
                )


def _unlike(config: Config, first: str, key: str) -> Iterator[str]:
    """Return the settings other than the seed in which two variants of a recipe differ."""
    for field in ("parent", "dose"):
        value = getattr(config.variants[key], field)
        expected = getattr(config.variants[first], field)
        if value != expected:
            yield f"{field} is {_set_fields(expected)}, not {_set_fields(value)}"
    finetune, other = config.finetunes.get(key), config.finetunes.get(first)
    if (finetune is None) != (other is None):
        yield "weights are " + ("not trained by the pipeline" if other is None else "tuned here")
    for field in FinetuneConfig.model_fields if finetune and other else ():
        if field not in ("seed", "parent") and getattr(finetune, field) != getattr(other, field):
            yield f"finetunes.{first}.{field} is another than finetunes.{key}.{field}"


def _set_fields(value: object) -> object:
    return "not given" if value is None else value


def _broken_servers(config: Config) -> Iterator[str]:
    scorers = config.scoring.scorers
    yield from _broken_replicas(config)
    for key in config.runtime.servers or {}:
        if key in scorers and scorers[key].is_served:
            continue
        if config.api_name_of(key) is not None and key in config.variants:
            continue
        if key in config.variants and config.variants[key].served_model_name is None:
            yield (
                f"runtime.servers.{key}: variants.{key} has no served_model_name. Set it to the "
                "name on the server."
            )
        elif key not in config.variants:
            hint = did_you_mean(key, [*config.variants, *scorers])
            yield (
                f'runtime.servers: "{key}" is not a variant, nor a scorer of a kind that runs on a '
                f"server.{hint}"
            )


def _broken_replicas(config: Config) -> Iterator[str]:
    for key, server in (config.runtime.servers or {}).items():
        is_served = key in config.variants and config.variants[key].served_model_name is not None
        if server.replicas and not is_served:
            yield (
                f"runtime.servers.{key}.replicas: only a variant with served_model_name has "
                "replicas. Remove them."
            )


def _broken_parent(config: Config, key: str, variant: VariantConfig, parent: str) -> Iterator[str]:
    if parent not in config.variants:
        yield f'variants.{key}.parent: "{parent}" is not a variant.' + did_you_mean(
            parent, config.variants
        )
    elif parent == key:
        yield f"variants.{key}.parent: a variant is not its own parent."
    elif config.variants[parent].family != variant.family:
        yield (
            f'variants.{key}.parent: "{parent}" is in the family '
            f'"{config.variants[parent].family}", not in "{variant.family}".'
        )
    elif key in config.finetunes and parent != (tuned := _measured_parent(config, key)):
        yield (
            f'variants.{key}.parent: got "{parent}", but finetunes.{key}.parent is '
            f'"{config.finetunes[key].parent}".'
            + (f' Write "{tuned}" in both.' if tuned == config.finetunes[key].parent else "")
        )


def _measured_parent(config: Config, key: str) -> str | None:
    """Return the nearest ancestor of a fine-tune that is a variant; None if there is none."""
    visited = {key}
    current = config.finetunes[key].parent
    while current not in config.variants and current in config.finetunes and current not in visited:
        visited.add(current)
        current = config.finetunes[current].parent
    return current if current in config.variants else None


def _broken_families(config: Config) -> Iterator[str]:
    for key, family in config.families.items():
        key_path = f"families.{key}"
        if family.reference not in family.variants:
            yield f'{key_path}.reference: "{family.reference}" is not in its list.' + did_you_mean(
                family.reference, family.variants
            )
        for variant in sorted({v for v in family.variants if family.variants.count(v) > 1}):
            yield f'{key_path}.variants: "{variant}" is listed twice.'
        for variant in family.variants:
            if variant not in config.variants:
                yield f'{key_path}.variants: "{variant}" is not a variant.' + did_you_mean(
                    variant, config.variants
                )
            elif config.variants[variant].family != key:
                yield (
                    f'{key_path}.variants: "{variant}" has the family '
                    f'"{config.variants[variant].family}".'
                )
