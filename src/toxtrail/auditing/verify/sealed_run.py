"""A run in MLflow compared with the record that it was sealed with (record.json).

MLflow lets anybody with write access change a finished run without a trace. Additional tags, and
text that others add to the description, are ignored.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import Any

from toxtrail.backends.protocols import TrackedRun
from toxtrail.records.run_tags import (
    GATE_TAGS,
    NOTE_TAG,
    PAYLOAD_TAG,
    SEAL_TAG,
    VERDICT_TAGS,
    is_reserved,
)


def changes(run: TrackedRun, record: Mapping[str, Any]) -> Iterator[str]:
    """Return every difference in name, tags, params and the latest value of metrics."""
    if run.name != record["name"]:
        yield f'it was renamed from "{record["name"]}" to "{run.name}"'
    yield from _tags(run, record["tags"])
    params, metrics = record["params"], record["metrics"]
    for name in sorted({**params, **run.params}):
        if params.get(name) != run.params.get(name):
            yield f"param {name} was changed from {params.get(name)} to {run.params.get(name)}"
    for name in sorted({**metrics, **run.metrics}.keys() - set(record["curves"])):
        if not close(metrics.get(name), run.metrics.get(name)):
            yield f"metric {name} was changed from {metrics.get(name)} to {run.metrics.get(name)}"
    for name, points in record["curves"].items():
        last = max(points)[1] if points else None
        if not close(last, run.metrics.get(name)):
            yield f"metric {name} was changed from {last} to {run.metrics.get(name)}"


def _tags(run: TrackedRun, recorded: Mapping[str, str]) -> Iterator[str]:
    for name, text in recorded.items():
        now = run.tags.get(name)
        if now != text and not is_extended_note(name, text, now):
            yield f"tag {name} was changed from {text!r} to {now!r}"
    expected_tags = {*recorded, SEAL_TAG, PAYLOAD_TAG, *VERDICT_TAGS, *GATE_TAGS}
    for name in sorted(run.tags.keys() - expected_tags):
        if is_reserved(name):
            yield f"tag {name} was added: {run.tags[name]!r}"


def is_extended_note(tag: str, recorded: str, now: str | None) -> bool:
    """Return whether a tag is a description to which text was added."""
    return tag == NOTE_TAG and now is not None and recorded in now


def close(left: float | None, right: float | None) -> bool:
    """Return whether two numbers are equal in MLflow's double precision."""
    if left is None or right is None:
        return left is right
    return math.isclose(left, right, rel_tol=1e-12, abs_tol=1e-15)
