"""Numbers recomputed from the rows, and rows checked against the prompts."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from toxtrail.analysis.annotator_agreement import counted_agreement
from toxtrail.analysis.comparison import compare_family, with_pooled
from toxtrail.analysis.family import variant_pairs
from toxtrail.analysis.pooled_estimates import rows_from_draws
from toxtrail.analysis.response_table import (
    NON_RESPONSE_STATES,
    REFUSAL_COLUMNS,
    read_response_table,
)
from toxtrail.analysis.score_table import COLUMNS, build_score_table
from toxtrail.analysis.scorer_correction import label_rows, with_corrected_rates
from toxtrail.analysis.text_matching import match_texts
from toxtrail.analysis.variant_rates import (
    estimate_variant_rates,
    measured_conditions,
    variant_identity,
    with_language_counts,
)
from toxtrail.auditing.lineage.lineage import is_by_vllm, origin_caveats
from toxtrail.auditing.verify.context import (
    DAMAGE_ERRORS,
    Check,
    Problem,
    VerifyContext,
    absent,
    broken,
    catch_damage,
    checks_of,
    failed,
    problem,
    runs_of_stage,
    weak,
)
from toxtrail.auditing.verify.params import other_params
from toxtrail.auditing.verify.pipeline import LINK_OF_STAGE
from toxtrail.datasets.generated_texts import read_generated_texts
from toxtrail.datasets.label_files import labels_of_variant
from toxtrail.datasets.readers import read_rows
from toxtrail.errors import OtherVersionError, why_unread
from toxtrail.execution.server_rows import api_responses
from toxtrail.pipeline import StageRun, code_sha256
from toxtrail.provenance.identity import Manifest
from toxtrail.records.columns import to_json
from toxtrail.records.results import (
    AnnotatorAgreement,
    ComparisonSummary,
    LabelRow,
    PoolSummary,
    VariantSummary,
)
from toxtrail.records.rows import Generation, Prompt, Score
from toxtrail.records.thought import ThoughtMarkers, split_thought
from toxtrail.regular_files import files_below
from toxtrail.storage.artifacts import ArtifactStore, read_json

TOLERANCE = 1e-9
"""Relative tolerance for means over draws on another CPU or numpy version. Counts must be equal."""


def verify_manifests(evidence: VerifyContext, scope: Sequence[StageRun]) -> Iterator[Check]:
    """Check that each file's manifest names this stage and the present inputs."""
    for instance in runs_of_stage(
        scope, "prompts", "generate", "score", "posterior", "pool", "compare", "report"
    ):
        checks = _manifests(evidence, instance)
        yield from catch_damage(LINK_OF_STAGE[instance.stage.name], instance.name, checks)


def _manifests(evidence: VerifyContext, instance: StageRun) -> Iterator[Check]:
    for path in _files_with_manifest(evidence.store, instance):
        name = path.relative_to(evidence.root).as_posix()
        link = LINK_OF_STAGE[instance.stage.name]
        try:
            manifest = evidence.manifest(path)
        except DAMAGE_ERRORS as error:
            yield failed(link, name, error, "it cannot be read")
            continue
        if manifest is None:
            yield broken(link, name, "it contains no manifest: it was not created by toxtrail")
            continue
        yield from checks_of(
            link, f"{name} (manifest)", _manifest_problems(evidence, instance, manifest)
        )
        if is_by_vllm(manifest):
            yield from checks_of(
                link, f"{name} (vLLM, started with the verified files)", _vllm_problems(manifest)
            )
        for line in origin_caveats(manifest):
            yield weak(link, name, line)
        if manifest.code_sha256 != code_sha256(instance.stage.name):
            yield weak(
                link, name, "it was created by another version of the code than the installed one"
            )


def _vllm_problems(manifest: Manifest) -> list[str]:
    """Return how a manifest contradicts that toxtrail started vLLM for these rows."""
    backend = manifest.environment.get("backend")
    if backend == "vllm" and "served_model_name" not in manifest.params:
        return []
    return [f"its settings have the engine vllm, and its environment the backend {backend}"]


