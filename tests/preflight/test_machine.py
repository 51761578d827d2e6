"""The checks of the machine read the pins for this Python and platform."""

from __future__ import annotations

import pytest

from toxtrail.preflight.machine import pinned_versions


@pytest.mark.parametrize(
    ("text", "pins"),
    [
        ("numpy==2.4.6\nzc.lockfile==4.0\n", {"numpy": "2.4.6", "zc.lockfile": "4.0"}),
        ("numpy==2.4.6\r\n", {"numpy": "2.4.6"}),
        ("# numpy==1\n--hash=x\n\nnumpy>=2\n", {}),
        ("numpy==2.4.6 ; python_full_version < '3'", {}),
        (
            "numpy==2.4.6 ; python_full_version < '3.1'\n"
            "numpy==2.5.5 ; python_full_version >= '3.1'  # a comment\n",
            {"numpy": "2.5.5"},
        ),
    ],
)
def test_pins_with_a_marker_count_where_it_is_true(text, pins):
    assert pinned_versions(text) == pins
