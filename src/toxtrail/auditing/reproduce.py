"""Regenerate and rescore samples from their recorded identity."""

from __future__ import annotations

import random
import secrets
from collections.abc import Mapping, Sequence
from typing import Any, Literal, NamedTuple

from toxtrail.auditing.lineage.context import AuditContext, AuditTarget
from toxtrail.auditing.verify.context import DAMAGE_ERRORS
from toxtrail.backends.huggingface.generation.generate_engine import length_sorted_batches
from toxtrail.backends.huggingface.generation.packed_engine import EngineRequest
from toxtrail.backends.protocols import LanguageModel, Progress
from toxtrail.config.schema import GenerationConfig
from toxtrail.config.scorer_kinds.base import ScorerConfig
from toxtrail.errors import ConfigError
from toxtrail.execution.execution_records import find_record, relative_name
from toxtrail.execution.factories import connect_api, make_decoding, make_scorers, make_weights
from toxtrail.execution.generate_rows import (
    GenerationRequest,
    encode_requests,
    generate_rows,
    row_seed,
)
from toxtrail.execution.progress import progress
from toxtrail.execution.score_rows import (
    NamedScorer,
    ScoringInput,
    score_checked,
    scoring_request,
)
from toxtrail.experiment import Experiment
from toxtrail.provenance.identity import ModelIdentity
from toxtrail.records.rows import Generation, Prompt, Score
from toxtrail.storage.artifacts import ArtifactStore

Key = tuple[str, int]
"""(prompt_id, sample)."""


class Plan(NamedTuple):
    """Recorded settings of a generation run."""

    engine: Literal["packed", "plain"] | None
    """None: not recorded, or rows of another engine; `runtime.engine` is used."""
    batch_tokens: int | None
    threads: int | None
    source: str
    """Location of the record; empty if there is none."""


class Reproduction(NamedTuple):
    """Regenerated sample compared with the recorded one."""

    variant: str
    prompt_id: str
    sample: int
    exact: bool
    """Whether tokens, text and state are equal."""
    tokens: int
    """Number of recorded tokens."""
    same_tokens: int
    """Length of the common prefix."""
    differing_tokens: int
    """Number of positions that differ, including missing ones."""
    score_change: float | None
    """Largest absolute difference of a scorer's toxicity; None if not scored."""


class ReproductionResult(NamedTuple):
    """Result of the reproduction of one variant."""

    variant: str
    rows: list[Reproduction]
    plan: Plan
    environment: dict[str, Any]
    """Field -> [recorded, present] where the two differ."""
    present: dict[str, str]
    requested_again: bool
    """Whether the rows are of a name on a server, to which the requests were sent again."""

    def to_json(self) -> dict[str, Any]:
        return {
            "variant": self.variant,
            "rows": [row._asdict() for row in self.rows],
            "batch_plan": self.plan._asdict(),
            "environment": self.present,
            "environment_differs": self.environment,
            "requested_again": self.requested_again,
        }


