"""The meaning of each column of a comparison's tables, for `toxtrail compare --explain`."""

from __future__ import annotations

from collections.abc import Iterable

from toxtrail.reporting.comparison_tables import QUANTILES
from toxtrail.reporting.table import Table, text_columns

MEANINGS = {
    "variant": "The variant that the row is about.",
    "role": "Its role in params.yaml.",
    "against": "The variant it is compared with: its parent or the family's reference.",
    "subset": "Subset of the prompts; all: the total, each subset weighted by its prompts.",
    "prompts": "Prompts with a score for both variants; (-n): n prompts without one.",
    "k": "Continuations of each prompt.",
    "toxic / scored": "Continuations at or above the scorer's threshold, of those with a score.",
    "rate": "The fraction of scored continuations that are toxic.",
    "interval": "Equal-tailed interval of the number before it.",
    "mean score": "Mean of the scores, from 0 to 1.",
    "not scored": "Continuations without a score, by reason; they are in no rate.",
    "expected maximum toxicity": "Mean over prompts of the largest score of a prompt's texts.",
    "toxicity probability": "Fraction of prompts with at least one toxic continuation.",
    "rates": "The rate of the other variant, then of this one.",
    "toxic for one only": "Prompts that are toxic for this variant only v for the other only.",
    "difference": "Rate of the variant minus that of the other, on the same prompts.",
    "P(direction)": "Probability that the difference has the sign shown.",
    "pooled": "The difference if all variants and subsets are estimated together.",
    "practically": "higher, lower: all of the interval is outside the region of practical "
    "equivalence; equivalent: all of it is inside.",
    "verdict": "higher, lower: the interval excludes 0; not decisive: it does not.",
    "texts": "Continuations.",
    "empty": "Continuations without a text.",
    "refused": "Refusals, by English phrases in the first two sentences.",
    "repetitive": "Texts that repeat themselves.",
    "degenerate": "Texts that are not language.",
    "other language": "Texts in another language than the prompts.",
    "unfinished": "Thoughts that never ended, so that there is no answer.",
    "filtered": "Answers that a server withheld.",
    "tokens": "Median length of the texts in tokens, or its difference.",
    "words": "Median length of the texts in words, or its difference.",
    "length": "Median length of the texts, or its difference.",
    "unit": "Unit of the lengths.",
    "at token limit": "Texts that ended at generation.max_new_tokens.",
    "guard": "The guard model that recognises refusals.",
    "no answer": "Texts for which the guard gave no answer.",
    "by the guard": "Refusals by the guard.",
    "by phrases": "Refusals by phrases.",
    "both": "Refusals by the guard and by phrases.",
    "only guard": "Refusals by the guard only.",
    "only phrases": "Refusals by phrases only.",
    "neither": "Texts that neither calls a refusal.",
    "agreement": "Texts for which guard and phrases agree.",
    "kappa": "Cohen's kappa of guard and phrases.",
    "as scored": "The difference by the scorer's labels.",
    "corrected": "The difference without the scorer's errors.",
    "by": "What the correction is based on.",
    "scorers": "agree: all scorers give the same verdict; fragile: they do not.",
    "disagree / scored": "Texts on which the scorers disagree, of those scored by all.",
    "disagreement": "The fraction of such texts, or its difference.",
    "ties": "Texts that half of the scorers call toxic.",
    "majority toxic": "Texts that more than half of the scorers call toxic.",
    "rate by majority": "The rate by the majority of the scorers.",
    "partly scored": "Texts without a score by one of the scorers.",
    "majority": "The difference by the majority of the scorers.",
    "verdict of the majority": "The verdict on that difference.",
}
"""Heading -> its meaning. Columns that are named after a scorer or a subset have none."""


def explained_columns(tables: Iterable[Table]) -> Table:
    """Return a table with the meaning of each column of the tables."""
    names = dict.fromkeys(column.name for table in tables for column in table.columns)
    meanings = {name: MEANINGS.get(name.removesuffix(QUANTILES)) for name in names}
    rows = [(name, meaning) for name, meaning in meanings.items() if meaning]
    return Table("Columns", text_columns("column", "meaning"), rows)
