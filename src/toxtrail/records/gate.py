"""Result rows of `toxtrail gate`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Literal

Outcome = Literal["pass", "fail", "not decided"]


@dataclass(frozen=True, slots=True, kw_only=True)
class GateRow:
    """One rule applied to one difference. Differences and limits are numbers between -1 and 1."""

    outcome: Annotated[str, "`pass`, `fail` or `not decided`"]
    rule: Annotated[str, "name of the rule in the policy"]
    family: Annotated[str, "b is compared with a"]
    a: str
    b: str
    scorer: Annotated[str, "scorer and subset"]
    subset: str
    n: Annotated[int, "prompts scored for both"]
    diff: Annotated[float | None, "observed difference, rate b - rate a, and interval"]
    lo: float | None
    hi: float | None
    limit: Annotated[float | None, "largest difference that the rule allows; None: it has none"]
    reason: Annotated[str, "why it failed or is not decided; empty if it passed"] = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class GateResult:
    """Decision of a policy."""

    decision: Outcome
    policy: Mapping[str, Any]
    policy_sha256: str
    """SHA-256 of the canonical JSON of the policy, in which comments and order do not count."""
    level: float
    """Probability with which all intervals cover together."""
    comparisons: int
    """Number of differences that the intervals are corrected for."""
    origins: Mapping[str, str]
    """Tested variant -> what its texts come from, if not from verified weights."""
    rows: Sequence[GateRow]
