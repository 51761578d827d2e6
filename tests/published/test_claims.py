"""Published numbers as data: checked, judged again, and compared with a run."""

from __future__ import annotations

import json
import re
from decimal import Decimal
from pathlib import Path

import pytest
import yaml
from click.testing import CliRunner
from hypothesis import given, settings
from hypothesis import strategies as st

from toxtrail.cli import cli
from toxtrail.cli.published import PAPER
from toxtrail.errors import ConfigError
from toxtrail.published.claims import compare_with_run, load_published, replay
from toxtrail.stats.published_counts import (
    AnalysisSettings,
    PublishedCount,
    count_from_rate,
    min_detectable_decrease,
    min_detectable_increase,
    rate_agreement,
    rate_interval,
    unpaired_of_all,
)
from toxtrail.stats.rates import Interval

BELIEF = AnalysisSettings(0.5, 0.95, 1, 0.8)
FILE = {
    "sources": {"doe": {"cite": "Doe 2025", "measure": "toxic", "prompts": {"all": 1000}}},
    "rates": [
        {"source": "doe", "variant": "chat", "rate": "4.1 %"},
        {"source": "doe", "variant": "tuned", "rate": 0.092},
    ],
    "comparisons": [
        {"source": "doe", "variant": "tuned", "against": "chat", "verdict": "higher"}
    ],
}  # fmt: skip


@pytest.fixture
def load(tmp_path):
    def make(**changes):
        path = tmp_path / "published.yaml"
        path.write_text(yaml.safe_dump({**FILE, **changes}, sort_keys=False), "utf-8")
        return load_published(path)

    return make


@pytest.fixture(scope="module")
def paper():
    return load_published(PAPER)


def judged(loaded, **options):
    return replay(loaded, options.get("only"), options.get("against"), BELIEF, None)


# --- the reference paper's numbers ----------------------------------------------------------------


def test_only_numbers_that_the_notes_on_the_paper_hold_are_in_its_file(paper):
    found = {
        source: [(own.toxic, own.n) for own in own.values()] for source, own in paper.counts.items()
    }
    assert found["hawkins2024"] == [(240, 2400), (19, 2400)]
    assert found["qi2023"] == [
        (1, 330), (53, 330), (2, 330), (40, 330), (0, 330), (62, 330), (18, 330), (105, 330),
        (15, 330), (79, 330),
    ]  # fmt: skip


def test_every_published_jump_is_credible_whatever_the_pairing(paper):
    found = judged(paper, only="qi2023")
    assert [row["verdict"] for row in found["pairs"]] == ["higher"] * 5
    assert {row["status"] for row in found["pairs"]} == {"nothing stated"}


def test_what_is_stated_without_rates_is_said_to_be_so(paper):
    found = judged(paper, only="hawkins2024")
    assert {row["status"] for row in found["pairs"]} == {"no rates to replay"}
    said = [row["verdict_published"] for row in found["pairs"]]
    assert said[:4] == ["lower"] * 4
    lone = next(row for row in found["pairs"] if row["b"] == "Llama-2-7B uncensored")
    assert (lone["missing"], lone["verdict_published"]) == (["Llama-2-7B-chat"], None)


def test_what_the_published_numbers_of_prompts_resolve_is_said_unasked(paper):
    rows = {row["n"]: row for row in judged(paper)["resolution"]}
    assert round(rows[100]["none_hi"], 3) == 0.025
    assert not rows[100]["n_confirmed"]
    assert (round(rows[2400]["at_10_lo"], 3), round(rows[2400]["at_10_hi"], 3)) == (0.088, 0.112)
    assert rows[330]["at_1_fall"] is None
    said = CliRunner().invoke(cli, ["published"]).output
    assert "100 prompts" in said
    assert "unpaired" in said


def test_intervals_in_the_page_on_the_paper_are_those_of_the_command(paper):
    page = " ".join((Path(__file__).parents[2] / "docs" / "paper.md").read_text("utf-8").split())
    found = judged(paper)
    at_10 = next(row for row in found["resolution"] if row["n"] == 2400)
    uncensored, abliterated = (row for row in found["rates"] if row["source"] == "hawkins2024")

    def shown(row, name):
        return f"{100 * row[f'{name}_lo']:.1f}-{100 * row[f'{name}_hi']:.1f} %"

    for counts, interval in (
        ("240", shown(at_10, "at_10")),
        ("228 to 252", shown(uncensored, "rate")),
        ("18 to 20", shown(abliterated, "rate")),
    ):
        assert re.search(rf"\b{counts}\b[^;.]*?{re.escape(interval)}", page), counts
    assert (uncensored["n_toxic_least"], uncensored["n_toxic_most"]) == (228, 252)
    assert (abliterated["n_toxic_least"], abliterated["n_toxic_most"]) == (18, 20)


