"""Which variants of a family have results of the present params.yaml."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from toxtrail import regular_files
from toxtrail.auditing.status.variant_progress import NO_MANIFEST, family_progress
from toxtrail.storage.artifacts import ArtifactStore


@pytest.fixture
def experiment(tmp_path):
    family = SimpleNamespace(variants=["base"])
    config = SimpleNamespace(families={"tiny": family})
    return SimpleNamespace(config=config, root=tmp_path, store=ArtifactStore(tmp_path))


def results_of(experiment, variant):
    store = experiment.store
    return (
        store.generations_path("tiny", variant),
        store.scores_path("tiny", variant),
        store.posterior_dir("tiny", variant) / "summary.json",
    )


def test_the_first_missing_result_is_the_reason(experiment):
    for path, name in zip(results_of(experiment, "base"), ("generations", "scores", "rates")):
        (entry,) = family_progress(experiment, "tiny")
        assert (entry.state, name in entry.reason) == ("not finished", True)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("{}", "utf-8")


def test_rates_without_a_manifest_are_not_called_finished(experiment):
    for path in results_of(experiment, "base"):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("{}", "utf-8")
    assert family_progress(experiment, "tiny") == [("base", "outdated", NO_MANIFEST)]


def test_a_result_that_cannot_be_read_is_not_called_missing(experiment, monkeypatch):
    def refuse(path):
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(regular_files, "status", refuse)
    with pytest.raises(PermissionError):
        family_progress(experiment, "tiny")
