"""Tiny guard models."""

from __future__ import annotations

import pytest
import tiny_guard

from toxtrail.backends.assets import AssetStore
from toxtrail.backends.protocols import NoProgress


@pytest.fixture(scope="package")
def tokenizer():
    return tiny_guard.make_tokenizer()


@pytest.fixture(scope="package")
def model(tokenizer):
    return tiny_guard.make_model(tokenizer)


@pytest.fixture(scope="package")
def trained(model, tokenizer):
    return tiny_guard.train(model, tokenizer)


@pytest.fixture(scope="package")
def folder(model, tokenizer, tmp_path_factory):
    path = tmp_path_factory.mktemp("guard")
    model.save_pretrained(path)
    tokenizer.save_pretrained(path)
    return path


@pytest.fixture(scope="package")
def assets(folder, tmp_path_factory):
    root = tmp_path_factory.mktemp("experiment")
    return AssetStore(tmp_path_factory.mktemp("cache"), root, NoProgress(), (str(folder.parent),))