# --- the file ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"rates": [{"source": "doe", "variant": "a", "n": 330, "rate": "0.4 %"}]},
         r"rates.0 \(a\): No count of 330 .* 0.4000%: .*nearest is 1 \(0.3030%\)"),
        ({"rates": [{"source": "doe", "variant": "a", "rate": 41.0}]}, "write 16.1 % as 0.161"),
        ({"rates": [{"source": "doe", "variant": "a", "rate": "much"}]}, '"much" is not a number'),
        ({"rates": [{"source": "doe", "variant": "a"}]}, "needs one of toxic"),
        ({"rates": [{"source": "doe", "variant": "a", "rate": 0.1, "toxic": 1}]},
         "toxic is 1 of 1000"),
        ({"rates": [{"source": "doe", "variant": "a", "subset": "x", "rate": 0.1}]},
         "or sources.doe.prompts.x"),
        ({"rates": [{"source": "do", "variant": "a", "rate": 0.1}]},
         'rates.0.source: unknown source "do". Did you mean "doe"'),
        ({"rates": FILE["rates"] * 2}, "duplicate .*doe, chat, all"),
        ({"rates": [{"source": "doe", "variant": "a", "rat": 0.1}]},
         'rates.0.rat: unknown name. Did you mean "rate"'),
        ({"comparisons": [{"source": "doe", "variant": "a", "against": "a"}]}, "with itself"),
        ({"comparisons": [{**FILE["comparisons"][0], "verdict": "worse"}]},
         'comparisons.0.verdict: got "worse"'),
        ({"sources": {}}, "sources: got"),
    ],
)  # fmt: skip
def test_what_is_wrong_is_refused_with_its_place(load, changes, said):
    with pytest.raises(ConfigError, match=said):
        load(**changes)


def test_every_problem_is_said_at_once(load):
    row = {"source": "doe", "variant": "a", "rate": "0.4 %", "n": 330}
    with pytest.raises(ConfigError, match="2 problems"):
        load(rates=[row, {**row, "variant": "b", "rate": 7}])


def test_a_published_verdict_is_borne_out_contradicted_or_left_open(load):
    assert judged(load())["pairs"][0]["status"] == "supported"
    for verdict, held in (("lower", "contradicted"), ("not decisive", "not supported")):
        claim = {**FILE["comparisons"][0], "verdict": verdict}
        assert judged(load(comparisons=[claim]))["pairs"][0]["status"] == held
    close = [{**FILE["rates"][0], "rate": "4.1 %"}, {**FILE["rates"][1], "rate": "5.9 %"}]
    assert judged(load(rates=close))["pairs"][0]["status"] == "undetermined"


def test_a_source_without_comparisons_is_read_like_a_table(load):
    found = judged(load(comparisons=[]))
    assert [(row["a"], row["b"], row["verdict"]) for row in found["pairs"]] == [
        ("chat", "tuned", "higher")
    ]
    turned = judged(load(comparisons=[]), against="tuned")
    assert [(row["b"], row["verdict"]) for row in turned["pairs"]] == [("chat", "lower")]
    with pytest.raises(ConfigError, match="lists its own comparisons"):
        judged(load(), against="tuned")


def test_sources_are_never_compared_with_each_other(load):
    other = {"cite": "Roe", "measure": "harmful", "prompts": {"all": 50}}
    row = {"source": "roe", "variant": "tuned", "rate": 0.5}
    loaded = load(sources={**FILE["sources"], "roe": other}, rates=[*FILE["rates"], row])
    found = judged(loaded)
    assert {(row["source"], row["a"]) for row in found["pairs"]} == {("doe", "chat")}
    assert len(judged(loaded, only="roe")["rates"]) == 1
    with pytest.raises(ConfigError, match='source "ro"'):
        judged(loaded, only="ro")


def test_the_command_takes_either_form_and_prints_json(tmp_path):
    path = tmp_path / "p.yaml"
    path.write_text(yaml.safe_dump(FILE), "utf-8")
    found = json.loads(CliRunner().invoke(cli, ["published", str(path), "--json"]).output)
    assert found["pairs"][0]["status"] == "supported"
    said = CliRunner().invoke(cli, ["published", str(path)]).output
    assert "41 / 1,000" in said
    assert "1 are supported" in said
    table = tmp_path / "t.csv"
    table.write_text("variant,rate,n\na,0.1,10\n", "utf-8")
    done = CliRunner().invoke(cli, ["published", str(table), "--source", "doe"])
    assert "--source is only for" in done.output


# --- rounding, and what so many prompts find ------------------------------------------------------


def test_a_rate_in_few_digits_leaves_its_count_open():
    found = count_from_rate(Decimal("0.10"), 2400, Decimal("0.005"), "printed")
    assert found == PublishedCount(240, 2400, 12, 12, "printed")
    assert not count_from_rate(Decimal("0.161"), 330, Decimal("0.0005"), "printed").open


def test_a_verdict_that_hangs_on_the_rounding_is_said_to():
    vague, sharp = PublishedCount(240, 2400, 12, 12), PublishedCount(240, 2400)
    other = PublishedCount(283, 2400)
    assert unpaired_of_all(sharp, other, 0.5, 0.95)[1] == "higher"
    assert unpaired_of_all(vague, other, 0.5, 0.95)[1] == "depends on the rounding"


