"""Publishing to an MLflow store that other clones and hosts write to at the same time.

MLflow has neither transactions nor unique keys for runs, so publishers of one content cannot keep
each other from making a run each. They agree afterwards on one that stands:

1. A run is sealed while it is RUNNING, and FINISHED later. In between, its publisher looks for
   other sealed runs of the content. Of two publishers, the one that looks later sees the other's.
2. A publisher gives up its own run if another one is FINISHED, or is sealed and has a lower id. It
   waits while there are sealed ones with a higher id, whose publishers give up or finish.
3. A FINISHED run is never given up.

A publisher that was killed between the two is waited for `SETTLE_SECONDS`; its run is whole.

A sealed run that somebody else made, or that was made earlier, is never deleted: not if it was
changed, and not if it cannot be read. What is deleted is the run that this process gives up, and
what an interrupted publication of this very clone has left.
"""

from __future__ import annotations

import json
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from toxtrail.backends.mlflow.fetch_artifacts import Fetched, fetch
from toxtrail.backends.mlflow.search import search
from toxtrail.backends.mlflow.store import artifact_root, is_local, publisher_id, tracking_uri
from toxtrail.backends.mlflow.store_errors import explained
from toxtrail.backends.mlflow.write_run import (
    KEY_TAG,
    PAYLOAD,
    PAYLOAD_TAG,
    PUBLISHER_TAG,
    SCHEMA_TAG,
    SCHEMA_VERSION,
    SEAL_TAG,
    delete_run,
    finish_run,
    write_run,
)
from toxtrail.backends.protocols import Published, RunContent
from toxtrail.errors import BackendError
from toxtrail.provenance.identity import sha256_file, sha256_text
from toxtrail.regular_files import open_regular, read_text

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Experiment, Run

SETTLE_SECONDS = 60.0
"""For other publishers to finish or give up. Between seal and FINISHED there are two requests."""
POLL_SECONDS = 0.5


class Inspection(NamedTuple):
    """What the files of a sealed run are now."""

    payload: dict[str, str]
    """Artifact path -> sha256, if all are as recorded."""
    changed: str = ""
    """What differs for certain; empty if nothing does."""
    unreadable: str = ""
    """Why the files could not be read; nothing is known of the run then."""


