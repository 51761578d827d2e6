"""Measurement conditions: two rates are comparable only if they were measured under the same ones.

The fingerprint includes the conditions that must not cause a difference: prompts and their
clusters, template, decoding, precision, weights that stayed quantized in memory, scorers and
their thresholds, whether and by which API a server generated the texts (its precision is unknown),
and whether they
come from a file (which does not say how they were generated). It excludes the object of a
comparison (the weights) and the sources of noise (library versions, device, batch plan), which the
audit shows.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from toxtrail.errors import DataError
from toxtrail.provenance.identity import (
    Manifest,
    canonical_json,
    content_key,
    sha256_text,
    shown_param,
    walk_lineage,
)

SCORER = "scorer."
"""Prefix of the fields that name a scorer."""
THRESHOLD = "threshold."
"""Prefix of the fields that name the threshold of a scorer."""
FIELD_OF_SERVER = "backend"
"""Field of texts that a server generated."""
FIELD_OF_FILE = "origin"
"""Field of texts from a file."""
TEXTS_ORIGIN = "texts from a file (decoding not known, lengths in words, not tokens)"
"""Value in place of the decoding settings if the texts were generated elsewhere."""

UNBOUND_OPTIONS: Mapping[str, str] = {
    "golden": "texts with known scores: they show whether the scorer is the pinned one",
    "golden_tolerance": "largest deviation from those scores",
    "languages": "languages of its training texts: only texts in another one are counted by them",
}
"""Options of scorers that cannot change a score -> the reason; a measurement is bound to all
others."""
LONGEST_OPTION = 200
"""Characters of an option's value; of a longer one, the hash is recorded."""


class ConditionMismatch(NamedTuple):
    """One condition that differs between two variants."""

    variant: str
    field: str
    found: str
    reference: str
    """Value of the variant that it is compared with."""

    def __str__(self) -> str:
        return f"{self.variant}: {self.field} is {self.found}, not {self.reference}"


def measurement_conditions(
    scores: Manifest,
    prompt_ids: Iterable[str],
    thresholds: Mapping[str, float],
    clusters: Mapping[str, str],
) -> dict[str, str]:
    """Return the conditions as field -> value.

    Args:
        scores: the manifest of the score rows from which a rate is computed.
        prompt_ids: id of every prompt used; an id contains its subset and the hash of its text.
        thresholds: scorer -> threshold, for every scorer of the rows.
        clusters: prompt -> cluster, for prompts that have one.

    Raises:
        DataError: the manifest of the scores does not contain the generation settings.
    """
    generated = next((node for node in walk_lineage(scores) if node.kind == "generate"), None)
    if generated is None:
        raise DataError(
            "The scores do not contain the settings of their generations. Re-run `dvc repro`."
        )
    decoding = {k: v for k, v in generated.params["generation"].items() if k != "max_error_share"}
    ids = sorted(prompt_ids)
    scorers = scores.params["scorers"]
    origin = (
        {FIELD_OF_SERVER: generated.environment["backend"]}
        if {"served_model_name", "api_model"} & set(generated.params)
        else {}
    )
    if weights := generated.environment.get("weights"):
        origin = {"weights": weights}
    if "texts" in generated.params:
        origin = {FIELD_OF_FILE: TEXTS_ORIGIN}
    return {
        "prompts": f"{len(ids)}:{content_key(ids)[:16]}",
        **({"clusters": _partition(clusters)} if clusters else {}),
        **{
            name: shown_param(name, value) if name in ("system", "turns") else canonical_json(value)
            for name, value in sorted(decoding.items())
        },
        **origin,
        **{
            f"{SCORER}{name}": content_key(scorer_options(scorers[name]))[:16]
            for name in sorted(scorers)
        },
        **{f"{THRESHOLD}{n}": canonical_json(float(thresholds[n])) for n in sorted(thresholds)},
    }


def scorer_options(scorer: Mapping[str, Any]) -> dict[str, str]:
    """Return the options of a scorer that can change a score, as option -> text.

    Args:
        scorer: its entry in scoring.scorers as JSON values, as recorded in manifests.
    """
    return {name: _text(value) for name, value in scorer.items() if name not in UNBOUND_OPTIONS}


def _text(value: object) -> str:
    text = value if isinstance(value, str) else canonical_json(value)
    return text if len(text) <= LONGEST_OPTION else f"sha256:{sha256_text(text)}"


def _partition(clusters: Mapping[str, str]) -> str:
    """Return which prompts belong together, independent of the clusters' names."""
    members: dict[str, list[str]] = {}
    for prompt in sorted(clusters):
        members.setdefault(clusters[prompt], []).append(prompt)
    return f"{len(members)}:{content_key(sorted(members.values()))[:16]}"


def fingerprint(fields: Mapping[str, str]) -> str:
    """Return the hash of a set of conditions."""
    return content_key(dict(fields))


def mismatches(
    variant: str, fields: Mapping[str, str], reference: Mapping[str, str]
) -> list[ConditionMismatch]:
    """Return differing fields in the order of the reference's fields, then those of the variant
    only."""
    names = [*reference, *(name for name in fields if name not in reference)]
    return [
        ConditionMismatch(
            variant, name, fields.get(name, "missing"), reference.get(name, "missing")
        )
        for name in names
        if fields.get(name) != reference.get(name)
    ]


def require_comparable(mismatches: Sequence[ConditionMismatch], against: str, cure: str) -> None:
    """Raise DataError with every difference, if there is one."""
    if mismatches:
        raise DataError(
            f"Not comparable with {against}: these were measured under other conditions, so a "
            "difference could come from those:\n"
            + "\n".join(f"  {mismatch}" for mismatch in mismatches)
            + f"\n{cure}"
        )


def mismatch_warning(rows: Sequence[Mapping[str, Any]]) -> str:
    """Return the warning for results under different conditions; empty if they are equal."""
    if not rows:
        return ""
    parts = [f"{r['variant']}: {r['field']} {r['found']} v {r['reference']}" for r in rows]
    return f"NOT COMPARABLE (mismatch allowed): {'; '.join(parts)}"
