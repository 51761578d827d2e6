"""A name is looked up in one project; an id is found in all."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from toxtrail.backends.mlflow.find_run import find_run, project_of
from toxtrail.backends.protocols import TrackedRun
from toxtrail.errors import ConfigError
from toxtrail.records.run_tags import KEY_TAG, PROJECT_TAG, SEAL_TAG

PROJECTS = ("a-00000001", "b-00000002", "")
NAMES = ("base", "tuned", "deadbeef", "f comparison")
HASHES = [c * 8 + end * 24 for c in "0a" for end in "01"]


def run(run_id, project, name="base", key="c" * 64, sealed=True):
    tags = {KEY_TAG: key, **({PROJECT_TAG: project} if project else {})}
    if sealed:
        tags[SEAL_TAG] = "s"
    return TrackedRun(run_id, name, "FINISHED", 0, tags, {}, {})


runs_of_projects = st.lists(
    st.builds(
        run,
        st.sampled_from(HASHES),
        st.sampled_from(PROJECTS),
        st.sampled_from(NAMES),
        st.sampled_from([key * 2 for key in HASHES]),
        st.booleans(),
    ),
    max_size=8,
)


@given(runs_of_projects, st.sampled_from(NAMES), st.sampled_from(PROJECTS))
def test_a_name_in_a_project_is_a_run_of_it_or_nothing(runs, name, project):
    found = find_run(runs, name, project)
    own = [r for r in runs if r.name == name and project_of(r.tags) == project]
    assert (found is None) == (not own)
    if found is not None:
        assert found == next((r for r in own if SEAL_TAG in r.tags), own[0])


@given(runs_of_projects, st.sampled_from([*NAMES, *HASHES]))
def test_without_a_project_several_of_them_are_never_decided(runs, reference):
    try:
        found = find_run(runs, reference, None)
    except ConfigError:
        return
    named = [r for r in runs if reference == r.name]
    if found in named:
        assert {project_of(r.tags) for r in named} == {project_of(found.tags)}


def test_an_id_is_found_in_another_project_and_a_name_is_not():
    runs = [run("0" * 32, "a-00000001"), run("1" * 32, "b-00000002", name="other")]
    assert find_run(runs, "1" * 8, "a-00000001") == runs[1]
    assert find_run(runs, "other", "a-00000001") is None
    assert find_run(runs, "1" * 7, "a-00000001") is None


def test_a_content_key_that_two_projects_have_is_the_own_projects_run():
    runs = [run("0" * 32, "a-00000001"), run("1" * 32, "b-00000002")]
    assert find_run(runs, "c" * 8, "b-00000002") == runs[1]
    for project in (None, "d-00000004"):
        with pytest.raises(ConfigError, match=r"(?s)a-00000001.*b-00000002"):
            find_run(runs, "c" * 8, project)


def test_the_beginning_of_two_ids_is_refused():
    runs = [run("0" * 31 + end, "a-00000001") for end in "12"]
    with pytest.raises(ConfigError, match="0" * 31 + "2"):
        find_run(runs, "0" * 8, "a-00000001")
    assert find_run(runs, "0" * 31 + "2", "a-00000001") == runs[1]
