"""Published tables: rates become counts, and conclusions hold whatever the pairing was."""

from __future__ import annotations

from decimal import Decimal

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st

from toxtrail.cli import cli
from toxtrail.errors import DataError, InferenceError
from toxtrail.readers import read_rows
from toxtrail.stages.published import Belief, count_of, counts_of, printed, published_table
from toxtrail.stages.replay import load_published
from toxtrail.stats.margins import Published
from toxtrail.stats.sampling import Sampled

BELIEF = Belief(0.5, 0.95, 1)
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
        return counts_of(path, read_rows(path))

    return make


def verdicts(found):
    return {(row["b"], row["subset"]): row["verdict"] for row in found["pairs"]}


def test_per_cents_shares_and_counts_are_the_same_counts(table):
    assert list(table(QI).values()) == [Published(1, 330), Published(53, 330), Published(40, 330)]
    assert table("variant,toxic,n\na,53,330\n")["a", "all"] == Published(53, 330)


def test_published_jumps_after_benign_tuning_are_credible(table):
    found = published_table(table(QI), None, BELIEF, None)
    assert verdicts(found) == {("alpaca", "all"): "higher", ("dolly", "all"): "higher"}
    assert found["reference"] == "chat"


def test_opposite_differences_on_the_hardest_prompts_and_none_over_all(table):
    """As the reference paper says of two community tunes (counts made up)."""
    found = published_table(table(SUBSETS), "instruct", BELIEF, None)
    said = verdicts(found)
    assert (said["chinese", "severe"], said["sauerkraut", "severe"]) == ("higher", "lower")
    assert said["chinese", "random"] != "higher"
    assert {row["n_a"] for row in found["pairs"] if row["subset"] == "all"} == {2000}


def test_unlike_numbers_of_prompts_were_not_the_same_prompts(table):
    (row,) = published_table(table("variant,toxic,n\na,5,100\nb,40,200\n"), None, BELIEF, None)[
        "pairs"
    ]
    assert (row["verdict"], row["tables"]) == (row["verdict_unpaired"], [])


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("variant,rate,n\na,16.1,330\n", "row 1: .*outside 0 to 1"),
        ("variant,rate,n\na,0.5,7\n", "row 1: No count of 7"),
        ("variant,rate,n\na,nan,7\n", 'row 1: "nan" is no number'),
        ("variant,rate,n\na,,7\n", "row 1: a row needs rate"),
        ("variant,toxic,n\na,9,7\n", "row 1: 9 toxic of 7"),
        ("variant,toxic,n\na,1.5,7\n", "row 1: 1.5 is no count"),
        ("variant,toxic,n\na,1,x\n", 'row 1: "x" is no number'),
        ("variant,toxic,n\na,1,7\na,2,7\n", "row 2: a, all is there twice"),
        ("variant,toxic\na,1\n", 'no column "n"'),
        ("variant,toxic,n\n", "has no row"),
        ("variant,rate,n\na,0.1,0\n", "row 1: 0 is no number of prompts"),
        ("variant,toxic,n\na,0,7.5\n", "row 1: 7.5 is no number of prompts"),
    ],
)
def test_a_table_that_is_wrong_is_refused_with_the_row(table, text, said):
    with pytest.raises(DataError, match=said):
        table(text)


def test_an_unknown_reference_is_refused_with_the_nearest(table):
    with pytest.raises(DataError, match='Did you mean "chat"'):
        published_table(table(QI), "chatt", BELIEF, None)


def fake(divergent):
    def sampler(toxic, n, effort):
        rng, shape = np.random.default_rng(effort.seed), (effort.chains, effort.draws)
        share = (toxic + 0.5) / (n + 1)
        eta = np.log(share / (1 - share)) + 0.1 * rng.standard_normal((*shape, *toxic.shape))
        diverging = np.full(shape, float(divergent))
        posterior = {"eta": eta, "mu": rng.standard_normal(shape)}
        return Sampled(posterior, diverging, rng.standard_normal(shape), np.zeros(shape))

    return sampler


def test_a_pooled_table_has_its_own_columns_and_all_is_weighted_by_prompts(table):
    found = published_table(table(SUBSETS), None, BELIEF, fake(False))
    rows = {(row["b"], row["subset"]): row["pooled_diff"] for row in found["pairs"]}
    both = (rows["chinese", "random"] + rows["chinese", "severe"]) / 2
    assert rows["chinese", "all"] == pytest.approx(both)
    assert all(row["lfsr"] <= 0.5 for row in found["pairs"])


