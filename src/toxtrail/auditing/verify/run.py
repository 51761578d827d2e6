"""Verification: all files of a lineage are hashed, and all numbers recomputed."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from toxtrail.auditing.verify.context import (
    CHECK_CATEGORIES,
    DAMAGE_ERRORS,
    OUTCOMES,
    Check,
    VerifyContext,
    broken,
    catch_damage,
    checks_of,
    runs_of_stage,
)
from toxtrail.auditing.verify.dvc_lock import Lock, is_own, outputs, parse_lock
from toxtrail.auditing.verify.dvc_yaml import verify_declaration
from toxtrail.auditing.verify.executions import verify_executions
from toxtrail.auditing.verify.gates import verify_gates
from toxtrail.auditing.verify.hash_cache import HashCache
from toxtrail.auditing.verify.mlflow_runs import (
    expected_run_content,
    open_store_checked,
    run_title,
    verify_model_metrics,
    verify_runs,
    verify_tracking,
    verify_verdicts,
)
from toxtrail.auditing.verify.pipeline import (
    LINK_OF_STAGE,
    cached_folder_listing,
    verify_committed,
    verify_lock,
    verify_outputs,
    verify_stale_entries,
)
from toxtrail.auditing.verify.rendered_outputs import verify_shown
from toxtrail.auditing.verify.rows import verify_manifests, verify_numbers, verify_rows
from toxtrail.auditing.verify.signatures import EXPERIMENT_SIGNABLE, SignedResult, verify_signatures
from toxtrail.auditing.verify.unsafe_outputs import is_refused, refused_places
from toxtrail.auditing.verify.weights import paths_of_weights, verify_sources, verify_weights
from toxtrail.backends.assets import AssetStore, default_cache
from toxtrail.backends.dvc import cache_folder, cache_path
from toxtrail.backends.protocols import Progress
from toxtrail.config.load import read_yaml
from toxtrail.config.schema import Config
from toxtrail.errors import DataError
from toxtrail.pipeline import StageRun, stage_runs, upstream
from toxtrail.records.run_tags import KEY_TAG
from toxtrail.regular_files import read_text, refuse_irregular
from toxtrail.storage.artifacts import ArtifactStore, read_json

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

LINK_OF_PART = {
    "sources": "prompt set",
    "weights": "weights",
    "manifests": "generations",
    "rows": "scores",
    "numbers": "posteriors",
    "shown": "report",
}


class Tally(NamedTuple):
    """Counts of one category of checks."""

    link: str
    ok: int
    broken: int
    unread: int
    absent: int
    weak: int


def load_context(store: ArtifactStore, config: Config, progress: Progress) -> VerifyContext:
    """Read the records of an experiment.

    Raises:
        DataError: there is no dvc.lock.
    """
    root, path = store.root, store.root / "dvc.lock"
    refuse_irregular(path)
    if not path.is_file():
        raise DataError("There is no dvc.lock: no stage was run here. Run `dvc repro`.")
    lock, problem = _lock_of(path)
    sizes = {out.path: out.size for entry, out in outputs(lock) if is_own(entry.name)}
    refused = refused_places(root, stage_runs(config), sizes)
    return VerifyContext(
        store=store,
        config=config,
        raw=read_yaml(root / "params.yaml"),
        lock=lock,
        lock_problem=problem,
        digests=HashCache(progress, (root / name for name in refused)),
        assets=AssetStore(default_cache(), root, progress, config.outside),
        asset_cache=default_cache(),
        dvc_cache=cache_folder(root),
        refused=refused,
    )


def verify(
    evidence: VerifyContext, targets: Sequence[str], keys: Sequence[Ed25519PublicKey] = ()
) -> list[Check]:
    """Verify everything that the targets depend on.

    Args:
        targets: names of stage runs (`track@v`); empty for the complete experiment.
        keys: public keys for the signatures.
    """
    everything = stage_runs(evidence.config)
    scope = (
        upstream(everything, [instance for instance in everything if instance.name in targets])
        if targets
        else everything
    )
    _hash_all(evidence, scope)
    sound = evidence.sound(scope)
    view, checks = (
        open_store_checked(evidence, evidence.config.tracking.project)
        if runs_of_stage(scope, "track", "track-comparison")
        else (None, [])
    )
    runs = view.runs if view else ()
    checks += checks_of(
        "dvc.lock", "dvc.lock", [evidence.lock_problem] if evidence.lock_problem else []
    )
    checks += catch_damage("pipeline", "dvc.yaml", verify_declaration(evidence))
    checks += verify_refused(evidence, scope)
    checks += catch_damage("dvc.lock", "checking its entries", verify_lock(evidence, scope))
    checks += verify_stale_entries(evidence, everything, scope if targets else None)
    checks += verify_committed(evidence.root)
    checks += catch_damage("pipeline", "checking outputs", verify_outputs(evidence, scope))
    checks += verify_executions(evidence, sound)
    parts = (verify_sources, verify_weights, verify_manifests, verify_rows, verify_numbers)
    for part in (*parts, verify_shown):
        what = part.__name__.removeprefix("verify_")
        checks += catch_damage(LINK_OF_PART[what], f"checking {what}", part(evidence, sound))
    checks += catch_damage("receipts", "checking receipts", verify_tracking(evidence, sound, view))
    checks += catch_damage("MLflow values", "verdicts", verify_verdicts(evidence, sound, view))
    checks += catch_damage("MLflow values", "gates", verify_gates(evidence, view))
    content_keys = _content_keys(evidence, scope) if targets else set()
    selected = [r for r in runs if not targets or r.run.tags.get(KEY_TAG) in content_keys]
    for stored in selected:
        checks += catch_damage("MLflow runs", run_title(stored), verify_runs(evidence, [stored]))
    checks += catch_damage("MLflow values", "models", verify_model_metrics(selected, runs))
    signatures = verify_signatures(evidence, _signables(scope), keys)
    checks += catch_damage("signatures", "checking signatures", signatures)
    return checks


def _signables(scope: Sequence[StageRun]) -> list[SignedResult]:
    """Return the signable results of the scope; with its report, all of the experiment."""
    results = [
        SignedResult(
            "variants" if instance.stage.name == "track" else "families", instance.key or ""
        )
        for instance in runs_of_stage(scope, "track", "track-comparison")
    ]
    return [*results, *(EXPERIMENT_SIGNABLE for _ in runs_of_stage(scope, "report"))]


def tally(checks: Sequence[Check]) -> list[Tally]:
    """Return counts by category, in data-flow order; categories without checks are omitted."""
    counts = Counter((check.link, check.outcome) for check in checks)
    return [
        Tally(link, *(counts[link, outcome] for outcome in OUTCOMES))
        for link in CHECK_CATEGORIES
        if any(check.link == link for check in checks)
    ]


def verify_refused(evidence: VerifyContext, scope: Sequence[StageRun]) -> list[Check]:
    """Report links and pipes in place of a stage's outputs."""
    checks = []
    for name, reason in evidence.refused.items():
        owner = next((o for o in scope if is_refused(name, dict.fromkeys(o.outs, ""))), None)
        if owner or any(name in instance.deps(evidence.root) for instance in scope):
            link = LINK_OF_STAGE[owner.stage.name] if owner else "pipeline"
            detail = f"{reason}. It was not opened. Delete it, then `dvc checkout` or `dvc repro`."
            checks.append(broken(link, name, detail))
    return checks


