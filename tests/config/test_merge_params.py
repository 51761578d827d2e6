"""Branches that add entries merge; what both changed differently is a conflict."""

from __future__ import annotations

import itertools

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from toxtrail.config.edit_params import Entry, YamlListItem, add_entries
from toxtrail.config.merge_params import is_name_list, merge_params, merged_names
from toxtrail.config.yaml_text import CONFLICT, parse_yaml
from toxtrail.scaffold import PRESETS, preset_path

BASE = """# settings
generation:
  temperature: 0.0   # greedy
  samples: 1

models:              # weights
  one:
    uri: file:one
    sha256: abc
finetunes: {}
variants:
  one: {family: f, role: base}

families:
  f:
    reference: one
    variants: [one]
# the end
"""


def with_variant(text, name, family="f", **fields):
    entries = [
        Entry("models", name, {"uri": f"file:{name}", "sha256": name * 3}, (f"license: {name}",)),
        Entry("variants", name, {"family": family, "role": name, **fields}, one_line=True),
    ]
    items = [YamlListItem(f"families.{family}.variants", name)]
    return add_entries(text, entries, items, "params.yaml")


def test_two_branches_that_each_add_the_first_family():
    base = preset_path("empty").read_text("utf-8")

    def with_family(name):
        entries = [
            Entry("models", name, {"uri": f"file:{name}", "sha256": name * 3}),
            Entry("variants", name, {"family": name, "role": "base"}, one_line=True),
            Entry("families", name, {"reference": name, "variants": [name]}),
        ]
        return add_entries(base, entries, [], "params.yaml")

    a, b = with_family("aa"), with_family("bb")
    for ours, theirs in ((a, b), (b, a)):
        merged = merge_params(base, ours, theirs)
        assert merged.conflicts == ()
        both = parse_yaml(merged.text)
        for section in ("models", "variants", "families"):
            assert both[section] == parse_yaml(a)[section] | parse_yaml(b)[section]


@pytest.mark.parametrize("preset", sorted(PRESETS.keys() - {"empty"}))
def test_two_branches_that_each_add_a_variant(preset):
    base = preset_path(preset).read_text("utf-8")
    family = next(iter(parse_yaml(base)["families"]))
    a, b = (with_variant(base, name, family) for name in ("aa", "bb"))
    for ours, theirs in ((a, b), (b, a)):
        merged = merge_params(base, ours, theirs)
        assert merged.conflicts == ()
        both = parse_yaml(merged.text)
        for section in ("models", "variants"):
            assert both[section] == parse_yaml(a)[section] | parse_yaml(b)[section]
        assert set(both["families"][family]["variants"][-2:]) == {"aa", "bb"}
        lines = merged.text.splitlines()
        assert {*base.splitlines(), "  # license: aa", "  # license: bb"} <= {
            *lines, *(line for line in base.splitlines() if "variants: [" in line)
        }  # fmt: skip


def test_both_add_the_same_variant():
    a = with_variant(BASE, "aa")
    assert merge_params(BASE, a, a) == (a, ())
    merged = merge_params(BASE, a, with_variant(BASE, "aa", parent="one"))
    assert merged.conflicts == ("variants.aa was added differently on both sides",)
    assert CONFLICT.search(merged.text)


@pytest.mark.parametrize(
    ("ours", "theirs"),
    [
        (("file:one", "file:two"), ("file:one", "file:three")),
        (("file:one", "file:two"), ("abc", "def")),
        (("role: base", "role: a"), ("role: base", "role: b")),
        (("0.0", "0.5"), ("0.0", "0.7")),
        (("# settings", "# mine"), ("# settings", "# yours")),
        (("# the end", "# mine"), ("# the end", "# yours")),
    ],
)
def test_what_both_changed_differently_is_a_conflict_of_that_entry(ours, theirs):
    for left, right in ((ours, theirs), (theirs, ours)):
        merged = merge_params(BASE, BASE.replace(*left), BASE.replace(*right))
        assert len(merged.conflicts) == 1
        before, middle, after = (
            merged.text.index(mark) for mark in ("<<<<<<< ", "=======\n", ">>>>>>> ")
        )
        assert left[1] in merged.text[before:middle]
        assert right[1] in merged.text[middle:after]
        assert "families:" not in merged.text[before:after]


def test_one_sides_change_stands():
    a = BASE.replace("0.0", "0.7").replace("# settings", "# mine")
    b = with_variant(BASE, "bb").replace("samples: 1", "samples: 4").replace("# the end", "# end")
    for ours, theirs in ((a, b), (b, a)):
        merged = merge_params(BASE, ours, theirs)
        assert merged.conflicts == ()
        assert "temperature: 0.7   # greedy" in merged.text
        assert "samples: 4" in merged.text
        assert merged.text.startswith("# mine")
        assert merged.text.endswith("# end\n")


