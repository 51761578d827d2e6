"""Asset addresses."""

from __future__ import annotations

import pytest

from toxtrail.config.asset_uris import DetoxifyUri, FileUri, HfUri, PypiUri, is_pinned, parse_uri
from toxtrail.errors import ConfigError

COMMIT = "0123456789abcdef0123456789abcdef01234567"


@pytest.mark.parametrize(
    ("uri", "meaning"),
    [
        ("hf:org/name", HfUri("org/name", "model", None, None)),
        ("hf:gpt2@main", HfUri("gpt2", "model", "main", None)),
        (f"hf:o/n@{COMMIT}/a/b.gguf", HfUri("o/n", "model", COMMIT, "a/b.gguf")),
        (f"hf:datasets/o/n@{COMMIT}/d.jsonl", HfUri("o/n", "dataset", COMMIT, "d.jsonl")),
        ("pypi:a-b==1.2/a/b.txt", PypiUri("a-b", "1.2", "a/b.txt")),
        ("file:a b/c", FileUri("a b/c")),
        ("detoxify:unbiased", DetoxifyUri("unbiased")),
    ],
)
def test_an_address_is_read(uri, meaning):
    assert parse_uri(uri) == meaning
    assert not isinstance(meaning, HfUri) or str(meaning) == uri


@pytest.mark.parametrize(
    "uri",
    [
        "",
        "org/name",
        "http://x/y",
        "file:",
        "pypi:a/b",
        "pypi:a==1",
        "pypi:a==1/../../x",
        f"hf:o/n@{COMMIT}/../x",
        "hf:",
        "hf:a/b/c/d",
    ],
)
def test_anything_else_is_refused_with_the_right_form(uri):
    with pytest.raises(ConfigError, match="hf:org/name@<commit>"):
        parse_uri(uri)


def test_only_a_commit_or_a_hash_is_a_pin():
    assert is_pinned(f"hf:o/n@{COMMIT}", None)
    assert not is_pinned("hf:o/n@main", None)
    assert not is_pinned("file:x", None)
    assert is_pinned("file:x", "0" * 64)
