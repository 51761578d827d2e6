"""Verification of MLflow runs by their own files, without the experiment that made them.

A run holds its rows, its results and the manifest of everything behind them, but neither weights,
training data, the sources of the prompts, nor the code. What needs those is reported as absent.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

from toxtrail.auditing.lineage.lineage import HashStatus, LineageBuilder, LineageNode
from toxtrail.auditing.lineage.resolve_run import run_node
from toxtrail.auditing.verify.context import (
    DAMAGE_ERRORS,
    Check,
    VerifyContext,
    absent,
    broken,
    catch_damage,
    checks_of,
    weak,
)
from toxtrail.auditing.verify.dvc_lock import Lock, parse_lock
from toxtrail.auditing.verify.executions import verify_executions
from toxtrail.auditing.verify.gates import verify_gate
from toxtrail.auditing.verify.hash_cache import HashCache
from toxtrail.auditing.verify.mlflow_runs import (
    run_title,
    verify_model_metrics,
    verify_run,
    verify_verdict,
)
from toxtrail.auditing.verify.pipeline import LINK_OF_STAGE
from toxtrail.auditing.verify.rendered_outputs import verify_shown
from toxtrail.auditing.verify.rows import (
    verify_manifests,
    verify_numbers,
    verify_rows,
)
from toxtrail.auditing.verify.run_workspace import (
    RunWorkspace,
    run_manifest,
    run_record,
    run_subjects,
    run_workspace,
    runs_of_variant,
    variant_manifests,
)
from toxtrail.auditing.verify.sealed_run import close
from toxtrail.auditing.verify.weights import verify_cards
from toxtrail.backends.assets import AssetStore, default_cache
from toxtrail.backends.mlflow.fetch_artifacts import MANIFEST
from toxtrail.backends.mlflow.find_run import project_of
from toxtrail.backends.mlflow.read_store import StoredRun
from toxtrail.backends.mlflow.write_run import SCHEMA_VERSION
from toxtrail.backends.protocols import Progress, TrackedRun
from toxtrail.config.load import load_config, read_yaml
from toxtrail.config.schema import Config
from toxtrail.errors import DataError, UnreadableError
from toxtrail.pipeline import StageRun, stage_runs
from toxtrail.provenance.identity import Manifest, walk_lineage
from toxtrail.records.results import ComparisonSummary, VariantSummary
from toxtrail.records.run_tags import (
    COMMIT_TAG,
    COMPARISON_TAG,
    GATE_TAGS,
    KEY_TAG,
    REPOSITORY_TAG,
    SCHEMA_TAG,
    SEAL_TAG,
    VERDICT_TAGS,
)
from toxtrail.regular_files import files_by_name, read_text
from toxtrail.reporting.mlflow_page import (
    behaviour_metrics,
    pair_metrics,
    rate_metrics,
    verdict_tags,
)
from toxtrail.reporting.text import plural
from toxtrail.storage.artifacts import ArtifactStore

VARIANT_STAGES = ("model", "finetune", "generate", "score", "posterior")
COMPARISON_STAGES = ("pool", "compare")
FAILED = frozenset({"BROKEN", "unread"})
"""Outcomes after which nothing else of a run is read."""


class RunVerifier:
    """Verifies runs that were read from a store or a bundle."""

    def __init__(self, runs: Sequence[StoredRun], progress: Progress) -> None:
        """Args:
        runs: those to verify, and those of the variants that they compare.
        """
        self._runs = runs
        self._progress = progress
        self._digests = HashCache(progress)
        self._own_checks: dict[str, list[Check]] = {}

    def own_checks(self, run: StoredRun) -> list[Check]:
        """Check a run's files against its list, and its page against its record."""
        run_id = run.run.run_id
        if run_id not in self._own_checks:
            title = run_title(run)
            checks = catch_damage("MLflow runs", title, verify_run(self._digests, run))
            if is_sealed(run) and not _failed(checks):
                checks += catch_damage("MLflow runs", title, _verify_statement(self._digests, run))
            self._own_checks[run_id] = checks
        return self._own_checks[run_id]

    def is_intact(self, run: StoredRun) -> bool:
        """Return whether the run is sealed and all its own checks passed."""
        return is_sealed(run) and not _failed(self.own_checks(run))

    def checks(self, run: StoredRun) -> list[Check]:
        """Verify a run: its own checks, then the numbers in its files."""
        checks = list(self.own_checks(run))
        if not self.is_intact(run):
            return checks
        title = run_title(run)
        checks += catch_damage("MLflow values", title, self._verify_verdict(run))
        model_metrics = verify_model_metrics([run], self._runs)
        checks += catch_damage("MLflow values", title, model_metrics)
        content = catch_damage("MLflow runs", title, self._verify_content(run))
        named = [c if c.name.startswith(title) else _of_run(c, title) for c in content]
        return [*checks, *named]

    def workspace_runs(self) -> list[StoredRun]:
        """Return the runs whose files may be used."""
        return [run for run in self._runs if self.is_intact(run)]

    def lineage(self, run: StoredRun) -> LineageNode:
        """Return the lineage of a run; if one of its own checks failed, only that fact."""
        title = f"MLflow run {run.run.name} ({run.run.run_id})"
        if not self.is_intact(run):
            bad = [c for c in self.own_checks(run) if c.outcome in FAILED]
            only_unread = bool(bad) and all(c.outcome == "unread" for c in bad)
            details = tuple(f"{c.name}: {c.detail}" for c in bad or self.own_checks(run))
            standing: HashStatus = "unread" if only_unread else "MISMATCH"
            return LineageNode("MLflow run", title, None, standing, weak=details)
        try:
            with run_workspace(run, self.workspace_runs()) as workspace:
                chain = LineageBuilder(workspace.store, holds_weights=False)
                link = run_node(chain, title, workspace.manifest, run_record(run))
            return link._replace(sha256=run.run.tags[SEAL_TAG], standing="matches")
        except DAMAGE_ERRORS as error:
            return LineageNode("MLflow run", title, None, "MISMATCH", weak=(str(error),))

    def variants_of(self, run: StoredRun) -> list[StoredRun]:
        """Return the runs of the variants that an intact comparison names, intact or not."""
        if not self.is_intact(run):
            return []
        manifest = run_manifest(run)
        nodes = variant_manifests(manifest) if manifest.kind == "compare" else []
        return [other for node in nodes for other in runs_of_variant(node, self._runs)]

    def comparison_of(self, run: StoredRun) -> StoredRun | None:
        """Return the comparison from which the verdict on a variant's page is."""
        key = run.run.tags.get(COMPARISON_TAG)
        others = (o for o in self.workspace_runs() if key and o.run.tags.get(KEY_TAG) == key)
        return next(others, None)

    def _verify_verdict(self, run: StoredRun) -> Iterator[Check]:
        """Check the verdict on the page of a variant's run, which the comparison sets."""
        if run_manifest(run).kind != "posterior" or not run.run.tags.keys() & VERDICT_TAGS:
            return
        comparison = self.comparison_of(run)
        if comparison is None:
            detail = f"no intact run has the content key {run.run.tags.get(COMPARISON_TAG)}"
            yield absent("MLflow values", f"{run_title(run)}: verdict", f"{detail} of its tag")
            return
        with run_workspace(comparison, ()) as workspace:
            folder = workspace.store.comparison_dir(workspace.family)
            summary = workspace.store.read_results(ComparisonSummary, folder)
        key = comparison.run.tags[KEY_TAG]
        expected = verdict_tags(summary, key).get(run.run.tags[KEY_TAG])
        if expected is None:
            detail = "the comparison that its tag names has no verdict on it"
            yield broken("MLflow values", f"{run_title(run)}: verdict", detail)
        else:
            yield from verify_verdict(run, expected, {key})

    def _verify_content(self, run: StoredRun) -> Iterator[Check]:
        with run_workspace(run, self.workspace_runs()) as workspace:
            for variant, why in workspace.missing.items():
                yield absent("scores", f"rows of {variant}", f"{why}. They were not verified")
            try:
                evidence = _context(workspace.store, self._progress)
            except DAMAGE_ERRORS as error:
                detail = f"the run's params.yaml and dvc.lock cannot be read here: {error}"
                yield absent("pipeline", "numbers", f"{detail}. No number was computed again")
                return
            scope = _scope(evidence.config, workspace)
            yield from _verify_scope(evidence, scope, workspace)
            yield from _verify_gate(evidence, run)
            yield from catch_damage("MLflow values", "metrics", _verify_metrics(run, workspace))
            yield from catch_damage("dvc.lock", "dvc.lock", _verify_lock(evidence, scope))


