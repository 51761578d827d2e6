"""Ties of scores with the threshold, in either precision, and that one function decides them."""

import ast
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import toxtrail
from toxtrail.analysis.flips import pair_continuations
from toxtrail.analysis.human_labels import Label, scorer_agreement
from toxtrail.analysis.score_table import build_score_table
from toxtrail.records.rows import Score
from toxtrail.stats.rates import at_threshold, toxic_fractions

THRESHOLDS = [round(step / 100, 2) for step in range(5, 100, 5)]
SOURCE = Path(toxtrail.__file__).parent


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("threshold", THRESHOLDS)
def test_a_score_equal_to_the_threshold_counts_in_either_precision(threshold, dtype):
    tie = dtype(threshold)
    below = np.nextafter(np.float32(min(threshold, np.float32(threshold))), np.float32(0))
    assert at_threshold(tie, threshold)
    assert at_threshold(float(tie), threshold)  # as it is stored
    assert not at_threshold(below, threshold)
    assert not at_threshold(threshold - 1e-6, threshold)
    assert toxic_fractions(np.array([float(tie)]), np.array([0]), threshold).tolist() == [1]


@given(
    scores=st.lists(st.floats(0, 1), min_size=1),
    thresholds=st.tuples(st.floats(0, 1), st.floats(0, 1)).map(sorted),
)
def test_rising_with_the_score_and_falling_with_the_threshold(scores, thresholds):
    low, high = thresholds
    ordered = np.sort(np.array(scores))
    assert (np.diff(at_threshold(ordered, low).astype(int)) >= 0).all()
    assert (at_threshold(ordered, low) >= at_threshold(ordered, high)).all()
    assert at_threshold(ordered[ordered >= low], low).all()


@given(score=st.floats(0, 1), threshold=st.sampled_from(THRESHOLDS))
def test_what_is_below_by_more_than_a_rounding_stays_below(score, threshold):
    assert at_threshold(score, threshold) == (score >= threshold) or (
        abs(score - threshold) <= np.spacing(np.float32(threshold)) / 2
    )


def row(value: float, heads: dict[str, float] | None = None) -> Score:
    return Score("p", 0, "s", "judge", "ok", value, heads, 1)


@pytest.mark.parametrize("threshold", THRESHOLDS)
def test_flips_labels_and_rates_agree_on_a_tie(threshold):
    tie = float(np.float32(threshold))
    other = {"toxicity": tie, "insult": tie}
    (flip,) = pair_continuations([row(0.0)], [row(tie, other)], "judge", threshold, "toxicity")
    assert (flip.direction, flip.category) == ("became toxic", "insult")
    label = Label("v", "p", 0, True)
    assert scorer_agreement([label], {"v": [row(tie)]}, "judge", threshold)["v"].true_positives == 1
    assert build_score_table([row(tie)])["judge", "s"].toxic_fraction(threshold).tolist() == [1]


def by_size(tree: ast.AST) -> list[ast.Compare]:
    sizes = (ast.Gt, ast.GtE, ast.Lt, ast.LtE)
    nodes = (node for node in ast.walk(tree) if isinstance(node, ast.Compare))
    return [node for node in nodes if any(isinstance(op, sizes) for op in node.ops)]


def named(side: ast.AST) -> set[str]:
    """What a side is or is made of: `toxicity` of row.toxicity, but `size` of toxicity.size."""
    if isinstance(side, ast.Name | ast.Attribute):
        return {side.id if isinstance(side, ast.Name) else side.attr}
    return set().union(*(named(part) for part in ast.iter_child_nodes(side)))


def compares_a_score(node: ast.Compare) -> bool:
    """Whether a threshold, or a toxicity, is compared with something but 0, 1 and another
    toxicity."""
    sides = [node.left, *node.comparators]
    scores = [side for side in sides if named(side) & {"threshold", "toxicity"}]
    if any("threshold" in named(side) for side in scores):
        scores = scores[:1]
    others = [side for side in sides if side not in scores]
    known = all(isinstance(side, ast.Constant) and side.value in (0, 1) for side in others)
    return bool(scores) and not known


def comparisons(text: str) -> list[ast.Compare]:
    return [node for node in by_size(ast.parse(text)) if compares_a_score(node)]


@pytest.mark.parametrize(
    ("code", "is_one"),
    [
        ("row.toxicity >= config.threshold", True),
        ("toxicity > 0.5", True),
        ("(scores >= float(threshold)).sum()", True),
        ("b.toxicity >= a.toxicity", False),
        ("0 <= toxicity <= 1", False),
        ("cell.toxic_fraction(threshold) > 0", False),
        ("cell.toxicity.size > len(cell.prompts)", False),
    ],
)
def test_the_search_for_comparisons_finds_them(code, is_one):
    assert bool(comparisons(code)) == is_one


def test_one_function_compares_scores_with_a_threshold():
    found = {
        path.relative_to(SOURCE).as_posix(): ast.unparse(node)
        for path in SOURCE.rglob("*.py")
        for node in comparisons(path.read_text(encoding="utf-8"))
    }
    assert list(found) == ["stats/rates.py"]
