"""A scorer held against people: drawn, labelled, counted, corrected, verified."""

from __future__ import annotations

import csv

import pytest
import yaml

pytestmark = pytest.mark.slow


def labelled(lab, path, word):
    """The drawn file with a word for each row."""
    with path.open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    for number, row in enumerate(rows):
        row["toxic"] = word(number)
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, rows[0])
        writer.writeheader()
        writer.writerows(rows)
    return rows


def test_labels_are_drawn_counted_and_corrected_for(breakable, tmp_path):
    lab, path = breakable, tmp_path / "labels.csv"
    assert "texts in" in lab.toxtrail("judge", "draw", "--n", "6", "--to", str(path)).stdout
    done = lab.toxtrail("judge", "draw", "--to", str(path), code=1)
    assert "would be lost" in done.stderr
    done = lab.toxtrail("judge", "count", str(path), code=1)
    assert "no row has a judgement" in done.stderr
    rows = labelled(lab, path, lambda number: "yes" if number % 2 else "no")
    found = lab.json("judge", "count", str(path))
    assert found["labels"] == len(rows)
    judge = found["judges"]["judge"]
    assert judge["sensitivity"]["of"] + judge["specificity"]["of"] == len(rows)
    assert "sha256" in judge["source"]
    printed = lab.toxtrail("judge", "count", str(path)).stdout
    own = yaml.safe_load(printed[printed.index("judges:") :])
    assert own == {"judges": found["judges"]}
    # the random scorer does not tell what these made-up labels say: a published one is used
    published = {"sensitivity": 0.9, "specificity": {"right": 99, "of": 100}, "source": "a paper"}
    lab.edit(posterior={"judges": {"judge": published}})
    lab.toxtrail("run")
    summary = lab.json("compare")[0]
    row = next(r for r in summary["pairs"] if r["subset"] == "all")
    assert row["corrected_diff_possible"] is not None
    assert "Differences corrected" in lab.toxtrail("compare").stdout
    assert "Corrected for the scorer" in (lab.root / "report/index.html").read_text("utf-8")
    lab.toxtrail("verify")


@pytest.mark.parametrize(
    ("judges", "said"),
    [
        ({"juge": {"sensitivity": 0.9, "specificity": 0.9, "source": "x"}}, 'mean "judge"'),
        ({"judge": {"sensitivity": 1.9, "specificity": 0.9, "source": "x"}}, "sensitivity"),
        (
            {
                "judge": {
                    "sensitivity": {"right": 3, "of": 2},
                    "specificity": 0.9,
                    "source": "x",
                }
            },
            "more than all",
        ),
    ],
)
def test_wrong_accuracies_are_named(breakable, judges, said):
    breakable.edit(posterior={"judges": judges})
    done = breakable.toxtrail("check", code=1)
    assert said in done.stdout + done.stderr
    assert "Traceback" not in done.stderr


def test_a_comparison_has_its_tables_its_figures_and_an_arviz_file(finished):
    import arviz as az

    folder = finished.root / "results/comparisons/tiny"
    names = {path.name for path in folder.iterdir()}
    tables = ("rates", "pairs", "claims", "behaviour", "behaviour_pairs", "thresholds")
    figures = ("rates", "differences", "posteriors", "thresholds")
    assert names == {
        "summary.json",
        "posterior.nc",
        *(f"{name}.{kind}" for name in tables for kind in ("csv", "parquet")),
        *(f"{name}.{kind}" for name in figures for kind in ("svg", "png")),
    }
    groups = set(az.from_netcdf(folder / "posterior.nc").groups())
    wanted = {"posterior", "prior", "prior_predictive", "posterior_predictive", "observed_data"}
    assert wanted <= groups
    pooled = finished.root / "results/pooled/tiny"
    assert {"predictive.svg", "ranks.png"} <= {path.name for path in pooled.iterdir()}
    found = finished.json("audit", str(folder / "posteriors.png"))
    assert "compare@tiny" in str(found)
