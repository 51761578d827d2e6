"""Read the files of MLflow runs; all reads of artifacts go through this module.

A store may lose a file, refuse to return it, or return other content, and only a refusal is a
reason to try again. So a fetch has three outcomes, and a number is read from a file only after its
hash was found in the run's list. The list (payload.json) is compared with a tag of the run, and
the manifest, which names the result's files, with the seal.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from toxtrail.backends.mlflow.store import artifact_root, is_local, readonly_client, scratch_folder
from toxtrail.backends.mlflow.store_errors import explain_error
from toxtrail.backends.mlflow.write_run import PAYLOAD, RECORD
from toxtrail.errors import DataError, UnreadableError, why_unread
from toxtrail.provenance.identity import sha256_file, sha256_text
from toxtrail.records.run_tags import PAYLOAD_TAG, SEAL_TAG
from toxtrail.regular_files import open_regular, read_text

if TYPE_CHECKING:
    from mlflow import MlflowClient

MANIFEST = "manifest.json"
PAGE = re.compile(rb"\s*(?:<!doctype html|<html)", re.IGNORECASE)
"""Start of a login page that a proxy returns instead of a file."""


class Fetched(NamedTuple):
    """The outcome of fetching a file or a folder of a run."""

    path: Path | None
    """The local copy; None if there is none."""
    missing: bool
    """Whether the store was read and has no such file. If there is no path and this is false, the
    store could not be read: nothing is known of the file."""
    reason: str
    """Why there is no copy."""


def fetch(
    client: MlflowClient, run_id: str, name: str, folder: Path, artifact_uri: str = ""
) -> Fetched:
    """Copy a file of a run into a folder, under the same path; for the name "" all of its files.

    Args:
        artifact_uri: of the run, if known; else it is read from the store.

    Files are fetched by artifact URI: given a run id, MLflow also searches the artifacts of its
    logged models, and hides why it failed. Cloud clients raise their own exception classes, which
    may not be installed here: so any exception means that the store cannot be read, unless the
    store lists other files and not this one.
    """
    from mlflow.artifacts import download_artifacts

    target = folder / Path(name).parent
    try:
        target.mkdir(parents=True, exist_ok=True)
        root = artifact_uri or client.get_run(run_id).info.artifact_uri
        uri = f"{root}/{name}".rstrip("/")
        local = download_artifacts(
            artifact_uri=uri, dst_path=str(target), tracking_uri=client.tracking_uri
        )
    except Exception as error:  # noqa: BLE001
        if _is_absent(client, run_id, name):
            return Fetched(None, missing=True, reason="the store does not have it")
        return Fetched(None, missing=False, reason=explain_error(error, client.tracking_uri))
    path = Path(local)
    if name and not path.is_file():
        return Fetched(None, missing=True, reason="the store has a folder of this name")
    if name and _is_login_page(path):
        reason = "The server answers with an HTML page instead of the file: a login page."
        return Fetched(None, missing=False, reason=reason)
    return Fetched(path, missing=False, reason="")


def fetch_folder(client: MlflowClient, uri: str, folder: Path) -> Fetched:
    """Copy all files at an address, such as those of a logged model. See `fetch`."""
    from mlflow.artifacts import download_artifacts

    try:
        path = download_artifacts(
            artifact_uri=uri, dst_path=str(folder), tracking_uri=client.tracking_uri
        )
    except Exception as error:  # noqa: BLE001
        return Fetched(None, missing=False, reason=explain_error(error, client.tracking_uri))
    return Fetched(Path(path), missing=False, reason="")


def _is_absent(client: MlflowClient, run_id: str, name: str) -> bool:
    """Return whether the store can be listed, has files of this run, and not this one. An empty
    folder may be a store that was moved: MLflow lists it without an error.
    """
    from mlflow.artifacts import list_artifacts

    parent = Path(name).parent.as_posix()
    try:
        uri = client.get_run(run_id).info.artifact_uri
        files = {entry.path for entry in list_artifacts(uri, tracking_uri=client.tracking_uri)}
        files = {Path(entry).name for entry in files}
        if parent in files:
            inner = list_artifacts(f"{uri}/{parent}", tracking_uri=client.tracking_uri)
            return Path(name).name not in {Path(entry.path).name for entry in inner}
    except Exception:  # noqa: BLE001  it cannot be listed either
        return False
    return bool(files) and Path(name).parts[0] not in files


def _is_login_page(path: Path) -> bool:
    if path.suffix in (".html", ".htm"):
        return False
    with open_regular(path) as file:
        return PAGE.match(file.read(200)) is not None


class RunFiles:
    """The files of one run, each returned only if it is the one that the run was sealed with."""

    def __init__(
        self,
        root: Path,
        run_id: str,
        name: str,
        tags: Mapping[str, str] | None,
        artifact_uri: str = "",
    ) -> None:
        """Args:
        root: of the experiment.
        name: of the run, for messages.
        tags: of the run in the store; None if they cannot be read: then the files are compared
            only with their own list.
        artifact_uri: of the run in the store, if known.
        """
        self._root = root
        self._run_id = run_id
        self._title = f"MLflow run {name} ({run_id[:8]})"
        self._tags = tags
        self._artifact_uri = artifact_uri
        self.unread: str | None = None
        """Why their list could not be read, after an attempt."""

    @property
    def folder(self) -> Path:
        """The folder of the run's files in the local store."""
        return artifact_root(self._root) / self._run_id / "artifacts"

    @property
    def anchored(self) -> bool:
        """Whether their list is compared with the store's tags."""
        return self._tags is not None

    def path(self, name: str) -> Path:
        """Return a verified copy of a file.

        Raises:
            UnreadableError: the store does not return it; the message gives the reason.
            DataError: the run has no such file, has lost it, or it was changed.
        """
        recorded = self.payload.get(name)
        if recorded is None:
            raise DataError(f"{self._title} has no file {name}.")
        path = self._copy(name)
        digest = sha256_file(path)
        if digest != recorded:
            raise DataError(self._changed_message(name, digest, recorded))
        if name != RECORD and self._subjects.get(name, digest) != digest:  # no manifest names it
            raise DataError(self._changed_message(name, digest, self._subjects[name]))
        return path

    def json(self, name: str) -> dict[str, Any]:
        """Read a verified JSON file. See `path`."""
        return _names_and_values(self.path(name), name, self._title)

    def has(self, name: str) -> bool:
        """Return whether the run's list names such a file. See `path`."""
        return name in self.payload

    @cached_property
    def payload(self) -> dict[str, str]:
        """Artifact path -> sha256. See `path`."""
        try:
            return self._payload()
        except (UnreadableError, OSError) as error:
            self.unread = why_unread(error)
            raise

    def _payload(self) -> dict[str, str]:
        recorded = None if self._tags is None else self._tags.get(PAYLOAD_TAG)
        if self._tags is not None and recorded is None:
            raise DataError(
                f"{self._title} is not sealed: it has no tag {PAYLOAD_TAG}, so its files cannot "
                "be verified. None of its numbers is shown."
            )
        payload = _names_and_values(self._copy(PAYLOAD), PAYLOAD, self._title)
        digest = sha256_text(json.dumps(payload, sort_keys=True))
        if recorded not in (None, digest):
            raise DataError(self._changed_message(PAYLOAD, digest, recorded))
        return {name: str(value) for name, value in payload.items()}

    @cached_property
    def _subjects(self) -> dict[str, str]:
        """File -> sha256 in the manifest, whose hash is the seal."""
        if self._tags is None:
            return {}
        path, recorded = self._copy(MANIFEST), str(self._tags.get(SEAL_TAG))
        digest = sha256_file(path)
        if digest != recorded:
            raise DataError(self._changed_message(MANIFEST, digest, recorded))
        subjects = _names_and_values(path, MANIFEST, self._title).get("subject", [])
        return {subject["name"]: subject["digest"]["sha256"] for subject in subjects}

    def _copy(self, name: str) -> Path:
        """Fetch a file from the store; of the local store, return the file itself."""
        if is_local(self._root):
            path = self.folder / name
            if path.is_file():
                return path
            cure = "Delete mlruns/ and run `dvc repro` to rebuild it."
            raise DataError(f"{self._title} has lost its file {name}. {cure}")
        with readonly_client(self._root) as client:
            result = fetch(client, self._run_id, name, scratch_folder(), self._artifact_uri)
        if result.path is not None:
            return result.path
        if result.missing:
            cure = "Publish it again from its experiment: `toxtrail stage track VARIANT`."
            raise DataError(f"{self._title} has lost its file {name}: {result.reason}. {cure}")
        raise UnreadableError(f"{name} of {self._title} could not be read. {result.reason}")

    def _changed_message(self, name: str, digest: str, recorded: str) -> str:
        return (
            f"{name} of {self._title} was changed after it was published: its sha256 is "
            f"{digest[:16]}, recorded is {recorded[:16]}. None of its numbers is shown."
        )


def _names_and_values(path: Path, name: str, title: str) -> dict[str, Any]:
    try:
        value = json.loads(read_text(path))
    except ValueError:
        value = None
    if not isinstance(value, dict):
        raise DataError(f"{name} of {title} is not a JSON object: it was changed.")
    return value
