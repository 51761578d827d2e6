"""Publish to an MLflow store to which other clones and hosts write at the same time.

MLflow has neither transactions nor unique keys for runs, so several publishers of one content may
each create a run. They agree afterwards on one of them:

1. A run is sealed while it is RUNNING, and FINISHED later. In between, its publisher searches for
   other sealed runs of the content. Of two publishers, the later one sees the other's run.
2. A publisher discards its own run if another one is FINISHED, or is sealed and has a lower id. It
   waits while there are sealed ones with a higher id, whose publishers discard or finish them.
3. A FINISHED run is never discarded.

Publishers wait `SETTLE_SECONDS` for one that was killed between the two. Its run is complete, so
one of those that wait finishes it.

A sealed run of another publisher, or an earlier one, is never deleted: neither if it was changed,
nor if it cannot be read. Only the run that this process discards, and those that an interrupted
publication of the same clone left, are deleted.
"""

from __future__ import annotations

import json
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from toxtrail.backends.mlflow.fetch_artifacts import Fetched, fetch
from toxtrail.backends.mlflow.find_run import project_filter
from toxtrail.backends.mlflow.search import search
from toxtrail.backends.mlflow.store import artifact_root, is_local, publisher_id, tracking_uri
from toxtrail.backends.mlflow.store_errors import explain_error
from toxtrail.backends.mlflow.write_run import (
    PAYLOAD,
    SCHEMA_VERSION,
    delete_run,
    finish_run,
    write_run,
)
from toxtrail.backends.protocols import PublishedRun, RunContent
from toxtrail.errors import BackendError
from toxtrail.provenance.identity import sha256_file, sha256_text
from toxtrail.records.run_tags import (
    KEY_TAG,
    PAYLOAD_TAG,
    PROJECT_TAG,
    PUBLISHER_TAG,
    SCHEMA_TAG,
    SEAL_TAG,
)
from toxtrail.regular_files import open_regular, read_text

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Experiment, Run

SETTLE_SECONDS = 60.0
"""Time for other publishers to finish or discard. There are two requests from seal to FINISHED."""
POLL_SECONDS = 0.5


class Inspection(NamedTuple):
    """The current state of a sealed run's files."""

    payload: dict[str, str]
    """Artifact path -> sha256, if all match the record."""
    changed: str = ""
    """A confirmed difference; empty if there is none."""
    unreadable: str = ""
    """Why the files could not be read; the state is unknown then."""


