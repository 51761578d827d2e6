"""Determine a scorer's heads without loading it, where possible."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from toxtrail.config.asset_uris import DetoxifyUri, parse_uri
from toxtrail.config.schema import ScorerConfig
from toxtrail.errors import DataError
from toxtrail.regular_files import read_text

JIGSAW = ("toxic", "severe_toxic", "obscene", "threat", "insult", "identity_hate")
"""Heads of the embedded scorer, in the order of its outputs."""
DETOXIFY = (
    "toxicity", "severe_toxicity", "obscene", "identity_attack", "insult", "threat",
    "sexual_explicit", "male", "female", "homosexual_gay_or_lesbian", "christian", "jewish",
    "muslim", "black", "white", "psychiatric_or_mental_illness",
)  # fmt: skip
"""Heads of the checkpoints that the package detoxify publishes, under its names."""


def known_heads(config: ScorerConfig, folder: Path | None) -> tuple[str, ...]:
    """Return the heads that a scorer can have; empty if unknown.

    Args:
        folder: folder of a Hugging Face classifier's files; None if they are not local.
    """
    if config.kind == "jigsaw-bilstm":
        return JIGSAW
    if config.kind == "detoxify":
        return DETOXIFY if isinstance(parse_uri(config.uri), DetoxifyUri) else ()
    return _config_labels(folder / "config.json") if folder else ()


def _config_labels(path: Path) -> tuple[str, ...]:
    """Read the labels as transformers does; unnamed ones are LABEL_0, LABEL_1, ..."""
    try:
        settings: Any = json.loads(read_text(path))
        labels = settings.get("id2label") or range(int(settings.get("num_labels", 2)))
        if isinstance(labels, range):
            return tuple(f"LABEL_{number}" for number in labels)
        return tuple(str(name) for name in labels.values())
    except (DataError, OSError, ValueError, TypeError, AttributeError):
        return ()  # loading it reports the problem
