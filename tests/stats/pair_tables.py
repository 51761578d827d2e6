"""Two-by-two tables as labels."""

from __future__ import annotations

import numpy as np

from toxtrail.stats.paired_differences import Pairs
from toxtrail.stats.paired_posterior import PairedPosterior, PairTable


def labels(table):
    """(prompt,) of a and of b."""
    return (
        np.repeat(np.array((1.0, 1.0, 0.0, 0.0)), table),
        np.repeat(np.array((1.0, 0.0, 1.0, 0.0)), table),
    )


def pairs(*tables, weights=None):
    """Of one subset for each table, weighted by their prompts."""
    sizes = [sum(table) for table in tables]
    own = [labels(table) for table in tables]
    share = weights or [n / sum(sizes) for n in sizes]
    return Pairs([a for a, _ in own], [b for _, b in own], share)


def posterior(*table, prior=0.5):
    return PairedPosterior(PairTable(*map(float, table)), prior)
