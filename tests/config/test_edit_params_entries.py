"""New entries in params.yaml, whatever its form: all else stays, byte for byte."""

from __future__ import annotations

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from toxtrail.config.edit_params import Entry, YamlListItem, add_entries, replace_values
from toxtrail.errors import ConfigError

BLOCK = """# head
models:            # weights
  one:
    uri: file:one  # the first
  # two:
  #   uri: file:two

variants: {one: {role: base}}
families:
  f: {variants: [one]}
"""
ENTRY = Entry("models", "new", {"uri": "file:new", "sha256": "0" * 64}, ("license: mit",))
ITEM = YamlListItem("families.f.variants", "new")


def added(text, *entries, items=()):
    return add_entries(text, entries or (ENTRY,), items, "params.yaml")


def test_an_entry_stands_below_the_last_one_and_above_the_comments_that_follow():
    lines = added(BLOCK).split("\n")
    assert lines[4:8] == [
        "  # license: mit", "  new:", "    uri: file:new", f"    sha256: '{'0' * 64}'"
    ]  # fmt: skip
    assert [line for line in lines if line in BLOCK.split("\n")] == BLOCK.split("\n")


@pytest.mark.parametrize(
    "models",
    [
        "models: {}",
        "models: {a: {uri: x}}",
        "models:\n    a: {uri: x}   # wide indent",
        "models:\n  a:\n    uri: |\n      x\n      y\n",
        "models:\n  a: &a {uri: x}\n  b: *a",
        "models:\n  a:\n    uri: x\n    list:\n    - 1\n    - 2",
        "models:\r\n  a: {uri: x}\r",
    ],
)
@pytest.mark.parametrize("after", ["", "\n", "\n\n# end\nother: 1\n"])
def test_every_form_of_a_section_takes_an_entry(models, after):
    before = models + after
    found = yaml.safe_load(added(before))
    wanted = yaml.safe_load(before)
    wanted["models"]["new"] = dict(ENTRY.value)
    assert found == wanted


@pytest.mark.parametrize(
    "families",
    [
        "families:\n  f: {variants: [a]}",
        "families:\n  f:\n    variants: [a,\n               b]   # wide",
        "families:\n  f:\n    variants:\n    - a\n    - b # last\n    reference: a",
        "families:\n  f:\n    variants:\n      - a\n",
    ],
)
def test_every_form_of_a_list_takes_a_name(families):
    before = f"models: {{}}\n{families}\n"
    found = yaml.safe_load(added(before, items=(ITEM,)))
    assert found["families"]["f"]["variants"] == [
        *yaml.safe_load(before)["families"]["f"]["variants"], "new"
    ]  # fmt: skip


@pytest.mark.parametrize(
    "text",
    [
        "models: &m\n  a: {uri: x}\nagain: *m\n",
        "other: 1\n",
        "models:\n",
    ],
)
def test_what_cannot_be_edited_safely_is_left_alone_with_what_to_write(text):
    with pytest.raises(ConfigError, match="by hand:\nmodels:\n  new:"):
        added(text)


@given(st.text("ab#:-{}[]&*'\" ", min_size=1, max_size=12), st.text("xyz: #'\n", max_size=12))
def test_no_value_and_no_comment_can_change_anything_else(value, comment):
    entry = Entry("models", "new", {"uri": value}, (" ".join(comment.split()),))
    found = yaml.safe_load(added(BLOCK, entry))
    assert found == {**(before := yaml.safe_load(BLOCK)), "models": {
        **before["models"], "new": {"uri": value}
    }}  # fmt: skip


@pytest.mark.parametrize("comment", ["", "   # weights"])
def test_the_first_entry_of_a_section_is_a_block_below_its_key(comment):
    before = f"models: {{}}{comment}\nvariants: {{}}\n"
    key, first, second = added(before).splitlines()[:3]
    assert key.rstrip() == "models:" + (comment and f"   {comment}")
    assert (first, second) == ("  # license: mit", "  new:")
    assert added(before).endswith("\nvariants: {}\n")


SCALARS = st.integers() | st.booleans() | st.text("ab#: '\n", max_size=6)
NAMES = st.text("abc", min_size=1, max_size=3)


@given(
    st.dictionaries(NAMES, st.dictionaries(NAMES, SCALARS), min_size=1), st.integers(0, 9), NAMES
)
def test_replaced_values_change_nothing_else(mapping, number, word):
    head = "section:\n  inner:   # replaced\n"
    before = f"a: 1   # one\n{head}    x: 1\n    y: [2]\n  kept: 1 # same\nb: old\n"
    after = replace_values(before, {"section.inner": mapping, "a": number, "b": word}, "p")
    assert yaml.safe_load(after) == {
        "a": number, "section": {"inner": mapping, "kept": 1}, "b": word
    }  # fmt: skip
    assert after.startswith(f"a: {number}   # one\n{head}")
    assert "\n  kept: 1 # same\n" in after


@pytest.mark.parametrize("path", ["models", "variants.one", "families.f.variants", "absent"])
def test_a_value_of_another_form_is_not_replaced(path):
    with pytest.raises(ConfigError, match="by hand"):
        replace_values(BLOCK, {path: 1}, "params.yaml")
