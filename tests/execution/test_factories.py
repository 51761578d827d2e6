"""What is checked when a variant's model is made."""

import pytest

from toxtrail.errors import ConfigError
from toxtrail.execution.factories import refuse_unread


def test_an_argument_that_some_template_reads_is_accepted():
    others = iter([frozenset({"a"}), frozenset({"b", "c"}), frozenset({"not needed"})])
    refuse_unread(["b", "a"], frozenset(), others)
    assert next(others) == {"not needed"}, "no more models than needed are looked at"


def test_an_argument_that_no_template_reads_is_refused_with_the_nearest_name():
    others = iter([frozenset({"messages"}), frozenset({"enable_thinking", "b"})])
    with pytest.raises(ConfigError, match='"enable_thinkng".*Did you mean "enable_thinking"'):
        refuse_unread(["enable_thinkng", "b"], frozenset(), others)
