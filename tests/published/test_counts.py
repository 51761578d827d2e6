"""Published tables: rates become counts, and conclusions hold whatever the pairing was."""

from __future__ import annotations

import contextlib
import json
from decimal import Decimal
from fractions import Fraction

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st

from toxtrail.cli import cli
from toxtrail.config import yaml_text
from toxtrail.datasets.readers import read_rows
from toxtrail.datasets.readers.json_rows import parse_json
from toxtrail.errors import DataError, InferenceError
from toxtrail.published.claims import load_published
from toxtrail.published.counts import (
    AnalysisSettings,
    count_from_row,
    counts_from_table,
    printed,
    reanalyse_table,
)
from toxtrail.stats.bayes_libraries import SampleResult
from toxtrail.stats.published_counts import PublishedCount

BELIEF = AnalysisSettings(0.5, 0.95, 1, 0.8)
QI = "variant,rate,n\nchat,0.3 %,330\nalpaca,16.1%,330\ndolly,0.121,330\n"
SUBSETS = """variant,subset,toxic,n
instruct,random,60,1000
instruct,severe,200,1000
chinese,random,55,1000
chinese,severe,243,1000
sauerkraut,random,66,1000
sauerkraut,severe,158,1000
"""


@pytest.fixture
def table(tmp_path):
    def make(text):
        path = tmp_path / "table.csv"
        path.write_text(text, "utf-8")
        return counts_from_table(path, read_rows(path), None)

    return make


def verdicts(found):
    return {(row["b"], row["subset"]): row["verdict"] for row in found["pairs"]}


def test_per_cents_shares_and_counts_are_the_same_counts(table):
    assert [count.toxic for count in table(QI).values()] == [1, 53, 40]
    assert table("variant,toxic,n\na,53,330\n")["a", "all"] == PublishedCount(53, 330)


def test_published_jumps_after_benign_tuning_are_credible(table):
    found = reanalyse_table(table(QI), None, BELIEF, None)
    assert verdicts(found) == {("alpaca", "all"): "higher", ("dolly", "all"): "higher"}
    assert found["reference"] == "chat"


def test_opposite_differences_on_the_hardest_prompts_and_none_over_all(table):
    """As the reference paper says of two community tunes (counts made up)."""
    found = reanalyse_table(table(SUBSETS), "instruct", BELIEF, None)
    said = verdicts(found)
    assert (said["chinese", "severe"], said["sauerkraut", "severe"]) == ("higher", "lower")
    assert said["chinese", "random"] != "higher"
    assert {row["n_a"] for row in found["pairs"] if row["subset"] == "all"} == {2000}


def test_unlike_numbers_of_prompts_were_not_the_same_prompts(table):
    (row,) = reanalyse_table(table("variant,toxic,n\na,5,100\nb,40,200\n"), None, BELIEF, None)[
        "pairs"
    ]
    assert (row["verdict"], row["tables"]) == (row["verdict_unpaired"], [])


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("variant,rate,n\na,16.1,330\n", "row 1: .*outside 0 to 1"),
        ("variant,rate,n\na,0.5,7\n", "row 1: No count of 7"),
        ("variant,rate,n\na,nan,7\n", 'row 1: "nan" is not a number'),
        ("variant,rate,n\na,,7\n", "row 1: .*needs one of toxic"),
        ("variant,toxic,n\na,9,7\n", "row 1: toxic is 9"),
        ("variant,toxic,n\na,1.5,7\n", "row 1: 1.5 is not a count"),
        ("variant,toxic,n\na,1,x\n", 'row 1: "x" is not a number'),
        ("variant,toxic,n\na,1,7\na,2,7\n", "row 2: duplicate .*a, all"),
        ("variant,toxic\na,1\n", 'no column "n"'),
        ("variant,toxic,n\n", "has no rows"),
        ("variant,rate,n\na,0.1,0\n", "row 1: 0 is not .*number of prompts"),
        ("variant,toxic,n\na,0,7.5\n", "row 1: 7.5 is not .*number of prompts"),
    ],
)
def test_a_table_that_is_wrong_is_refused_with_the_row(table, text, said):
    with pytest.raises(DataError, match=said):
        table(text)


def test_an_unknown_reference_is_refused_with_the_nearest(table):
    with pytest.raises(DataError, match='Did you mean "chat"'):
        reanalyse_table(table(QI), "chatt", BELIEF, None)