def _lock_of(path: Path) -> tuple[Lock, str | None]:
    try:
        return parse_lock(read_text(path)), None
    except UnicodeDecodeError as error:
        return {}, f"dvc.lock is not UTF-8 text: {error}"
    except DataError as error:
        return {}, str(error)


def _hash_all(evidence: VerifyContext, scope: Sequence[StageRun]) -> None:
    """Hash all files to be checked, in parallel."""
    paths = [
        evidence.path(path)
        for instance in scope
        for path in (*instance.deps(evidence.root), *instance.outs)
    ]
    for instance in scope:
        entry = evidence.lock.get(instance.name)
        for out in entry.outs.values() if entry else ():
            if out.path not in instance.outs:
                continue
            if out.md5.endswith(".dir"):
                with suppress(*DAMAGE_ERRORS):  # verify_outputs reports it
                    inner = (cached_folder_listing(evidence.dvc_cache, out.md5) or {}).values()
                    paths += [cache_path(evidence.dvc_cache, md5) for md5 in inner]
            else:
                paths.append(cache_path(evidence.dvc_cache, out.md5))
    with suppress(*DAMAGE_ERRORS):  # a damaged card is reported by verify_weights
        paths += paths_of_weights(evidence, scope)
    if runs_of_stage(scope, "track", "track-comparison"):
        paths.append(evidence.root / "mlruns" / "artifacts")
    evidence.digests.prepare(paths)


def _content_keys(evidence: VerifyContext, scope: Sequence[StageRun]) -> set[str]:
    """Return content keys of the runs of the scope: from receipts and from the files."""
    keys = set()
    for instance in runs_of_stage(scope, "track", "track-comparison"):
        with suppress(*DAMAGE_ERRORS):
            keys.add(str(read_json(evidence.path(instance.writes[0]))["content_key"]))
        with suppress(*DAMAGE_ERRORS):
            keys.add(expected_run_content(evidence, instance).content_key)
    return keys
