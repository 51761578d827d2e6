"""DVC with what `toxtrail run` changes in it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from functools import partial

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from toxtrail.backends.dvc_process import (
    KEPT_TEXTS,
    _parse,
    _parse_for_update,
    heal_file_locks,
    write_atomically,
)

pytestmark = pytest.mark.slow

PIPELINE = """\
stages:
  one:
    cmd: {cmd}
    params: [value]
    deps: [in.txt]
    outs: [out.txt]
"""
RUN = (
    "import sys; from toxtrail.backends.dvc_process import run_dvc; "
    "sys.exit(run_dvc(sys.argv[1:], print))"
)


@pytest.fixture
def root(tmp_path):
    (tmp_path / ".dvc").mkdir()
    (tmp_path / ".dvc/config").write_text(
        f"[core]\n    no_scm = true\n    analytics = false\n    site_cache_dir = {tmp_path}/site\n"
    )
    (tmp_path / "params.yaml").write_text("value: 1\n")
    (tmp_path / "in.txt").write_text("in")
    return tmp_path


def started(root, cmd):
    (root / "dvc.yaml").write_text(PIPELINE.format(cmd=json.dumps(cmd)))
    command = [sys.executable, "-u", "-c", RUN, "--wait-for-lock", "repro"]
    return subprocess.Popen(
        command, cwd=root, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


def repro(root, cmd):
    process = started(root, cmd)
    out, err = process.communicate()
    return subprocess.CompletedProcess(cmd, process.returncode, out, err)


@pytest.mark.parametrize("name", ["params.yaml", "in.txt"])
def test_a_stage_whose_dependency_changes_is_not_recorded(root, name):
    done = repro(root, f"cp in.txt out.txt && echo 'value: 2' > {name}")
    assert done.returncode != 0
    assert name in done.stderr
    assert not (root / "dvc.lock").exists()
    assert not list((root / ".dvc").rglob("cache/runs/*"))  # nor in the run cache
    assert repro(root, "cp in.txt out.txt").returncode == 0
    assert "value: " in (root / "dvc.lock").read_text()


def test_a_stage_is_saved_although_another_command_holds_the_lock_for_long(root):
    """DVC itself gives up after three seconds, and the finished stage is lost."""
    holder = (
        "import time, zc.lockfile; lock = zc.lockfile.LockFile('.dvc/tmp/lock'); "
        "open('held', 'w').close(); time.sleep(5)"
    )
    cmd = (
        f'{sys.executable} -c "{holder}" & while [ ! -e held ]; do sleep 0.1; done; '
        "cp in.txt out.txt"
    )
    done = repro(root, cmd)
    assert done.returncode == 0, done.stderr
    assert "out.txt" in (root / "dvc.lock").read_text()


def test_it_waits_for_a_command_that_works_on_its_files(root):
    (root / ".dvc/tmp").mkdir()
    other = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
    held = {str(root / "out.txt"): {"pid": other.pid, "cmd": "dvc repro"}}
    (root / ".dvc/tmp/rwlock").write_text(json.dumps({"write": held}))
    done = started(root, "cp in.txt out.txt")
    try:
        assert any(f"process {other.pid}" in line for line in done.stdout)
        assert done.poll() is None
    finally:
        other.kill()
        other.wait()
    done.communicate()
    assert done.returncode == 0
    assert (root / "out.txt").read_text() == "in"


@pytest.mark.parametrize("text", ["", "{", "[]", '{"write": {'])
def test_a_damaged_list_of_locks_is_deleted(tmp_path, text):
    (tmp_path / "rwlock").write_text(text)
    assert heal_file_locks(tmp_path)
    assert not (tmp_path / "rwlock").exists()
    assert not heal_file_locks(tmp_path)


def test_a_sound_list_of_locks_is_left_alone(tmp_path):
    text = '{"write": {}, "read": {}}'
    (tmp_path / "rwlock").write_text(text)
    assert not heal_file_locks(tmp_path)
    assert (tmp_path / "rwlock").read_text() == text


def test_no_folder_of_dvc_is_no_problem(tmp_path):
    assert not heal_file_locks(tmp_path / ".dvc" / "tmp")


def test_a_file_is_replaced_through_its_link_with_its_mode(tmp_path):
    (tmp_path / "real").mkdir()
    target = tmp_path / "real/dvc.lock"
    target.write_text("old")
    target.chmod(0o640)
    (tmp_path / "dvc.lock").symlink_to(target)
    held = os.open(target, os.O_RDONLY)
    write_atomically(tmp_path / "dvc.lock", "new")
    assert os.read(held, 9) == b"old"  # whoever reads has the old one, complete
    os.close(held)
    assert (tmp_path / "dvc.lock").is_symlink()
    assert (target.read_text(), target.stat().st_mode & 0o777) == ("new", 0o640)
    assert [path.name for path in target.parent.iterdir()] == ["dvc.lock"]


def test_dvc_lock_is_replaced_and_never_overwritten(root):
    assert repro(root, "cp in.txt out.txt").returncode == 0
    before = (root / "dvc.lock").stat().st_ino
    os.link(root / "dvc.lock", root / "same")
    old = (root / "same").read_text()
    (root / "in.txt").write_text("other")
    assert repro(root, "cp in.txt out.txt").returncode == 0
    assert (root / "dvc.lock").stat().st_ino != before
    assert (root / "same").read_text() == old


def test_a_later_stage_changes_no_digit_of_an_earlier_one_in_dvc_lock(root):
    """Plain DVC writes 9.44390192564812e+16 when it saves the second stage."""
    number = "9.44390192564813e+16"
    (root / "params.yaml").write_text(f"value: {number}\n")
    one = PIPELINE.format(cmd=json.dumps("cp in.txt out.txt"))
    two = "  two: {cmd: cp out.txt end.txt, params: [value], deps: [out.txt], outs: [end.txt]}\n"
    (root / "dvc.yaml").write_text(one + two)
    command = [sys.executable, "-c", RUN, "repro"]
    subprocess.run(command, cwd=root, check=True, capture_output=True)
    lock = (root / "dvc.lock").read_text()
    assert lock.count(f"value: {number}\n") == lock.count("value: ") == 2


TEXTS = st.text(st.characters(exclude_categories=("C", "Zl", "Zp")))
"""Without control characters: ruamel.yaml does not write each of them as it is."""
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | TEXTS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXTS, inner, max_size=3),
    max_leaves=8,
)


@pytest.fixture
def reading():
    """Parsers as `toxtrail run` gives them to DVC, and what they know."""
    from dvc.utils.serialize import _yaml

    known = {}
    parse = partial(_parse, _yaml.parse_yaml, known)
    return parse, partial(_parse_for_update, _yaml.parse_yaml_for_update, parse), known


@given(st.dictionaries(TEXTS, VALUES, min_size=1, max_size=3))
@example({"a": 3e-05, "b": "word " * 60, "c": "a\n b\n", "yes": "no", "d": 9.44390192564813e16})
def test_dvc_lock_keeps_every_value_when_it_is_read_and_written(values):
    """The parser that keeps comments changes the last digit of the last of these examples."""
    from dvc.utils.serialize import _yaml

    data = {"stages": {"one": {"params": {"params.yaml": values}}}}
    text = _yaml.dumps_yaml(data)
    read = partial(_parse_for_update, None, partial(_parse, _yaml.parse_yaml, {}))
    again = read(text, "folder/dvc.lock")
    assert again == data
    assert _yaml.dumps_yaml(again) == text


def test_a_text_that_was_parsed_is_not_parsed_again_and_nobody_changes_it_for_others(reading):
    parse, for_update, known = reading
    first = parse("a: {b: [1]}", "params.yaml")
    first["a"]["b"].append(2)
    assert parse("a: {b: [1]}", "params.yaml") == {"a": {"b": [1]}}
    for_update("a: {b: [1]}", "dvc.lock")
    assert len(known) == 1
    for number in range(2 * KEPT_TEXTS):
        assert parse(f"a: {number}", "params.yaml") == {"a": number}
    assert len(known) == KEPT_TEXTS


def test_a_damaged_text_is_an_error_each_time(reading):
    from dvc.utils.serialize import YAMLFileCorruptedError

    parse, for_update, _ = reading
    for read in (parse, for_update, parse):
        with pytest.raises(YAMLFileCorruptedError):
            read("a: [", "dvc.lock")


def test_other_files_of_dvc_keep_their_comments(reading):
    from dvc.utils.serialize import _yaml

    _, for_update, _ = reading
    assert _yaml.dumps_yaml(for_update("a: 1  # one\n", "dvc.yaml")) == "a: 1  # one\n"