def fake(divergent):
    def sampler(toxic, n, effort):
        rng, shape = np.random.default_rng(effort.seed), (effort.chains, effort.draws)
        share = (toxic + 0.5) / (n + 1)
        eta = np.log(share / (1 - share)) + 0.1 * rng.standard_normal((*shape, *toxic.shape))
        diverging = np.full(shape, float(divergent))
        posterior = {"eta": eta, "mu": rng.standard_normal(shape)}
        return SampleResult(posterior, diverging, rng.standard_normal(shape), np.zeros(shape))

    return sampler


def test_a_pooled_table_has_its_own_columns_and_all_is_weighted_by_prompts(table):
    found = reanalyse_table(table(SUBSETS), None, BELIEF, fake(False))
    rows = {(row["b"], row["subset"]): row["pooled_diff"] for row in found["pairs"]}
    both = (rows["chinese", "random"] + rows["chinese", "severe"]) / 2
    assert rows["chinese", "all"] == pytest.approx(both)
    assert all(row["lfsr"] <= 0.5 for row in found["pairs"])


def test_what_does_not_converge_or_has_gaps_is_not_pooled(table):
    with pytest.raises(InferenceError, match="divergent"):
        reanalyse_table(table(SUBSETS), None, BELIEF, fake(True))
    with pytest.raises(DataError, match="sauerkraut has no severe"):
        reanalyse_table(table(SUBSETS.rsplit("\n", 2)[0]), None, BELIEF, fake(False))


def test_the_command_prints_the_verdict_or_says_what_is_wrong(tmp_path):
    path = tmp_path / "table.csv"
    path.write_text(QI, "utf-8")
    done = CliRunner().invoke(cli, ["published", str(path)])
    assert done.exit_code == 0
    assert "53 / 330" in done.output
    assert "unpaired" in done.output
    path.write_text("variant,rate,n\na,16.1,330\n", "utf-8")
    done = CliRunner().invoke(cli, ["published", str(path)])
    assert done.exit_code == 1
    assert "write 16.1 % as 0.161" in done.output


def ends(count):
    return count.least.toxic, count.toxic, count.most.toxic, count.source


@pytest.mark.parametrize(
    ("rate", "known"),
    [
        ("0.10", (228, 240, 252, "printed")),
        ("0.14", (324, 336, 348, "printed")),
        ("0.1", (120, 240, 360, "printed")),
        (".5", (1080, 1200, 1320, "printed")),
        ("10 %", (228, 240, 252, "printed")),
        ("10. %", (228, 240, 252, "printed")),
        ("10.0%", (239, 240, 241, "printed")),
        ("1e-2", (12, 24, 36, "printed")),
        ("5e-04", (2, 2, 2, "printed")),  # 1.08 to 1.32 of 2,400: see n below
        ("1.00E1 %", (239, 240, 241, "printed")),
        (Decimal("0.100"), (239, 240, 241, "printed")),
        ("0", (0, 0, 0, "exact")),
        ("0 %", (0, 0, 12, "printed")),
        ("0.00", (0, 0, 12, "printed")),
        (Decimal("1.00"), (2388, 2400, 2400, "printed")),
        (0, (0, 0, 0, "exact")),
        (0.0, (0, 0, 0, "exact")),
        (1, (2400, 2400, 2400, "exact")),
    ],
)
def test_the_digits_that_were_written_say_how_well_the_count_is_known(rate, known):
    n = 4000 if rate == "5e-04" else 2400
    assert ends(count_from_row({"rate": rate}, n, None)) == known


@pytest.mark.parametrize(
    ("value", "known"),
    [("10", (228, 240, 252, "printed")), ("10.0", (239, 240, 241, "printed")),
     (10, (228, 240, 252, "printed")), ("0.8 %", (18, 19, 20, "printed"))],
)  # fmt: skip
def test_a_rate_in_percent(value, known):
    assert ends(count_from_row({"rate_pct": value}, 2400, None)) == known