NOT_IN_RUNS = absent(
    "weights",
    "weights, data and code",
    "MLflow runs hold none: only their hashes are known. `toxtrail audit RUN` lists them",
)


class RunAudit(NamedTuple):
    """Lineage and checks of a run and of the runs that it names."""

    link: LineageNode
    checks: list[Check]


def audit_run(verifier: RunVerifier, run: StoredRun) -> RunAudit:
    """Verify a run with those of the variants that it compares, and what no run holds."""
    checks = verifier.checks(run)
    for other in verifier.variants_of(run):
        checks += verifier.checks(other)
    link = verifier.lineage(run)
    if verifier.is_intact(run):
        checks += not_verified(link, run_manifest(run), run.run)
    return RunAudit(link, checks)


def verify_stored_runs(runs: Sequence[StoredRun], progress: Progress) -> list[Check]:
    """Verify all runs of a store, project by project: a comparison is one of its project's runs."""
    checks: list[Check] = []
    for project in dict.fromkeys(project_of(run.run.tags) for run in runs):
        project_runs = [run for run in runs if project_of(run.run.tags) == project]
        verifier = RunVerifier(project_runs, progress)
        checks += (check for run in project_runs for check in verifier.checks(run))
    return [*checks, NOT_IN_RUNS]


def refuse_failed(checks: Sequence[Check], consequence: str) -> None:
    """Require that no check failed.

    Args:
        consequence: what did not happen, a sentence without its full stop.

    Raises:
        UnreadableError: a file could not be read.
        DataError: a check failed.
    """
    bad = [check for check in checks if check.outcome in FAILED]
    if not bad:
        return
    lines = "\n".join(f"  {check.outcome} {check.name}: {check.detail}" for check in bad)
    message = f"{consequence}: {len(bad)} {plural(len(bad), 'check')} failed:\n{lines}"
    raise (
        DataError(message) if any(c.outcome == "BROKEN" for c in bad) else UnreadableError(message)
    )


