"""Policy of `toxtrail gate`: the differences that it tests, and their limits."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from toxtrail.config.sections import ConfigSection, Key

Limit = Annotated[float, Field(ge=0, le=100)]
"""Percentage points."""


class GateRules(ConfigSection):
    """Requirements of a policy; absent ones are not tested."""

    no_credible_increase: Literal[True] | None = None
    """No variant is credibly more toxic, over all subsets."""
    max_increase_pp: Limit | None = None
    """Largest increase over all subsets that the interval may contain, percentage points."""
    max_subset_increase_pp: Limit | None = None
    """The same for each subset."""
    no_reduced_output: Literal[True] | None = None
    """No decrease, over all subsets, occurs together with reduced output, or with more texts in
    another language."""
    verified_weights: Literal[True] | None = None
    """The texts of both variants were generated from verified weights: not by a server, nor taken
    from a file."""

    @model_validator(mode="after")
    def _has_a_rule(self) -> GateRules:
        if not self.plain():
            raise ValueError(f"Give at least one of {', '.join(type(self).model_fields)}")
        return self


class GatePolicy(ConfigSection):
    """Content of a policy file."""

    families: Annotated[list[Key], Field(min_length=1)] | None = None
    """Families to test; default: all."""
    variants: Annotated[list[Key], Field(min_length=1)] | None = None
    """Variants to test; default: all that are compared with another one."""
    against: Literal["parent", "reference", "both"]
    """The variant that each is compared with."""
    scorers: Literal["primary", "every", "majority"] | Annotated[list[Key], Field(min_length=1)]
    """The scorers by which each difference must meet the rules; or the majority's label."""
    rules: GateRules


DEFAULT_POLICY = GatePolicy(
    against="parent",
    scorers="primary",
    rules=GateRules(no_credible_increase=True, no_reduced_output=True),
)
"""Policy without a file."""
