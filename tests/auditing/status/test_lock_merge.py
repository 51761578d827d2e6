"""A merged dvc.lock holds entries that one of the branches recorded, and no other."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from toxtrail.auditing.status.lock_merge import merge_lock
from toxtrail.auditing.status.lock_repair import entries, lock_problem
from toxtrail.errors import DataError

RUNS = ["prompts", "score@a", "score@b", "compare@f"]


def lock(runs):
    """dvc.lock with one output hash for each stage run."""
    blocks = [
        f"  {name}:\n    cmd: toxtrail stage {name.replace('@', ' ')}\n    outs:\n"
        f"    - path: out/{name}\n      hash: md5\n      md5: {digit * 32}\n      size: 1\n"
        for name, digit in runs.items()
    ]
    return "schema: '2.0'\nstages:\n" + "".join(blocks) if blocks else ""


LOCKS = st.dictionaries(st.sampled_from(RUNS), st.sampled_from("abc"))


@given(LOCKS, LOCKS, LOCKS)
def test_every_entry_is_one_of_a_side_and_the_newer_of_both(base, ours, theirs):
    text, dropped = merge_lock(lock(base), lock(ours), lock(theirs))
    got, own, other = (entries(one) for one in (text, lock(ours), lock(theirs)))
    old = entries(lock(base))
    assert not text or lock_problem(text) is None
    assert not set(dropped) & set(got)
    for name in RUNS:
        sides = (own.get(name), other.get(name))
        assert got.get(name) in (None, *sides)
        changed = [side for side in sides if side not in (old.get(name), None)]
        if len(set(changed)) > 1:
            assert name in dropped
        elif changed:
            assert got[name] == changed[0]
        else:
            assert got.get(name) == (old.get(name) if None not in sides else None)


@given(LOCKS, LOCKS, LOCKS)
def test_the_order_of_the_sides_is_no_matter(base, ours, theirs):
    one = merge_lock(lock(base), lock(ours), lock(theirs))
    two = merge_lock(lock(base), lock(theirs), lock(ours))
    assert entries(one.text) == entries(two.text)
    assert set(one.dropped) == set(two.dropped)


@pytest.mark.parametrize(
    "damaged",
    [
        lock({"prompts": "a"})[:-20],
        "<<<<<<< x\n",
        "stages: {prompts: {cmd: x}}\n",
        lock({"prompts": "a"}).replace("cmd: ", "<<<<<<< ours\n    cmd: "),
    ],
)
def test_a_damaged_version_is_not_merged(damaged):
    good = lock({"prompts": "a"})
    for versions in ((damaged, good, good), (good, damaged, good), (good, good, damaged)):
        with pytest.raises(DataError):
            merge_lock(*versions)