def is_sealed(run: StoredRun) -> bool:
    """Return whether a run is complete, of this version, and not deleted."""
    tags = run.run.tags
    return not run.deleted and SEAL_TAG in tags and tags.get(SCHEMA_TAG) == SCHEMA_VERSION


def not_verified(link: LineageNode, manifest: Manifest, run: TrackedRun) -> list[Check]:
    """Return a check for each part of the lineage of an intact run that no run holds."""
    commit = run.tags.get(COMMIT_TAG, "")
    detail = "not verified here: only its hash is known"
    checks: dict[tuple[str, str], Check] = {}
    for category, node in _with_categories(link, "files"):
        if node.sha256 and node.standing in ("recorded", "not here"):
            checks[category, node.name] = absent(category, f"{node.what} {node.name}", detail)
    for name in _scorers(manifest):
        checks["scorers", name] = absent("scorers", name, detail)
    name = f"code at commit {commit[:12]}" if commit else "code"
    how = (
        f"clone {run.tags.get(REPOSITORY_TAG) or 'its repository'} at "
        f"{f'commit {commit[:12]}' if commit else 'the commit that made it'}, run `dvc pull`, then "
        f"`toxtrail audit {run.run_id[:8]} --verify`"
    )
    checks["git", name] = absent(
        "git", name, f"not verified here. To verify it and the other absent parts: {how}"
    )
    return list(checks.values())


def _with_categories(link: LineageNode, category: str) -> Iterator[tuple[str, LineageNode]]:
    """Yield (category of its check, node) for every node below one."""
    kind = link.what.partition("@")[0]
    if kind in LINK_OF_STAGE:
        category = LINK_OF_STAGE[kind]
    words = {"base weights": "weights", "training data": "training data", "prompts": "prompt set"}
    category = words.get(link.what, "adapters" if link.what.startswith("adapter ") else category)
    yield category, link
    for node in link.made_from:
        yield from _with_categories(node, category)


def _scorers(manifest: Manifest) -> Iterator[str]:
    """Yield name and URI of each scorer behind a result."""
    for node in walk_lineage(manifest):
        scorers = node.params.get("scorers", {}) if node.kind == "score" else {}
        for name, values in scorers.items():
            yield f"{name} {values.get('uri', '')}".strip()


def _failed(checks: Iterable[Check]) -> bool:
    return any(check.outcome in FAILED for check in checks)


def _of_run(check: Check, title: str) -> Check:
    return check._replace(name=f"{title}: {check.name}")


def _verify_statement(digests: HashCache, run: StoredRun) -> Iterator[Check]:
    """Check the manifest of a run: it names the run's content and the hashes of its files."""
    assert run.files is not None
    manifest, problems = run_manifest(run), []
    key = run.run.tags.get(KEY_TAG)
    if key != manifest.content_key:
        problems.append(f"its tag {KEY_TAG} is {key}; the manifest has {manifest.content_key}")
    files = files_by_name(run.files)
    for name, recorded in run_subjects(run).items():
        digest = digests.of(files[name]) if name in files else None
        if digest is None or digest.sha256 != recorded:
            problems.append(f"{name} is not the file that its {MANIFEST} names")
    yield from checks_of("MLflow files", f"{run_title(run)}: files in {MANIFEST}", problems)


