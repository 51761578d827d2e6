"""hf: a model repo, or one file of a repo, through huggingface_hub's own downloader and cache."""

from __future__ import annotations

from pathlib import Path

from toxtrail.backends.assets.verify import file_asset, folder_asset
from toxtrail.backends.base import Asset
from toxtrail.errors import BackendError, ConfigError
from toxtrail.uris import COMMIT, HfUri

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

UNWANTED = ["original/*", "onnx/*", "*.onnx.json", "coreml/*", "openvino/*"]


def fetch_hub(uri: str, address: HfUri, sha256: str | None) -> Asset:
    """A snapshot at one commit, from the hub or its filled cache.

    Raises:
        ConfigError: a data set without a file.
        BackendError: not reachable, no such repo, no access, or not what the pin says.
    """
    if address.repo_type == "dataset" and address.path is None:
        raise ConfigError(f"{uri}: name one file of the data set: hf:datasets/ORG/NAME@COMMIT/FILE")
    try:
        commit = _commit(address)
        if address.path is not None:
            return file_asset(uri, _file(address, commit), commit, sha256)
        folder = _snapshot(address, commit)
    except (OSError, ValueError) as error:
        raise _refusal(uri, error) from error
    return folder_asset(uri, folder, _wanted(folder), commit, sha256)


def _commit(address: HfUri) -> str:
    """The 40-hex commit that a branch or tag means now; offline, what the cache says it meant."""
    from huggingface_hub import HfApi, constants

    revision = address.revision or "main"
    if COMMIT.fullmatch(revision):
        return revision
    if constants.HF_HUB_OFFLINE:
        folder = f"{address.repo_type}s--{address.repo.replace('/', '--')}"
        reference = Path(constants.HF_HUB_CACHE) / folder / "refs" / revision
        return reference.read_text("utf-8").strip()
    info = HfApi().repo_info(address.repo, repo_type=address.repo_type, revision=revision)
    return str(info.sha)


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


def _wanted(folder: Path) -> list[Path]:
    """What this asset is: a shared cache may hold more of the repo, fetched by other programs."""
    from huggingface_hub.utils import (  # type: ignore[attr-defined]
        filter_repo_objects,
    )

    names = [p.relative_to(folder).as_posix() for p in sorted(folder.rglob("*")) if p.is_file()]
    chosen = filter_repo_objects(names, allow_patterns=WANTED, ignore_patterns=UNWANTED)
    return [folder / name for name in chosen]


def _refusal(uri: str, error: Exception) -> BackendError:
    """huggingface_hub's many errors, each with its cure."""
    cures = {
        "GatedRepoError": "accept its licence on the hub, then `hf auth login`",
        "RepositoryNotFoundError": "check the spelling; a private repo needs `hf auth login`",
        "RevisionNotFoundError": "check the commit, branch or tag",
        "EntryNotFoundError": "check the file's path",
        "LocalEntryNotFoundError": "it is not in the cache and the hub is out of reach",
        "OfflineModeIsEnabled": "HF_HUB_OFFLINE is set and it is not in the cache",
        "FileNotFoundError": "HF_HUB_OFFLINE is set and the cache does not know the revision",
    }
    names = [base.__name__ for base in type(error).__mro__]
    cure = next((cures[name] for name in names if name in cures), "check the network")
    return BackendError(f"{uri} cannot be had ({type(error).__name__}): {cure}.")
