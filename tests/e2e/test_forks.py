"""The tests run commands as forks: the installed command answers the same, for each of them."""

from __future__ import annotations

import re

import pytest

pytestmark = pytest.mark.slow

READING = (
    ["--version"], ["status"], ["variants", "--help"], ["runs", "--csv"], ["compare", "--json"],
    ["flips", "base", "tuned"], ["diff", "base", "tuned"], ["plan", "--no-probe", "--json"],
    ["contamination", "tuned"], ["audit", "tuned"], ["verify"], ["report"], ["card", "tuned"],
    ["check"], ["doctor", "--help"], ["published", "--help"],
    ["scorers", "bench", "--help"],
    ["labels", "--help"], ["labels", "agreement", "--help"], ["labels", "page", "--help"],
    ["sign", "--help"], ["export", "--help"], ["ui", "--help"], ["init", "--help"],
    ["upgrade", "--help"], ["pin"], ["texts", "--help"],
)  # fmt: skip
WRONG = (["compare", "base", "tunde"], ["nonsense"], ["stage", "generate", "bse"])


@pytest.mark.parametrize("arguments", [*READING, *WRONG], ids=" ".join)
def test_a_fork_and_the_installed_command_answer_the_same(finished, arguments):
    forked = finished.toxtrail(*arguments, code=None)
    alone = finished.installed(*arguments, code=None)
    assert (forked.returncode, *said(forked)) == (alone.returncode, *said(alone))
    assert (forked.returncode == 0) == (arguments not in WRONG)


def said(done):
    """Both streams, without what differs from second to second: the age of a run and the free
    disk space."""
    passing = r'\d+ (seconds?|minutes?) ago|"free": [\d.]+'
    return [re.sub(passing, "", text) for text in (done.stdout, done.stderr)]