def _context(store: ArtifactStore, progress: Progress) -> VerifyContext:
    root, cache = store.root, default_cache()
    lock: Lock = {}
    if (root / "dvc.lock").is_file():
        lock = parse_lock(read_text(root / "dvc.lock"))
    if not (root / "params.yaml").is_file():
        raise DataError("the run has no params.yaml")
    return VerifyContext(
        store, load_config(root / "params.yaml"), read_yaml(root / "params.yaml"), lock, None,
        HashCache(progress), AssetStore(cache, root, progress), cache, root / ".no-cache",
    )  # fmt: skip


def _scope(config: Config, workspace: RunWorkspace) -> list[StageRun]:
    """Return the stage runs whose outputs a run holds."""
    keys: set[tuple[str, str | None]] = {
        (stage, v) for stage in VARIANT_STAGES for v in workspace.variants
    }
    keys.add(("prompts", None))
    if workspace.manifest.kind == "compare":
        keys = {(stage, workspace.family) for stage in COMPARISON_STAGES}
    return [run for run in stage_runs(config) if (run.stage.name, run.key) in keys]


def _verify_scope(
    evidence: VerifyContext, scope: Sequence[StageRun], workspace: RunWorkspace
) -> Iterator[Check]:
    key = workspace.manifest.key
    if not any(run.key == key for run in scope):
        detail = f"the params.yaml in the run has no {key}: no number was computed again"
        yield absent("pipeline", "params.yaml", detail)
        return
    parts = (verify_cards, verify_executions, verify_manifests, verify_rows, verify_numbers)
    for part in (*parts, verify_shown):
        yield from catch_damage("files", part.__name__, part(evidence, scope))
    if workspace.missing:
        detail = "the rows of a variant are missing, so its numbers were not computed again"
        yield absent("comparisons", f"numbers of {key}", detail)


def _verify_gate(evidence: VerifyContext, run: StoredRun) -> Iterator[Check]:
    """Check the decision of a gate on a comparison's page."""
    if not run.run.tags.keys() & GATE_TAGS:
        return
    try:
        yield verify_gate(evidence, run)
    except DAMAGE_ERRORS as error:
        detail = f"its decision cannot be computed again from this run alone: {error}"
        yield absent("MLflow values", f"{run_title(run)}: gate", detail)


def _verify_metrics(run: StoredRun, workspace: RunWorkspace) -> Iterator[Check]:
    """Check the run's metrics and its manifest against its summary."""
    store, family, key = workspace.store, workspace.family, str(workspace.manifest.key)
    summary: VariantSummary | ComparisonSummary
    if workspace.manifest.kind == "posterior":
        summary = store.read_results(VariantSummary, store.posterior_dir(family, key))
        expected = {**rate_metrics(summary.rates), **behaviour_metrics(summary.behaviour)}
    else:
        summary = store.read_results(ComparisonSummary, store.comparison_dir(family))
        expected = pair_metrics(summary.pairs)
    problems = []
    if summary.manifest != workspace.manifest.to_json():
        problems.append("its manifest is not the one in its summary.json")
    present = run.run.metrics
    for name in sorted(expected.keys() & present.keys()):
        if not close(present[name], expected[name]):
            values = f"{present[name]}; the summary in the run gives {expected[name]}"
            problems.append(f"metric {name} is {values}")
    yield from checks_of("MLflow values", "metrics against its summary", problems)
    if missing := sorted(expected.keys() - present.keys()):
        detail = f"it has no {', '.join(missing[:3])}: another version of toxtrail published it"
        yield weak("MLflow values", f"{len(missing)} metrics", detail)


def _verify_lock(evidence: VerifyContext, scope: Sequence[StageRun]) -> Iterator[Check]:
    """Compare the run's files with the dvc.lock in it, by which `dvc pull` finds them."""
    for stage_run in scope:
        entry = evidence.lock.get(stage_run.name)
        for out in entry.outs.values() if entry else ():
            digest = evidence.digests.of(evidence.path(out.path))
            if digest is None:
                continue
            if digest.md5 == out.md5:
                yield from checks_of("dvc.lock", out.path, [])
            else:
                detail = f"the dvc.lock in the run records another file: {out.md5}"
                yield weak("dvc.lock", out.path, detail)
