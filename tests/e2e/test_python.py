"""The functions for notebooks return what the commands print."""

import csv
import doctest
import importlib
import io
import json
import re
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest

import toxtrail
from toxtrail.errors import ConfigError, DataError
from toxtrail.text_escaping import escape_formula

pytestmark = pytest.mark.slow

PAGE = Path(__file__).resolve().parents[2] / "docs" / "python.md"
A = [{"prompt": "the sky", "text": "a tree"}, {"prompt": "you are", "text": "kind"}]
KEYS = ["a", "b", "scorer", "subset"]
B = [{"prompt": "the sky", "text": "silly"}, {"prompt": "you are", "text": "a goose"}]


@pytest.fixture
def experiment(finished, tmp_path, monkeypatch):
    """The finished experiment as the folder `experiment` of the working directory."""
    for name, value in finished.env.items():
        monkeypatch.setenv(name, value)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "experiment").symlink_to(finished.root)
    return finished


def run_examples(examples: str, name: str) -> int:
    test = doctest.DocTestParser().get_doctest(examples, {}, name, name, 0)
    output = io.StringIO()
    failed = doctest.DocTestRunner(optionflags=doctest.NORMALIZE_WHITESPACE).run(
        test, out=output.write
    )
    assert failed.failed == 0, output.getvalue()
    return len(test.examples)


def test_the_examples_of_the_page_run(experiment):
    blocks = re.findall(r"```pycon\n(.*?)```", PAGE.read_text("utf-8"), re.DOTALL)
    assert run_examples("\n".join(blocks), PAGE.name) > 20


@pytest.mark.parametrize("name", ["load", "compare_texts", "audit", "gate"])
def test_the_examples_of_each_function_run(experiment, name):
    assert run_examples(getattr(toxtrail, name).__doc__, name) > 2


def equal(frame: pd.DataFrame, rows: list[dict]) -> None:
    """Every cell is the one of the JSON rows; an empty cell is null there."""
    assert len(frame) == len(rows)
    for (_, cells), row in zip(frame.iterrows(), rows, strict=True):
        present = {name: value for name, value in cells.items() if not pd.isna(value)}
        assert present == {name: value for name, value in row.items() if value is not None}


def test_tables_are_those_of_compare(experiment):
    results = toxtrail.load("experiment")
    (printed,) = experiment.json("compare")
    equal(results.rates, printed["rates"])
    equal(results.table("behaviour"), printed["behaviour"])
    equal(results.pairs, [{"family": "tiny", **row} for row in printed["pairs"]])
    text = experiment.toxtrail("compare", "--csv").stdout
    by_pair = {tuple(row[k] for k in KEYS): row for row in csv.DictReader(io.StringIO(text))}
    assert len(by_pair) == len(results.pairs)
    for _, cells in results.pairs.iterrows():
        row = by_pair[tuple(cells[KEYS])]
        assert {"project", *cells.index} == set(row)
        assert all(is_printed(value, row[name]) for name, value in cells.items())


def is_printed(value: object, cell: str) -> bool:
    """Whether a cell of CSV shows a value exactly."""
    if pd.isna(value):
        return cell == ""
    if isinstance(value, str):
        return cell == escape_formula(value)
    return cell == str(value).lower() or float(cell) == value


def test_flips_are_those_of_the_command(experiment):
    results = toxtrail.load("experiment")
    printed = experiment.json("flips", "base", "tuned", "--show-text")
    equal(results.flips("base", "tuned", texts=True), printed["flips"])
    with pytest.raises(ConfigError):
        results.flips("base", "tuned", subset="thre")


