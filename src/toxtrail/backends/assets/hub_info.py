"""Query the Hub for metadata: only small JSON files are downloaded, and nothing is cached."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

from toxtrail.backends.assets.hub import downloaded_names
from toxtrail.config.asset_uris import HfUri
from toxtrail.redaction import redacted

if TYPE_CHECKING:
    from huggingface_hub.hf_api import DatasetInfo, ModelInfo

TIMEOUT_S = 15

State = Literal["there", "gated", "missing", "unreachable"]
"""gated: it exists, and this account may not download it. missing: no such repo, revision or file,
or a private one."""


@dataclass(frozen=True)
class RepoInfo:
    """Metadata of a repo, from the Hub."""

    name: str
    """The repo's current name on the Hub."""
    commit: str
    gated: bool
    """Whether its license must be accepted first."""
    files: Mapping[str, int | None]
    """Name -> bytes; None if the Hub does not give the size."""
    card: Mapping[str, Any] = field(default_factory=dict)
    """The metadata of its README."""
    tags: tuple[str, ...] = ()
    model_type: str | None = None
    own_code: bool = False
    """Whether it needs custom code (trust_remote_code), which is never run."""
    parameters: int | None = None
    quantization: Any = None
    """`quantization_config` of config.json; None if it has none."""

    def sizes(self, path: str | None) -> dict[str, int | None]:
        """Return the files that are downloaded, with their sizes.

        Args:
            path: a file or folder of the repo; None for the root of a model repo.
        """
        names = [path] if path in self.files else downloaded_names(self.files, path)
        return {name: self.files[name] for name in names if name is not None}

    def below(self, folder: str | None) -> dict[str, int | None]:
        """Return the files of a folder by their names in it (None: the root)."""
        prefix = "" if folder is None else f"{folder}/"
        return {
            name.removeprefix(prefix): size
            for name, size in self.files.items()
            if name.startswith(prefix)
        }


def total_size(sizes: Iterable[int | None]) -> int | None:
    """Return the sum of sizes; None if one of them is unknown."""
    listed = list(sizes)
    return None if None in listed else sum(size or 0 for size in listed)


class HubAnswer(NamedTuple):
    """The result of a query."""

    state: State
    message: str
    """The reason and what to do; empty if nothing is wrong."""
    facts: RepoInfo | None


class HubClient:
    """Client that queries each repo once. After one network failure it sends no further requests:
    each of them would time out too."""

    def __init__(self) -> None:
        self._answers: dict[tuple[str, str, str | None], HubAnswer] = {}
        self._network_error: str | None = None

    def ask(self, address: HfUri) -> HubAnswer:
        """Query whether an address is accessible, and its repo's metadata."""
        answer = self.repo(address.repo, address.repo_type, address.revision)
        path, facts = address.path, answer.facts
        if path is None or facts is None or path in facts.files or facts.below(path):
            return answer
        return HubAnswer("missing", f"the repo has no file or folder {path}: check its path", facts)

    def repo(self, repo: str, repo_type: str = "model", revision: str | None = None) -> HubAnswer:
        """Query a repo at a revision (None: its default branch)."""
        key = (repo, repo_type, revision)
        if key not in self._answers:
            self._answers[key] = self._query(*key)
        return self._answers[key]

    def json_file(self, repo: str, commit: str, name: str) -> dict[str, Any] | None:
        """Read a small JSON file of a model repo; None if it is not available or not an object."""
        from huggingface_hub import HfApi
        from huggingface_hub.errors import HTTPError  # type: ignore[attr-defined]

        if self._network_error is not None:
            return None
        try:
            with tempfile.TemporaryDirectory() as folder:  # the cache would look like a snapshot
                path = HfApi().hf_hub_download(repo, name, revision=commit, local_dir=folder)
                values = json.loads(Path(path).read_text("utf-8"))
        except (OSError, ValueError, HTTPError):
            return None
        return values if isinstance(values, dict) else None

    def _query(self, repo: str, repo_type: str, revision: str | None) -> HubAnswer:
        from huggingface_hub import HfApi, errors
        from huggingface_hub.errors import HTTPError  # type: ignore[attr-defined]

        if self._network_error is not None:
            return HubAnswer("unreachable", self._network_error, None)
        ask = HfApi().dataset_info if repo_type == "dataset" else HfApi().model_info
        try:
            info = ask(repo, revision=revision, files_metadata=True, timeout=TIMEOUT_S)
        except errors.GatedRepoError:
            return HubAnswer("gated", _gated_message(repo), None)
        except errors.RepositoryNotFoundError:
            return HubAnswer(
                "missing",
                "no such repo on the Hub (or it is private): check the spelling, or `hf auth "
                "login`",
                None,
            )
        except errors.RevisionNotFoundError:
            return HubAnswer(
                "missing", f"the repo has no {revision}: check the commit, branch or tag", None
            )
        except errors.HFValidationError:
            return HubAnswer("missing", "not a valid repo name: check the spelling", None)
        except (OSError, HTTPError) as error:
            self._network_error = _network_problem(error)
            return HubAnswer("unreachable", self._network_error, None)
        facts = _repo_facts(info)
        if facts.gated and not _may_download(repo, repo_type):
            return HubAnswer("gated", _gated_message(repo), facts)
        return HubAnswer("there", _renamed_message(repo, facts.name), facts)


def _repo_facts(info: ModelInfo | DatasetInfo) -> RepoInfo:
    metadata: Any = info.card_data
    card = metadata.to_dict() if hasattr(metadata, "to_dict") else {}
    config = getattr(info, "config", None) or {}
    weights = getattr(info, "safetensors", None)
    files = {file.rfilename: file.size for file in info.siblings or ()}
    return RepoInfo(
        name=info.id,
        commit=info.sha or "",
        gated=bool(info.gated),
        files=files,
        card=card,
        tags=tuple(info.tags or ()),
        model_type=config.get("model_type"),
        own_code="auto_map" in config or "custom_code" in (info.tags or ()),
        parameters=weights.total if weights else None,
        quantization=config.get("quantization_config"),
    )


def _may_download(repo: str, repo_type: str) -> bool:
    from huggingface_hub import HfApi
    from huggingface_hub.errors import HTTPError  # type: ignore[attr-defined]

    try:
        HfApi().auth_check(repo, repo_type=repo_type)
    except (OSError, HTTPError):
        return False
    return True


def _gated_message(repo: str) -> str:
    return (
        f"its license must be accepted first: open {repo} on the Hub, accept, then `hf auth login` "
        "(or set HF_TOKEN)"
    )


def _renamed_message(requested: str, name: str) -> str:
    if requested == name:
        return ""
    return f"the repo is now called {name}: use that name, because the old one may stop working"


def _network_problem(error: Exception) -> str:
    from huggingface_hub.errors import OfflineModeIsEnabled

    if isinstance(error, OfflineModeIsEnabled):
        return "HF_HUB_OFFLINE is set, so the Hub was not queried. Unset it to query the Hub"
    first = (redacted(str(error)).strip().splitlines() or [type(error).__name__])[0]
    return (
        f"the Hub cannot be reached ({type(error).__name__}: {first[:200]}). Check the network, "
        "HF_ENDPOINT and HF_HUB_OFFLINE"
    )
