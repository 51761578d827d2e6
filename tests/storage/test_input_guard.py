"""Nothing is published that was made from other parameters or files than DVC would record."""

from __future__ import annotations

import os
import shutil

import pytest

from toxtrail.errors import DataError
from toxtrail.storage.artifacts import ArtifactStore
from toxtrail.storage.input_guard import Watched

PARAMS = """\
generation: {temperature: 0.0, seed: 7}
scoring: {primary: judge, max_error_share: 0.0, scorers: {judge: {kind: hf}}}
models: {base: {uri: "file:model"}}
finetunes: {}
variants: {base: {family: tiny, role: base}, other: {family: tiny, role: other}}
families: {tiny: {reference: base, variants: [base, other]}}
"""


@pytest.fixture
def root(tmp_path):
    (tmp_path / "params.yaml").write_text(PARAMS)
    (tmp_path / "requirements.txt").write_text("numpy\n")
    (tmp_path / "data").mkdir()
    (tmp_path / "data/prompts.parquet").write_text("prompts")
    (tmp_path / "models/base").mkdir(parents=True)
    (tmp_path / "models/base/model.json").write_text("{}")
    (tmp_path / "code").mkdir()
    (tmp_path / "code/generate.sha256").write_text("code")
    return tmp_path


def edit(old, new):
    def change(root):
        path = root / "params.yaml"
        assert old in path.read_text()
        path.write_text(path.read_text().replace(old, new))

    return change


CHANGES = {
    "generation.temperature": edit("temperature: 0.0", "temperature: 0.7"),
    "generation.seed": edit(", seed: 7", ""),
    "variants.base.role": edit("role: base", "role: tuned"),
    "generation.temperature ": edit("temperature: 0.0", "temperature: 0"),  # another type
    "data/prompts.parquet": lambda root: (root / "data/prompts.parquet").write_text("others"),
    "models/base/model.json": lambda root: (root / "models/base/model.json").unlink(),
    "models/base/new.json": lambda root: (root / "models/base/new.json").write_text("{}"),
    "requirements.txt": lambda root: (root / "requirements.txt").write_text("numpy==2\n"),
    "code/generate.sha256": lambda root: (root / "code/generate.sha256").write_text("edited"),
}


@pytest.mark.parametrize("name", CHANGES)
def test_a_changed_dependency_is_named_and_nothing_is_published(root, name):
    store = ArtifactStore(root, Watched(root, "generate", "base").refuse_changes)
    store.write_text(root / "out/old.txt", "before")
    CHANGES[name](root)
    with pytest.raises(DataError, match=name.strip()):
        store.write_text(root / "out/new.txt", "after")
    with pytest.raises(DataError, match=name.strip()), store.atomic_folder(root / "out/folder"):
        pass
    assert [path.name for path in (root / "out").iterdir()] == ["old.txt"]


def touched(root):
    for path in root.rglob("*"):
        os.utime(path)


def rewritten(root):
    path = root / "data/prompts.parquet"
    shutil.copy(path, root / "copy")
    (root / "copy").replace(path)


UNRELATED = {
    "nothing": lambda root: None,
    "touched": touched,
    "rewritten with the same bytes": rewritten,
    "a section of another stage": edit("primary: judge", "primary: other"),
    "another variant": edit("role: other", "role: third"),
    "a comment": edit("generation:", "# a comment\ngeneration:"),
    "an output of another stage": lambda root: (root / "report.html").write_text("x"),
    "compiled code": lambda root: (root / "models/base/__pycache__").mkdir(),
}


@pytest.mark.parametrize("name", UNRELATED)
def test_what_the_stage_does_not_depend_on_may_change(root, name):
    watched = Watched(root, "generate", "base")
    UNRELATED[name](root)
    watched.refuse_changes()


def test_a_stage_that_params_yaml_does_not_have_is_left_to_the_stage(root):
    Watched(root, "generate", "unknown").refuse_changes()


def test_broken_params_are_left_to_the_stage(root):
    (root / "params.yaml").write_text("{")
    Watched(root, "generate", "base").refuse_changes()