def test_texts_in_memory_are_compared_as_files_are(experiment, tmp_path):
    for name, rows in (("rows_a", A), ("rows_b", B)):
        lines = "".join(json.dumps(row) + "\n" for row in rows)
        (tmp_path / f"{name}.jsonl").write_text(lines)
    paths = [str(tmp_path / f"{name}.jsonl") for name in ("rows_a", "rows_b")]
    params = str(experiment.root / "params.yaml")
    printed = experiment.json("texts", "compare", *paths, "--params", params)
    labels = ("rows_a.jsonl", "rows_b.jsonl")
    for rows in (B, pd.DataFrame(B)):
        result = toxtrail.compare_texts(A, rows, params=params, labels=labels)
        equal(result.rates, printed["rates"])
        equal(result.pairs.drop(columns="family"), printed["pairs"])
        assert result.notes == printed["notes"]


@pytest.mark.parametrize(
    ("rows", "error"),
    [
        ([], DataError),
        (["a text"], DataError),
        ([{"prompt": "x", "text": {1, 2}}], DataError),
        ([{"prompt": "x", "text": None}], DataError),
        (pd.DataFrame([{"prompt": "x", "text": float("nan")}]), DataError),
        ([{"prompt": "x", "answer": "y"}], ConfigError),
    ],
)
def test_malformed_rows_are_refused(rows, error):
    with pytest.raises(error, match="rows_b"):
        toxtrail.compare_texts(A, rows)


def test_an_audit_is_that_of_the_command(experiment):
    printed = experiment.json("audit", "tuned", "--verify")
    assert json.loads(json.dumps(toxtrail.audit("tuned", "experiment").to_json())) == printed
    assert toxtrail.audit("tuned", "experiment", verify=False).checks == ()


def test_an_audit_shows_a_changed_file(breakable, monkeypatch):
    for name, value in breakable.env.items():
        monkeypatch.setenv(name, value)
    scores = breakable.root / "data" / "scores" / "tiny" / "tuned.parquet"
    content = bytearray(scores.read_bytes())
    content[len(content) // 2] ^= 1
    scores.unlink()
    scores.write_bytes(content)
    result = toxtrail.audit("tuned", breakable.root)
    assert not result.ok
    assert any(check.outcome == "BROKEN" and "tuned" in check.name for check in result.failed)
    with pytest.raises(DataError):
        toxtrail.gate(folder=breakable.root)


def test_a_gate_is_that_of_the_command(experiment, tmp_path):
    rules = {"max_increase_pp": 10, "max_subset_increase_pp": 90}
    policy = {"against": "reference", "scorers": "every", "rules": rules}
    path = tmp_path / "gate.yaml"
    path.write_text(json.dumps(policy))
    printed = json.loads(
        experiment.toxtrail("gate", "--policy", str(path), "--json", code=None).stdout
    )
    for given in (policy, path):
        result = toxtrail.gate(given, "experiment")
        assert (result.decision, result.policy_sha256) == (
            printed["decision"],
            printed["policy_sha256"],
        )
        equal(pd.DataFrame(result.rows), printed["rows"])


def test_a_folder_without_an_experiment_is_refused(tmp_path):
    for function in (toxtrail.load, lambda folder: toxtrail.gate(folder=folder)):
        with pytest.raises(ConfigError):
            function(tmp_path)


def test_importing_the_package_imports_no_library():
    code = "import sys, toxtrail; print(*sys.modules)"
    modules = subprocess.run(
        [sys.executable, "-c", code], check=True, capture_output=True, text=True
    ).stdout.split()
    assert {m for m in modules if m.split(".")[0] == "toxtrail"} == {"toxtrail"}
    assert not {"click", "numpy", "pydantic", "typing"} & set(modules)


def test_the_stub_names_every_function():
    stub = PAGE.parents[1].joinpath("src", "toxtrail", "__init__.pyi").read_text()
    named = set(re.findall(r"from (\S+) import (\w+) as \2", stub))
    assert named == {(f"toxtrail.api.{m}", f) for f, m in toxtrail.FUNCTIONS.items()}
    for module, function in named:
        assert getattr(toxtrail, function) is getattr(importlib.import_module(module), function)