class Publication:
    """The publication of one content as one sealed run."""

    def __init__(
        self, client: MlflowClient, root: Path, experiment: Experiment, run: RunContent
    ) -> None:
        """Args:
        root: of the experiment; it determines the store.
        """
        self._client = client
        self._root = root
        self._experiment = str(experiment.experiment_id)
        self._run = run
        self._seal = sha256_text(run.manifest)
        self._publisher = publisher_id(root)
        self._remarks: list[str] = []
        self._unusable: set[str] = set()
        """Ids of sealed runs of this content that cannot be used."""

    def publish(self) -> PublishedRun:
        """Find or create the sealed run of this content.

        Raises:
            BackendError: a sealed run exists and its files cannot be read; or the store refuses.
        """
        published = self._find_existing() or self._create()
        self._delete_leftovers(published.run_id)
        return published._replace(remarks=tuple(self._remarks))

    # --- an existing run --------------------------------------------------------------------------

    def _find_existing(self) -> PublishedRun | None:
        unreadable = []
        for run in self._settled_runs():
            inspection = inspect(self._client, self._root, run)
            if inspection.unreadable:
                self._unusable.add(run.info.run_id)
                unreadable.append(f"the {title(run)}: {inspection.unreadable}")
            elif inspection.changed:
                self._reject(run, inspection.changed)
            else:
                run_id = self._finish(run)
                return PublishedRun(run_id, created=False, payload=inspection.payload)
        if unreadable:
            raise BackendError(
                "The MLflow store has a sealed run of this content whose files cannot be read: "
                f"{'; '.join(unreadable)} Nothing was published, changed or deleted. Run this "
                "again when they can be read. If they are lost, delete the run in the MLflow UI "
                "first."
            )
        return None

    def _settled_runs(self) -> list[Run]:
        """List sealed runs of this content, FINISHED ones first; wait while none is FINISHED and
        other publishers may be about to finish."""
        deadline = time.monotonic() + SETTLE_SECONDS
        while True:
            runs = self._sealed_runs()
            foreign = [run for run in runs if not self._is_own(run)]
            if not foreign or any(map(is_finished, runs)) or time.monotonic() > deadline:
                return sorted(runs, key=lambda run: (not is_finished(run), run.info.run_id))
            time.sleep(POLL_SECONDS)

    def _finish(self, run: Run) -> str:
        """Finish a run and return the id of the chosen one: this run, unless it is an earlier,
        unfinished one of this clone, and another publisher was faster."""
        if is_finished(run):
            return str(run.info.run_id)
        if self._is_own(run):
            return self._settle(run.info.run_id)
        self._try_to("mark it as finished", lambda: finish_run(self._client, run.info.run_id))
        return str(run.info.run_id)

    def _reject(self, run: Run, changed: str) -> None:
        self._unusable.add(run.info.run_id)
        self._remarks.append(
            f"The {title(run)} is sealed, but was changed after publication: {changed}. It was "
            "left unchanged, and another run is used for this content. Delete it in the MLflow UI "
            "if it is not needed."
        )

    # --- a new run --------------------------------------------------------------------------------

    def _create(self) -> PublishedRun:
        self._note_other_files()
        run_id, payload = write_run(
            self._client, self._experiment, self._run, self._publisher, self._read_back
        )
        standing = self._settle(run_id)
        return PublishedRun(standing, created=standing == run_id, payload=payload)

    def _read_back(self, run_id: str) -> None:
        """Raise BackendError if the store does not have what was written: some proxies answer
        requests with status 200 and a login page, all of them or some."""
        if is_local(self._root):
            return
        with tempfile.TemporaryDirectory() as folder:
            fetched = fetch(self._client, run_id, PAYLOAD, Path(folder))
            tags = self._client.get_run(run_id).data.tags
            payload = fetched.path and _payload(fetched.path, tags.get(PAYLOAD_TAG))
        if payload:
            lost = sorted(payload.keys() - _stored_files(self._client, run_id))
            if not lost:
                return
            reason = f"it does not list {', '.join(lost)}."
        elif fetched.missing:
            reason = f"it does not list {PAYLOAD}."
        else:
            reason = fetched.reason or "it returned other bytes than were written."
        raise BackendError(
            f"The artifact store accepted the files of the run but does not return them: {reason} "
            "A proxy in front of it may answer uploads with a login page. The run was not sealed."
        )

    def _note_other_files(self) -> None:
        for run in self._runs_of_content(f" and tags.`{SCHEMA_TAG}` = '{SCHEMA_VERSION}'"):
            if run.data.tags.get(SEAL_TAG) not in (None, self._seal):
                self._remarks.append(
                    f"The {title(run)} has the same content key but other files: it was created on "
                    "another machine, or with other library versions. Both runs are kept."
                )

    def _settle(self, own_id: str) -> str:
        """Agree with other publishers, and return the id of the chosen run.

        Args:
            own_id: id of a sealed run of this clone that is not FINISHED.
        """
        deadline = time.monotonic() + SETTLE_SECONDS
        while True:
            rivals = [run for run in self._sealed_runs() if run.info.run_id != own_id]
            stronger = [r for r in rivals if is_finished(r) or r.info.run_id < own_id]
            if stronger:
                self._discard(own_id)
                return self._chosen_by_others()
            if not rivals or time.monotonic() > deadline:
                finish_run(self._client, own_id)
                return own_id
            time.sleep(POLL_SECONDS)

    def _chosen_by_others(self) -> str:
        """Wait for the run in favour of which this one was discarded; finish it if its publisher
        does not.

        Raises:
            BackendError: it was deleted in the meantime.
        """
        chosen = next(iter(self._settled_runs()), None)
        if chosen is None:
            raise BackendError(
                "Another publisher's run of this content was deleted while this one was being "
                "discarded in favour of it. Run this again."
            )
        return self._finish(chosen)

    def _discard(self, own_id: str) -> None:
        """Delete this process's redundant run; if this user may not delete it, remove its seal."""
        from mlflow.exceptions import MlflowException

        try:
            delete_run(self._client, self._experiment, own_id)
        except MlflowException:
            if self._client.get_run(own_id).info.lifecycle_stage == "deleted":
                return  # the response was lost, and the request repeated
            self._client.delete_tag(own_id, SEAL_TAG)
            self._client.set_terminated(own_id, status="KILLED")

    # --- leftovers --------------------------------------------------------------------------------

    def _delete_leftovers(self, standing: str) -> None:
        """Delete what interrupted publications of this clone left of this content. This process
        holds the clone's lock, so none of them is still being written."""
        for run in self._runs_of_content():
            interrupted = SEAL_TAG not in run.data.tags or run.info.status == "RUNNING"
            if run.info.run_id != standing and interrupted and self._is_own(run):
                self._delete(run)

    def _delete(self, run: Run) -> None:
        def delete() -> None:
            delete_run(self._client, self._experiment, run.info.run_id)

        self._try_to(f"delete the {title(run)}, left by an interrupted publication", delete)

    # --- the store --------------------------------------------------------------------------------

    def _runs_of_content(self, more: str = "") -> list[Run]:
        """List the project's runs of this content: another project has its own."""
        key, project = self._run.content_key, project_filter(self._run.tags[PROJECT_TAG])
        return search(
            self._client, self._experiment, f"{project} and tags.`{KEY_TAG}` = '{key}'{more}"
        )

    def _sealed_runs(self) -> list[Run]:
        """List runs sealed with this manifest, without those that were changed."""
        seal = f" and tags.`{SEAL_TAG}` = '{self._seal}'"
        schema = f" and tags.`{SCHEMA_TAG}` = '{SCHEMA_VERSION}'"
        runs = self._runs_of_content(seal + schema)
        return [run for run in runs if run.info.run_id not in self._unusable]

    def _is_own(self, run: Run) -> bool:
        """Return whether this clone created it; only this clone writes to its local store."""
        is_this_clone = run.data.tags.get(PUBLISHER_TAG) == self._publisher
        return is_this_clone or is_local(self._root)

    def _try_to(self, what: str, action: Callable[[], None]) -> None:
        """Do something optional for the publication; record a refusal as a remark."""
        from mlflow.exceptions import MlflowException

        try:
            action()
        except MlflowException as error:
            reason = explain_error(error, tracking_uri(self._root))
            self._remarks.append(f"The MLflow store did not let toxtrail {what}: {reason}")


