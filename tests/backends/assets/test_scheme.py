"""A new asset scheme is a class, a module and a line."""

from __future__ import annotations

from dataclasses import dataclass
from importlib import import_module
from typing import ClassVar

import pytest

from toxtrail.backends.assets import AssetStore
from toxtrail.backends.assets.local import find_files
from toxtrail.backends.assets.resolve_pins import resolve_pins
from toxtrail.backends.assets.verify import file_asset
from toxtrail.backends.protocols import NoProgress
from toxtrail.config.asset_uris import ASSET_SCHEMES, AssetUri
from toxtrail.config.sections import PinnedAsset
from toxtrail.errors import BackendError, ConfigError


@dataclass(frozen=True)
class UpperUri(AssetUri):
    """A word, whose content is the word in capitals."""

    form: ClassVar[str] = "upper:WORD"
    module: ClassVar[str] = __name__

    word: str

    @classmethod
    def parse(cls, uri):
        word = uri.partition(":")[2]
        return cls(word) if word.isalpha() else None


def fetch(uri, address, sha256, context):
    path = context.cache / address.word
    path.write_text(address.word.upper())
    return file_asset(uri, path, None, sha256)


def find_cached(address, resolved, context):
    return find_files(context.cache / address.word)


def download_url(address):
    return None


@pytest.fixture
def store(tmp_path, monkeypatch):
    monkeypatch.setitem(ASSET_SCHEMES, "upper", UpperUri)
    return AssetStore(tmp_path, tmp_path, NoProgress())


def test_a_registered_scheme_is_fetched_pinned_and_found(store):
    source = PinnedAsset(uri="upper:hello")
    assert not source.pinned
    assert store.present("upper:hello", None) is None
    (pin,) = resolve_pins([("models.m", source)], store)
    assert store.fetch("upper:hello", pin.sha256).path.read_text() == "HELLO"
    assert store.present("upper:hello", None).files
    with pytest.raises(BackendError, match="match its pin"):
        store.fetch("upper:other", pin.sha256)


def test_a_malformed_address_shows_its_form(store):
    with pytest.raises(ConfigError, match="upper:WORD"):
        store.fetch("upper:1", None)


@pytest.mark.parametrize("scheme", ASSET_SCHEMES)
def test_each_scheme_has_a_module_that_fetches_it(scheme):
    module = import_module(ASSET_SCHEMES[scheme].module)
    assert all(callable(getattr(module, n)) for n in ("fetch", "find_cached", "download_url"))
