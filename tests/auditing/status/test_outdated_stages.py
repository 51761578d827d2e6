"""What is out of date, by our own reading and by DVC's."""

from __future__ import annotations

import json
import shutil
from contextlib import chdir
from io import StringIO
from pathlib import Path

import pytest
import yaml
from ruamel.yaml import YAML

from toxtrail.auditing.status.outdated_stages import staleness
from toxtrail.auditing.verify.dvc_lock_parser import read_entries
from toxtrail.pipeline import PIPELINE, code_hash_file, expand_stages
from toxtrail.scaffold import TEMPLATE_DIR, experiment_dvc_yaml

pytestmark = pytest.mark.slow

PARAMS = """\
prompts: {seed: 1, subsets: {one: {uri: "file:one.txt", n: 8}}}
generation: {temperature: 0.0, dtype: float32}
scoring:
  {primary: judge, max_error_share: 0.0, scorers: {judge: {kind: hf, golden_tolerance: 1e-3}}}
posterior: {threshold: 0.5, rope: {pp: 1.0, on: true}}
pooling: null
models: {base: {uri: "file:model"}}
finetunes: {tuned: {parent: base, learning_rate: 5e-4, lora: {targets: [q_proj, v_proj]}}}
variants:
  base: {family: tiny, role: base}
  tuned: {family: tiny, role: tuned, parent: base}
families: {tiny: {reference: base, variants: [base, tuned]}}
tracking: {experiment: toxtrail, project: lab-0000abcd}
"""


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """An experiment whose stages are all recorded; its outputs are a few bytes each."""
    root = tmp_path_factory.mktemp("made")
    (root / ".dvc").mkdir()
    site = root.parent / "site"
    (root / ".dvc/config").write_text(
        f"[core]\n    no_scm = true\n    analytics = false\n    site_cache_dir = {site}\n"
    )
    shutil.copy(TEMPLATE_DIR / "dvcignore", root / ".dvcignore")
    (root / "dvc.yaml").write_text(
        experiment_dvc_yaml((TEMPLATE_DIR / "pipeline.yaml").read_text("utf-8"))
    )
    (root / "params.yaml").write_text(PARAMS)
    (root / "requirements.txt").write_text("numpy==2\n")
    (root / "code").mkdir()
    for stage in PIPELINE:
        (root / code_hash_file(stage.name)).write_text(f"of {stage.name}\n")
    for run in runs(root):
        for out in run.outs:
            path = root / out
            if "." in path.name:
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_text(f"{run.name} {out}")
            else:
                (path / "inside").mkdir(parents=True)
                (path / "a.json").write_text(f"{run.name} {out}")
                (path / "inside/b.txt").write_text("b")
    with chdir(root):
        repo = dvc_of(root)
        repo.commit(force=True)
        repo.close()
    return root


@pytest.fixture
def root(made, tmp_path, monkeypatch):
    own = Path(shutil.copytree(made, tmp_path / "own", symlinks=True))
    monkeypatch.chdir(own)
    return own


def runs(root):
    return expand_stages(yaml.safe_load((root / "params.yaml").read_text()))


def dvc_of(root):
    from dvc.repo import Repo

    return Repo(str(root))


def by_dvc(root):
    repo = dvc_of(root)
    try:
        return json.loads(json.dumps(repo.status()))
    finally:
        repo.close()


def params(old, new):
    def edit(root):
        path = root / "params.yaml"
        text = path.read_text()
        assert old in text
        path.write_text(text.replace(old, new))

    return edit


def write(name, text="other"):
    def edit(root):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)

    return edit


def remove(name):
    def edit(root):
        path = root / name
        shutil.rmtree(path) if path.is_dir() else path.unlink()

    return edit


def without_entry(name):
    def edit(root):
        lock = yaml.safe_load((root / "dvc.lock").read_text())
        del lock["stages"][name]
        (root / "dvc.lock").write_text(yaml.safe_dump(lock, sort_keys=False))

    return edit


def lose_objects(out):
    """Empties DVC's cache of one output."""

    def edit(root):
        md5 = read_entries((root / "dvc.lock").read_text())[out[0]].outs[out[1]]
        path = root / ".dvc/cache/files/md5" / md5[:2] / md5[2:]
        if out[2] is not None:
            md5 = json.loads(path.read_text())[out[2]]["md5"]
            path = path.parents[1] / md5[:2] / md5[2:]
        path.unlink()

    return edit


def damage_object(root):
    """Its mode says that DVC has not checked it since."""
    md5 = read_entries((root / "dvc.lock").read_text())["prompts"].outs["data/prompts.parquet"]
    path = root / ".dvc/cache/files/md5" / md5[:2] / md5[2:]
    path.chmod(0o644)
    path.write_text("other")