def verify_rows(evidence: VerifyContext, scope: Sequence[StageRun]) -> Iterator[Check]:
    """Check prompts -> generations -> scores: every row exists once, and there are no others."""
    store = evidence.store
    for instance in runs_of_stage(scope, "score"):
        variant = instance.key or ""
        family = evidence.config.variants[variant].family
        paths = (
            store.prompts_path,
            store.generations_path(family, variant),
            store.scores_path(family, variant),
        )
        try:
            if not all(path.is_file() for path in paths):
                continue
            prompts, rows = store.read_prompts(), store.read_generations(family, variant)
            scores = store.read_scores(family, variant)
        except DAMAGE_ERRORS as error:
            yield failed("scores", variant, error, "it cannot be read")
            continue
        generation = evidence.config.generation
        problems = (
            *generation_problems(prompts, rows, generation.samples),
            *(
                thought_cut_problems(rows, generation.markers)
                if evidence.config.api_name_of(variant) is None
                else api_row_problems(rows, generation.markers)
            ),
        )
        yield from checks_of("generations", f"rows of {variant}", list(problems))
        yield from catch_damage(
            "generations", f"texts of {variant}", _verify_texts(evidence, variant, prompts, rows)
        )
        yield from checks_of(
            "generations",
            f"statements of the server of {variant}",
            _statement_problems(rows, store.describe_input(paths[1]).manifest),
        )
        scorers = list(evidence.config.scoring.scorers)
        yield from checks_of(
            "scores", f"rows of {variant}", list(score_problems(rows, scores, scorers))
        )


def _verify_texts(
    evidence: VerifyContext, variant: str, prompts: Sequence[Prompt], rows: Sequence[Generation]
) -> Iterator[Check]:
    """Match the rows of a variant whose texts come from a file with the file."""
    model = evidence.config.models.get(variant)
    if model is None or model.texts is None:
        return
    name = f"rows of {variant} against {model.uri}"
    asset = evidence.assets.present(model.uri, None)
    if asset is None or len(asset.files) != 1:
        why = evidence.assets.why_not_used(model.uri) or "it is not on this machine"
        yield absent("generations", name, f"{why}; its rows were not compared with it")
        return
    texts = read_generated_texts(asset.files[0], model.texts)
    config = evidence.config.generation
    match = match_texts(prompts, texts, config.samples, config.markers)
    expected = {row.key: row for row in match.rows}
    differ = [row.key for row in rows if expected.get(row.key, row) != row]
    problem = f"{len(differ)} rows differ from the file, the first {differ[0]}" if differ else ""
    yield from checks_of("generations", name, [problem] if problem else [])


def verify_numbers(evidence: VerifyContext, scope: Sequence[StageRun]) -> Iterator[Check]:
    """Recompute rates, intervals, differences and verdicts from the score rows."""
    for instance in runs_of_stage(scope, "posterior"):
        yield from _verify_recomputed(evidence, instance, "posteriors", _recompute_posterior)
    for instance in runs_of_stage(scope, "pool"):
        yield from _verify_recomputed(evidence, instance, "posteriors", _recompute_pooled)
    for instance in runs_of_stage(scope, "compare"):
        yield from _verify_recomputed(evidence, instance, "comparisons", _recompute_comparison)


def generation_problems(
    prompts: Sequence[Prompt], rows: Sequence[Generation], samples: int
) -> Iterator[str]:
    """Yield problems with the rows, which must be k continuations of each prompt."""
    expected = {
        (prompt.prompt_id, sample): prompt for prompt in prompts for sample in range(samples)
    }
    yield from _odd_keys("generation", [row.key for row in rows], set(expected), "prompts")
    for name in ("subset", "cluster", "language"):
        moved = [
            row.key
            for row in rows
            if row.key in expected and getattr(row, name) != getattr(expected[row.key], name)
        ]
        if moved:
            yield f"{len(moved)} rows name another {name} than their prompt, the first {moved[0]}"


def thought_cut_problems(
    rows: Sequence[Generation], markers: ThoughtMarkers | None
) -> Iterator[str]:
    """Yield a problem if rows are not cut as `split_thought` cuts them."""
    odd = [
        row.key
        for row in rows
        if row.state not in NON_RESPONSE_STATES
        and (row.thought, row.text, row.state)
        not in [split_thought((row.thought or "") + row.text, markers, o) for o in (False, True)]
    ]
    if odd:
        yield f"the thought of {len(odd)} rows is cut at another place, the first {odd[0]}"


