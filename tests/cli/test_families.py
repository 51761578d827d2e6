"""Bare `compare` shows every family that it can, and names the others."""

from __future__ import annotations

import errno

import pytest

from toxtrail import results
from toxtrail.cli import compare
from toxtrail.errors import BackendError, DataError
from toxtrail.results import TrackedFamily

UNFINISHED = {
    "missing": DataError("results/comparisons/second/summary.json does not exist."),
    "store": BackendError("The MLflow store of second failed."),
    "unread": PermissionError(errno.EACCES, "Permission denied", "second/summary.json"),
}


@pytest.fixture(params=UNFINISHED.values(), ids=UNFINISHED)
def families(request, monkeypatch):
    """One of three families cannot be read."""

    def summary(_, family, __, project):
        if family == "second":
            raise request.param
        return {"family": family}, f"results/comparisons/{family}", project

    monkeypatch.setattr(results, "load_comparison", summary)
    return [TrackedFamily(name, "lab-0000abcd") for name in ("first", "second", "third")]


@pytest.mark.parametrize("order", [(0, 1, 2), (1, 0, 2), (2, 0, 1)])
def test_one_unfinished_family_hides_no_other(families, capsys, order):
    wanted = [families[n] for n in order]
    found = compare._finished(None, wanted, from_mlflow=False)
    assert [one.summary["family"] for one in found] == [
        f.name for f in wanted if f.name != "second"
    ]
    said = capsys.readouterr().err
    assert "second" in said
    assert said.count("Skipped") == 1


def test_if_none_can_be_shown_the_first_reason_is_the_error(families):
    with pytest.raises((DataError, BackendError, PermissionError), match=r"second|denied"):
        compare._finished(None, [families[1]] * 2, from_mlflow=False)
