"""MLflow compared with the repository, and each run with its own record.

MLflow lets anybody change a tag, a metric or a file of a finished run without a trace, and a run
with status FINISHED may be incomplete. MLflow's own statements are therefore not relied on.
"""

from __future__ import annotations

import json
import math
from collections.abc import Container, Generator, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from toxtrail.auditing.verify.context import (
    DAMAGE_ERRORS,
    Check,
    Problem,
    Unread,
    VerifyContext,
    absent,
    broken,
    checks_of,
    compare_files,
    failed,
    ok,
    problem,
    runs_of_stage,
    unread,
    unread_only,
    weak,
)
from toxtrail.auditing.verify.hash_cache import HashCache
from toxtrail.auditing.verify.sealed_run import changes, close, is_extended_note
from toxtrail.backends.mlflow.read_store import StoredModel, StoredRun, StoreView, read_store
from toxtrail.backends.mlflow.store import (
    DamagedStoreError,
    UnreachableStoreError,
    is_local,
    local_store,
)
from toxtrail.backends.mlflow.write_run import MLMODEL, PAYLOAD, RECORD, SCHEMA_VERSION
from toxtrail.backends.protocols import RunContent, TrackingFacts
from toxtrail.errors import BackendError, why_unread
from toxtrail.pipeline import StageRun
from toxtrail.provenance.identity import sha256_text
from toxtrail.records.run_tags import (
    COMPARISON_TAG,
    KEY_TAG,
    PAYLOAD_TAG,
    SCHEMA_TAG,
    SEAL_TAG,
    VERDICT_TAG,
    VERDICT_TAGS,
)
from toxtrail.regular_files import files_by_name, read_text, status
from toxtrail.reporting.mlflow_run import COST, build_receipt
from toxtrail.stages.track import variant_content
from toxtrail.stages.track_comparison import comparison_content
from toxtrail.storage.artifacts import pretty_json, read_json

NO_FACTS = TrackingFacts({}, {})
SHOWN_NAMES = 3
"""Maximum number of metrics named in a message."""
LONGEST_UPLOAD = 24 * 3600 * 1000
"""Maximum milliseconds between a run's record and its end, in which its files are stored."""


def open_store_checked(
    evidence: VerifyContext, project: str | None
) -> tuple[StoreView | None, list[Check]]:
    """Return the store, and the checks of the store itself.

    Args:
        project: whose runs are read; None for all.
    """
    name = "the store"
    try:
        view = read_store(evidence.root, evidence.config.tracking.experiment, project)
    except UnreachableStoreError as error:
        return None, [absent("MLflow runs", name, str(error))]
    except DamagedStoreError as error:
        detail = f"it is damaged, so no run was verified. {error}"
        return None, [broken("MLflow runs", name, detail)]
    except (BackendError, OSError, MemoryError) as error:
        return None, [unread("MLflow runs", name, str(why_unread(error) or error))]
    if view is None:
        return None, [_no_view(evidence)]
    if view.moved_from is None:
        return view, [ok("MLflow runs", name)]
    detail = (
        f"it was created in {view.moved_from}, so the MLflow UI shows no files here; they were "
        "read from mlruns/artifacts. `rm -rf mlruns && dvc repro` rebuilds it."
    )
    return view, [weak("MLflow runs", name, detail)]


def _no_view(evidence: VerifyContext) -> Check:
    """Return the check for a missing store, an emptied one, or one without the experiment."""
    root, name = evidence.root, "the store"
    experiment = evidence.config.tracking.experiment
    if not is_local(root):
        return absent(
            "MLflow runs", name, f'the server has no experiment "{experiment}": no run is tracked'
        )
    path = local_store(root)
    tracked = any((root / "mlruns" / "receipts").rglob("*.json"))
    if path.is_file() and tracked:
        what = f'has no experiment "{experiment}"' if path.stat().st_size else "is an empty file"
        detail = (
            f"mlruns/mlflow.db {what}, though receipts say that runs were tracked: it was renamed, "
            "moved or emptied. `rm -rf mlruns && dvc repro` rebuilds it."
        )
        return broken("MLflow runs", name, detail)
    detail = "there is no MLflow store here. `dvc repro` rebuilds it from the DVC outputs."
    return absent("MLflow runs", name, detail)