def api_row_problems(rows: Sequence[Generation], markers: ThoughtMarkers | None) -> Iterator[str]:
    """Yield a problem if a row of a name on a server has a text that its state excludes, or an
    answer that begins with a thought."""
    for row in rows:
        answered = row.state in ("ok", "empty")
        if row.text and not answered:
            yield f"{row.key}: it is {row.state}, and has a text"
        elif answered and split_thought(row.text, markers) != (None, row.text, row.state):
            yield f"{row.key}: it is {row.state}, which its text is not"


def _statement_problems(rows: Sequence[Generation], manifest: Manifest | None) -> list[str]:
    """Return whether the manifest sums up other statements of a server than the rows contain."""
    if manifest is None or "api_model" not in manifest.params:
        return []
    return [] if manifest.api == api_responses(rows) else ["they are not those of the rows"]


def score_problems(
    rows: Sequence[Generation], scores: Sequence[Score], scorers: Sequence[str]
) -> Iterator[str]:
    """Yield problems with the scores, which must be one per scorer and generation."""
    generations = {row.key: row for row in rows}
    expected = {(*key, scorer) for key in generations for scorer in scorers}
    yield from _odd_keys("score", [score.key for score in scores], expected, "generations")
    for score in scores:
        row = generations.get((score.prompt_id, score.sample))
        if row is None:
            continue
        scored = score.state == "ok" or bool(score.error)
        if (score.subset, scored) != (row.subset, row.state == "ok"):
            yield f"{score.key}: it has {score.subset}, {score.state}; its text has {row.state}"
        if score.cluster != row.cluster:
            yield f"{score.key}: it names another cluster than its text"
        if (score.toxicity is None) == (score.state == "ok"):
            yield f"{score.key}: state {score.state} with the score {score.toxicity}"
        if score.state == "ok" and score.heads and score.toxicity not in score.heads.values():
            yield f"{score.key}: the score {score.toxicity} equals none of its heads"


def value_differences(recorded: object, computed: object, key_path: str = "") -> Iterator[str]:
    """Yield differences leaf by leaf; numbers may differ by TOLERANCE."""
    if isinstance(recorded, Mapping) and isinstance(computed, Mapping):
        for name in {**recorded, **computed}:
            yield from value_differences(
                recorded.get(name), computed.get(name), f"{key_path}.{name}".strip(".")
            )
    elif (
        isinstance(recorded, list) and isinstance(computed, list) and len(recorded) == len(computed)
    ):
        for index, (left, right) in enumerate(zip(recorded, computed, strict=True)):
            yield from value_differences(left, right, f"{key_path}[{_row_title(left, index)}]")
    elif not _equal(recorded, computed):
        yield f"{key_path}: recorded {recorded}, computed {computed}"


def _row_title(row: object, index: int) -> str:
    """Return a row's identifying fields, else its index."""
    names = ("variant", "b", "scorer", "subset")
    parts = [str(row[n]) for n in names if n in row] if isinstance(row, Mapping) else []
    return "/".join(parts) or str(index)


def _equal(left: object, right: object) -> bool:
    if isinstance(left, float) and isinstance(right, float):
        return math.isclose(left, right, rel_tol=TOLERANCE, abs_tol=1e-12)
    return left == right and isinstance(left, bool) == isinstance(right, bool)


def _odd_keys(
    what: str, keys: Sequence[tuple[Any, ...]], expected: set[Any], against: str
) -> Iterator[str]:
    have = set(keys)
    if len(have) < len(keys):
        yield f"{len(keys) - len(have)} {what} rows have a key that another row has"
    if missing := sorted(expected - have):
        yield f"{len(missing)} {what} rows of the {against} are missing, e.g. {missing[0]}"
    if extra := sorted(have - expected):
        yield f"{len(extra)} {what} rows have no counterpart in the {against}, e.g. {extra[0]}"


def _files_with_manifest(store: ArtifactStore, instance: StageRun) -> list[Path]:
    """Return the present files of a stage that contain a manifest."""
    paths: list[Path] = []
    for out in instance.writes:
        path = store.root / out
        paths += sorted(path.iterdir()) if path.is_dir() else [path] if path.is_file() else []
    return [path for path in paths if path.suffix != ".csv"]  # a format without room for one


