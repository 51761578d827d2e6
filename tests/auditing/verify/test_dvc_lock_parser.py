"""The fast parser reads what DVC's own does."""

from __future__ import annotations

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from ruamel.yaml import YAML, YAMLError

from toxtrail.auditing.verify.dvc_lock_parser import _parse_values, _parse_words

WORDS = st.text("abcxyzTNnulfreso_-./:@#0159 ", min_size=1, max_size=9)


def text_of(section, values):
    rows = "".join(f"          {name}: {value}\n" for name, value in values)
    return f"        {section}:\n{rows}"


@given(WORDS, st.lists(st.tuples(WORDS, WORDS), min_size=1, max_size=3))
@example("variants.a", [("role", "null")])
@example("variants.a", [("role", "True")])
@example("variants.a", [("role", "x"), ("role", "y")])
@example("variants.a", [("uri", "hf:org/name@0f")])
@example("variants.a", [("role", "a: b")])
def test_words_are_what_yaml_reads(section, values):
    text = text_of(section, values)
    words = _parse_words(text)
    if words is None:
        return
    try:
        expected = YAML(typ="safe").load(text)
    except YAMLError as error:
        pytest.fail(str(error))
    assert dict(words) == expected


def test_a_plain_entry_needs_no_yaml_and_others_get_it():
    plain = text_of("variants.a", [("family", "smollm2-135m"), ("role", "tuned")])
    assert _parse_words(plain) == (("variants.a", {"family": "smollm2-135m", "role": "tuned"}),)
    assert _parse_values(text_of("posterior", [("level", "0.95")])) == (
        ("posterior", {"level": 0.95}),
    )
