"""The hub, asked what it holds: nothing is downloaded but small JSON files, nothing is cached."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

from toxtrail.backends.assets.hub import UNWANTED, WANTED
from toxtrail.config.asset_uris import HfUri
from toxtrail.redaction import redacted

if TYPE_CHECKING:
    from huggingface_hub.hf_api import DatasetInfo, ModelInfo

TIMEOUT_S = 15

State = Literal["there", "gated", "missing", "unreachable"]
"""gated: it is there, and this account may not download it. missing: no such repo, revision or
file, or a private one."""


@dataclass(frozen=True)
class RepoFacts:
    """A repo as the hub describes it."""

    name: str
    """What the hub calls it now."""
    commit: str
    gated: bool
    """Whether its licence must be accepted first."""
    files: Mapping[str, int | None]
    """Name -> bytes, if the hub says."""
    card: Mapping[str, Any] = field(default_factory=dict)
    """The metadata of its README."""
    tags: tuple[str, ...] = ()
    model_type: str | None = None
    own_code: bool = False
    """Whether it needs code of its own, which is never run."""
    parameters: int | None = None

    @property
    def wanted(self) -> dict[str, int | None]:
        """Of a model repo: the files that are fetched."""
        from huggingface_hub.utils import filter_repo_objects  # type: ignore[attr-defined]

        kept = filter_repo_objects(self.files, allow_patterns=WANTED, ignore_patterns=UNWANTED)
        return {name: self.files[name] for name in kept}


class Answer(NamedTuple):
    """What came of asking."""

    state: State
    said: str
    """Why, and what to do; empty if all is well."""
    facts: RepoFacts | None


class Hub:
    """Asks about each repo once. After one question that the network did not carry it asks no
    more: twenty time-outs say no more than one."""

    def __init__(self) -> None:
        self._known: dict[tuple[str, str, str | None], Answer] = {}
        self._silence: str | None = None

    def ask(self, address: HfUri) -> Answer:
        """Whether an address can be had, and what it is."""
        answer = self.repo(address.repo, address.repo_type, address.revision)
        if address.path is None or answer.facts is None or address.path in answer.facts.files:
            return answer
        return Answer(
            "missing", f"the repo has no file {address.path}: check its path", answer.facts
        )

    def repo(self, repo: str, repo_type: str = "model", revision: str | None = None) -> Answer:
        """Whether a repo can be had at a revision (None: its default branch)."""
        key = (repo, repo_type, revision)
        if key not in self._known:
            self._known[key] = self._asked(*key)
        return self._known[key]

    def json_file(self, repo: str, commit: str, name: str) -> dict[str, Any] | None:
        """A small JSON file of a model repo; None if it cannot be had or is no object."""
        from huggingface_hub import HfApi
        from huggingface_hub.errors import HTTPError  # type: ignore[attr-defined]

        if self._silence is not None:
            return None
        try:
            with tempfile.TemporaryDirectory() as folder:  # the cache would look like a snapshot
                path = HfApi().hf_hub_download(repo, name, revision=commit, local_dir=folder)
                values = json.loads(Path(path).read_text("utf-8"))
        except (OSError, ValueError, HTTPError):
            return None
        return values if isinstance(values, dict) else None

    def _asked(self, repo: str, repo_type: str, revision: str | None) -> Answer:
        from huggingface_hub import HfApi, errors
        from huggingface_hub.errors import HTTPError  # type: ignore[attr-defined]

        if self._silence is not None:
            return Answer("unreachable", self._silence, None)
        ask = HfApi().dataset_info if repo_type == "dataset" else HfApi().model_info
        try:
            found = ask(repo, revision=revision, files_metadata=True, timeout=TIMEOUT_S)
        except errors.GatedRepoError:
            return Answer("gated", _gated(repo), None)
        except errors.RepositoryNotFoundError:
            return Answer(
                "missing",
                "the hub has no such repo (or it is private): check the spelling, or `hf auth "
                "login`",
                None,
            )
        except errors.RevisionNotFoundError:
            return Answer(
                "missing", f"the repo has no {revision}: check the commit, branch or tag", None
            )
        except errors.HFValidationError:
            return Answer("missing", "this is no name of a repo: check the spelling", None)
        except (OSError, HTTPError) as error:
            self._silence = _silence(error)
            return Answer("unreachable", self._silence, None)
        facts = _facts(found)
        if facts.gated and not _may_download(repo, repo_type):
            return Answer("gated", _gated(repo), facts)
        return Answer("there", _renamed(repo, facts.name), facts)


def _facts(found: ModelInfo | DatasetInfo) -> RepoFacts:
    said: Any = found.card_data
    card = said.to_dict() if hasattr(said, "to_dict") else {}
    config = getattr(found, "config", None) or {}
    weights = getattr(found, "safetensors", None)
    files = {one.rfilename: one.size for one in found.siblings or ()}
    return RepoFacts(
        name=found.id,
        commit=found.sha or "",
        gated=bool(found.gated),
        files=files,
        card=card,
        tags=tuple(found.tags or ()),
        model_type=config.get("model_type"),
        own_code="auto_map" in config or "custom_code" in (found.tags or ()),
        parameters=weights.total if weights else None,
    )


def _may_download(repo: str, repo_type: str) -> bool:
    from huggingface_hub import HfApi
    from huggingface_hub.errors import HTTPError  # type: ignore[attr-defined]

    try:
        HfApi().auth_check(repo, repo_type=repo_type)
    except (OSError, HTTPError):
        return False
    return True


def _gated(repo: str) -> str:
    return (
        f"its licence must be accepted first: open {repo} on the hub, accept, then `hf auth login` "
        "(or set HF_TOKEN)"
    )


def _renamed(asked: str, name: str) -> str:
    if asked == name:
        return ""
    return f"the hub calls it {name} now: write that, so that it is found when the old name goes"


def _silence(error: Exception) -> str:
    from huggingface_hub.errors import OfflineModeIsEnabled

    if isinstance(error, OfflineModeIsEnabled):
        return "HF_HUB_OFFLINE is set, so the hub is not asked. Unset it to ask"
    first = (redacted(str(error)).strip().splitlines() or [type(error).__name__])[0]
    return (
        f"the hub cannot be reached ({type(error).__name__}: {first[:200]}). Check the network, "
        "HF_ENDPOINT and HF_HUB_OFFLINE"
    )