def verify_tracking(
    evidence: VerifyContext, scope: Sequence[StageRun], view: StoreView | None
) -> Iterator[Check]:
    """Check that each receipt belongs to the present files and has exactly one complete run."""
    for instance in runs_of_stage(scope, "track", "track-comparison"):
        name = instance.writes[0]
        try:
            content = expected_run_content(evidence, instance)
        except DAMAGE_ERRORS as error:
            yield from unread_only("receipts", name, error) or [
                absent("receipts", name, f"its expected content is unknown: {error}")
            ]
            continue
        receipt = yield from _receipt(evidence, name, content)
        if view is not None:
            yield from _verify_run_of(content, view, receipt)


def _receipt(
    evidence: VerifyContext, name: str, content: RunContent
) -> Generator[Check, None, bool]:
    """Return whether there is a receipt of the present files, correct or not."""
    path = evidence.path(name)
    try:
        if status(path) is None:
            yield absent("receipts", name, "no receipt: the result was not tracked here")
            return False
        receipt = read_json(path)
        problems = list(_other_receipt(receipt, content))
        if read_text(path) != pretty_json(receipt):
            problems.append("its JSON is not formatted as by toxtrail: it was edited by hand")
    except DAMAGE_ERRORS as error:
        yield failed("receipts", f"{name} (content)", error, "it cannot be read")
        return True
    digest = evidence.digests.of(path) if problems else None
    if digest and evidence.older(name, digest.md5):  # verify_outputs reports it
        return False
    yield from checks_of("receipts", f"{name} (content)", problems)
    return True


def expected_run_content(evidence: VerifyContext, instance: StageRun) -> RunContent:
    """Return the expected content of a run, computed from the files of the repository."""
    key = instance.key or ""
    if instance.stage.name == "track":
        return variant_content(evidence.store, key, evidence.config.variants[key], NO_FACTS)
    return comparison_content(evidence.store, key, NO_FACTS)


def verify_verdicts(
    evidence: VerifyContext, scope: Sequence[StageRun], view: StoreView | None
) -> Iterator[Check]:
    """Check that the verdict tag of a variant's run equals the verdict in the comparison's
    files."""
    variants = [stored.key or "" for stored in runs_of_stage(scope, "track")]
    live = [stored for stored in view.runs if not stored.deleted] if view else []
    content_keys = {stored.run.tags.get(KEY_TAG) for stored in live}
    for family in sorted({evidence.config.variants[v].family for v in variants}):
        try:
            notes = comparison_content(evidence.store, family, NO_FACTS).notes
        except DAMAGE_ERRORS as error:  # problems of its files are reported there
            yield from unread_only("MLflow values", f"verdicts of {family}", error)
            continue
        for stored in live:
            expected = notes.get(stored.run.tags.get(KEY_TAG, ""))
            if expected and stored.run.name in variants:
                yield from verify_verdict(stored, expected, content_keys)


def verify_verdict(
    stored: StoredRun, expected: Mapping[str, str], content_keys: Container[str | None]
) -> Iterator[Check]:
    """Check one verdict; a run that was created again after the comparison has none yet, which is
    valid."""
    name, tags = f"{run_title(stored)}: verdict", {t: stored.run.tags.get(t) for t in VERDICT_TAGS}
    if set(tags.values()) == {None}:
        return
    comparison = tags[COMPARISON_TAG]
    if comparison not in content_keys:
        detail = f"tag {COMPARISON_TAG} names no comparison in MLflow: {comparison}"
        yield broken("MLflow values", name, detail)
        return
    if comparison != expected[COMPARISON_TAG]:
        detail = f"tag {VERDICT_TAG} is of another comparison than the present one: {comparison}"
        yield weak("MLflow values", name, detail)
        return
    of_models = [{t: m.tags.get(t, tags[t]) for t in VERDICT_TAGS} for m in stored.models]
    problems = [
        f"tag {tag} is {values[tag]!r}, the files have {expected.get(tag)!r}"
        for values in [tags, *of_models]
        for tag in sorted(VERDICT_TAGS)
        if values[tag] != expected.get(tag)
    ]
    yield from checks_of("MLflow values", name, problems)


def verify_runs(evidence: VerifyContext, runs: Sequence[StoredRun]) -> Iterator[Check]:
    """Check that each run has the files and shows the values that it was sealed with."""
    for stored in runs:
        if not stored.deleted:
            yield from verify_run(evidence.digests, stored)