def title(run: Run) -> str:
    """Format name and id of a run for messages."""
    return f"MLflow run {run.info.run_name} ({run.info.run_id[:8]})"


def is_finished(run: Run) -> bool:
    """Return whether its publisher has finished it."""
    return bool(run.info.status == "FINISHED")


def inspect(client: MlflowClient, root: Path, run: Run) -> Inspection:
    """Compare every file of a sealed run with the record."""
    with tempfile.TemporaryDirectory() as folder:
        listing = _copy(client, root, run, PAYLOAD, Path(folder))
        if listing.path is None:
            return _missing_file(PAYLOAD, listing)
        payload = _payload(listing.path, run.data.tags.get(PAYLOAD_TAG))
    if payload is None:
        return Inspection({}, changed=f"{PAYLOAD} is not the list that its tag names")
    for name, recorded in payload.items():
        with tempfile.TemporaryDirectory() as folder:
            copy = _copy(client, root, run, name, Path(folder))
            if copy.path is None:
                return _missing_file(name, copy)
            digest = sha256_file(copy.path)
        if digest != recorded:
            detail = f"{name} has the sha256 {digest[:16]}, recorded is {recorded[:16]}"
            return Inspection({}, changed=detail)
    return Inspection(payload)


def _copy(client: MlflowClient, root: Path, run: Run, name: str, folder: Path) -> Fetched:
    """Fetch a file of a run; from the local store, return the file itself."""
    if not is_local(root):
        return fetch(client, run.info.run_id, name, folder)
    path = artifact_root(root) / run.info.run_id / "artifacts" / name
    try:
        with open_regular(path):
            return Fetched(path, missing=False, reason="")
    except (FileNotFoundError, IsADirectoryError, NotADirectoryError):
        return Fetched(None, missing=True, reason="")
    except OSError as error:
        return Fetched(None, missing=False, reason=f"{path}: {error.strerror}.")


def _missing_file(name: str, fetched: Fetched) -> Inspection:
    if fetched.missing:
        return Inspection({}, changed=f"{name} is missing")
    return Inspection({}, unreadable=f"{name}: {fetched.reason}")


def _stored_files(client: MlflowClient, run_id: str, folder: str | None = None) -> set[str]:
    """List the paths of a run's files."""
    entries = client.list_artifacts(run_id, folder)
    inner = (_stored_files(client, run_id, entry.path) for entry in entries if entry.is_dir)
    return {entry.path for entry in entries if not entry.is_dir}.union(*inner)


def _payload(path: Path, recorded: str | None) -> dict[str, str] | None:
    """Read artifact path -> sha256; None if it is not the recorded list."""
    try:
        payload = json.loads(read_text(path))
    except ValueError:
        return None
    if not isinstance(payload, dict):
        return None
    return payload if sha256_text(json.dumps(payload, sort_keys=True)) == recorded else None
