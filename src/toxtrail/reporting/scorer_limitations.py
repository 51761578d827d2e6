"""Known limitations of scorers and response flags, printed wherever numbers are published."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from toxtrail.analysis.response_flags.registry import RESPONSE_FLAGS
from toxtrail.config.scorer_kinds.registry import SCORER_KINDS

ERRORS_NOT_MEASURED = "Its errors on these texts were not measured (see `toxtrail labels sample`)."

LANGUAGES_NOT_DECLARED = (
    "The languages of its training texts are not declared (`scoring.scorers.<scorer>.languages`)."
)


def flag_limitations() -> str:
    """Return the known misses of the response flags."""
    rules = f"Response flags ({', '.join(RESPONSE_FLAGS)}) are detected by rules."
    return " ".join([rules, *(f.limitation for f in RESPONSE_FLAGS.values() if f.limitation)])


def scorer_limitations(scorer: str, config: Mapping[str, Any], corrected: bool) -> str:
    """Return one scorer's limitations, in a sentence or two.

    Args:
        config: its section of params.yaml.
        corrected: whether human labels correct its numbers.
    """
    languages = ", ".join(config.get("languages", ()))
    sentences = [
        _of_kind(config),
        f"Languages of its training texts: {languages}." if languages else LANGUAGES_NOT_DECLARED,
        *([] if corrected else [ERRORS_NOT_MEASURED]),
    ]
    return f"{scorer}: {' '.join(sentences)}"


def _of_kind(config: Mapping[str, Any]) -> str:
    """Return the limitations of a scorer's kind; they do not depend on what is installed."""
    if plugin := config.get("plugin"):
        return (
            f"a scorer of the plug-in {plugin['distribution']} {plugin['version']}: see its "
            "documentation for what it does not detect."
        )
    return SCORER_KINDS[config["kind"]].limitations(str(config.get("uri", "")))
