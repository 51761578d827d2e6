"""Score rows of made-up families, for tests of what comes after scoring."""

from __future__ import annotations

import pytest

from toxtrail.config import PosteriorConfig
from toxtrail.records import Score


@pytest.fixture
def settings():
    return PosteriorConfig(threshold=0.5, rope_pp=1.0, level=0.95, prior=0.5, draws=4000, seed=11)


@pytest.fixture
def score_rows():
    """Subset -> score of each prompt (None: a row without text) -> rows."""

    def make(values, scorer="judge"):
        return [
            Score(
                prompt_id=f"{subset}-{i}",
                sample=0,
                subset=subset,
                scorer=scorer,
                state="empty" if value is None else "ok",
                toxicity=value,
                heads=None if value is None else {"toxic": value},
                windows=int(value is not None),
            )
            for subset, scores in values.items()
            for i, value in enumerate(scores)
        ]

    return make
