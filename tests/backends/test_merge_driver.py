"""The merge driver is defined in each clone; .gitattributes is completed, not replaced."""

from __future__ import annotations

import pytest

from toxtrail.backends import git
from toxtrail.backends.merge_driver import install_merge_driver, lacks_merge_driver

LINES = ["/params.yaml merge=toxtrail", "/dvc.lock merge=toxtrail"]


@pytest.mark.parametrize("present", [None, "", "*.csv -text\n", "*.csv -text", LINES[0] + "\n"])
def test_an_installation_completes_the_attributes_once(tmp_path, present):
    git.init(tmp_path)
    path = tmp_path / ".gitattributes"
    if present is not None:
        path.write_text(present)
    for _ in range(2):
        assert install_merge_driver(tmp_path)
        text = path.read_text()
        assert text.startswith(present or "")
        assert set(LINES) <= set(text.splitlines())
    install_merge_driver(tmp_path)
    assert path.read_text() == text
    assert not lacks_merge_driver(tmp_path)


def test_a_clone_lacks_it_and_an_experiment_without_the_attributes_does_not_want_it(tmp_path):
    git.init(tmp_path)
    assert not lacks_merge_driver(tmp_path)
    (tmp_path / ".gitattributes").write_text("\n".join(LINES))
    assert lacks_merge_driver(tmp_path)


def test_outside_git_nothing_is_installed(tmp_path):
    assert not install_merge_driver(tmp_path)