def reproduce_samples(
    experiment: Experiment, scene: AuditContext, subject: AuditTarget, n: int, seed: int | None
) -> tuple[int, list[ReproductionResult]]:
    """Sample rows, regenerate and rescore them, and compare.

    Returns:
        The random seed, and one result for each variant.
    """
    seed = secrets.randbelow(1 << 31) if seed is None else seed
    variants = _variants(experiment, subject)
    share = [n // len(variants) + (i < n % len(variants)) for i in range(len(variants))]
    counts = [(v, count) for v, count in zip(variants, share, strict=True) if count]
    return seed, [_variant(experiment, scene, subject, v, count, seed) for v, count in counts]


def _variants(experiment: Experiment, subject: AuditTarget) -> list[str]:
    """List the variants whose generations the target derives from."""
    content_keys = {
        link.what.partition("@")[2]: dict(link.facts).get("content key")
        for link in subject.link.all()
        if link.what.startswith("generate@")
    }
    variants = [v for v in experiment.config.variants if v in content_keys]
    if not variants:
        raise ConfigError(
            "It derives from no generations of this experiment: there is nothing to reproduce."
        )
    for variant in variants:
        _refuse_others(experiment, variant, content_keys[variant])
    return variants


def _refuse_others(experiment: Experiment, variant: str, key: str | None) -> None:
    """Require that the local rows have this content key (an edited file keeps it, and is then
    detected).
    """
    path = experiment.store.generations_path(experiment.variant(variant).family, variant)
    manifest = experiment.store.describe_input(path).manifest if path.is_file() else None
    if manifest is None or manifest.content_key != key:
        raise ConfigError(
            f"It derives from other generations of {variant} than the local ones. Check out the "
            "commit that recorded them (see `toxtrail audit`), run `dvc checkout`, and try again."
        )


def _variant(
    experiment: Experiment,
    scene: AuditContext,
    subject: AuditTarget,
    variant: str,
    n: int,
    seed: int,
) -> ReproductionResult:
    from toxtrail.backends.compute.devices import pick_device, set_num_threads

    store, runtime = experiment.store, experiment.config.runtime
    family = experiment.variant(variant).family
    source = store.describe_input(store.generations_path(family, variant))
    manifest = source.manifest
    if manifest is None or manifest.model is None:
        raise ConfigError(f"{source.path} does not say which model wrote it. Run `dvc repro`.")
    if manifest.model.texts is not None:
        raise ConfigError(
            f"{variant} has texts from a file ({manifest.model.base.uri}): there are no weights to "
            "regenerate them with. `toxtrail audit --verify` compares its rows with the file."
        )
    # the precision is not recorded for a name on a server, and has no effect
    recorded_settings = {
        "dtype": experiment.config.generation.dtype,
        **manifest.params["generation"],
    }
    settings = GenerationConfig.model_validate(recorded_settings)
    plan = recorded_plan(store, variant, source.sha256, scene)
    device = pick_device(runtime.device)
    set_num_threads(plan.threads or runtime.threads)
    model, present = _model(experiment, manifest.model, settings, plan, device)
    recorded = {row.key: row for row in store.read_generations(family, variant)}
    row_keys = _referenced_rows(subject, variant) or draw(list(recorded.values()), n, seed, variant)
    generated = regenerate(
        store.read_prompts(),
        model,
        settings,
        plan,
        row_keys,
        progress(),
    )
    prompts = {prompt.prompt_id: prompt.text for prompt in store.read_prompts()}
    rows_to_score = [generated[key] for key in row_keys if key in generated]
    scored = rescored(ScoringInput(rows_to_score, prompts), _judges(experiment, variant, device))
    scores = store.read_scores(family, variant)
    rows = [
        compare_rows(
            variant,
            recorded[key],
            generated.get(key),
            [s for s in scores if (s.prompt_id, s.sample) == key],
            scored,
        )
        for key in row_keys
    ]
    differs = differing_environment(manifest.environment, present)
    is_api = manifest.model.api is not None
    return ReproductionResult(variant, rows, plan, differs, dict(present), is_api)


def _model(
    experiment: Experiment, card: ModelIdentity, settings: GenerationConfig, plan: Plan, device: str
) -> tuple[LanguageModel, Mapping[str, str]]:
    """Return the model of a card, and the present environment: with its weights loaded, or, for a
    name on a server, connected to that server."""
    from toxtrail.backends.compute.devices import environment_info

    if card.api is not None:
        api = connect_api(experiment, card.key, card.api.model, make_decoding(settings))
        return api.model, api.environment
    from toxtrail.backends.huggingface.generation.generator import HuggingFaceModel
    from toxtrail.backends.huggingface.weights.load import load_model

    folder, weights = experiment.store.model_dir(card.key), make_weights(experiment)
    loaded = load_model(card, folder, weights, settings.dtype, device)
    runtime = experiment.config.runtime
    model = HuggingFaceModel(
        loaded.model,
        loaded.tokenizer,
        make_decoding(settings),
        plan.batch_tokens or runtime.batch_tokens,
        plan.engine or runtime.engine,
    )
    return model, environment_info(device)


def _referenced_rows(subject: AuditTarget, variant: str) -> list[tuple[str, int]]:
    """Return the row that the reference names, if it names one."""
    if subject.kind != "generation":
        return []
    _, prompt_id, sample = subject.link.name.split("/")
    return [(prompt_id, int(sample))]


def _judges(experiment: Experiment, variant: str, device: str) -> list[NamedScorer]:
    """Load the scorers of the score file's manifest, not those of the present params.yaml."""
    store, family = experiment.store, experiment.variant(variant).family
    path = store.scores_path(family, variant)
    manifest = store.describe_input(path).manifest if path.is_file() else None
    configs = manifest.params["scorers"] if manifest else {}
    scorer_configs = {name: ScorerConfig.model_validate(values) for name, values in configs.items()}
    return make_scorers(experiment, scorer_configs, device)


def draw(rows: Sequence[Generation], n: int, seed: int, variant: str) -> list[Key]:
    """Sample n rows at random, at most all."""
    keys = sorted(row.key for row in rows)
    return sorted(random.Random(f"{seed}|{variant}").sample(keys, min(n, len(keys))))


def recorded_plan(
    store: ArtifactStore, variant: str, output_sha256: str, scene: AuditContext
) -> Plan:
    """Return the plan from the local execution record, else from an MLflow run of this file."""
    if local := find_record(store, "generate", variant, output_sha256):
        return _plan(local.content, relative_name(local.path))
    for run in scene.runs:
        try:
            record = run.executions().get("generate", {})
        except DAMAGE_ERRORS:
            continue  # damaged: verification names it
        if record.get("output_sha256") == output_sha256:
            return _plan(record, f"MLflow run {run.run_id[:8]}")
    return Plan(None, None, None, "")


def regenerate(
    prompts: Sequence[Prompt],
    model: LanguageModel,
    config: GenerationConfig,
    plan: Plan,
    keys: Sequence[Key],
    progress: Progress,
) -> dict[Key, Generation]:
    """Regenerate the requested rows.

    The packed engine needs no other rows; with transformers' own generate each row is generated in
    its original batch, as the other rows can change a near tie.

    Returns:
        At least the requested rows, by key.
    """
    rows = encode_requests(prompts, model, config.samples)
    chosen = [row for row in rows if (row.prompt.prompt_id, row.sample) in set(keys)]
    if plan.engine == "plain" and plan.batch_tokens:
        chosen = _whole_batches(rows, chosen, config, plan.batch_tokens)
    generations: dict[Key, Generation] = {}
    with progress.bar("reproduce", len(chosen), "rows") as advance:
        for _, row in generate_rows(chosen, model, config):
            generations[row.key] = row
            advance(1)
    return generations


def _whole_batches(
    rows: Sequence[GenerationRequest],
    chosen: Sequence[GenerationRequest],
    config: GenerationConfig,
    budget: int,
) -> list[GenerationRequest]:
    """Return the chosen rows and those that shared a batch with one of them."""
    fit = [row for row in rows if row.encoded.fits]
    asks = [
        EngineRequest(
            n, row.encoded.token_ids, row_seed(config.seed, row.prompt.prompt_id, row.sample)
        )
        for n, row in enumerate(fit)
    ]
    keys = {row.key for row in chosen}
    all_batches = [
        [fit[ask.number] for ask in b]
        for b in length_sorted_batches(asks, config.max_new_tokens, budget)
    ]
    shared = [
        row for batch in all_batches if any(row.key in keys for row in batch) for row in batch
    ]
    return [*shared, *(row for row in chosen if not row.encoded.fits)]


def rescored(
    texts: ScoringInput, judges: Sequence[NamedScorer]
) -> dict[tuple[str, int, str], float]:
    """Return (prompt_id, sample, scorer) -> toxicity for rows with a text, and a score of it."""
    readable = [row for row in texts.generations if row.state == "ok"]
    toxicities: dict[tuple[str, int, str], float] = {}
    for judge in judges:
        requests = [scoring_request(row, judge, texts.prompts) for row in readable]
        scored = score_checked(requests, judge) if requests else []
        for row, result in zip(readable, scored, strict=True):
            if not result.error:
                toxicities[*row.key, judge.name] = result.heads[judge.head]
    return toxicities


def compare_rows(
    variant: str,
    recorded: Generation,
    regenerated: Generation | None,
    scores: Sequence[Score],
    rescored_values: Mapping[tuple[str, int, str], float],
) -> Reproduction:
    """Compare one row; a row that exceeds the model's window is not generated on either side."""
    if regenerated is None:
        exact = recorded.state == "truncated"
        return Reproduction(variant, *recorded.key, exact, len(recorded.token_ids), 0, 0, None)
    was, now = recorded.token_ids, regenerated.token_ids
    same = next((i for i, (a, b) in enumerate(zip(was, now, strict=False)) if a != b), None)
    prefix = min(len(was), len(now)) if same is None else same
    matches = sum(a == b for a, b in zip(was, now, strict=False))
    changes = [
        abs(score.toxicity - rescored_values[score.key])
        for score in scores
        if score.toxicity is not None and score.key in rescored_values
    ]
    return Reproduction(
        variant,
        *recorded.key,
        (was, recorded.text, recorded.state) == (now, regenerated.text, regenerated.state),
        len(was),
        prefix,
        max(len(was), len(now)) - matches,
        max(changes, default=None),
    )


def differing_environment(
    recorded: Mapping[str, str], present: Mapping[str, str]
) -> dict[str, Any]:
    """Return field -> [recorded, present] where the two differ."""
    return {
        name: [recorded.get(name), present.get(name)]
        for name in sorted({**recorded, **present})
        if recorded.get(name) != present.get(name)
    }


def _plan(record: Mapping[str, Any], source: str) -> Plan:
    settings = record["settings"]
    engine, tokens, threads = (settings.get(k) for k in ("engine", "batch_tokens", "threads"))
    is_local = engine in ("packed", "plain")  # else vLLM: the rows are generated in this process
    return Plan(engine if is_local else None, tokens, threads, source)
