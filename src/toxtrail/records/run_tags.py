"""Names of the tags of an MLflow run.

The MLflow UI cuts names of more than 15 characters. Tags for people have no prefix. Hashes that no
search needs are listed in the run's record.json instead.
"""

from __future__ import annotations

# --- for people -----------------------------------------------------------------------------------

PROJECT_TAG = "project"
"""Id of the project: with the content key, it identifies a run. It is not part of the content, so
two projects with one content have equal content keys, and a run each."""
KIND_TAG = "kind"
"""`variant` or `comparison`."""
FAMILY_TAG = "family"
ROLE_TAG = "role"
PARENT_TAG = "parent"
SCORER_TAG = "scorer"
"""The primary scorer."""
ORIGIN_TAG = "origin"
"""Set if the texts were not generated here from verified weights."""
RATE_TAG = "rate"
"""The primary scorer's rate over all subsets, with its interval."""
COMPARABILITY_TAG = "comparability"
"""Fingerprint of the conditions; runs with the same one may be compared."""
MISMATCH_TAG = "mismatch"
"""Why variants of a comparison are not comparable."""
NONFINITE_TAG = "not_finite"
"""Metrics that are missing because their values are not finite."""
NOTE_TAG = "mlflow.note.content"
"""The description on a page."""
COMMIT_TAG = "mlflow.source.git.commit"
BRANCH_TAG = "mlflow.source.git.branch"
REPOSITORY_TAG = "mlflow.source.git.repoURL"
"""Address of the remote `origin`, without credentials."""
DIRTY_TAG = "git_dirty"
"""Whether there were uncommitted changes: `true` or `false`."""

# --- set by a comparison on the runs of its variants; the seal does not cover them ----------------

VERDICT_TAG = "verdict"
"""Verdict against the parent; against the reference if there is no parent."""
DIFFERENCE_TAG = "difference"
"""The difference of the verdict, with its interval."""
REFERENCE_TAG = "vs_reference"
"""Verdict and difference against the reference, if the parent is another variant."""
COMPARISON_TAG = "compared_in"
"""Content key of the comparison that has the verdict."""
VERDICT_TAGS = frozenset({VERDICT_TAG, DIFFERENCE_TAG, REFERENCE_TAG, COMPARISON_TAG})

# --- set by a gate on the runs of comparisons; the seal does not cover them -----------------------

DECISION_TAG = "gate"
POLICY_TAG = "gate.policy"
POLICY_HASH_TAG = "gate.sha256"
COMPARISONS_TAG = "gate.compared"
"""Content keys of the comparisons, shortened."""
GATE_TAGS = frozenset({DECISION_TAG, POLICY_TAG, POLICY_HASH_TAG, COMPARISONS_TAG})

# --- for programs ---------------------------------------------------------------------------------

PREFIX = "toxtrail."
KEY_TAG = "toxtrail.key"
"""Content key."""
SEAL_TAG = "toxtrail.seal"
"""SHA-256 of manifest.json; written last."""
PAYLOAD_TAG = "toxtrail.files"
"""SHA-256 of payload.json, the list of files."""
SCHEMA_TAG = "toxtrail.schema"
PUBLISHER_TAG = "toxtrail.clone"
"""The clone that wrote a run: only that one may delete it if it was never finished."""

RESERVED = frozenset(
    {
        PROJECT_TAG, KIND_TAG, FAMILY_TAG, ROLE_TAG, PARENT_TAG, SCORER_TAG, RATE_TAG, ORIGIN_TAG,
        COMPARABILITY_TAG, MISMATCH_TAG, NONFINITE_TAG, DIRTY_TAG, *VERDICT_TAGS, *GATE_TAGS,
    }
)  # fmt: skip
"""Tags without the prefix that only toxtrail sets."""


def is_reserved(tag: str) -> bool:
    """Return whether only toxtrail sets this tag."""
    return tag.startswith(PREFIX) or tag in RESERVED