def edit_pipeline(old, new):
    def edit(root):
        text = (root / "dvc.yaml").read_text()
        assert old in text
        (root / "dvc.yaml").write_text(text.replace(old, new))

    return edit


EDITS = {
    "nothing": lambda root: None,
    "a value": params("temperature: 0.0", "temperature: 0.7"),
    "an equal value": params("temperature: 0.0", "temperature: 0"),
    "another spelling of a number": params("5e-4", "0.0005"),
    "a word that YAML 1.1 takes for true": params("on: true", "on: on"),
    "an item of a list": params("[q_proj, v_proj]", "[q_proj]"),
    "a value taken out": params(", dtype: float32", ""),
    "a section taken out": params("pooling: null\n", ""),
    "an added variant": params("variants:\n", "variants:\n  new: {family: tiny, role: new}\n"),
    "a removed variant": params("  tuned: {family: tiny, role: tuned, parent: base}\n", ""),
    "another family": params("family: tiny", "family: small"),
    "code": write("code/score.sha256"),
    "the code of several": lambda root: [
        write(f"code/{name}.sha256")(root) for name in ("prompts", "report")
    ],
    "requirements": write("requirements.txt"),
    "no requirements": remove("requirements.txt"),
    "an output": write("data/prompts.parquet"),
    "a file in an output": write("results/posteriors/tiny/base/inside/b.txt"),
    "one more file in an output": write("models/base/extra.txt"),
    "an ignored file in an output": write("models/base/__pycache__/x.pyc"),
    "one file less": remove("models/base/a.json"),
    "a deleted output": remove("data/scores/tiny/tuned.parquet"),
    "a deleted folder": remove("results/comparisons/tiny"),
    "a deleted receipt": remove("mlruns/receipts/variants/tiny/base.json"),
    "a changed receipt": write("mlruns/receipts/families/tiny.json"),
    "an emptied folder": lambda root: [
        p.unlink() for p in (root / "results/pooled/tiny").rglob("*") if p.is_file()
    ],
    "no entry": without_entry("score@base"),
    "no entry of a family": without_entry("compare@tiny"),
    "no lock": remove("dvc.lock"),
    "an object that is gone": lose_objects(("prompts", "data/prompts.parquet", None)),
    "a list that is gone": lose_objects(("model@base", "models/base", None)),
    "an object of a folder that is gone": lose_objects(("model@base", "models/base", 1)),
    "a damaged object": damage_object,
    "a command": edit_pipeline("cmd: toxtrail stage prompts", "cmd: toxtrail stage prompts -v"),
    "a dependency": edit_pipeline("- code/prompts.sha256", "- requirements.txt"),
    "a frozen stage": lambda root: (
        edit_pipeline("  prompts:\n", "  prompts:\n    frozen: true\n")(root),
        params("seed: 1", "seed: 2")(root),
    ),
}


@pytest.mark.parametrize("edit", EDITS.values(), ids=EDITS)
def test_it_agrees_with_dvc(root, edit):
    edit(root)
    ours = staleness(root)
    assert ours.stages == by_dvc(root)
    assert ours.others == []


def test_hashes_that_are_kept_change_no_answer(root):
    staleness(root)
    (root / ".toxtrail").mkdir()
    assert staleness(root).stages == {}
    write("data/prompts.parquet")(root)
    assert "prompts" in staleness(root).stages


def test_nothing_has_to_be_written(root):
    before = sorted(root.rglob("*"))
    staleness(root)
    assert sorted(root.rglob("*")) == before


def test_a_stage_of_another_kind_is_named_and_left_to_dvc(root):
    text = (root / "dvc.yaml").read_text()
    (root / "dvc.yaml").write_text(f"{text}  own:\n    cmd: echo\n    wdir: data\n")
    found = staleness(root)
    assert found.others == ["own"]
    assert found.stages == {}


def test_an_entry_is_read_alike_however_the_lock_is_laid_out(made):
    text = (made / "dvc.lock").read_text()
    stream = StringIO()
    writer = YAML(typ="safe")
    writer.dump(YAML(typ="safe").load(text), stream)
    other = stream.getvalue()
    assert not other.startswith("schema: '2.0'\nstages:\n  prompts:\n")
    assert read_entries(other) == read_entries(text)
    assert read_entries(text)["score@base"].params == {
        "scoring.scorers": {"judge": {"kind": "hf", "golden_tolerance": 0.001}},
        "scoring.max_error_share": 0.0,
    }
