"""hf: a model repo, or one file of a repo, through huggingface_hub's own downloader and cache."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from toxtrail.backends.assets.verify import file_asset, folder_asset
from toxtrail.backends.protocols import Asset
from toxtrail.config.asset_uris import HfUri
from toxtrail.errors import BackendError, ConfigError

WANTED = [
    "*.json",
    "*.safetensors",
    "*.model",
    "*.txt",
    "*.jinja",
    "*.tiktoken",
    "LICENSE*",
    "README.md",
]
"""Weights and what decides their answers. Never a pickle, never code."""

UNWANTED = ["original/*", "onnx/*", "*.onnx.json", "coreml/*", "openvino/*", "consolidated*"]
"""The same weights again, in forms that are not loaded here."""

CURES = {
    "GatedRepoError": "accept its licence on the hub, then `hf auth login`",
    "RepositoryNotFoundError": "check the spelling; a private repo needs `hf auth login`",
    "RevisionNotFoundError": "check the commit, branch or tag",
    "RemoteEntryNotFoundError": "check the file's path",
    "HFValidationError": "check the spelling: hf:org/name@<commit>",
    "LocalEntryNotFoundError": "it is not in the cache, and the hub is out of reach: check the "
    "network, HF_HUB_OFFLINE and HF_ENDPOINT",
    "RevisionResolutionError": "the cache does not know it, and the hub is out of reach: check the "
    "network, HF_HUB_OFFLINE and HF_ENDPOINT",
}
"""huggingface_hub's errors -> what to do."""


def fetch_hub(uri: str, address: HfUri, sha256: str | None) -> Asset:
    """A snapshot at one commit, from the hub or its filled cache.

    Raises:
        ConfigError: a data set without a file.
        BackendError: not reachable, no such repo, no access, or not what the pin says.
    """
    if address.repo_type == "dataset" and address.path is None:
        raise ConfigError(f"{uri}: name one file of the data set: hf:datasets/ORG/NAME@COMMIT/FILE")
    with _explained(uri):
        commit = _commit(address)
        found = _snapshot(address, commit) if address.path is None else _file(address, commit)
    if address.path is not None:
        return file_asset(uri, found, commit, sha256)
    paths = _wanted_files(found)
    if not paths:
        raise BackendError(f"{uri}: this repo has no weights as safetensors. Choose one that has.")
    return folder_asset(uri, found, paths, commit, sha256)


def cached_hub(address: HfUri, revision: str) -> tuple[Path, list[Path]] | None:
    """(folder, files) of the hub's cache, without asking the hub; None if it has none."""
    from huggingface_hub import hf_hub_download, snapshot_download
    from huggingface_hub.errors import HfHubHTTPError

    try:
        if address.path is not None:
            file = Path(
                hf_hub_download(
                    address.repo, address.path, repo_type=address.repo_type,
                    revision=revision, local_files_only=True,
                )
            )  # fmt: skip
            return file.parent, [file]
        folder = Path(snapshot_download(address.repo, revision=revision, local_files_only=True))
    except (OSError, ValueError, HfHubHTTPError):
        return None
    return folder, _wanted_files(folder)


def _commit(address: HfUri) -> str:
    """The 40-hex commit that a branch or tag means now; offline, what the cache says it meant."""
    from huggingface_hub import HfApi

    revision = HfApi().resolve_revision(
        address.repo, repo_type=address.repo_type, revision=address.revision
    )
    return str(revision.resolved)


def _file(address: HfUri, commit: str) -> Path:
    from huggingface_hub import hf_hub_download

    assert address.path is not None
    found = hf_hub_download(
        address.repo, address.path, repo_type=address.repo_type, revision=commit
    )
    return Path(found)


def _snapshot(address: HfUri, commit: str) -> Path:
    from huggingface_hub import snapshot_download

    found = snapshot_download(
        address.repo, revision=commit, allow_patterns=WANTED, ignore_patterns=UNWANTED
    )
    return Path(found)


def _wanted_files(folder: Path) -> list[Path]:
    """Of a snapshot's files; other programs may have put more into the same cache."""
    from huggingface_hub.utils import filter_repo_objects  # type: ignore[attr-defined]

    names = [p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file()]
    wanted = filter_repo_objects(names, allow_patterns=WANTED, ignore_patterns=UNWANTED)
    return [folder / name for name in wanted]


@contextmanager
def _explained(uri: str) -> Iterator[None]:
    """huggingface_hub's many errors, each with its cure."""
    from huggingface_hub import errors
    from huggingface_hub.errors import HTTPError  # type: ignore[attr-defined]

    try:
        yield
    except (
        OSError,
        HTTPError,
        errors.EntryNotFoundError,
        errors.HFValidationError,
        errors.RevisionResolutionError,
    ) as error:
        names = [base.__name__ for base in type(error).__mro__]
        cure = next((CURES[name] for name in names if name in CURES), "check the network")
        first = (str(error).strip().splitlines() or [""])[0]
        raise BackendError(
            f"{uri} cannot be had ({type(error).__name__}: {first}): {cure}."
        ) from error
