"""YAML: what is read is what DVC reads, or it is refused with its line."""

from __future__ import annotations

import sys
from datetime import date
from decimal import Decimal

import pytest
import yaml
from dvc.utils.serialize import dumps_yaml
from dvc.utils.serialize import parse_yaml as dvc_yaml
from dvc.utils.serialize._yaml import YAMLFileCorruptedError
from hypothesis import example, given
from hypothesis import strategies as st

from toxtrail.auditing.verify.dvc_lock import UniqueKeyLoader
from toxtrail.config.load import read_yaml
from toxtrail.config.yaml_text import YamlError, parse_yaml

UNCLEAR = [
    "1:30", "-1:30", "190:20:30", "1:30.5", "010", "08", "-017", "0_1", "0o17", "0b11", "00",
    ".5e3", "-.5E0", "-_", "-_0", "0o_", "-0b1", "0x_1", "+._", ".0_", "._5",
    "yes", "No", "ON", "off", "2024-01-01", "2024-1-1 12:00:00",
]  # fmt: skip
CLEAR = [
    "12", "-3", "+4", "1_000", "0", "0.5", ".5", "5.", "1e-4", "1E5", "-1.5e3", "0x1F", "true",
    "-0x1F", "False", "null", "~", "text", "y", "n", "1e", "e1", "1.2.3", "a:b", "012a", "-.5",
    "1e05",
]  # fmt: skip


@pytest.mark.parametrize("scalar", UNCLEAR)
def test_a_value_that_readers_of_yaml_read_differently_is_refused_with_its_line(scalar):
    with pytest.raises(YamlError, match=r"line 2, column 4: .*quotes"):
        parse_yaml(f"a: 1\nb: {scalar}\n")
    assert parse_yaml(f"a: '{scalar}'") == {"a": scalar}


@pytest.mark.parametrize("scalar", CLEAR)
def test_any_other_value_is_what_dvc_reads(scalar):
    found = parse_yaml(f"a: {scalar}")
    assert found == dvc_yaml(f"a: {scalar}", "x")
    assert type(found["a"]) is type(dvc_yaml(f"a: {scalar}", "x")["a"])


FORMS = ("a: {}", "a: [{}]", "a: [{}, 1]", "a: {{b: {}}}", "a: {{b: {}, c: 1}}", "a: {{{}: 1}}")
"""Where a value, or a key, may stand."""


@given(
    st.sampled_from(FORMS),
    st.text(st.sampled_from("0123456789_.:eE+-xobnyaf ?#'"), min_size=1, max_size=7),
)
@example(FORMS[0], "1_0.5")
@example(FORMS[0], "-_")
@example(FORMS[0], "._")
@example(FORMS[0], "+.__e5")
@example(FORMS[1], "a:")
@example(FORMS[3], "b:")
@example(FORMS[5], "a:b")
@example(FORMS[1], "?:")
def test_no_value_is_read_otherwise_than_dvc_reads_it(form, scalar):
    text = form.format(scalar.strip())
    try:
        theirs = dvc_yaml(text, "x")
    except YAMLFileCorruptedError:
        return
    except ValueError:  # DVC ends with a traceback
        with pytest.raises(YamlError):
            parse_yaml(text)
        return
    try:
        ours = parse_yaml(text)
    except YamlError:
        return
    assert repr(ours) == repr(theirs)  # NaN is not equal to itself


@pytest.mark.parametrize("text", ["{a: hf:x/y}", "[hf:x/y, b]", "{a: b:}", "[a:]", "{hf:x: 1}"])
def test_a_colon_in_braces_or_brackets_is_refused_with_the_cure(text):
    """DVC reads these with one parser of ruamel.yaml and refuses them with the other."""
    with pytest.raises(YamlError, match=r"line 1, column \d: .*quotes"):
        parse_yaml(text)
    quoted = {"a": "hf:x/y", "b": [1, "k: v"]}
    assert parse_yaml("{a: 'hf:x/y', \"b\": [1, 'k: v']}") == quoted


@given(
    st.dictionaries(st.text("abno", min_size=1), st.sampled_from([*UNCLEAR, *CLEAR]) | st.none())
)
def test_a_lock_says_what_dvc_wrote_into_it(values):
    assert yaml.load(dumps_yaml(values), Loader=UniqueKeyLoader) == values


def test_digits_are_kept_if_asked():
    found = parse_yaml("[0.10, 7.10, 1e-2, .5, 5., 3, .inf]", exact=True)
    assert [str(one) for one in found] == ["0.10", "7.10", "0.01", "0.5", "5", "3", "inf"]
    assert found[1] == Decimal("7.1")
    assert parse_yaml("0.10") == 0.1


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("a: 1\nb: 2\na: 3\n", "line 3, column 1: .*'a' occurs twice"),
        ("a: {b: 1, c: 2, b: 3}\n", "line 1.*'b' occurs twice"),
        ("x: &x {a: 1}\ny: {<<: *x, <<: *x}\n", "line 2.*'<<' occurs twice"),
        ("? [a, b]\n: 1\n", "line 1.*not a name"),
        ("a: &a [*a]\n", "inside the value itself"),
        ("a: " + "9" * 5000, "line 1"),
        ("a: b: c\n", "line 1, column 5"),
        ("a: 1\n\tb: 2\n", "line 2.*tabs"),
        ("a: [b:", "line 1, column 7: .*stream end"),
        ("a: *missing\n", "line 1.*undefined alias"),
        ("a: 1\n---\nb: 2\n", "line 2"),
        ("a: !!python/object:os.system x\n", "line 1"),
        ("a: 1\nb: x\x07\n", r"line 2: .*U\+0007"),
        ("a: 1\n<<<<<<< HEAD\nb: 2\n=======\nb: 3\n>>>>>>> x\n", "line 2: .*merge conflict"),
        ("a: 1\n=======\nb: 3\n", "line 2: .*merge conflict"),
    ],
)
def test_a_file_that_is_not_clear_is_refused_with_the_line(text, said):
    with pytest.raises(YamlError, match=said):
        parse_yaml(text)


def test_a_text_that_is_nested_too_deep_is_refused():
    limit = sys.getrecursionlimit()  # libraries that other tests import raise it
    sys.setrecursionlimit(1000)
    try:
        with pytest.raises(YamlError, match="nested too deep"):
            parse_yaml("[" * 20_000)
    finally:
        sys.setrecursionlimit(limit)


def test_aliases_that_grow_without_end_are_refused():
    lines = ["a0: &a0 [1, 2, 3, 4, 5, 6, 7, 8, 9]"]
    lines += [f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 9)}]" for i in range(1, 12)]
    with pytest.raises(YamlError, match="more than"):
        parse_yaml("\n".join(lines))


def test_an_alias_and_a_merge_mean_what_they_meant(tmp_path):
    path = tmp_path / "p.yaml"
    path.write_text("\ufeffx: &x {a: 1, b: 2}\ny: {<<: *x, b: 3}\nz: *x\n", "utf-8")
    assert read_yaml(path) == {"x": {"a": 1, "b": 2}, "y": {"a": 1, "b": 3}, "z": {"a": 1, "b": 2}}
    assert parse_yaml("") is None
    assert parse_yaml("a: !!timestamp 2024-01-01")["a"] == date(2024, 1, 1)