def verify_run(digests: HashCache, stored: StoredRun) -> Iterator[Check]:
    """Check one run against its own manifest, payload list and record."""
    name = run_title(stored)
    tags = stored.run.tags
    state = stored.run.status
    if SEAL_TAG not in tags and state != "FINISHED":
        detail = f"it is unfinished (state {state}): being published, or its publisher was stopped"
        yield weak("MLflow runs", name, f"{detail}. It represents no result.")
        return
    if SEAL_TAG not in tags or state not in ("FINISHED", "RUNNING"):
        detail = f"it is not sealed (state {state}): `toxtrail run` publishes another one"
        yield broken("MLflow runs", name, detail)
        return
    if tags.get(SCHEMA_TAG) != SCHEMA_VERSION:
        detail = f"schema {tags.get(SCHEMA_TAG)}; this version reads {SCHEMA_VERSION}"
        yield absent("MLflow runs", name, detail)
        return
    if stored.files is None and stored.unread:
        yield unread("MLflow files", name, stored.unread)
        return
    if stored.files is None:
        detail = "its files are gone. `rm -rf mlruns && dvc repro` rebuilds them."
        yield broken("MLflow files", name, detail)
        return
    yield from checks_of("MLflow runs", name, [stored.misplaced] if stored.misplaced else [])
    yield from _verify_files(digests, stored, stored.files)
    yield from _verify_values(digests, stored, stored.files)


def run_title(stored: StoredRun) -> str:
    """Return name and id of a run."""
    return f"run {stored.run.name} ({stored.run.run_id[:8]})"


def _other_receipt(receipt: Mapping[str, Any], content: RunContent) -> Iterator[str]:
    for field, expected in build_receipt(content).items():
        if receipt.get(field) != expected:
            yield f"{field} is {receipt.get(field)}; the files of the repo give {expected}"


def _verify_run_of(content: RunContent, view: StoreView, receipt: bool) -> Iterator[Check]:
    """Check that there is exactly one live run with the values of the files; without a receipt,
    none."""
    same = [stored for stored in view.runs if stored.run.tags.get(KEY_TAG) == content.content_key]
    live, name = _current_runs(same, content), f"run of {content.name}"
    if not live and not receipt:
        return
    if not live and any(stored.deleted for stored in same):
        deleted_title = run_title(next(stored for stored in same if stored.deleted))
        detail = (
            f"{deleted_title} was deleted. Restore it in the MLflow UI, or publish it with "
            "`toxtrail run`"
        )
        yield broken("MLflow runs", name, detail)
    elif not live:
        detail = (
            f"no run has the content key {content.content_key[:12]}: `toxtrail run` publishes it"
        )
        yield broken("MLflow runs", name, detail)
    elif len(live) > 1:
        ids = ", ".join(stored.run.run_id[:8] for stored in live)
        detail = (
            f"{len(live)} runs have one content key: {ids}. Delete all but one in the MLflow UI"
        )
        yield broken("MLflow runs", name, detail)
    else:
        yield ok("MLflow runs", name)
    for stored in live:
        if stored.run.tags.get(SEAL_TAG) != sha256_text(content.manifest):
            yield broken(
                "MLflow runs", run_title(stored), "its seal is not that of the repo's files"
            )
        yield from checks_of(
            "MLflow values", f"{run_title(stored)} against the repo", list(_unlike(stored, content))
        )


def _current_runs(runs: Sequence[StoredRun], content: RunContent) -> list[StoredRun]:
    """Return the runs of a content key that represent the files here: sealed ones of this
    version; if one has this seal, no other machine's; if one is FINISHED, none whose publisher was
    stopped."""
    live = [stored for stored in runs if not stored.deleted and SEAL_TAG in stored.run.tags]
    current = [
        stored for stored in live if stored.run.tags.get(SCHEMA_TAG) == SCHEMA_VERSION
    ] or live
    seal = sha256_text(content.manifest)
    same = [stored for stored in current if stored.run.tags[SEAL_TAG] == seal] or current
    return [stored for stored in same if stored.run.status == "FINISHED"] or same