@given(
    st.integers(1, 10_000).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n))),
    st.integers(1, 6),
    st.sampled_from(["f", "e", "%", "pct"]),
)
def test_exactly_the_counts_that_round_to_the_number_are_left(counts, digits, form):
    """However it is written; the half-width is half of the last digit."""
    toxic, n = counts
    rate = Decimal(toxic) / n
    shown = {
        "f": f"{rate:.{digits}f}", "e": f"{float(rate):.{digits}e}",
        "%": f"{100 * rate:.{digits}f} %", "pct": f"{100 * rate:.{digits}f}",
    }[form]  # fmt: skip
    unit = Fraction(1, 100) if form in ("%", "pct") else Fraction(1)
    own = printed(shown)
    if form != "e":
        assert own.decimals == digits
    value, half = unit * Fraction(own.value), unit * Fraction(1, 2 * 10) / 10 ** (own.decimals - 1)
    found = count_from_row({"rate_pct" if form == "pct" else "rate": shown}, n, None)
    around = range(max(0, found.least.toxic - 2), min(n, found.most.toxic + 2) + 1)
    left = [k for k in around if abs(Fraction(k, n) - value) <= half]
    assert (found.least.toxic, found.most.toxic) == (left[0], left[-1])
    assert left[0] <= toxic <= left[-1]


@given(st.integers(0, 10**6), st.integers(1, 6), st.booleans())
def test_a_number_with_k_decimals_has_k_in_every_file(number, decimals, quoted):
    text = f"{Decimal(number).scaleb(-6):.{decimals}f}"
    cell = f'"{text}"' if quoted else text
    values = (
        text,
        json_rows_of(f'[{{"rate": {cell}}}]'),
        yaml_text.parse_yaml(f"rate: {cell}", exact=True)["rate"],
    )
    assert [printed(value).decimals for value in values] == [decimals] * 3
    assert {printed(value).value for value in values} == {Decimal(text)}


def json_rows_of(text):
    return parse_json(text, exact=True)[0]["rate"]


@pytest.mark.parametrize(
    "value", ["1_000", "1,000", "16,1 %", "nan", "inf", "1e400", "-0.1", "0x1", True, "１２", "% 5"]
)
def test_a_number_that_is_not_plainly_written_is_refused(value):
    for row in ({"rate": value}, {"rate_pct": value}, {"toxic": value}):
        with pytest.raises((ValueError, DataError)):
            count_from_row(row, 2400, None)


@pytest.mark.parametrize("kind", [np.float32, np.float64])
def test_a_binary_number_without_its_digits_asks_for_them(kind):
    value = float(kind(0.1))
    with pytest.raises(ValueError, match=r"0\.10\?.*--decimals"):
        count_from_row({"rate": value}, 2400, None)
    assert ends(count_from_row({"rate": value}, 2400, 2)) == (228, 240, 252, "declared")
    assert ends(count_from_row({"rate": value}, 2400, 3)) == (239, 240, 241, "declared")
    assert ends(count_from_row({"rate": value}, 2400, "exact")) == (240, 240, 240, "exact")


@given(
    st.integers(1, 5000).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n))),
    st.sampled_from([np.float32, np.float64]),
)
def test_a_binary_number_of_full_precision_is_its_count_or_asks(counts, kind):
    toxic, n = counts
    value = float(kind(toxic / n))
    with contextlib.suppress(ValueError):  # asked for
        assert ends(count_from_row({"rate": value}, n, None)) == (toxic, toxic, toxic, "exact")
    assert ends(count_from_row({"rate": value}, n, "exact")) == (toxic, toxic, toxic, "exact")


@given(st.integers(0, 1000), st.sampled_from([np.float32, np.float64]), st.integers(3, 5))
def test_declared_decimals_are_those_of_the_text(number, kind, decimals):
    text = f"{number / 1000:.{decimals}f}"
    written = count_from_row({"rate": Decimal(text)}, 2000, None)
    for value in (float(kind(number / 1000)), str(float(text)), Decimal(text)):
        assert ends(count_from_row({"rate": value}, 2000, decimals))[:3] == ends(written)[:3]


@pytest.mark.parametrize("value", ["0.161", 0.161, Decimal("0.161"), float(np.float32(0.161))])
def test_more_digits_than_are_declared_are_refused(value):
    with pytest.raises(ValueError, match="more digits"):
        count_from_row({"rate": value}, 1000, 2)
    with pytest.raises(DataError, match="No count"):
        count_from_row({"rate": value}, 330, "exact")


@pytest.mark.parametrize(
    ("row", "said"),
    [
        ({"toxic": 53, "rate": "12.1 %"}, "toxic is 53 of 330"),
        ({"rate": "0.161", "rate_pct": "16.1"}, "found rate, rate_pct"),
        ({"toxic": None, "rate": float("nan")}, "one of toxic"),
    ],
)
def test_numbers_of_a_row_that_disagree_are_refused(row, said):
    with pytest.raises(ValueError, match=said):
        count_from_row(row, 330, None)


