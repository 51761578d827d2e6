"""Disagreement and majority of several scorers are the counts of their labels, by brute force."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from toxtrail.analysis.family import VariantPair
from toxtrail.analysis.score_table import build_score_table
from toxtrail.analysis.scorer_agreement import agreement_pairs, agreement_rows
from toxtrail.records.results import VariantIdentity
from toxtrail.records.rows import Score
from toxtrail.reporting.comparison_tables import brief_notes, comparison_notes, section_tables
from toxtrail.reporting.comparison_view import ComparisonView
from toxtrail.stats.paired_differences import Pairs, pair_posterior, verdict
from toxtrail.stats.rate_posterior import rate_posterior

VARIANT = VariantIdentity(variant="v", family="f", role="v", parent=None)
NAMES = ("judge", "other", "second", "third")
THRESHOLDS = {"judge": 0.5, "other": 0.2, "second": 1.0, "third": 0.0}
SCORES = st.sampled_from([None, 0.0, 0.2, 0.5, 0.9, 1.0])
PARENTS = {"base": None, "tuned": "base"}


def row(prompt, sample, scorer, value, cluster=None):
    subset = prompt.split("-")[0]
    state = "error" if value is None else "ok"
    return Score(prompt, sample, subset, scorer, state, value, None, 0, cluster=cluster)


@st.composite
def families(draw):
    """(prompt, sample, scorer) -> score, for two variants: one or two samples, two to four scorers,
    one or two subsets; clusters or none."""
    names = NAMES[: draw(st.integers(2, 4))]
    samples = draw(st.integers(1, 2))
    prompts = [f"a-{i}" for i in range(draw(st.integers(2, 5)))]
    prompts += [f"b-{i}" for i in range(draw(st.sampled_from([0, 3])))]
    keys = [(p, k, name) for p in prompts for k in range(samples) for name in names]
    scores = st.fixed_dictionaries(dict.fromkeys(keys, SCORES))
    clusters = {p: draw(st.sampled_from(["x", "y"])) for p in prompts if draw(st.booleans())}
    return draw(scores), draw(scores), draw(st.sampled_from([{}, clusters]))


def table_of(scores, clusters):
    rows = [row(p, k, name, value, clusters.get(p)) for (p, k, name), value in scores.items()]
    return build_score_table(rows)


def votes_of(scores, subset):
    """(prompt, sample) -> labels of all scorers, for what all of them have scored; and how many
    only some have scored."""
    names = {name for _, _, name in scores}
    texts = {(p, k) for p, k, _ in scores if subset in ("all", p.split("-")[0])}
    votes, partly = {}, 0
    for p, k in sorted(texts):
        values = {name: scores[p, k, name] for name in names}
        known = [name for name in names if values[name] is not None]
        if len(known) == len(names):
            votes[p, k] = [values[n] >= THRESHOLDS[n] for n in names]
        elif known:
            partly += 1
    return votes, partly


def fractions(labels):
    """Prompt -> share of its labels."""
    by_prompt = {}
    for (prompt, _), label in labels.items():
        by_prompt.setdefault(prompt, []).append(label)
    return {prompt: float(np.mean(values)) for prompt, values in by_prompt.items()}


def weighted(scores, subset, shares):
    """The mean over subsets, weighted by the prompts asked; None if one has no label."""
    asked = {p for p, _, _ in scores}
    parts = [subset] if subset != "all" else sorted({p.split("-")[0] for p in asked})
    groups = {s: [v for p, v in shares.items() if p.startswith(s)] for s in parts}
    if not all(groups.values()):
        return None
    sizes = {s: sum(p.startswith(s) for p in asked) for s in parts}
    return sum(sizes[s] * np.mean(groups[s]) for s in parts) / sum(sizes.values())


def labels_of(votes):
    return (
        {key: len(set(labels)) > 1 for key, labels in votes.items()},
        {key: sum(labels) > len(labels) / 2 for key, labels in votes.items()},
    )


def about(value):
    return None if value is None else pytest.approx(value)


@hypothesis_settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(family=families())
def test_the_numbers_are_those_of_the_labels_counted_one_by_one(family, settings):
    config = settings.model_copy(update={"threshold": THRESHOLDS})
    (base, tuned, clusters) = family
    tables = {"base": table_of(base, clusters), "tuned": table_of(tuned, clusters)}
    for found in agreement_rows(tables["base"], VARIANT, config):
        votes, partly = votes_of(base, found.subset)
        disagree, majority = labels_of(votes)
        assert (found.n_scored, found.n_partly_scored) == (len(votes), partly)
        assert found.n_disagree == sum(disagree.values())
        assert found.n_majority_toxic == sum(majority.values())
        assert found.n_tied == sum(2 * sum(v) == len(v) for v in votes.values())
        assert found.disagreement == about(weighted(base, found.subset, fractions(disagree)))
        assert found.majority_rate == about(weighted(base, found.subset, fractions(majority)))
        if found.majority_rate is not None:
            assert found.disagreement_lo <= found.disagreement <= found.disagreement_hi
            assert found.majority_rate_lo <= found.majority_rate <= found.majority_rate_hi
    edge = VariantPair("base", "tuned", "parent")
    for found in agreement_pairs([edge], tables, config):
        (votes_a, _), (votes_b, _) = (votes_of(scores, found.subset) for scores in (base, tuned))
        for number, difference in enumerate((found.disagreement_diff, found.majority_diff)):
            a, b = (fractions(labels_of(votes)[number]) for votes in (votes_a, votes_b))
            both = {prompt: b[prompt] - a[prompt] for prompt in a.keys() & b.keys()}
            assert (found.n, found.dropped) == (len(both), len(a.keys() ^ b.keys()))
            assert difference == about(weighted(base, found.subset, both))


@pytest.fixture
def split(settings, score_rows, measured):
    """Two scorers: `judge` calls the fine-tune more toxic, `other` calls nothing toxic."""
    rows = {
        "base": score_rows({"s": [0.1] * 40}) + score_rows({"s": [0.1] * 40}, "other"),
        "tuned": score_rows({"s": [0.9] * 20 + [0.1] * 20})
        + score_rows({"s": [0.1] * 39 + [None]}, "other"),
    }
    return measured(rows, PARENTS).compared(settings)


def test_the_intervals_are_those_of_a_single_scorers_rates(split, settings):
    summary = split.summary
    tuned = next(r for r in summary.agreement if (r.variant, r.subset) == ("tuned", "s"))
    labels = np.array([1.0] * 20 + [0.0] * 19)
    assert (tuned.n_disagree, tuned.n_tied, tuned.n_majority_toxic) == (20, 20, 0)
    expected = rate_posterior([labels], [1.0], settings.prior).interval(settings.level)
    assert (tuned.disagreement_lo, tuned.disagreement_hi) == pytest.approx(tuple(expected))
    pair = next(r for r in summary.agreement_pairs if r.subset == "s")
    pairs = Pairs([np.zeros(39)], [labels], [1.0])
    interval = pair_posterior(pairs, settings.prior).interval(settings.level)
    assert (pair.disagreement_diff_lo, pair.disagreement_diff_hi) == pytest.approx(tuple(interval))
    assert pair.disagreement_verdict == verdict(interval) == "higher"
    assert (pair.n, pair.dropped) == (39, 1)


def test_another_verdict_of_the_majority_is_told_beside_the_headline(split):
    view = ComparisonView(split.summary, "judge")
    pair = next(r for r in split.summary.agreement_pairs if r.subset == "all")
    assert pair.majority_verdict == "not decisive"
    (told,) = [note for note in brief_notes(view, "x") if "majority" in note]
    assert "tuned against base is not decisive" in told
    assert any("tuned against base is not decisive" in note for note in comparison_notes(view))
    agreed = brief_notes(ComparisonView(view.summary, "other"), "x")
    assert not any("majority" in note for note in agreed)


def test_left_out_texts_and_ties_are_shown_with_the_rule(split):
    view = ComparisonView(split.summary, "judge")
    (rule,) = [note for note in comparison_notes(view) if note.startswith("Majority")]
    assert "judge >= 0.5, other >= 0.5" in rule
    assert "(20 continuations)" in rule
    assert any(note.startswith("1 continuation without a score") for note in comparison_notes(view))
    agreement, differences = section_tables(view, ["agreement"])
    cells = dict(zip([c.name for c in agreement.columns], agreement.rows[-1], strict=True))
    assert (cells["disagree / scored"], cells["ties"], cells["partly scored"]) == ("20 / 39", 20, 1)
    assert [column.name for column in differences.columns][-2:] == [
        "verdict of the majority", "verdict of judge"
    ]  # fmt: skip


def test_one_scorer_has_no_agreement(settings, score_rows, measured):
    rows = {name: score_rows({"s": [0.1, 0.9]}) for name in PARENTS}
    summary = measured(rows, PARENTS).compared(settings).summary
    view = ComparisonView(summary, "judge")
    assert (summary.agreement, summary.agreement_pairs) == ([], [])
    assert section_tables(view, ["agreement"]) == []
    assert not any("majority" in note.lower() for note in comparison_notes(view))


def test_exchanging_the_variants_mirrors_the_differences(split, settings, score_rows, measured):
    row = split.summary.agreement_pairs[0]
    rows = {
        "tuned": score_rows({"s": [0.9] * 20 + [0.1] * 20})
        + score_rows({"s": [0.1] * 39 + [None]}, "other"),
        "base": score_rows({"s": [0.1] * 40}) + score_rows({"s": [0.1] * 40}, "other"),
    }
    summary = measured(rows, {"tuned": None, "base": "tuned"}).compared(settings).summary
    mirrored = summary.agreement_pairs[0]
    assert mirrored.disagreement_diff == -row.disagreement_diff
    assert mirrored.disagreement_diff_lo == pytest.approx(-row.disagreement_diff_hi)
    assert mirrored.n == row.n
