"""Published tables: rates become counts, and conclusions hold whatever the pairing was."""

from __future__ import annotations

import numpy as np
import pytest
from click.testing import CliRunner

from toxtrail.cli import cli
from toxtrail.errors import DataError, InferenceError
from toxtrail.readers import read_rows
from toxtrail.stages.published import Belief, counts_of, published_table
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
        ("variant,toxic,n\na,1.5,7\n", "row 1: 1.5 toxic of 7"),
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