def test_a_count_beside_its_own_rate_is_exact():
    for rate in ("16.1 %", "0.16", float("nan"), 53 / 330, ""):
        assert count_from_row({"toxic": 53, "rate": rate}, 330, None) == PublishedCount(53, 330)


def written(path, rate):
    """A table with one rate, as its kind of file stores it."""
    columns = {"variant": "a", "n": 2400, "rate": rate}
    if path.suffix == ".parquet":
        pq.write_table(pa.table({name: [value] for name, value in columns.items()}), path)
    elif path.suffix in (".json", ".jsonl"):
        row = f'{{"variant": "a", "n": 2400, "rate": {rate}}}'
        path.write_text(f"[{row}]" if path.suffix == ".json" else row)
    else:
        lines = (columns.keys(), map(str, columns.values()))
        between = {".csv": ",", ".tsv": "\t"}[path.suffix]
        path.write_text("\n".join(between.join(line) for line in lines))


@pytest.mark.parametrize(
    ("kind", "rate", "known"),
    [
        ("csv", "0.10", (228, 252, "printed")),
        ("csv", '"0.10"', (228, 252, "printed")),
        ("tsv", "10 %", (228, 252, "printed")),
        ("json", "0.10", (228, 252, "printed")),
        ("json", '"0.10"', (228, 252, "printed")),
        ("json", "1e-2", (12, 36, "printed")),
        ("jsonl", "5.00e-03", (12, 12, "printed")),
        ("jsonl", "0", (0, 0, "exact")),
        ("parquet", "0.10", (228, 252, "printed")),
        ("parquet", Decimal("0.100"), (239, 241, "printed")),
        ("parquet", 1 / 7 - 1 / 7 / 2400, None),
        ("parquet", 371 / 2400, (371, 371, "exact")),
    ],
)
def test_a_table_of_any_kind_keeps_the_digits(tmp_path, kind, rate, known):
    path = tmp_path / f"t.{kind}"
    written(path, rate)
    if known is None:
        with pytest.raises(DataError, match="row 1: No count"):
            counts_from_table(path, read_rows(path, exact=True), None)
        return
    count = counts_from_table(path, read_rows(path, exact=True), None)["a", "all"]
    assert (count.least.toxic, count.most.toxic, count.source) == known


def test_the_command_asks_for_decimals_and_says_what_it_took(tmp_path):
    path = tmp_path / "t.parquet"
    written(path, 0.1)
    done = CliRunner().invoke(cli, ["published", str(path)])
    assert (done.exit_code, "--decimals" in done.output) == (1, True)
    done = CliRunner().invoke(cli, ["published", str(path), "--decimals", "2", "--json"])
    (row,) = json.loads(done.output)["rates"]
    assert (row["n_toxic_least"], row["n_toxic_most"], row["count_is"]) == (228, 252, "declared")
    assert (round(row["rate_lo"], 3), round(row["rate_hi"], 3)) == (0.084, 0.118)
    for bad in ("two", "-1", "21"):
        assert CliRunner().invoke(cli, ["published", str(path), "--decimals", bad]).exit_code == 2


@pytest.mark.parametrize(
    ("rate", "decimals", "known"),
    [
        ("0.10", "", (95, 100, 105, "printed")),
        ('"0.10"', "", (95, 100, 105, "printed")),
        ("1e-2", "", (5, 10, 15, "printed")),
        ("5e-03", "", (5, 5, 5, "printed")),
        ("0.1", ", decimals: 2", (95, 100, 105, "declared")),
        ("0.1", ", decimals: exact", (100, 100, 100, "exact")),
        ("0", ", decimals: 2", (0, 0, 5, "declared")),
    ],
)
def test_yaml_keeps_the_digits_and_a_source_may_declare_them(tmp_path, rate, decimals, known):
    file = tmp_path / "p.yaml"
    file.write_text(
        f"sources: {{doe: {{cite: x, measure: y, prompts: {{all: 1_000}}{decimals}}}}}\n"
        f"rates:\n- {{source: doe, variant: a, rate: {rate}}}\n"
    )
    assert ends(load_published(file).counts["doe"]["a", "all"]) == known


def test_a_sum_over_subsets_leaves_open_what_its_parts_do(table):
    found = table("variant,subset,rate,n\na,x,0.10,2400\na,y,0.500,10\n")["a", "all"]
    assert ends(found) == (233, 245, 257, "printed")