def test_what_does_not_converge_or_has_gaps_is_not_pooled(table):
    with pytest.raises(InferenceError, match="divergent"):
        published_table(table(SUBSETS), None, BELIEF, fake(True))
    with pytest.raises(DataError, match="sauerkraut has no severe"):
        published_table(table(SUBSETS.rsplit("\n", 2)[0]), None, BELIEF, fake(False))


def test_the_command_prints_the_verdict_or_says_what_is_wrong(tmp_path):
    path = tmp_path / "table.csv"
    path.write_text(QI, "utf-8")
    done = CliRunner().invoke(cli, ["replay", str(path)])
    assert done.exit_code == 0
    assert "53 / 330" in done.output
    assert "Counts alone" in done.output
    path.write_text("variant,rate,n\na,16.1,330\n", "utf-8")
    done = CliRunner().invoke(cli, ["replay", str(path)])
    assert done.exit_code == 1
    assert "write 16.1 % as 0.161" in done.output


@pytest.mark.parametrize(
    ("rate", "count"),
    [
        ("0.10", Published(240, 2400, 12)),
        ("0.1", Published(240, 2400, 240 // 2)),
        (".5", Published(1200, 2400, 120)),
        ("10. %", Published(240, 2400, 12)),
        ("1e-2", Published(24, 2400, 12)),
        ("1.00E1 %", Published(240, 2400, 1)),
        (Decimal("0.100"), Published(240, 2400, 1)),
        ("0", Published(0, 2400, 0)),
        ("0.00", Published(0, 2400, 12)),
        (0.0, Published(0, 2400, 0)),
        (1, Published(2400, 2400, 0)),
    ],
)
def test_the_digits_that_were_printed_say_how_well_the_count_is_known(rate, count):
    assert count_of({"rate": rate}, 2400) == count


@given(st.integers(0, 2400), st.integers(1, 5), st.sampled_from(["f", "e", "%"]))
def test_the_count_of_a_rate_is_within_what_its_digits_leave_open(toxic, digits, form):
    """However it is printed; scientific notation with as many digits as the others."""
    rate = Decimal(toxic) / 2400
    shown = f"{100 * rate:.{digits}f} %" if form == "%" else f"{rate:.{digits}{form}}"
    found = count_of({"rate": shown}, 2400)
    assert abs(found.toxic - toxic) <= found.slack
    half = 1200 * printed(shown).half / (100 if form == "%" else 1) * 2
    assert found.slack <= half + 1


@pytest.mark.parametrize(
    "value", ["1_000", "1,000", "16,1 %", "nan", "inf", "1e400", "-0.1", "0x1", True, "１２", "% 5"]
)
def test_a_number_that_is_not_plainly_written_is_refused(value):
    for row in ({"rate": value}, {"toxic": value}):
        with pytest.raises((ValueError, DataError)):
            count_of(row, 2400)


def test_a_float_that_lost_its_digits_is_refused_and_a_full_one_is_read():
    with pytest.raises(ValueError, match=r'0\.1 is stored as a number.*"0\.10"'):
        count_of({"rate": 0.1}, 2400)
    assert count_of({"rate": 53 / 330}, 330) == Published(53, 330, 0)


def test_json_and_yaml_keep_the_digits_and_parquet_says_what_to_do(tmp_path):
    path = tmp_path / "t.jsonl"
    path.write_text('{"variant": "a", "n": 2400, "rate": 0.10}\n')
    assert counts_of(path, read_rows(path, exact=True))["a", "all"] == Published(240, 2400, 12)
    path = tmp_path / "t.parquet"
    pq.write_table(pa.table({"variant": ["a"], "n": [2400], "rate": [0.1]}), path)
    with pytest.raises(DataError, match="row 1: .*text"):
        counts_of(path, read_rows(path, exact=True))
    file = tmp_path / "p.yaml"
    file.write_text(
        "sources: {doe: {cite: x, measure: y, prompts: {all: 1_000}}}\n"
        "rates:\n- {source: doe, variant: a, rate: 0.10}\n- {source: doe, variant: b, rate: 1e-2}\n"
    )
    counts = load_published(file).counts["doe"]
    assert (counts["a", "all"], counts["b", "all"]) == (
        Published(100, 1000, 5), Published(10, 1000, 5),
    )  # fmt: skip
