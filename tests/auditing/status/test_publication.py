"""Whether the store in use has the runs that receipts speak of."""

from __future__ import annotations

import json
from types import SimpleNamespace

import pytest

from toxtrail.auditing.status import publication as module
from toxtrail.auditing.status.publication import publication
from toxtrail.backends.mlflow.published_contents import Content, PublishedContents
from toxtrail.errors import BackendError
from toxtrail.storage.artifacts import ArtifactStore

CONFIG = SimpleNamespace(
    variants={"base": SimpleNamespace(family="f"), "tuned": SimpleNamespace(family="f")},
    families={"f": None},
    tracking=SimpleNamespace(experiment="e", project="lab-0000abcd"),
)
BASE, TUNED, FAMILY = (Content(c * 64, c * 64) for c in "abc")


@pytest.fixture
def store(tmp_path, monkeypatch):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "https://user:a-secret@mlflow.example.org")
    store = ArtifactStore(tmp_path)
    store.write_json(store.variant_receipt_path("f", "base"), BASE._asdict())
    store.write_json(store.variant_receipt_path("f", "tuned"), TUNED._asdict())
    store.write_json(store.family_receipt_path("f"), FAMILY._asdict())
    return store


def answering(monkeypatch, *present, elsewhere=()):
    monkeypatch.setattr(
        module, "find_published", lambda *_: PublishedContents(frozenset(present), elsewhere)
    )


def test_a_run_that_the_store_does_not_have_is_missing(store, monkeypatch):
    answering(monkeypatch, BASE)
    found = publication(store, CONFIG)
    assert found.missing == ("track@tuned", "track-comparison@f")
    assert "a-secret" not in found.store


def test_nothing_is_missing_from_a_store_that_has_all(store, monkeypatch):
    answering(monkeypatch, BASE, TUNED, FAMILY)
    assert publication(store, CONFIG)[1:] == ((), (), False)


@pytest.mark.parametrize("text", ["", "{", "[]", json.dumps({"seal": "x"})])
def test_a_damaged_receipt_is_left_to_dvc(store, monkeypatch, text):
    answering(monkeypatch, BASE, FAMILY)
    store.variant_receipt_path("f", "tuned").write_text(text)
    assert publication(store, CONFIG).missing == ()


def test_a_renamed_experiment_is_named(store, monkeypatch):
    answering(monkeypatch, elsewhere=('"new" (id 3)',))
    found = publication(store, CONFIG)
    assert len(found.missing) == 3
    assert '"new" (id 3)' in found.notes[0]


def test_a_store_that_cannot_be_asked_says_nothing_of_the_runs(store, monkeypatch):
    def silent(*_):
        raise BackendError("it does not answer")

    monkeypatch.setattr(module, "find_published", silent)
    found = publication(store, CONFIG)
    assert (found.missing, found.unknown) == ((), True)
    assert "it does not answer" in found.notes[0]
