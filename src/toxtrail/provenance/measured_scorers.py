"""Scorer and threshold of a measured sensitivity and specificity, which are valid for these
only."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from toxtrail.config.asset_uris import is_pinned
from toxtrail.config.schema import MeasuredOnConfig, PosteriorConfig
from toxtrail.errors import ConfigError
from toxtrail.provenance.comparability import scorer_options
from toxtrail.provenance.identity import Manifest

MEASURE_AGAIN = (
    "Measure again (`toxtrail labels score --counts`, or `toxtrail scorers bench`), or remove the "
    "entry."
)


def unpinned_assets(scorer: Mapping[str, Any]) -> list[str]:
    """Return the URIs without a pin of a scorer, its adapter and its base."""
    assets = [scorer, *(value for value in scorer.values() if isinstance(value, Mapping))]
    uris = [(asset["uri"], asset.get("sha256")) for asset in assets if "uri" in asset]
    return [uri for uri, sha256 in uris if not is_pinned(uri, sha256)]


def measured_on(scorer: Mapping[str, Any], threshold: float, labels_sha256: str) -> dict[str, Any]:
    """Return `measured_on` of an entry of posterior.scorer_error, as JSON values.

    Raises:
        ConfigError: the scorer has no pin, so its scores may change unnoticed.
    """
    if unpinned := unpinned_assets(scorer):
        raise ConfigError(
            f"{', '.join(unpinned)} has no pin, so its sensitivity and specificity cannot be bound "
            "to it. Run `toxtrail pin` first."
        )
    options = scorer_options(scorer)
    return {"scorer": options, "threshold": float(threshold), "labels_sha256": labels_sha256}


def scorer_error_problems(
    config: PosteriorConfig, scorers: Mapping[str, Mapping[str, Any]]
) -> list[str]:
    """Return one line for each entry of posterior.scorer_error that was measured on another scorer
    or at another threshold.

    Args:
        scorers: name -> entry in scoring.scorers as JSON values.
    """
    lines = []
    for name, error in (config.scorer_error or {}).items():
        if name not in scorers:
            continue
        threshold = config.threshold_of(name)
        if changes := list(_changes(error.measured_on, scorers[name], threshold)):
            lines.append(
                f"posterior.scorer_error.{name}: it was measured on another scorer than the "
                f"present one: {'; '.join(changes)}. {MEASURE_AGAIN}"
            )
    return lines


def require_measured_scorers(config: PosteriorConfig, scores: Manifest | None) -> None:
    """Compare posterior.scorer_error with the scorers that gave the scores.

    Args:
        scores: manifest of the score rows.

    Raises:
        ConfigError: an entry was measured on another scorer, or at another threshold.
    """
    scorers = scores.params["scorers"] if scores else {}
    if problems := scorer_error_problems(config, scorers):
        raise ConfigError("\n".join(problems))


def _changes(
    measured: MeasuredOnConfig, scorer: Mapping[str, Any], threshold: float
) -> Iterator[str]:
    """Return what differs; of a publication's scorer, only the options that it states count."""
    now, before = scorer_options(scorer), dict(measured.scorer)
    if measured.labels_sha256 is None:
        now = {name: value for name, value in now.items() if name in before}
        if now["uri"].startswith(f"{before['uri']}@"):
            before["uri"] = now["uri"]
    elif unpinned := unpinned_assets(scorer):
        yield f"{', '.join(unpinned)} has no pin"
    for name in sorted({*now, *before}):
        if now.get(name) != before.get(name):
            yield f"{name} is {_shown(now.get(name))}, it was {_shown(before.get(name))}"
    if threshold != measured.threshold:
        yield f"the threshold is {threshold:g}, it was {measured.threshold:g}"


def _shown(text: str | None) -> str:
    return "not given" if text is None else text
