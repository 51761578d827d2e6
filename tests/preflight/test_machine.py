"""The checks of the machine read the pins for this Python and platform."""

from __future__ import annotations

import pytest

from toxtrail.preflight import machine
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


def test_other_versions_than_the_pinned_ones_are_supported_within_the_bounds(tmp_path, monkeypatch):
    pins = tmp_path / "requirements.txt"
    pins.write_text("click==0.0.1\n", "utf-8")
    finding = machine._packages(pins)
    assert finding.ok
    assert "click" in finding.found
    assert finding.cure
    monkeypatch.setattr(
        machine,
        "requires",
        lambda name: ["click>=99", "absent", "other>=1; extra == 'more'", "packaging>=1"],
    )
    finding = machine._packages(pins)
    assert not finding.ok
    assert [part.split()[0] for part in finding.found.split("; ")[1:]] == ["click", "absent"]
    assert finding.cure
    monkeypatch.undo()
    pins.unlink()
    assert not machine._packages(pins).ok