def _unlike(stored: StoredRun, content: RunContent) -> Iterator[str]:
    """Return the differences between a run and the repository's files; costs are not compared."""
    params = {name: str(value) for name, value in content.params.items() if len(str(value)) < 6000}
    for name, expected in params.items():
        if stored.run.params.get(name) != expected:
            yield f"param {name} is {stored.run.params.get(name)}, the files have {expected}"
    for name, value in content.metrics.items():
        if name.startswith(COST) or not math.isfinite(value):
            continue
        if not close(stored.run.metrics.get(name), value):
            yield f"metric {name} is {stored.run.metrics.get(name)}, the files have {value}"
    for name, text in content.tags.items():
        if stored.run.tags.get(name) != text:
            yield f"tag {name} is {stored.run.tags.get(name)!r}, the files have {text!r}"
    yield from _unlike_hashes(stored, content)


def _unlike_hashes(stored: StoredRun, content: RunContent) -> Iterator[str]:
    record = _read_json(stored.files / RECORD) if stored.files else None
    if not isinstance(record, dict):  # reported by verify_run
        return
    recorded = record.get("hashes", {})
    for name, digest in content.hashes.items():
        if recorded.get(name) != digest:
            yield f"{name} in {RECORD} is {recorded.get(name)}, the files have {digest}"


def _verify_files(digests: HashCache, stored: StoredRun, folder: Path) -> Iterator[Check]:
    name = run_title(stored)
    payload = _read_json(folder / PAYLOAD)
    if not isinstance(payload, dict):
        yield from checks_of("MLflow files", f"{name}: {PAYLOAD}", [payload])
        return
    if stored.run.tags.get(PAYLOAD_TAG) != sha256_text(json.dumps(payload, sort_keys=True)):
        detail = f"it is not the list in the tag {PAYLOAD_TAG}: one of the two was edited"
        yield broken("MLflow files", f"{name}: {PAYLOAD}", detail)
    present = files_by_name(folder)
    present.pop(PAYLOAD, None)
    for path, problems in compare_files(digests, present, payload, PAYLOAD):
        yield from checks_of("MLflow files", f"{name}: {path}", problems)
    manifest = digests.of(folder / "manifest.json")
    if manifest and manifest.sha256 != stored.run.tags[SEAL_TAG]:
        detail = f"the seal names another manifest.json: {stored.run.tags[SEAL_TAG]}"
        yield broken("MLflow runs", name, detail)


def _verify_values(digests: HashCache, stored: StoredRun, folder: Path) -> Iterator[Check]:
    record = _read_json(folder / RECORD)
    if not isinstance(record, dict):
        yield from checks_of("MLflow values", f"{run_title(stored)}: {RECORD}", [record])
        return
    problems = [
        *changes(stored.run, record),
        *_changed_inputs(stored, record),
        *(_changed_history(stored, record) if stored.history is not None else ()),
        *_changed_times(stored, record),
        *_changed_model(digests, stored, record),
    ]
    yield from checks_of("MLflow values", f"{run_title(stored)} against its record", problems)
    if stored.history is None:
        detail = "the store does not give the histories of its metrics: charts are not verified"
        yield weak("MLflow values", f"{run_title(stored)}: histories", detail)
    if any(model.files is None for model in stored.models):
        detail = "the store does not give its files: they are not verified"
        yield weak("MLflow files", f"{run_title(stored)}: logged model", detail)


def _changed_inputs(stored: StoredRun, record: Mapping[str, Any]) -> Iterator[str]:
    if [list(run_input) for run_input in stored.inputs] != record["inputs"]:
        yield f"its data sets were changed from {record['inputs']} to {list(stored.inputs)}"


def _changed_history(stored: StoredRun, record: Mapping[str, Any]) -> Iterator[str]:
    """Return changes in the logged values and their times."""
    expected = {name: [[0, value]] for name, value in record["metrics"].items()} | record["curves"]
    history, logged = stored.history or {}, record.get("times", {}).get("logged")
    for name in sorted(history.keys() | expected.keys()):
        was, now = sorted(expected.get(name, [])), sorted(history.get(name, []))
        if not (len(was) == len(now) and all(map(_same_point, was, now))):
            yield f"the history of metric {name} was changed"
    points = [(name, point) for name, metric_points in history.items() for point in metric_points]
    odd = sorted({name for name, point in points if logged not in (None, point.timestamp)})
    if odd:
        yield f"the time of {len(odd)} metrics was changed: {', '.join(odd[:SHOWN_NAMES])}"


