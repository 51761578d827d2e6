"""Score rows of made-up families, for tests of what comes after scoring."""

from __future__ import annotations

from typing import NamedTuple

import pytest

from toxtrail.config import PosteriorConfig
from toxtrail.records import Generation, Score
from toxtrail.stages.compare import family_comparison, with_figures
from toxtrail.stages.pool import pooled_family
from toxtrail.stages.posterior import variant_posterior
from toxtrail.stages.said import said
from toxtrail.stages.tables import cells


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


class Measured(NamedTuple):
    """A family as the stages of a family read it."""

    tables: dict
    texts: dict
    summaries: dict

    def compared(self, settings, primary="judge", **options):
        reference = next(iter(self.tables))
        return family_comparison(*self, reference, primary, settings, **options)

    def drawn(self, settings):
        return with_figures(self.compared(settings))

    def pooled(self, settings, pooling, sampler):
        reference = next(iter(self.tables))
        tables, _, summaries = self
        return pooled_family(tables, summaries, reference, "judge", settings, pooling, sampler)


PLAIN = "The baker opened his shop at six and sold the first bread to a neighbour."


def _spoken(rows, text_of=lambda row: PLAIN):
    return [_generation(row, text_of(row)) for row in {row.key[:2]: row for row in rows}.values()]


def _generation(row, text):
    words = text.split() if row.state == "ok" else []
    return Generation(
        prompt_id=row.prompt_id,
        sample=row.sample,
        subset=row.subset,
        state=row.state,
        text=" ".join(words),
        token_ids=tuple(words.index(word) for word in words),
        prompt_tokens=3,
        finish_reason="stop",
        error="",
    )


@pytest.fixture
def spoken():
    """Score rows -> generations that they could be of."""
    return _spoken


@pytest.fixture
def measured(settings):
    """Variant -> score rows, parent of each, and what a row's text is -> a family."""

    def make(rows, parents, text_of=None, config=settings):
        tables = {name: cells(own) for name, own in rows.items()}
        texts = {
            name: said(_spoken(own, (text_of or {}).get(name, lambda row: PLAIN)))
            for name, own in rows.items()
        }
        summaries = {
            name: {
                "variant": name,
                "family": "f",
                "role": name,
                "parent": parents[name],
                **variant_posterior(table, texts[name], name, "judge", config).summary,
            }
            for name, table in tables.items()
        }
        return Measured(tables, texts, summaries)

    return make