def test_a_deletion_stands_unless_the_other_side_changed_the_entry():
    b = with_variant(BASE, "bb")
    without = b.replace("  bb: {family: f, role: bb}\n", "")
    assert without != b
    added = with_variant(b, "cc")
    assert set(parse_yaml(merge_params(b, without, added).text)["variants"]) == {"one", "cc"}
    changed = b.replace("role: bb", "role: other")
    for ours, theirs in ((without, changed), (changed, without)):
        merged = merge_params(b, ours, theirs)
        assert merged.conflicts == ("variants.bb was deleted on one side and changed on the other",)


def test_a_section_that_was_empty():
    a, b = (BASE.replace("finetunes: {}", f"finetunes:\n  {n}: {{parent: one}}") for n in "ab")
    assert parse_yaml(merge_params(BASE, a, b).text)["finetunes"] == {
        "a": {"parent": "one"}, "b": {"parent": "one"}
    }  # fmt: skip


@pytest.mark.parametrize("damaged", ["a: [", "- 1\n", "1\n", "<<<<<<< x\n", "<<: {a: 1}\n"])
def test_a_version_that_cannot_be_read_is_a_conflict_of_the_file(damaged):
    merged = merge_params(BASE, BASE, damaged)
    assert merged.conflicts
    assert BASE in merged.text
    assert damaged in merged.text


def test_an_anchor_that_one_side_removed_is_no_silent_change():
    base = "finetunes:\n  a:\n    lora: &l {r: 1}\n  b:\n    lora: *l\n"
    ours = "finetunes:\n  b:\n    lora: {r: 1}\n"
    theirs = base + "  c:\n    lora: *l\n"
    assert merge_params(base, ours, theirs).conflicts


NAMES = st.lists(st.sampled_from("abcdef"), unique=True)
VALUES = st.dictionaries(
    st.sampled_from(["models", "variants", "posterior"]),
    st.dictionaries(
        st.sampled_from("abc"),
        st.one_of(
            st.integers(0, 2),
            st.dictionaries(st.sampled_from("xyz"), st.integers(0, 2), max_size=3),
        ),
        max_size=3,
    ),
)


@given(st.tuples(VALUES, VALUES, VALUES))
def test_a_merge_without_a_conflict_is_the_merge_of_the_values(values):
    """Against a definition by single settings: every one is that of a side that changed it."""
    base, ours, theirs = (yaml.safe_dump(v, sort_keys=False) for v in values)
    merged = merge_params(base, ours, theirs)
    if merged.conflicts:
        assert CONFLICT.search(merged.text)
        return
    old, own, other, got = (flat(v) for v in (*values, parse_yaml(merged.text) or {}))
    for path in {*old, *own, *other, *got}:
        sides = [side.get(path) for side in (old, own, other)]
        if sides[1] == sides[0]:
            assert got.get(path) == sides[2]
        elif sides[2] in (sides[0], sides[1]):
            assert got.get(path) == sides[1]


def flat(values, path=()):
    if not isinstance(values, dict):
        return {path: values}
    return dict(
        itertools.chain.from_iterable(flat(v, (*path, k)).items() for k, v in values.items())
    )


@given(st.tuples(VALUES, VALUES))
def test_a_merge_with_the_unchanged_file_changes_nothing(values):
    base, changed = (yaml.safe_dump(v, sort_keys=False) for v in values)
    assert merge_params(base, changed, base) == (changed, ())
    assert parse_yaml(merge_params(base, base, changed).text) == values[1]
    assert merge_params(base, changed, changed) == (changed, ())


@given(NAMES, NAMES, NAMES)
def test_a_merged_list_has_each_name_that_no_side_removed(base, ours, theirs):
    merged = merged_names(base, ours, theirs)
    assert len(set(merged)) == len(merged)
    for name in "abcdef":
        sides = [name in side for side in (base, ours, theirs)]
        assert (name in merged) == (all(sides[1:]) if sides[0] else any(sides[1:]))


def test_lists_whose_order_or_content_is_a_setting_are_not_joined():
    assert is_name_list(("families", "f", "variants"))
    assert not is_name_list(("finetunes", "f", "lora", "targets"))
    base = "posterior:\n  subsets: [a]\n"
    assert merge_params(base, base.replace("a]", "a, b]"), base.replace("a]", "a, c]")).conflicts
