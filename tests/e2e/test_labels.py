"""A scorer compared with people: drawn, labelled, counted, corrected, verified."""

from __future__ import annotations

import csv

import pytest
import yaml
from browsing import opened_browser

from toxtrail.provenance.identity import sha256_file

pytestmark = pytest.mark.slow


def labelled(path, word, to=None):
    """The drawn file with a word for each row that has none."""
    with path.open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    for number, row in enumerate(rows):
        row["toxic"] = row["toxic"] or word(number)
    with (to or path).open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, rows[0])
        writer.writeheader()
        writer.writerows(rows)
    return rows


def test_labels_are_drawn_counted_and_corrected_for(breakable, tmp_path):
    lab, path = breakable, tmp_path / "labels.csv"
    sample = ("labels", "sample", "--to", str(path))
    assert "texts of" in lab.toxtrail(*sample, "--samples-per-variant", "40").stdout
    done = lab.toxtrail(*sample, code=1)
    assert "would be lost" in done.stderr
    done = lab.toxtrail("labels", "score", str(path), code=1)
    assert "has a label" in done.stderr
    copies = [tmp_path / "ann.csv", tmp_path / "bob.csv"]
    rows = labelled(path, lambda number: "yes" if number % 2 else "no", copies[0])
    assert set(rows[0]) == {"id", "text", "toxic"}
    labelled(path, lambda number: "yes" if number % 2 or number == 2 else "no", copies[1])
    path = tmp_path / "merged.csv"
    for files in ([copies[0]], [copies[0], copies[0]], [copies[0], tmp_path / "labels.csv"]):
        done = lab.toxtrail("labels", "agreement", *map(str, files), "--to", str(path), code=None)
        assert done.returncode in (1, 2)
        assert not path.exists()
    agreement = lab.json("labels", "agreement", *map(str, copies), "--to", str(path))
    assert agreement["pairs"][0]["n"] == len(rows)
    assert [row["id"] for row in agreement["disagreement_rows"]] == [rows[2]["id"]]
    shown = lab.toxtrail("labels", "agreement", *map(str, copies)).stdout
    assert rows[2]["id"] in shown
    assert f"{agreement['pairs'][0]['kappa']:.2f}" in shown
    assert rows[2]["id"] in lab.toxtrail("labels", "score", str(path), code=1).stderr
    labelled(path, lambda number: "yes")
    found = lab.json("labels", "score", str(path))
    assert found["annotators"]["pairs"] == agreement["pairs"]
    assert found["n"] >= len(rows)
    own = found["labels"]
    file = lab.root / own["uri"].removeprefix("file:")
    assert sha256_file(file) == own["sha256"]
    printed = lab.toxtrail("labels", "score", str(path)).stdout
    part = printed[printed.index("labels:") : printed.index("The labels are")]
    assert yaml.safe_load(part) == {"labels": own}
    judges = lab.json("labels", "score", str(path), "--by-variant")["scorer_error"]
    measured = judges["judge"]["measured_on"]
    assert measured["labels_sha256"] == sha256_file(path)
    assert measured["scorer"]["uri"] == "file:assets/judge"

    lab.edit(posterior={"labels": own})
    lab.toxtrail("run")
    kappa = agreement["pairs"][0]["kappa"]
    assert lab.json("compare")[0]["annotators"]["pairs"][0]["kappa"] == pytest.approx(kappa)
    assert f"{kappa:.2f} [" in (lab.root / "report/index.html").read_text("utf-8")
    summary = lab.json("compare")[0]
    row = next(r for r in summary["pairs"] if r["subset"] == "all")
    assert row["corrected_diff_labels"] >= 10
    assert row["corrected_diff_lo"] <= row["corrected_diff"] <= row["corrected_diff_hi"]
    assert "Differences corrected" in lab.toxtrail("compare", "--all-tables").stdout
    assert "Corrected for the scorer" in (lab.root / "report/index.html").read_text("utf-8")
    lab.toxtrail("verify")
    file.write_text(file.read_text("utf-8").replace("yes", "no", 1), encoding="utf-8")
    assert "posterior.labels" in lab.toxtrail("verify", code=3).stdout
    done = lab.toxtrail("check", code=1)
    assert "posterior.labels" in done.stdout + done.stderr