class Publication:
    """One content on its way to one sealed run."""

    def __init__(
        self, client: MlflowClient, root: Path, experiment: Experiment, run: RunContent
    ) -> None:
        """Args:
        root: of the experiment's files; it decides which store this is.
        """
        self._client = client
        self._root = root
        self._experiment = str(experiment.experiment_id)
        self._run = run
        self._seal = sha256_text(run.manifest)
        self._publisher = publisher_id(root)
        self._remarks: list[str] = []
        self._set_aside: set[str] = set()
        """Ids of sealed runs of this content that cannot stand for it."""

    def publish(self) -> Published:
        """The sealed run of this content that stands: found, or made.

        Raises:
            BackendError: a sealed run exists and its files cannot be read; or the store refuses.
        """
        published = self._existing() or self._made()
        self._delete_leftovers(published.run_id)
        return published._replace(remarks=tuple(self._remarks))

    # --- an existing run --------------------------------------------------------------------------

    def _existing(self) -> Published | None:
        unreadable = []
        for run in self._settled():
            inspection = inspect(self._client, self._root, run)
            if inspection.unreadable:
                self._set_aside.add(run.info.run_id)
                unreadable.append(f"the {title(run)}: {inspection.unreadable}")
            elif inspection.changed:
                self._reject(run, inspection.changed)
            else:
                run_id = self._finished(run)
                return Published(run_id, created=False, payload=inspection.payload)
        if unreadable:
            raise BackendError(
                "The MLflow store has a sealed run of this content, and its files cannot be read: "
                f"{'; '.join(unreadable)} Nothing was published, changed or deleted. Run this "
                "again when they can be read. If they are lost, delete the run in the MLflow UI "
                "first."
            )
        return None

    def _settled(self) -> list[Run]:
        """Sealed runs of this content, FINISHED ones first; waits while none is FINISHED and other
        publishers may be about to finish."""
        deadline = time.monotonic() + SETTLE_SECONDS
        while True:
            runs = self._sealed()
            foreign = [run for run in runs if not self._is_own(run)]
            if not foreign or any(map(is_finished, runs)) or time.monotonic() > deadline:
                return sorted(runs, key=lambda run: (not is_finished(run), run.info.run_id))
            time.sleep(POLL_SECONDS)

    def _finished(self, run: Run) -> str:
        """The id of the run that stands, now FINISHED: this one, unless it is an earlier one of
        this clone that was not finished, and another publisher was faster."""
        if is_finished(run):
            return str(run.info.run_id)
        if self._is_own(run):
            return self._settle(run.info.run_id)
        self._try_to("mark it as finished", lambda: finish_run(self._client, run.info.run_id))
        return str(run.info.run_id)

    def _reject(self, run: Run, changed: str) -> None:
        self._set_aside.add(run.info.run_id)
        self._remarks.append(
            f"The {title(run)} is sealed but no longer what was published: {changed}. It was left "
            "as it is, and another one stands for this content. Delete it in the MLflow UI if "
            "nobody needs it."
        )

    # --- a new run --------------------------------------------------------------------------------

    def _made(self) -> Published:
        self._note_other_files()
        run_id, payload = write_run(
            self._client, self._experiment, self._run, self._publisher, self._read_back
        )
        standing = self._settle(run_id)
        return Published(standing, created=standing == run_id, payload=payload)

    def _read_back(self, run_id: str) -> None:
        """BackendError if the store does not give back what was put into it: some proxies answer
        every request with 200 and a login page."""
        if is_local(self._root):
            return
        with tempfile.TemporaryDirectory() as folder:
            fetched = fetch(self._client, run_id, PAYLOAD, Path(folder))
            tags = self._client.get_run(run_id).data.tags
            if fetched.path and _payload(fetched.path, tags.get(PAYLOAD_TAG)):
                return
        reason = fetched.reason or "other bytes came back than were sent."
        raise BackendError(
            f"The artifact store took the files of the run and does not give them back: {reason} "
            "The run was not sealed."
        )

    def _note_other_files(self) -> None:
        for run in self._of_content(f" and tags.`{SCHEMA_TAG}` = '{SCHEMA_VERSION}'"):
            if run.data.tags.get(SEAL_TAG) not in (None, self._seal):
                self._remarks.append(
                    f"The {title(run)} has the same content key and other files: it was made on "
                    "another machine, or with other library versions. Both runs are kept."
                )

    def _settle(self, own: str) -> str:
        """Agree with other publishers; the id of the run that stands.

        Args:
            own: id of a sealed run of this clone that is not FINISHED.
        """
        deadline = time.monotonic() + SETTLE_SECONDS
        while True:
            rivals = [run for run in self._sealed() if run.info.run_id != own]
            stronger = [r for r in rivals if is_finished(r) or r.info.run_id < own]
            if stronger:
                first = min(stronger, key=lambda run: (not is_finished(run), run.info.run_id))
                self._give_up(own)
                return str(next(iter(self._settled()), first).info.run_id)
            if not rivals or time.monotonic() > deadline:
                finish_run(self._client, own)
                return own
            time.sleep(POLL_SECONDS)

    def _give_up(self, own: str) -> None:
        """Delete the run of this process that another one makes superfluous; where this user may
        not delete, take its seal away."""
        from mlflow.exceptions import MlflowException

        try:
            delete_run(self._client, self._experiment, own)
        except MlflowException:
            self._client.delete_tag(own, SEAL_TAG)
            self._client.set_terminated(own, status="KILLED")

    # --- leftovers --------------------------------------------------------------------------------

    def _delete_leftovers(self, standing: str) -> None:
        """What interrupted publications of this clone have left of this content. This process holds
        the clone's lock: none of them is still being written."""
        for run in self._of_content():
            interrupted = SEAL_TAG not in run.data.tags or run.info.status == "RUNNING"
            if run.info.run_id != standing and interrupted and self._is_own(run):
                self._delete(run)

    def _delete(self, run: Run) -> None:
        def delete() -> None:
            delete_run(self._client, self._experiment, run.info.run_id)

        self._try_to(f"delete what an interrupted publication left, the {title(run)}", delete)

    # --- the store --------------------------------------------------------------------------------

    def _of_content(self, more: str = "") -> list[Run]:
        key = self._run.content_key
        return search(self._client, self._experiment, f"tags.`{KEY_TAG}` = '{key}'{more}")

    def _sealed(self) -> list[Run]:
        """Runs sealed with this very manifest; without those that are not as recorded."""
        seal = f" and tags.`{SEAL_TAG}` = '{self._seal}'"
        schema = f" and tags.`{SCHEMA_TAG}` = '{SCHEMA_VERSION}'"
        runs = self._of_content(seal + schema)
        return [run for run in runs if run.info.run_id not in self._set_aside]

    def _is_own(self, run: Run) -> bool:
        """Whether this clone made it. Nobody else writes to its own store while it is locked."""
        own = run.data.tags.get(PUBLISHER_TAG) == self._publisher
        return own or is_local(self._root)

    def _try_to(self, what: str, action: Callable[[], None]) -> None:
        """Something useful that the publication does not depend on: a refusal is a remark."""
        from mlflow.exceptions import MlflowException

        try:
            action()
        except MlflowException as error:
            reason = explained(error, tracking_uri(self._root))
            self._remarks.append(f"The MLflow store did not let toxtrail {what}: {reason}")


