"""The decisions of `toxtrail gate` that MLflow runs show, computed again."""

from __future__ import annotations

import json
from collections.abc import Iterator

from toxtrail.analysis.gate import decide
from toxtrail.analysis.score_table import ScoreTable, build_score_table
from toxtrail.auditing.verify.context import (
    DAMAGE_ERRORS,
    Check,
    VerifyContext,
    broken,
    ok,
    unread_only,
    weak,
)
from toxtrail.backends.mlflow.read_store import StoredRun, StoreView
from toxtrail.config.gate_policy import GatePolicy
from toxtrail.config.load import validate_section
from toxtrail.errors import ConfigError
from toxtrail.records.results import ComparisonSummary
from toxtrail.records.run_tags import COMPARISONS_TAG, GATE_TAGS, POLICY_TAG
from toxtrail.reporting.gate_report import gate_tags


def verify_gates(evidence: VerifyContext, view: StoreView | None) -> Iterator[Check]:
    """Check that each decision is that of its policy on the comparisons that it names; one on other
    comparisons than the present ones is weak."""
    tagged = [
        stored
        for stored in (view.runs if view else ())
        if not stored.deleted and stored.run.tags.keys() & GATE_TAGS
    ]
    for stored in tagged:
        try:
            yield verify_gate(evidence, stored)
        except DAMAGE_ERRORS as error:  # problems of its files are reported there
            yield from unread_only("MLflow values", _title(stored), error)


def verify_gate(evidence: VerifyContext, stored: StoredRun) -> Check:
    """Check one decision; the comparisons of its policy must be in the experiment.

    Raises:
        DataError: one is missing or damaged.
    """
    name = _title(stored)
    found = {tag: stored.run.tags.get(tag) for tag in GATE_TAGS}
    try:
        policy = validate_section(GatePolicy, json.loads(found[POLICY_TAG] or ""), POLICY_TAG)
    except (ConfigError, ValueError) as error:
        return broken("MLflow values", name, f"tag {POLICY_TAG} is not a policy: {error}")
    families = policy.families or list(evidence.config.families)
    if set(families) - set(evidence.config.families):
        return weak("MLflow values", name, "its families are not all in params.yaml")
    store = evidence.store
    summaries = [store.read_results(ComparisonSummary, store.comparison_dir(f)) for f in families]

    def table_of(summary: ComparisonSummary, variant: str) -> ScoreTable:
        return build_score_table(store.read_scores(summary.family, variant))

    try:
        expected = gate_tags(decide(policy, summaries, table_of), summaries)
    except ConfigError as error:
        return broken("MLflow values", name, f"the policy does not fit its families: {error}")
    if found[COMPARISONS_TAG] != expected[COMPARISONS_TAG]:
        return weak("MLflow values", name, "its decision is on other comparisons than those here")
    wrong = [tag for tag, value in expected.items() if found[tag] != value]
    if not wrong:
        return ok("MLflow values", name)
    values = f"{found[wrong[0]]!r}, the files and the policy give {expected[wrong[0]]!r}"
    return broken("MLflow values", name, f"tag {wrong[0]} is {values}")


def _title(stored: StoredRun) -> str:
    return f"run {stored.run.name} ({stored.run.run_id[:8]}): gate"