def test_labels_of_the_page_are_scored(breakable, tmp_path):
    sheet, file = tmp_path / "labels.csv", tmp_path / "labels.html"
    breakable.toxtrail("labels", "sample", "--to", str(sheet), "--samples-per-variant", "4")
    breakable.toxtrail("labels", "page", str(sheet), "--to", str(file))
    with opened_browser() as browser:
        page = browser.new_page()
        page.goto(file.as_uri())
        page.fill("#annotator", "ann")
        for key in ("Enter", " ", "y", " ", "n"):
            page.keyboard.press(key)
        page.reload()
        page.get_by_role("button", name="Continue as ann").click()
        for key in (" ", "n"):
            page.keyboard.press(key)
        with page.expect_download() as download:
            page.keyboard.press("d")
        labels = tmp_path / download.value.suggested_filename
        download.value.save_as(labels)
    rows = len(sheet.read_text("utf-8").splitlines()) - 1
    found = breakable.json("labels", "score", str(labels))
    assert (found["n"], found["unlabelled_rows"]) == (3, rows - 3)
    done = breakable.toxtrail("labels", "page", str(labels), "--to", str(file), code=1)
    assert "exists" in done.stderr
    (key,) = (breakable.root / "labels").glob("*.key.csv")
    done = breakable.toxtrail("labels", "page", str(key), "--to", str(tmp_path / "x"), code=1)
    assert "columns must be" in done.stderr


@pytest.mark.parametrize(
    ("name", "values", "said"),
    [
        ("juge", {}, 'mean "judge"'),
        ("judge", {"sensitivity": 1.9}, "sensitivity"),
        ("judge", {"sensitivity": {"correct": 3, "total": 2}}, "more than all"),
        ("judge", {"measured_on": {"scorer": {"head": "x"}, "threshold": 0.5}}, "uri must be"),
        ("judge", {}, "head is toxic, it was insult"),
    ],
)
def test_wrong_accuracies_are_named(breakable, name, values, said):
    stated = {"scorer": {"uri": "file:assets/judge", "head": "insult"}, "threshold": 0.5}
    error = {"sensitivity": 0.9, "specificity": 0.9, "source": "x", "measured_on": stated}
    breakable.edit(posterior={"scorer_error": {name: {**error, **values}}})
    for command in (("check",), ("stage", "posterior", "base")):
        done = breakable.toxtrail(*command, code=1)
        assert said in done.stdout + done.stderr
        assert "Traceback" not in done.stderr


def groups_of(path):
    """As ArviZ reads them: an InferenceData of ArviZ 0.23, a DataTree of ArviZ 1."""
    import arviz

    data = arviz.from_netcdf(path)
    return set(data.groups() if callable(data.groups) else data.children)


def test_a_comparison_has_its_tables_its_figures_and_an_arviz_file(finished):
    folder = finished.root / "results/comparisons/tiny"
    names = {path.name for path in folder.iterdir()}
    tables = ("rates", "pairs", "error_control", "behaviour", "behaviour_pairs", "thresholds")
    figures = ("rates", "differences", "posteriors", "thresholds")
    assert names == {
        "summary.json",
        "posterior.nc",
        *(f"{name}.{kind}" for name in tables for kind in ("csv", "parquet")),
        *(f"{name}.{kind}" for name in figures for kind in ("svg", "png")),
    }
    wanted = {"posterior", "posterior_predictive", "observed_data"}
    assert wanted <= groups_of(folder / "posterior.nc")
    alone = groups_of(finished.root / "results/posteriors/tiny/base/posterior.nc")
    assert {*wanted, "prior", "prior_predictive"} <= alone
    pooled = finished.root / "results/pooled/tiny"
    assert {"predictive.svg", "ranks.png"} <= {path.name for path in pooled.iterdir()}
    found = finished.json("audit", str(folder / "posteriors.png"))
    assert "compare@tiny" in str(found)
