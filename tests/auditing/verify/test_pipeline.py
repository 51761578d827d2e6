"""Problems of dvc.lock name what differs, in a line that can be read."""

from __future__ import annotations

import pytest

from toxtrail.auditing.verify.pipeline import NAMED, _not_those


@pytest.mark.parametrize("extra", [0, 1, 30])
def test_a_problem_lists_a_few_names_and_counts_the_others(extra):
    names = {f"folder/{number:02}" for number in range(NAMED + extra)}
    said = _not_those("deps", names)
    assert sum(name in said for name in names) == NAMED
    assert said.endswith(f"and {extra} more") == (extra > 0)
