"""`toxtrail.audit`: the lineage of a result, and its checks."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from toxtrail.auditing.lineage.resolve_path import resolve_path
from toxtrail.errors import ConfigError, DataError, UnreadableError
from toxtrail.execution.factories import has_mlflow_variables
from toxtrail.experiment import Experiment
from toxtrail.regular_files import open_regular

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

    from toxtrail.auditing.lineage.context import AuditContext, AuditTarget
    from toxtrail.auditing.lineage.lineage import LineageNode
    from toxtrail.auditing.lineage.lock_history import RecordedLocation
    from toxtrail.auditing.verify.context import Check

Source = Literal["experiment", "run", "bundle"]
"""Files in which a reference is audited: those of an experiment (or of none), of an MLflow run, or
a bundle."""


@dataclass(frozen=True)
class AuditResult:
    """Lineage of a result, and its checks."""

    kind: str
    """variant, family, run, file, hash, generation, number or bundle."""
    lineage: LineageNode | None
    """None: a bundle is too damaged to show it; the checks name the damage."""
    checks: tuple[Check, ...] = ()
    """Empty if it was not verified."""
    locations: tuple[RecordedLocation, ...] | None = ()
    """Other locations where its content is recorded; None for a bundle."""
    unsearched: tuple[str, ...] = ()
    """Sentences on MLflow runs that could not be searched."""
    lineage_problem: str | None = None
    """Why there is no lineage."""

    @property
    def ok(self) -> bool:
        """Whether no check failed, and every file of the lineage that is here was read and is as
        recorded. What is missing here or weak does not count."""
        return not self.failed and not self.mismatches and not self.unread

    @property
    def failed(self) -> list[Check]:
        """The checks that failed or could not be made."""
        return [check for check in self.checks if check.outcome in ("BROKEN", "unread")]

    @property
    def mismatches(self) -> list[LineageNode]:
        """The nodes of the lineage whose file differs from the record."""
        return list(self.lineage.mismatches()) if self.lineage else []

    @property
    def unread(self) -> list[LineageNode]:
        """The nodes of the lineage whose file could not be read."""
        return list(self.lineage.unread()) if self.lineage else []

    def to_json(self) -> dict[str, Any]:
        """Return the result as `toxtrail audit --json` prints it."""
        value = {"kind": self.kind, **(self.lineage.to_json() if self.lineage else {})}
        if self.locations is not None:
            value["found"] = [location._asdict() for location in self.locations]
        if self.checks:
            value["checks"] = [check.to_json() for check in self.checks]
        return value


def audit(
    ref: str | Path,
    folder: str | Path = ".",
    *,
    verify: bool = True,
    from_mlflow: bool = False,
    public_keys: Sequence[str | Path] = (),
) -> AuditResult:
    """Return the lineage of a result, and the checks of everything that it depends on, as
    `toxtrail audit REF --verify`.

    A changed file raises no error: `ok` is false, and `failed` and `mismatches` name it.

    >>> import toxtrail
    >>> result = toxtrail.audit("tuned", "experiment")
    >>> result.ok
    True
    >>> result.lineage.what, sorted({check.outcome for check in result.checks})
    ('posterior@tuned', ['ok', 'weak'])

    Args:
        ref: a variant, a family, an MLflow run, a content key or hash, a file, one generation or
            one number; see `toxtrail audit --help`. A path is relative to the working directory.
        folder: the experiment's folder, or one in it.
        verify: false shows the lineage only.
        from_mlflow: audit an MLflow run by its own files even in an experiment's folder.
        public_keys: files of the keys that signatures are verified with.

    Raises:
        ConfigError: the reference is unknown.
        DataError: a file has no lineage.
        BackendError: the MLflow store cannot be read.
    """
    from toxtrail.auditing.bundle.signing import public_key
    from toxtrail.auditing.lineage.resolve import resolve

    experiment, ref = Experiment(Path(folder)), str(ref)
    keys = [public_key(Path(path)) for path in public_keys]
    source = source_of(experiment, ref, from_mlflow)
    if source == "run":
        return audit_run_files(experiment, ref)
    if source == "bundle":
        return audit_bundle(Path(ref).expanduser(), verify, keys)
    scene = scene_of(experiment)
    return audit_subject(experiment, resolve(ref, scene), scene, verify, keys)


def source_of(experiment: Experiment, reference: str, from_mlflow: bool) -> Source:
    """Return what a reference is audited in."""
    path = resolve_path(reference, [Path()]) if not from_mlflow else None
    from_mlflow = from_mlflow or (experiment.exists and not experiment.reads_own_results)
    if from_mlflow or (not (path or experiment.exists) and has_mlflow_variables()):
        return "run"
    return "bundle" if path and is_bundle(path) else "experiment"


def scene_of(experiment: Experiment) -> AuditContext:
    """Return the context of the experiment, or an empty one outside of an experiment."""
    from toxtrail.auditing.lineage.context import AuditContext
    from toxtrail.pipeline import stage_runs

    if not experiment.exists:
        return AuditContext(Path.cwd(), None, None)
    config = experiment.config
    experiment.warn_of_replaced_experiment()
    return AuditContext(Path.cwd(), experiment.store, config, stage_runs(config))


def audit_subject(
    experiment: Experiment,
    subject: AuditTarget,
    scene: AuditContext,
    verify: bool,
    keys: Sequence[Ed25519PublicKey],
) -> AuditResult:
    """Audit a resolved reference."""
    error = scene.mlflow_error
    unsearched = [f"MLflow runs were not searched: {error}"] if error else []
    unsearched += [f"MLflow run not searched: {run}" for run in scene.unsearched()]
    checks = _checks(experiment, subject, scene, keys) if verify else []
    return AuditResult(
        subject.kind, subject.link, tuple(checks), subject.locations, tuple(unsearched)
    )


def audit_run_files(experiment: Experiment, reference: str) -> AuditResult:
    """Audit an MLflow run by its own files, without an experiment."""
    from toxtrail.auditing.verify.load_runs import load_run
    from toxtrail.auditing.verify.stored_runs import audit_run
    from toxtrail.execution.progress import progress

    loaded = load_run(experiment, reference, progress())
    link, checks = audit_run(loaded.verifier, loaded.run)
    return AuditResult("run", link, tuple(checks))


def audit_bundle(path: Path, verify: bool, keys: Sequence[Ed25519PublicKey]) -> AuditResult:
    """Audit a bundle, without repository, DVC or MLflow.

    Raises:
        DataError, UnreadableError: it has no lineage, and no check says why.
    """
    from toxtrail.auditing.bundle.bundle import bundle_lineage, open_bundle, verify_bundle
    from toxtrail.execution.progress import progress

    with open_bundle(path) as root:
        checks = tuple(verify_bundle(root, progress(), keys) if verify else ())
        try:
            return AuditResult("bundle", bundle_lineage(root), checks, None)
        except (DataError, UnreadableError) as error:
            damaged = AuditResult("bundle", None, checks, None, (), str(error))
            if damaged.ok:
                raise  # else the checks name the damage
            return damaged


def is_bundle(path: Path) -> bool:
    """Return whether the path is a bundle; checks the first bytes before importing large
    libraries."""
    if path.is_file():
        with open_regular(path) as file:
            if file.read(2) != b"PK":
                return False
    from toxtrail.auditing.bundle import bundle

    return bundle.is_bundle(path)


def _checks(
    experiment: Experiment,
    subject: AuditTarget,
    scene: AuditContext,
    keys: Sequence[Ed25519PublicKey],
) -> Sequence[Check]:
    from toxtrail.auditing.verify.run import load_context
    from toxtrail.auditing.verify.target import verify_file, verify_subject
    from toxtrail.execution.progress import progress

    if scene.store is None:
        if subject.path is None:
            raise ConfigError(
                "There is no experiment here to verify it against: run this in its folder."
            )
        return list(verify_file(subject, scene))
    evidence = load_context(experiment.store, experiment.config, progress())
    return verify_subject(evidence, subject, scene, keys)
