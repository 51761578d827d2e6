"""Resolve a reference: a variant, family, run, file, generation or number."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

from toxtrail.auditing.lineage.context import AuditContext, AuditTarget
from toxtrail.auditing.lineage.hash_prefix import HEX
from toxtrail.auditing.lineage.lineage import HashStatus, LineageNode
from toxtrail.auditing.lineage.resolve_file import producing_stage, resolve_file, search_folders
from toxtrail.auditing.lineage.resolve_path import resolve_path
from toxtrail.auditing.lineage.resolve_row_or_metric import resolve_row_or_metric
from toxtrail.auditing.lineage.resolve_run import content_key_of, resolve_hashes, resolve_runs
from toxtrail.auditing.verify.context import DAMAGE_ERRORS
from toxtrail.backends import git
from toxtrail.errors import ConfigError, DataError, did_you_mean, why_unread


def resolve(reference: str, scene: AuditContext, show_text: bool = False) -> AuditTarget:
    """Resolve a reference.

    A result whose file is damaged or unreadable is resolved too, so that its verification still
    reports every problem.

    Raises:
        ConfigError: no match, or several; the message lists the candidates.
        DataError: a file is missing, or is neither recorded nor contains a manifest.
    """
    try:
        return _resolve(reference, scene, show_text)
    except DAMAGE_ERRORS as error:
        damaged = None if isinstance(error, ConfigError) else _damaged(reference, scene, error)
        if damaged is None:
            raise
        return damaged


def _damaged(reference: str, scene: AuditContext, error: Exception) -> AuditTarget | None:
    """Return what a reference means judging by its syntax only; None if one of its files is
    missing."""
    aim = _guess(reference, scene)
    why = why_unread(error)
    if aim is None or not (why or all(path.is_file() for path in aim.reads)):
        return None
    lines = (why or str(error)).strip().splitlines() or [type(error).__name__]
    standing: HashStatus = "unread" if why else "MISMATCH"
    link = LineageNode(
        aim.kind, reference, None, standing, weak=(f"it cannot be read: {lines[0]}",)
    )
    return AuditTarget(aim.kind, link, aim.targets)


class ReferenceGuess(NamedTuple):
    """Possible meaning of a reference before any file is read."""

    kind: str
    targets: tuple[str, ...]
    reads: tuple[Path, ...]


def _guess(reference: str, scene: AuditContext) -> ReferenceGuess | None:
    store, config = scene.store, scene.config
    if store is None or config is None:
        return None
    first, *rest = reference.rstrip("/").split("/")
    if first in config.variants:
        family = config.variants[first].family
        if not rest:
            summary = store.posterior_dir(family, first) / "summary.json"
            return ReferenceGuess("variant", (f"track@{first}",), (summary,))
        tables = (store.generations_path(family, first), store.scores_path(family, first))
        return ReferenceGuess("generation", (f"score@{first}",), tables)
    if first in config.families:
        stage = "compare" if rest else "track-comparison"
        summary = store.comparison_dir(first) / "summary.json"
        return ReferenceGuess("number" if rest else "family", (f"{stage}@{first}",), (summary,))
    path = resolve_path(reference, search_folders(scene))
    writer = producing_stage(path.resolve(), scene) if path else None
    return ReferenceGuess("file", (writer,), (path,)) if path and writer else None


def _resolve(reference: str, scene: AuditContext, show_text: bool) -> AuditTarget:
    for subject in (_named(reference.rstrip("/"), scene), resolve_file(reference, scene)):
        if subject:
            return subject
    slashed = resolve_row_or_metric(reference, scene, show_text) if "/" in reference else None
    if slashed:
        return slashed
    runs = list(resolve_runs(reference, scene))
    run_keys = {content_key_of(run) for run in runs}
    candidates = [
        *runs,
        *(c for c in resolve_hashes(reference, scene) if content_key_of(c) not in run_keys),
    ]
    distinct = {(c.kind, c.link.name): c for c in candidates}
    if len(distinct) > 1:
        lines = [f"  {c.kind}: {c.link.name}" for c in distinct.values()]
        raise ConfigError(
            f'"{reference}" matches {len(lines)} results; give a longer reference:\n'
            + "\n".join(lines)
        )
    if not distinct:
        raise unknown_reference_error(reference, scene)
    return next(iter(distinct.values()))


def unknown_reference_error(reference: str, scene: AuditContext) -> ConfigError:
    """Return an error that lists the valid kinds of references and similar names."""
    if scene.config is None:
        return ConfigError(
            f'"{reference}" is not a file, and there is no experiment here (no params.yaml). Name '
            "a file or a bundle, go to an experiment's folder, or set MLFLOW_TRACKING_URI and "
            "MLFLOW_EXPERIMENT_NAME to audit an MLflow run."
        )
    names = [*scene.config.variants, *scene.config.families, *(run.name for run in scene.runs)]
    if scene.store and (hint := _elsewhere(reference, scene.store.root, scene)):
        return ConfigError(hint)
    return ConfigError(
        f'"{reference}" is not a variant, family, file, MLflow run, generation or number of this '
        f"experiment.{did_you_mean(reference, names)} Give one of: a variant or family of "
        "params.yaml; a path; a run id or name; the first 8 or more characters of a content key "
        "or hash; variant/prompt_id/sample; family/variant/subset/metric."
    )


def _elsewhere(reference: str, root: Path, scene: AuditContext) -> str | None:
    """Return the error for a commit, or a name that params.yaml no longer lists: known, but not a
    result."""
    left = [
        s for lock in scene.locks[:1] for s in lock.parsed() or () if s.endswith(f"@{reference}")
    ]
    if left:
        return (
            f'"{reference}" is no longer in params.yaml; dvc.lock still has {", ".join(left)}. '
            "`toxtrail verify` lists what is left over; give one of its files to see its lineage."
        )
    if HEX.fullmatch(reference.lower()) and git.resolve(root, reference):
        return (
            f'"{reference}" is a commit: `toxtrail audit --commit {reference}` lists its results.'
        )
    return None


def _named(reference: str, scene: AuditContext) -> AuditTarget | None:
    store, config = scene.store, scene.config
    if store is None or config is None:
        return None
    if reference in config.variants:
        path = store.posterior_dir(config.variants[reference].family, reference) / "summary.json"
        kind, target = "variant", f"track@{reference}"
    elif reference in config.families:
        path = store.comparison_dir(reference) / "summary.json"
        kind, target = "family", f"track-comparison@{reference}"
    else:
        return None
    if not path.is_file():
        raise DataError(
            f"{path.relative_to(store.root)} does not exist. Run `dvc repro`, `dvc pull` or "
            "`dvc checkout` to restore it. A copy of one of its files can be audited without it."
        )
    return AuditTarget(kind, scene.chain.of_file(path), (target,), path)