@settings(max_examples=30, deadline=None)
@given(st.integers(1, 3000), st.floats(0.001, 0.5))
def test_a_fall_that_is_found_is_smaller_than_the_rate_and_more_prompts_find_less(n, rate):
    own = (
        PublishedCount(max(1, round(n * rate)), n)
        if round(n * rate) < n
        else PublishedCount(1, n + 1)
    )
    more = PublishedCount(4 * own.toxic, 4 * own.n)
    found = min_detectable_decrease(own, 0.5, 0.95)
    if found is not None:
        assert 0 < found < own.rate
        assert min_detectable_decrease(more, 0.5, 0.95) <= found + 1e-6
        assert min_detectable_increase(more, 0.5, 0.95) is not None


# --- beside a run --------------------------------------------------------------------------------


def beta(toxic, n):
    own = PublishedCount(toxic, n)
    return (toxic + 0.5) / (n + 1), rate_interval(own, 0.5, 0.95)


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 300), st.integers(300, 3000), st.floats(0.001, 0.2))
def test_a_rate_agrees_with_itself_more_than_with_any_other(toxic, n, region):
    own, apart = PublishedCount(toxic, n), PublishedCount(min(n, toxic + n // 5), n)
    same, other = (rate_agreement(beta(*own[:2]), one, region, BELIEF) for one in (own, apart))
    assert same.verdict == "not decisive"
    assert same.overlap == pytest.approx(1, abs=2e-3)
    assert other.overlap <= same.overlap
    assert other.within <= same.within + 1e-6


def test_the_probability_of_agreement_is_that_of_many_draws():
    import numpy as np

    found = rate_agreement(beta(30, 400), PublishedCount(55, 500), 0.02, BELIEF)
    rng = np.random.default_rng(1)
    step = rng.beta(30.5, 370.5, 400_000) - rng.beta(55.5, 445.5, 400_000)
    assert found.within == pytest.approx((abs(step) <= 0.02).mean(), abs=3e-3)
    assert found.interval == pytest.approx(np.quantile(step, (0.025, 0.975)), abs=3e-4)
    one, two = (np.histogram(rng.beta(*s, 400_000), 400, (0, 0.3))[0] / 400_000
                for s in ((30.5, 370.5), (55.5, 445.5)))  # fmt: skip
    assert found.overlap == pytest.approx(np.minimum(one, two).sum(), abs=0.01)


def summary(rate, lo, hi):
    row = {
        "variant": "mine", "scorer": "judge", "subset": "all", "k": 1, "rate": rate, "rate_lo": lo,
        "rate_hi": hi, "rate_mean": rate, "n_scored_prompts": 1000,
    }  # fmt: skip
    pair = {
        "b": "mine", "a": "base", "scorer": "judge", "subset": "all", "n": 1000, "diff": 0.05,
        "diff_lo": 0.03, "diff_hi": 0.07, "verdict": "higher",
    }  # fmt: skip
    return {"rates": [row], "pairs": [pair], "level": 0.95, "rope_pp": 1.0, "rope_relative": 0.25}


def test_measured_and_published_stand_side_by_side_by_the_keys_of_the_file(load):
    loaded = load(keys={"tuned": "mine", "chat": "base"})
    found = compare_with_run(loaded, summary(0.0924, 0.0754, 0.1111), "judge", 0.5)
    (row,), (pair,) = found["rates"], found["pairs"]
    assert (row["variant"], row["published"], row["verdict"]) == ("mine", 0.092, "not decisive")
    assert row["rope"] == pytest.approx(0.023)
    assert row["p_agree"] > 0.9
    assert (pair["verdict"], pair["verdict_published"], pair["same"]) == ("higher", "higher", True)


def test_a_pair_that_was_measured_the_other_way_round_is_turned(load):
    claim = {**FILE["comparisons"][0], "variant": "chat", "against": "tuned", "verdict": "lower"}
    loaded = load(comparisons=[claim], keys={"tuned": "mine", "chat": "base"})
    (pair,) = compare_with_run(loaded, summary(0.09, 0.07, 0.11), "judge", 0.5)["pairs"]
    assert (pair["verdict"], pair["same"]) == ("lower", True)
    assert pair["diff_lo"] < pair["diff"] < pair["diff_hi"] < 0


def test_a_csv_of_pairs_has_no_place_for_published_rates():
    done = CliRunner().invoke(cli, ["compare", "--csv", "--published", str(PAPER)])
    assert done.exit_code == 2
    assert "cannot be combined with --csv" in " ".join(done.output.split())


def test_a_wider_measurement_never_makes_agreement_more_certain():
    found = [
        rate_agreement(
            (0.092, Interval(0.092 - w, 0.092 + w)), PublishedCount(92, 1000), 0.02, BELIEF
        ).within
        for w in (0.01, 0.03, 0.06)
    ]
    assert found == sorted(found, reverse=True)
