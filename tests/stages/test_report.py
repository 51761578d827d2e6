"""What people read: verdicts and counts, escaped, never rounded to certainty."""

from __future__ import annotations

import re
from dataclasses import replace

import pytest

from toxtrail.pipeline import manifest_of
from toxtrail.provenance.identity import InputFile, walk_lineage
from toxtrail.records.results import ScorerPooling
from toxtrail.reporting.html_report import FamilyPage, render
from toxtrail.reporting.mlflow_page import pair_metrics, rate_metrics
from toxtrail.reporting.text import (
    percent,
    percent_interval,
    percentage_points,
    points_interval,
    probability,
)
from toxtrail.stages.report import rows_of_comparison
from toxtrail.text_escaping import escape_control_chars

HOSTILE = "<script>alert(1)</script>"
CARD = {
    "seed": 1,
    "prompts": 20,
    "subsets": {
        HOSTILE: {
            "source": "file:p.jsonl", "sha256": "ab" * 32, "license": HOSTILE, "language": "en",
            "rows": 99, "where": [{"condition": "score >= 0.75", "rows_left": 41}],
            "duplicates": 1, "distinct": 40, "drawn": 20,
            "balance": {
                "column": "kind",
                "values": {n: {"distinct": 20, "drawn": 10} for n in ("x", "y")},
            },
            "covariates": {
                "score": {
                    "known": 19, "missing": 1, "mean": 0.8, "min": 0.75, "median": 0.8, "max": 0.9
                },
                "none": {
                    "known": 0, "missing": 20, "mean": None, "min": None, "median": None,
                    "max": None,
                },
            },
        }
    },
}  # fmt: skip


@pytest.fixture
def found(score_rows, settings, measured):
    values = {
        "base": {HOSTILE: [0.1] * 20, "b": [None, None]},
        "tuned": {HOSTILE: [0.9] * 18 + [0.1] * 2, "b": [None, 0.2]},
    }
    rows = {name: score_rows(own) for name, own in values.items()}
    return rows, measured(rows, {"base": None, "tuned": "base"}).drawn(settings)


@pytest.fixture
def summary(found, settings):
    _, found = found
    manifest = manifest_of("compare", "f", {"posterior": settings.plain()}, {}, {})
    pooled = {"judge": ScorerPooling(status="left out", reason="pooling is switched off")}
    return replace(found.summary, pooled=pooled, manifest=manifest.to_json())


@pytest.fixture
def page_of(found, spoken):
    rows, output = found
    figures = {name: drawing.svg for name, drawing in output.figures.items()}

    def make(summary, text_of=lambda row: f"of {row.prompt_id}"):
        texts = {name: spoken(own, text_of) for name, own in rows.items()}
        prompts = {row.prompt_id: f"prompt of {row.prompt_id}" for row in rows["base"]}
        page = FamilyPage(summary, figures, prompts, texts, rows)
        return render([page], CARD, manifest_of("report", None, {"families": ["f"]}, {}, {}))

    return make


def test_the_page_says_verdicts_counts_and_what_could_not_be_scored(summary, page_of):
    page = page_of(summary)
    for text in ("higher", "no pairs", "18 v 0", "2 empty", "18 / 20", "0 / 20"):
        assert text in page, text
    assert re.search(r'<td class="n" data-label="difference">-</td>', page)


def test_a_hostile_name_is_shown_and_not_run(summary, page_of):
    page = page_of(summary)
    assert HOSTILE not in page
    assert "&lt;script&gt;" in page


def test_the_page_needs_nothing_from_outside(summary, page_of):
    assert not re.findall(r'(?:src|href)="(?!#)[^"]*"', page_of(summary))


def test_metrics_have_names_that_mlflow_can_hold_and_no_value_for_nothing(summary):
    rates = rate_metrics([replace(r, subset=r.subset.strip("<>/")) for r in summary.rates])
    pairs = pair_metrics(summary.pairs)
    assert rates["judge/b/n_empty"] in (1, 2)
    own = [row for row in summary.rates if row.subset == HOSTILE][-1]
    assert own.rate is not None
    assert not any(value is None for value in (*rates.values(), *pairs.values()))
    assert pairs[f"tuned - base/judge/{HOSTILE}/diff_pp"] == pytest.approx(
        100 * next(p.diff for p in summary.pairs if p.subset == HOSTILE)
    )


def test_a_lineage_lists_the_manifest_itself_first():
    manifest = manifest_of("prompts", None, {}, {}, {})
    assert walk_lineage(manifest) == [manifest]


@pytest.mark.parametrize(
    ("value", "said"), [(None, "-"), (0.0, "< 0.001"), (1.0, "> 0.999"), (0.5, "0.500")]
)
def test_a_probability_is_never_certain(value, said):
    assert probability(value) == said


def test_nothing_is_never_shown_as_zero():
    intervals = [percent_interval(None, None), points_interval(None, None)]
    assert [percent(None), percentage_points(None), *intervals] == ["-"] * 4


@pytest.mark.parametrize("text", ["\x1b[31mred", "a\rb", "a\nb", "\x07", "\u202egnp", "fine ü"])
def test_nothing_that_a_terminal_obeys_is_printed(text):
    assert escape_control_chars(text).isprintable()
    assert escape_control_chars("fine ü") == "fine ü"


def test_a_difference_of_nothing_has_no_minus_sign():
    assert [percentage_points(-0.0001), percentage_points(0.0), percentage_points(-0.0051)] == [
        "+0.0",
        "+0.0",
        "-0.5",
    ]


def test_the_page_says_what_so_few_prompts_can_see(summary, page_of):
    assert re.search(r"Resolution: \d+ prompts .* of \d+", page_of(summary))


def test_the_page_says_where_the_prompts_come_from(summary, page_of):
    page = page_of(summary)
    for text in (
        "20 prompts of 1 subsets, in en",
        f"file:p.jsonl sha256 {'ab' * 32}",
        "41 by score &gt;= 0.75",
        "10 of each kind (x, y)",
        "0.750 to 0.900",
    ):
        assert text in page, text


def test_a_subset_may_have_the_name_of_an_input():
    def made(stage, key, **inputs):
        files = {
            name: InputFile(path=path, sha256="ab" * 32, manifest=below)
            for name, (path, below) in inputs.items()
        }
        return manifest_of(stage, key, {}, files, {})

    prompts = made("prompts", None, prompts=("file:prompts.csv", None), scores=("file:b", None))
    generations = made("generate", "v", prompts=("data/prompts.parquet", prompts))
    scores = made("score", "v", generations=("data/generations/v.parquet", generations))
    comparison = made("compare", "f", scores=("data/scores/v.parquet", scores))
    assert set(rows_of_comparison(comparison)) == {
        "data/scores/v.parquet",
        "data/generations/v.parquet",
        "data/prompts.parquet",
    }
