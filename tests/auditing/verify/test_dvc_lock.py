"""dvc.lock is read as strictly as DVC writes it."""

from __future__ import annotations

import copy

import pytest
import yaml

from toxtrail.auditing.verify.dvc_lock import Recorded, outputs, parse_lock
from toxtrail.errors import DataError

ENTRY = {
    "cmd": "toxtrail stage generate a",
    "deps": [{"path": "data/prompts.parquet", "hash": "md5", "md5": "0" * 32, "size": 5}],
    "params": {"params.yaml": {"generation": {"seed": 1}}},
    "outs": [{"path": "models/a", "hash": "md5", "md5": "1" * 32 + ".dir", "size": 9, "nfiles": 2}],
}  # fmt: skip


def text(change=None, **top):
    lock = {"schema": "2.0", "stages": {"generate@a": copy.deepcopy(ENTRY)}, **top}
    if change:
        change(lock["stages"]["generate@a"])
    return yaml.safe_dump(lock)


def test_an_entry_is_read_whole():
    (entry,) = parse_lock(text()).values()
    assert (entry.name, entry.stage, entry.key) == ("generate@a", "generate", "a")
    assert entry.params == {"generation": {"seed": 1}}
    assert entry.outs == {
        "models/a": Recorded(path="models/a", hash="md5", md5="1" * 32 + ".dir", size=9, nfiles=2)
    }
    assert [out.path for _, out in outputs(parse_lock(text()))] == ["models/a"]


def test_a_duplicate_entry_is_refused():
    twice = text() + text().split("stages:\n")[1]
    with pytest.raises(DataError, match="generate@a"):
        parse_lock(twice)


def test_a_stage_of_the_users_own_may_hold_what_ours_never_do():
    own = {"cmd": ["a", "b"], "deps": [{"path": "s3://x", "etag": "1"}], "params": {"x.toml": {}}}
    lock = parse_lock(yaml.safe_dump({"schema": "2.0", "stages": {"own": own}}))
    assert lock["own"].deps == {}


def test_the_projects_own_lock_is_read(project):
    lock = parse_lock((project / "dvc.lock").read_text("utf-8"))
    assert {"prompts", "report"} <= lock.keys()


@pytest.mark.parametrize(
    "change",
    [
        lambda e: e.update(note="edited"),
        lambda e: e["outs"][0].update(hash="sha256"),
        lambda e: e["outs"][0].pop("hash"),
        lambda e: e["outs"][0].pop("md5"),
        lambda e: e["outs"][0].update(md5=None),
        lambda e: e["outs"][0].update(md5="../../../../../etc/passwd"),
        lambda e: e["outs"][0].update(path="../../../../etc/passwd"),
        lambda e: e["deps"][0].update(path="/etc/passwd"),
        lambda e: e["deps"][0].update(path=r"C:\x"),
        lambda e: e["deps"].append(dict(e["deps"][0])),
        lambda e: e["outs"][0].update(isexec="yes"),
        lambda e: e["outs"][0].update(size="9"),
        lambda e: e["outs"][0].update(nfiles="2"),
        lambda e: e["outs"][0].update(cloud="s3"),
        lambda e: e["deps"].append("data/x"),
        lambda e: e.update(deps={}),
        lambda e: e.update(outs="models/a"),
        lambda e: e["params"].update({"other.yaml": {}}),
        lambda e: e.update(params=[]) or e.update(params=["seed"]),
    ],
)
def test_a_field_that_dvc_does_not_write_is_refused_by_place(change):
    with pytest.raises(DataError, match=r"dvc\.lock: generate@a"):
        parse_lock(text(change))


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (text(schema="1.0"), "schema '1.0'"),
        (text(extra=1), "top-level keys"),
        (text(stages=[]) + "stages: [1]\n", "stages|YAML"),
        ("a: [", "not valid YAML"),
        ("", r"dvc\.lock .*top-level keys NoneType"),
        ("just text", r"dvc\.lock .*top-level keys str"),
    ],
)
def test_what_is_no_lock_is_refused(content, said):
    with pytest.raises(DataError, match=said):
        parse_lock(content)


def test_entry_by_entry_says_what_the_whole_text_says(project):
    text = (project / "dvc.lock").read_text("utf-8")
    assert parse_lock(text, by_entry=True) == parse_lock(text)


@pytest.mark.parametrize(
    "change",
    [
        lambda text: text.replace("schema: '2.0'", 'schema: "2.0"'),
        lambda text: (
            text.replace("  prompts:\n    cmd:", "  prompts: &one\n    cmd:") + "  two: *one\n"
        ),
        lambda text: text + "  'a name: with a colon':\n    cmd: x\n",
        lambda text: text.replace(
            "    cmd: toxtrail", "    cmd: >-\n      toxtrail\n  \n      ", 1
        ),
    ],
)
def test_a_lock_laid_out_otherwise_is_read_the_same(project, change):
    text = change((project / "dvc.lock").read_text("utf-8"))
    assert parse_lock(text, by_entry=True) == parse_lock(text)