def _manifest_problems(
    evidence: VerifyContext, instance: StageRun, manifest: Manifest
) -> list[Problem]:
    problems: list[Problem] = []
    try:
        for message in _unlike(evidence, instance, manifest):
            problems.append(message)
    except DAMAGE_ERRORS as error:
        problems.append(problem(error, "it cannot be compared"))
    return problems


def _unlike(evidence: VerifyContext, instance: StageRun, manifest: Manifest) -> Iterator[str]:
    yield from other_params(evidence.config, instance, manifest)
    if (manifest.kind, manifest.key) != (instance.stage.name, instance.key):
        yield f"it was created by {manifest.kind}@{manifest.key}, not by {instance.name}"
    for name, source in manifest.inputs.items():
        if ":" in source.path:  # an asset: see verify_weights
            continue
        path = evidence.path(source.path)
        digest = evidence.digests.of(path)
        if digest and digest.sha256 != source.sha256:
            yield (
                f"it was created from another {source.path} ({name}): sha256 {source.sha256}, now "
                f"{digest.sha256}"
            )
        elif digest and source.manifest and source.manifest != evidence.manifest(path):
            yield f"its copy of the manifest of {source.path} ({name}) differs from that file's"
    if manifest.model and (card := _card_of(evidence, manifest.model.key)) not in (
        None,
        manifest.model.to_json(),
    ):
        differs = next(value_differences(manifest.model.to_json(), card), "")
        yield f"the model card in it is not models/{manifest.model.key}/model.json: {differs}"


def _card_of(evidence: VerifyContext, key: str) -> dict[str, Any] | None:
    path = evidence.store.model_dir(key) / "model.json"
    return evidence.store.read_card(key).to_json() if path.is_file() else None


def _verify_recomputed(
    evidence: VerifyContext, instance: StageRun, link: str, compute: Any
) -> Iterator[Check]:
    key = instance.key or ""
    try:
        recorded, computed = compute(evidence, key)
    except DAMAGE_ERRORS as error:
        was_opened = isinstance(error, OtherVersionError) or not why_unread(error)
        if (older := made_by_other_code(evidence.root, instance)) and was_opened:
            detail = f"other code than today's made {older}, and today's does not read it"
            yield weak(link, f"numbers of {key}", f"{detail}. `dvc repro` computes it again.")
        else:
            yield failed(link, f"numbers of {key}", error, "it cannot be read")
        return
    if recorded is None:
        return
    problems = list(value_differences(recorded, computed))
    made_by = recorded_code(recorded)
    if problems and made_by not in (None, code_sha256(instance.stage.name)):
        detail = f"other code than today's made it, and today's gives other numbers: {problems[0]}"
        yield weak(link, f"numbers of {key}", detail)
        return
    listed = problems[:5] + ([f"and {len(problems) - 5} more"] if len(problems) > 5 else [])
    yield from checks_of(link, f"numbers of {key}", listed)


def made_by_other_code(root: Path, instance: StageRun) -> str | None:
    """Return a summary among the stage's outputs and inputs that was computed by another version of
    the code; None if there is none."""
    folders = [root / name for name in (*instance.outs, *instance.reads)]
    for path in (p for folder in folders if folder.is_dir() for p in files_below(folder)):
        if path.name != "summary.json":
            continue
        try:
            summary = read_json(path)
        except DAMAGE_ERRORS:
            continue
        manifest = summary.get("manifest") if isinstance(summary, Mapping) else None
        kind = manifest.get("kind") if isinstance(manifest, Mapping) else None
        if kind in LINK_OF_STAGE and recorded_code(summary) not in (None, code_sha256(kind)):
            return path.relative_to(root).as_posix()
    return None


def recorded_code(summary: Mapping[str, Any]) -> str | None:
    """Return the hash of the code that computed a summary."""
    manifest = summary.get("manifest")
    return manifest.get("code_sha256") if isinstance(manifest, Mapping) else None


