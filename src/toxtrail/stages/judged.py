"""Which scorer errs how on whom: params to draws, draws to columns."""

from __future__ import annotations

from typing import Any

import numpy as np

from toxtrail.config import AccuracyConfig, PosteriorConfig, Share
from toxtrail.errors import DataError
from toxtrail.stats.judge import Accuracy, Known, accuracy_draws, corrected, true_rate
from toxtrail.stats.rates import Floats, named_rng


def accuracy_of(scorer: str, variant: str, config: PosteriorConfig) -> Accuracy | None:
    """The scorer's accuracy on the variant's texts; None if nothing is known of it.

    Variants without a labelled sample of their own share the scorer's, and its draws: what is
    unknown of the scorer is the same for both.
    """
    judge = (config.judges or {}).get(scorer)
    if judge is None:
        return None
    own: AccuracyConfig | None = (judge.variants or {}).get(variant)
    known, name = (own, variant) if own else (judge, "")
    rng = named_rng(config.seed, f"judge|{scorer}|{name}")
    return accuracy_draws(
        _known(known.sensitivity), _known(known.specificity), config.prior, config.draws, rng
    )


def corrected_columns(name: str, draws: Floats | None, level: float) -> dict[str, Any]:
    """`<name>`, `<name>_lo`, `<name>_hi` and `<name>_possible`, the share of possible draws; None
    where nothing is known of the scorer or hardly anything is possible.

    Args:
        draws: (draw,) of a true rate or a difference of two, NaN where impossible.
    """
    columns = (name, f"{name}_lo", f"{name}_hi")
    if draws is None:
        return {**dict.fromkeys(columns), f"{name}_possible": None}
    try:
        found = corrected(draws, level)
    except DataError:
        possible = float(np.isfinite(draws).mean())
        return {**dict.fromkeys(columns), f"{name}_possible": possible}
    values = (found.mean, *found.interval)
    return {**dict(zip(columns, values, strict=True)), f"{name}_possible": found.possible}


def corrected_rate(called: Floats | None, accuracy: Accuracy | None) -> Floats | None:
    """(draw,) of the true rate; None where either is unknown."""
    return None if called is None or accuracy is None else true_rate(called, accuracy)


def _known(share: Share) -> Known:
    return Known(share, None) if isinstance(share, float) else Known(share.right, share.of)
