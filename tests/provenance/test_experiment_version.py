"""The version of toxtrail that made an experiment."""

from __future__ import annotations

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from toxtrail import __version__, scaffold
from toxtrail.errors import ConfigError
from toxtrail.provenance.experiment_version import (
    experiment_version,
    is_newer,
    is_older,
    older_version_note,
    require_not_newer,
)

versions = st.lists(st.integers(0, 30), min_size=1, max_size=3).map(lambda n: ".".join(map(str, n)))


def numbers(version):
    parts = [int(n) for n in version.split(".")]
    return parts + [0] * (3 - len(parts))


@given(versions)
def test_versions_are_ordered_by_their_numbers(version):
    assert is_older(version) == (numbers(version) < numbers(__version__))
    assert is_newer(version) == (numbers(version) > numbers(__version__))


@given(versions)
def test_only_a_newer_version_is_refused_and_only_an_older_one_is_noted(tmp_path_factory, version):
    assume(numbers(version) != numbers(__version__))
    root = tmp_path_factory.mktemp("experiment")
    (root / "dvc.yaml").write_text(f"# Written by toxtrail {version}; `toxtrail upgrade` ...\n")
    assert experiment_version(root) == version
    if is_newer(version):
        with pytest.raises(ConfigError, match=version):
            require_not_newer(root)
        assert older_version_note(root) is None
    else:
        require_not_newer(root)
        assert version in older_version_note(root)


def test_an_experiment_of_this_version_has_neither(tmp_path):
    (tmp_path / "dvc.yaml").write_bytes(scaffold.versioned_files()["dvc.yaml"])
    assert experiment_version(tmp_path) == __version__
    require_not_newer(tmp_path)
    assert older_version_note(tmp_path) is None


def test_the_first_version_wrote_another_comment(tmp_path, project):
    stored = (project / "tests/fixtures/experiment_0_1/dvc_yaml").read_bytes()
    (tmp_path / "dvc.yaml").write_bytes(stored)
    assert experiment_version(tmp_path) == "0.1.0"


def test_a_checkout_and_a_folder_without_a_pipeline_have_no_version(tmp_path, project):
    assert experiment_version(project) is None
    assert experiment_version(tmp_path) is None


def test_a_version_below_the_head_is_not_of_the_experiment(tmp_path):
    (tmp_path / "dvc.yaml").write_text("stages:\n" + "# x\n" * 200 + "# written by toxtrail 9.0\n")
    assert experiment_version(tmp_path) is None
