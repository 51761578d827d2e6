"""Names in a run's files are written by anyone with access to the store."""

from __future__ import annotations

import json

import pytest

from toxtrail.auditing.verify.run_workspace import family_of, run_workspace
from toxtrail.backends.mlflow.read_store import StoredRun
from toxtrail.backends.protocols import TrackedRun
from toxtrail.errors import DataError
from toxtrail.provenance.identity import InputFile, Manifest


def posterior(key="v", family="f"):
    return Manifest(
        kind="posterior", key=key, params={"variant": {"family": family}}, inputs={},
        code_sha256="0" * 64, environment={},
    )  # fmt: skip


def comparison(key="f", *variants):
    inputs = {
        f"{n}": InputFile(path=f"p{n}", sha256="0" * 64, manifest=manifest)
        for n, manifest in enumerate(variants)
    }
    return Manifest(
        kind="compare", key=key, params={}, inputs=inputs, code_sha256="0" * 64, environment={}
    )


@pytest.mark.parametrize(
    "manifest",
    [
        posterior("../v"),
        posterior("v", "../f"),
        posterior("/v"),
        posterior("a/b"),
        comparison(".."),
        comparison("f", posterior("../../v")),
        posterior().model_copy(update={"kind": "score"}),
    ],
    ids=lambda manifest: f"{manifest.kind} {manifest.key}",
)
def test_a_name_that_leads_out_of_its_folder_is_refused(manifest):
    with pytest.raises(DataError):
        family_of(manifest)


def test_the_family_of_both_kinds_of_runs():
    assert family_of(posterior()) == "f"
    assert family_of(comparison("f", posterior(), posterior("w"))) == "f"


def stored(folder, manifest, **files):
    statement = {"predicate": manifest.to_json(), "subject": []}
    for name, value in {"manifest": statement, **files}.items():
        (folder / f"{name}.json").write_text(json.dumps(value), "utf-8")
    run = TrackedRun("0" * 32, "v", "FINISHED", 0, {}, {}, {})
    return StoredRun(run, False, folder, "", (), (0, 0), None, (), None)


@pytest.mark.parametrize("stage", ["..", "../../../../out", "/out"])
def test_an_execution_of_a_stage_that_leads_out_is_refused(tmp_path, stage):
    run = stored(tmp_path, posterior(), executions={stage: {"cost": {}}})
    with pytest.raises(DataError), run_workspace(run, ()):
        pass


def test_the_files_of_a_run_have_their_places_in_the_experiment(tmp_path):
    run = stored(tmp_path, posterior(), model={}, executions={"score": {"stage": "score"}})
    with run_workspace(run, ()) as workspace:
        names = sorted(
            path.relative_to(workspace.store.root).as_posix()
            for path in workspace.store.root.rglob("*")
            if path.is_file()
        )
    assert names[0].startswith("data/records/score/v/")
    assert names[1:] == ["models/v/model.json"]