def _changed_times(stored: StoredRun, record: Mapping[str, Any]) -> Iterator[str]:
    (start, end), times = stored.times, record.get("times")
    if times is None:
        return
    if start != times["start"]:
        yield f"the time of its start was changed from {times['start']} to {start}"
    if end is None or not 0 <= end - times["logged"] <= LONGEST_UPLOAD:
        yield f"the time of its end was changed to {end}; it was logged at {times['logged']}"


def _changed_model(
    digests: HashCache, stored: StoredRun, record: Mapping[str, Any]
) -> Iterator[str]:
    """Return changes in the logged model of a variant."""
    recorded = record.get("model")
    if len(stored.models) != (recorded is not None):
        yield f"it has {len(stored.models)} logged models, not {int(recorded is not None)}"
        return
    if recorded is None:
        return
    (model,) = stored.models
    for what, was, now in (
        ("tag", recorded["tags"], model.tags),
        ("param", recorded["params"], model.params),
    ):
        names = {n for n in now if what == "param" or n.startswith("sha256.")}
        for name in sorted(was.keys() | names):
            if now.get(name) == was.get(name):
                continue
            if not is_extended_note(name, was.get(name, ""), now.get(name)):
                yield f"{what} {name} of its logged model is {now.get(name)}, not {was.get(name)}"
    if model.name != recorded["name"]:
        yield f'its logged model was renamed from "{recorded["name"]}" to "{model.name}"'
    yield from _changed_model_metrics(stored.run.run_id, model, record)
    yield from _changed_model_files(digests, model, recorded)


def _changed_model_metrics(
    run_id: str, model: StoredModel, record: Mapping[str, Any]
) -> Iterator[str]:
    own = {name: value for name, value, source in model.metrics if source == run_id}
    names = record["model"]["metrics"]
    expected = {name: record["metrics"][name] for name in names if name in record["metrics"]}
    for name in sorted(own.keys() | expected.keys()):
        if not close(own.get(name), expected.get(name)):
            values = f"{own.get(name)}, not {expected.get(name)}"
            yield f"metric {name} of its logged model is {values}"


def verify_model_metrics(
    selected: Sequence[StoredRun], runs: Sequence[StoredRun]
) -> Iterator[Check]:
    """Check that a metric that one run logged on another run's model has the run's value. Those of
    a model's own run are checked with that run.

    Args:
        selected: runs whose models are checked.
        runs: all runs of the store.
    """
    metrics = {stored.run.run_id: stored.run.metrics for stored in runs if not stored.deleted}
    for stored in selected:
        problems = [
            f"metric {name} of its logged model is {value}, the run has {metrics[run_id].get(name)}"
            for model in stored.models
            for name, value, run_id in model.metrics
            if run_id in metrics and run_id != stored.run.run_id
            if not close(value, metrics[run_id].get(name))
        ]
        if problems and not stored.deleted:
            name = f"{run_title(stored)}: differences of its logged model"
            yield from checks_of("MLflow values", name, problems)


def _changed_model_files(
    digests: HashCache, model: StoredModel, record: Mapping[str, Any]
) -> Iterator[str]:
    """Return changes in the files of a logged model, which has exactly one."""
    if model.files is None:
        return
    path = model.files.get(MLMODEL)
    digest = digests.of(path) if path else None
    if digest is None or digest.sha256 != record["mlmodel_sha256"]:
        yield f"the file {MLMODEL} of its logged model (mlruns/artifacts/models) was changed"
    for name in sorted(model.files.keys() - {MLMODEL}):
        yield f"the file {name} was added to its logged model"


def _read_json(path: Path) -> dict[str, Any] | Problem:
    """Return the content of a JSON file, or why it cannot be read."""
    wrong = "it is missing or no JSON"
    try:
        value = json.loads(read_text(path))
    except DAMAGE_ERRORS as error:
        json_problem = problem(error, wrong)
        return json_problem if isinstance(json_problem, Unread) else wrong
    return value if isinstance(value, dict) else wrong


def _same_point(left: Sequence[float], right: Sequence[float]) -> bool:
    return left[0] == right[0] and close(left[1], right[1])
