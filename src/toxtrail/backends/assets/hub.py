"""hf: addresses: a repo, a folder or a file of it, through the downloader and cache of
huggingface_hub."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from glob import escape
from pathlib import Path, PurePosixPath

from toxtrail.backends.assets.scheme import AssetContext, CachedAsset
from toxtrail.backends.assets.verify import file_asset, folder_asset
from toxtrail.backends.protocols import Asset
from toxtrail.config.asset_uris import HfUri
from toxtrail.errors import BackendError, ConfigError

ALLOW_PATTERNS = [
    "*.json",
    "*.safetensors",
    "*.model",
    "*.txt",
    "*.jinja",
    "*.tiktoken",
    "LICENSE*",
    "README.md",
]
"""Weights and the files that affect their output; never code."""
PICKLED_PATTERNS = ["pytorch_model.bin", "pytorch_model-*.bin", "adapter_model.bin"]
"""Pickled weights, which are downloaded only if there are no safetensors."""

IGNORE_PATTERNS = ["original/*", "onnx/*", "*.onnx.json", "coreml/*", "openvino/*", "consolidated*"]
"""The same weights in formats that are not loaded here."""

ERROR_HINTS = {
    "GatedRepoError": "accept its license on the Hub, then `hf auth login`",
    "RepositoryNotFoundError": "check the spelling; a private repo needs `hf auth login`",
    "RevisionNotFoundError": "check the commit, branch or tag",
    "RemoteEntryNotFoundError": "check the path of the file or folder",
    "HFValidationError": "check the spelling: hf:org/name@<commit>",
    "LocalEntryNotFoundError": "it is not in the cache, and the Hub cannot be reached: check the "
    "network, HF_HUB_OFFLINE and HF_ENDPOINT",
    "RevisionResolutionError": "the cache does not have it, and the Hub cannot be reached: check "
    "the network, HF_HUB_OFFLINE and HF_ENDPOINT",
}
"""huggingface_hub's error -> what to do."""


def fetch(uri: str, address: HfUri, sha256: str | None, context: AssetContext) -> Asset:
    """Fetch a snapshot at one commit, from the Hub or its cache.

    Raises:
        ConfigError: a dataset address without a file.
        BackendError: not reachable, no such repo, no access, or different from the pin.
    """
    if address.repo_type == "dataset" and address.path is None:
        raise ConfigError(f"{uri}: name one file of the dataset: hf:datasets/ORG/NAME@COMMIT/FILE")
    with _hub_errors(uri):
        commit = _resolve_commit(address)
        path = (
            _download_snapshot(address.repo, commit, None)
            if address.path is None
            else _download_path(address, commit)
        )
    if path.is_file():
        return file_asset(uri, path, commit, sha256)
    paths = _allowed_files(path)
    if not paths:
        raise BackendError(f"{uri}: no weights there. Choose a repo that has them.")
    return folder_asset(uri, path, paths, commit, sha256)


def find_cached(address: HfUri, resolved: str | None, context: AssetContext) -> CachedAsset | None:
    """Find the files in the Hub's cache without network access; None if they are not there."""
    from huggingface_hub import hf_hub_download, snapshot_download
    from huggingface_hub.errors import HfHubHTTPError

    revision = resolved or address.revision or "main"
    try:
        path = Path(
            snapshot_download(address.repo, revision=revision, local_files_only=True)
            if address.path is None
            else hf_hub_download(
                address.repo, address.path, repo_type=address.repo_type,
                revision=revision, local_files_only=True,
            )
        )  # fmt: skip
    except (OSError, ValueError, HfHubHTTPError):
        return None
    if path.is_file():
        return CachedAsset(path.parent, (path,))
    return CachedAsset(path, tuple(_allowed_files(path)))


def download_url(address: HfUri) -> str | None:
    """Unknown; `hub_info` asks the Hub for sizes."""
    return None


def downloaded_names(names: Iterable[str], folder: str | None) -> list[str]:
    """Return the files of a repo that are downloaded with a folder of it (None: the root)."""
    from huggingface_hub.utils import filter_repo_objects  # type: ignore[attr-defined]

    listed = list(names)
    allowed, ignored, pickled = (
        _below(folder, patterns) for patterns in (ALLOW_PATTERNS, IGNORE_PATTERNS, PICKLED_PATTERNS)
    )
    selected = list(filter_repo_objects(listed, allow_patterns=allowed, ignore_patterns=ignored))
    if _has_safetensors(selected, folder):
        return selected
    return [*selected, *filter_repo_objects(listed, allow_patterns=pickled)]


def _below(folder: str | None, patterns: Iterable[str]) -> list[str]:
    """Return patterns for the files of a repo's folder (None: the root)."""
    prefix = "" if folder is None else f"{escape(folder)}/"
    return [f"{prefix}{pattern}" for pattern in patterns]


def _has_safetensors(names: Iterable[str], folder: str | None) -> bool:
    """Return whether one of the files is a safetensors file directly in a repo's folder."""
    paths = [PurePosixPath(name) for name in names]
    parent = PurePosixPath(folder or "")
    return any(path.suffix == ".safetensors" and path.parent == parent for path in paths)


def _resolve_commit(address: HfUri) -> str:
    """Resolve a branch or tag to its 40-hex commit; offline, to the one that is cached."""
    from huggingface_hub import HfApi

    revision = HfApi().resolve_revision(
        address.repo, repo_type=address.repo_type, revision=address.revision
    )
    return str(revision.resolved)


def _download_path(address: HfUri, commit: str) -> Path:
    """Download a file, or the files of a folder."""
    from huggingface_hub import hf_hub_download
    from huggingface_hub.errors import RemoteEntryNotFoundError

    assert address.path is not None
    try:
        path = Path(
            hf_hub_download(
                address.repo, address.path, repo_type=address.repo_type, revision=commit
            )
        )
    except RemoteEntryNotFoundError:
        if address.repo_type == "dataset":
            raise
        path = _download_snapshot(address.repo, commit, address.path)
        if not path.is_dir():
            raise
        return path
    return _download_snapshot(address.repo, commit, address.path) if path.is_dir() else path


def _download_snapshot(repo: str, commit: str, folder: str | None) -> Path:
    from huggingface_hub import snapshot_download

    def download(patterns: Iterable[str]) -> Path:
        root = snapshot_download(
            repo,
            revision=commit,
            allow_patterns=_below(folder, patterns),
            ignore_patterns=_below(folder, IGNORE_PATTERNS),
        )
        return Path(root) / (folder or "")

    path = download(ALLOW_PATTERNS)
    if not any(path.glob("*.safetensors")):
        path = download(PICKLED_PATTERNS)
    return path


def _allowed_files(folder: Path) -> list[Path]:
    """List the allowed files of a folder; other programs may have added more to the same cache."""
    names = [p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file()]
    return [folder / name for name in downloaded_names(names, None)]


@contextmanager
def _hub_errors(uri: str) -> Iterator[None]:
    """Convert huggingface_hub's errors to a BackendError that says what to do."""
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
        advice = next(
            (ERROR_HINTS[name] for name in names if name in ERROR_HINTS), "check the network"
        )
        reason = (str(error).strip().splitlines() or [""])[0]
        raise BackendError(
            f"{uri} cannot be fetched ({type(error).__name__}: {reason}): {advice}."
        ) from error