def _recompute_posterior(evidence: VerifyContext, variant: str) -> tuple[Any, Any]:
    store, config = evidence.store, evidence.config
    variant_config = config.variants[variant]
    folder, scores = (
        store.posterior_dir(variant_config.family, variant),
        store.scores_path(variant_config.family, variant),
    )
    needed = (
        folder / "summary.json",
        scores,
        store.generations_path(variant_config.family, variant),
    )
    if not all(path.is_file() for path in needed):
        return None, None
    rows = store.read_score_columns(variant_config.family, variant, COLUMNS)
    table = build_score_table(rows)
    recorded = store.read_summary(folder)
    recorded_summary = store.read_results(VariantSummary, folder)
    texts = read_response_table(
        *store.read_responses(variant_config.family, variant, REFUSAL_COLUMNS),
        store.describe_input(scores),
        True,
    )
    computed = estimate_variant_rates(
        table, texts, variant_identity(variant, variant_config), config.scoring.primary,
        config.posterior,
        measured_conditions(table, store.describe_input(scores), config.posterior),
    ).summary  # fmt: skip
    labels, annotators = _labels(evidence, variant, rows, recorded_summary)
    counted = with_language_counts(computed, texts, store.describe_input(scores))
    corrected = with_corrected_rates(counted, table, labels, config.posterior, annotators)
    return recorded, to_json(replace(corrected, manifest=recorded_summary.manifest))


def _labels(
    evidence: VerifyContext, variant: str, scores: Any, recorded: VariantSummary
) -> tuple[list[LabelRow], AnnotatorAgreement | None]:
    """Return a variant's labels and the annotators' agreement: from their file, or as recorded if
    it is missing or differs (see `verify_sources`)."""
    source, family = evidence.config.posterior.labels, evidence.config.variants[variant].family
    local_asset = evidence.assets.present(source.uri, None) if source else None
    digest = (
        evidence.digests.of(local_asset.files[0])
        if local_asset and len(local_asset.files) == 1
        else None
    )
    if source is None or local_asset is None or digest is None or digest.sha256 != source.sha256:
        return list(recorded.labels or ()), recorded.annotators
    path, texts = local_asset.files[0], evidence.store.read_generations(family, variant)
    rows = list(read_rows(path))
    labels = label_rows(labels_of_variant(path, rows, variant, texts), scores)
    return labels, counted_agreement(path, rows, evidence.config.posterior.level)


def _recompute_pooled(evidence: VerifyContext, family: str) -> tuple[Any, Any]:
    """Recompute the tables from the stored draws; the draws are not sampled again."""
    store, config = evidence.store, evidence.config
    folder, family_config = store.pooled_dir(family), config.families[family]
    if not (folder / "summary.json").is_file():
        return None, None
    parents = {v: config.variants[v].parent for v in family_config.variants}
    pairs = variant_pairs(parents, family_config.reference)
    recorded = store.read_results(PoolSummary, folder)
    computed = rows_from_draws(
        store.read_draws(folder), pairs, config.posterior.level, recorded.scorers
    )
    return store.read_summary(folder), to_json(replace(recorded, **computed._asdict()))


def _recompute_comparison(evidence: VerifyContext, family: str) -> tuple[Any, Any]:
    store, config = evidence.store, evidence.config
    family_config, folder = config.families[family], store.comparison_dir(family)
    needed = [
        *(store.scores_path(family, v) for v in family_config.variants),
        *(store.generations_path(family, v) for v in family_config.variants),
        *(store.posterior_dir(family, v) / "summary.json" for v in family_config.variants),
        folder / "summary.json",
        store.pooled_dir(family) / "summary.json",
    ]
    if not all(path.is_file() for path in needed):
        return None, None
    tables = {
        v: build_score_table(store.read_score_columns(family, v, COLUMNS))
        for v in family_config.variants
    }
    summaries = {
        v: store.read_results(VariantSummary, store.posterior_dir(family, v))
        for v in family_config.variants
    }
    texts = {
        v: read_response_table(
            *store.read_responses(family, v, REFUSAL_COLUMNS),
            store.describe_input(store.scores_path(family, v)),
        )
        for v in family_config.variants
    }
    own_view = compare_family(
        tables, texts, summaries, family_config.reference, config.scoring.primary, config.posterior,
        bool(family_config.allow_mismatch),
    )  # fmt: skip
    pooled = store.read_results(PoolSummary, store.pooled_dir(family))
    recorded = store.read_summary(folder)
    computed = replace(
        with_pooled(own_view, pooled).summary,
        manifest=store.read_results(ComparisonSummary, folder).manifest,
    )
    return recorded, to_json(computed)
