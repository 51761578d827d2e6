"""Two files of texts, compared by their shared prompts."""

from __future__ import annotations

import pytest

from toxtrail.analysis.text_comparison import ScoredFile, compare_scored_files, shared_prompts
from toxtrail.analysis.text_matching import match_texts
from toxtrail.config.schema import PosteriorConfig, ScorerErrorConfig
from toxtrail.datasets.generated_texts.common import GeneratedText
from toxtrail.errors import ConfigError, DataError
from toxtrail.pipeline import manifest_of
from toxtrail.provenance.identity import InputFile
from toxtrail.records.rows import Score
from toxtrail.reporting.comparison_tables import verdicts
from toxtrail.reporting.comparison_view import ComparisonView
from toxtrail.reporting.notes import language_notes

CONFIG = PosteriorConfig(
    threshold={"judge": 0.5}, rope_pp=1.0, level=0.95, prior=0.5, draws=2000, seed=1
)  # fmt: skip


def texts(*rows):
    return [GeneratedText(*row) for row in rows]


def scored(label, prompts, file, samples=1, **options):
    """Rows of a file; a text that says "bad" has the score 0.9."""
    rows = match_texts(prompts, file, samples).rows
    scores = [
        Score(
            r.prompt_id, r.sample, r.subset, "judge", r.state, value, value and {"toxic": value}, 1
        )
        for r in rows
        for value in [(0.9 if r.text == "bad" else 0.1) if r.state == "ok" else None]
    ]
    made = manifest_of(
        "generate",
        label,
        {"generation": {"samples": samples}, "texts": {"format": "table"}},
        {},
        {},
    )
    generations = InputFile(path=label, sha256="0" * 64, manifest=made)
    scorers = {"scorers": {"judge": {"kind": "hf", "uri": "file:j", "head": "toxic", **options}}}
    return ScoredFile(
        label, rows, scores, manifest_of("score", label, scorers, {"generations": generations}, {})
    )


@pytest.mark.parametrize(("kind", "is_refused"), [("hf", False), ("guard", True)])
def test_error_rates_of_another_scorer_are_refused(kind, is_refused):
    a = texts(("One", "bad"), ("Two", "x"))
    shared = shared_prompts(a, a)
    files = [scored(label, shared.prompts, a) for label in "ab"]
    stated = {"uri": "file:j", "head": "toxic", "kind": kind}
    error = ScorerErrorConfig.model_validate(
        {"source": "x", "measured_on": {"scorer": stated, "threshold": 0.5}, "sensitivity": 0.9,
         "specificity": 0.9}
    )  # fmt: skip
    config = CONFIG.model_copy(update={"scorer_error": {"judge": error}})
    if is_refused:
        with pytest.raises(ConfigError, match="kind is hf, it was guard"):
            compare_scored_files(*files, "judge", config)
    else:
        (pair,) = [
            row
            for row in compare_scored_files(*files, "judge", config).pairs
            if row.subset == "all"
        ]
        assert pair.corrected_diff == pytest.approx(0)


def test_prompts_of_both_files_are_compared_and_the_others_are_counted():
    a = texts(("One", "x"), (" Two", "x"), ("Three", "x"))
    b = texts(("Two", "x"), ("One ", "x"), ("Four", "x"), ("Five", "x"))
    shared = shared_prompts(a, b)
    assert [prompt.text for prompt in shared.prompts] == ["One", "Two"]
    assert shared.only_in == (1, 2)
    assert shared.samples == 1


def test_as_many_continuations_are_compared_as_both_files_have_of_a_prompt():
    a = texts(*[("One", "x")] * 3, ("Two", "x"))
    b = texts(*[("One", "x")] * 2, *[("Two", "x")] * 2)
    assert shared_prompts(a, b).samples == 2


def test_files_without_a_common_prompt_are_refused():
    with pytest.raises(DataError, match=r"in common \(1 and 2 prompts\)"):
        shared_prompts(texts(("One", "x")), texts(("Two", "x"), ("Three", "x")))


def test_the_second_file_is_compared_with_the_first_prompt_by_prompt():
    a = texts(*((f"p{i}", "good") for i in range(30)))
    b = texts(*((f"p{i}", "bad" if i < 15 else "good") for i in range(30)))
    prompts = shared_prompts(a, b).prompts
    files = scored("a.csv", prompts, a), scored("b.csv", prompts, b)
    summary = compare_scored_files(*files, "judge", CONFIG)
    (pair,) = [row for row in summary.pairs if row.subset == "all"]
    assert (pair.a, pair.b, pair.n, pair.verdict) == ("a.csv", "b.csv", 30, "higher")
    assert pair.diff == 0.5
    assert summary.family == "b.csv against a.csv"
    assert not summary.mismatch


def test_a_missing_text_is_not_scored_and_not_harmless():
    a = texts(*((f"p{i}", "good") for i in range(10)), ("p0", "good"))
    b = texts(*((f"p{i}", "bad") for i in range(10)))
    prompts = shared_prompts(a, b).prompts
    file = scored("b.csv", prompts, b[:-1] + texts(("p9", None)))
    summary = compare_scored_files(scored("a.csv", prompts, a), file, "judge", CONFIG)
    rates = {r.variant: r for r in summary.rates if r.subset == "all"}
    assert (rates["b.csv"].n_scored, rates["b.csv"].n_error) == (9, 1)
    assert rates["b.csv"].rate == 1.0


FRENCH = "Le boulanger a ouvert à six heures et il a vendu le premier pain."


@pytest.mark.parametrize(
    ("declared", "n", "notes"),
    [(["en-US"], 20, 1), (["en", "fr"], 0, 0), (["tlh"], 20, 1), (None, None, 0)],
)
def test_texts_in_a_language_that_the_scorer_was_not_trained_on_are_counted(declared, n, notes):
    options = {} if declared is None else {"languages": declared}
    a = texts(*((f"p{i}", "bad" if i < 20 else "good") for i in range(30)))
    b = texts(*((f"p{i}", FRENCH if i < 20 else "good") for i in range(30)))
    prompts = shared_prompts(a, b, "en").prompts
    files = (scored(name, prompts, file, **options) for name, file in (("a", a), ("b", b)))
    summary = compare_scored_files(*files, "judge", CONFIG)
    view = ComparisonView(summary, "judge")
    rates = {row.variant: row for row in summary.rates if row.subset == "all"}
    assert rates["b"].n_unsupported_language == n
    assert rates["a"].n_unsupported_language == (None if n is None else 0)
    assert len(language_notes(view)) == notes
    assert all(note.endswith("20 of 30.") for note in language_notes(view))
    (result,) = verdicts(view)
    assert (result.verdict, "another language" in result.remark) == ("lower", True)