def title(run: Run) -> str:
    """Name and id, as a person looks for it."""
    return f"MLflow run {run.info.run_name} ({run.info.run_id[:8]})"


def is_finished(run: Run) -> bool:
    """Whether its publisher has settled that it stands."""
    return bool(run.info.status == "FINISHED")


def inspect(client: MlflowClient, root: Path, run: Run) -> Inspection:
    """Hold every file of a sealed run against what was recorded."""
    with tempfile.TemporaryDirectory() as folder:
        listing = _copy(client, root, run, PAYLOAD, Path(folder))
        if listing.path is None:
            return _without(PAYLOAD, listing)
        payload = _payload(listing.path, run.data.tags.get(PAYLOAD_TAG))
    if payload is None:
        return Inspection({}, changed=f"{PAYLOAD} is not the list that its tag names")
    for name, recorded in payload.items():
        with tempfile.TemporaryDirectory() as folder:
            copy = _copy(client, root, run, name, Path(folder))
            if copy.path is None:
                return _without(name, copy)
            digest = sha256_file(copy.path)
        if digest != recorded:
            detail = f"{name} has the sha256 {digest[:16]}, recorded is {recorded[:16]}"
            return Inspection({}, changed=detail)
    return Inspection(payload)


def _copy(client: MlflowClient, root: Path, run: Run, name: str, folder: Path) -> Fetched:
    """A file of a run; of the experiment's own store the file itself."""
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


def _without(name: str, fetched: Fetched) -> Inspection:
    if fetched.missing:
        return Inspection({}, changed=f"{name} is missing")
    return Inspection({}, unreadable=f"{name}: {fetched.reason}")


def _payload(path: Path, recorded: str | None) -> dict[str, str] | None:
    """Artifact path -> sha256; None if it is not the list that was recorded."""
    try:
        payload = json.loads(read_text(path))
    except ValueError:
        return None
    if not isinstance(payload, dict):
        return None
    return payload if sha256_text(json.dumps(payload, sort_keys=True)) == recorded else None
