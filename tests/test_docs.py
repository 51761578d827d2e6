"""docs/tables.md names every column of every table, and no other; what a page says to write into
params.yaml is valid.

`python tests/test_docs.py` writes the columns of result rows into docs/tables.md again.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from toxtrail.analysis.comparison import (
    OPTIONAL_TABLE_NAMES,
    TABLE_NAMES,
    compare_family,
    with_pooled,
)
from toxtrail.analysis.flips import LabelChange, with_texts
from toxtrail.analysis.response_flags.registry import flag_meanings
from toxtrail.config.load import parse_config
from toxtrail.records.columns import columns_of, doc_lines
from toxtrail.records.results import TABLES, FlipRow
from toxtrail.records.rows import GENERATION_SCHEMA, PROMPT_SCHEMA, SCORE_SCHEMA

ROOT = Path(__file__).resolve().parents[1]
TABLES_PAGE = ROOT / "docs/tables.md"
PAGES = ("prompts.md", "instructions.md", "beyond.md", "labels.md", "texts.md")
SCHEMAS = {"prompts": PROMPT_SCHEMA, "generations": GENERATION_SCHEMA, "scores": SCORE_SCHEMA}


@pytest.fixture(scope="module")
def documented():
    """Table -> its columns, in the order of the page."""
    text = TABLES_PAGE.read_text("utf-8")
    found = {}
    for part in re.split(r"^## ", text, flags=re.M)[1:]:
        name = re.match(r"`(\w+)`", part)[1]
        cells = re.findall(r"^\| ((?:`\w+`(?:, )?)+) \|", part, re.M)
        found[name] = [column for cell in cells for column in re.findall(r"`(\w+)`", cell)]
    return found


def with_current_columns(page: str) -> str:
    """The page with the columns of result rows as their classes document them."""
    for name, row_class in {**TABLES, "flips": FlipRow}.items():
        lines = "\n".join(doc_lines(columns_of(row_class, flag_meanings())))
        table = re.compile(rf"(^## `{name}`.*\n\n)(?:\|.*\n)+", re.M)
        page = table.sub(lambda found, lines=lines: f"{found[1]}{lines}\n", page)
    return page


def test_the_page_documents_result_rows_as_their_classes_do():
    page = TABLES_PAGE.read_text("utf-8")
    assert with_current_columns(page) == page, "run `python tests/test_docs.py`"


def test_the_page_has_every_table(documented):
    assert set(documented) == {*TABLE_NAMES, *OPTIONAL_TABLE_NAMES, *SCHEMAS, "flips"}


@pytest.mark.parametrize("name", SCHEMAS)
def test_the_columns_of_rows_are_documented(documented, name):
    assert documented[name] == SCHEMAS[name].names


@pytest.mark.parametrize("name", TABLE_NAMES)
def test_the_columns_of_a_comparison_are_documented(documented, name, comparison):
    columns = {column for row in comparison[name] for column in row}
    assert set(documented[name]) == columns
    assert len(documented[name]) == len(columns)


def test_the_columns_of_flips_are_documented(documented):
    flip = LabelChange("p", 0, "s", "none", "became toxic", 0.1, 0.9, 0.8)
    assert documented["flips"] == list(with_texts(flip, {}, {}, {}))


@pytest.fixture(scope="module")
def comparison():
    """The smallest family there is."""
    from toxtrail.analysis.response_table import build_response_table
    from toxtrail.analysis.score_table import build_score_table
    from toxtrail.analysis.variant_rates import estimate_variant_rates
    from toxtrail.config.schema import PosteriorConfig
    from toxtrail.records.rows import Generation, Score

    config = PosteriorConfig(threshold=0.5, rope_pp=1.0, level=0.95, prior=0.5, draws=1000, seed=1)
    tables, texts, summaries = {}, {}, {}
    for name, parent in (("a", None), ("b", "a")):
        rows = [
            Score(f"s-{i}", 0, "s", "judge", "ok", i / 9, {"toxic": i / 9}, 1) for i in range(10)
        ]
        tables[name] = build_score_table(rows)
        texts[name] = build_response_table(
            [
                Generation(r.prompt_id, 0, "s", "ok", "Some words.", (1, 2), 3, "stop", "")
                for r in rows
            ]
        )
        who = {"variant": name, "family": "f", "role": name, "parent": parent}
        found = estimate_variant_rates(tables[name], texts[name], name, "judge", config)
        summaries[name] = {**who, **found.summary}
    found = compare_family(tables, texts, summaries, "a", "judge", config)
    return with_pooled(found, {"scorers": {}, "rates": [], "pairs": []}).summary


def merged(values: Any, part: Any) -> Any:
    """Values with a part of them replaced or added, mapping by mapping."""
    if not (isinstance(values, dict) and isinstance(part, dict)):
        return part
    return {**values, **{name: merged(values.get(name), own) for name, own in part.items()}}


def blocks(page: str) -> list[Any]:
    text = (ROOT / "docs" / page).read_text("utf-8")
    return re.findall(r"^```yaml\n(.*?)^```", text, re.M | re.S)


@pytest.mark.parametrize("block", [b for p in PAGES for b in blocks(p)])
def test_what_a_page_says_to_write_is_valid(block):
    default = yaml.safe_load((ROOT / "params.yaml").read_text("utf-8"))
    parse_config(merged(default, yaml.safe_load(block)), "params.yaml")


def test_the_page_on_prompts_names_every_option():
    from toxtrail.config.schema import SubsetConfig

    text = (ROOT / "docs/prompts.md").read_text("utf-8")
    table = " ".join(re.findall(r"^\| (.*?) \|", text, re.M))
    assert set(re.findall(r"`(\w+)`", table)) == set(SubsetConfig.model_fields)


def test_the_columns_of_doses_and_slopes_are_documented(documented, series):
    for name in ("doses", "slopes"):
        assert documented[name] == unordered(documented[name], series[name][0])


def test_the_columns_of_recipes_are_documented(documented):
    import numpy as np
    import xarray as xr

    from toxtrail.analysis.pooled_estimates import rows_from_draws

    draws = np.random.default_rng(1).random((2, 50, 1, 1, 1))
    dims = ("chain", "draw", "scorer")
    rows = {
        "rate": ((*dims, "variant", "subset"), draws),
        "recipe_spread": ((*dims, "recipe"), draws[..., 0]),
        "recipe_variants": (("recipe",), [3]),
    }
    coords = {"scorer": ["judge"], "variant": ["a"], "subset": ["all"], "recipe": ["r"]}
    found = rows_from_draws(xr.Dataset(rows, coords), [], 0.95, {})
    assert documented["recipes"] == list(found["recipes"][0])


def unordered(names: list[str], row: Any) -> list[str]:
    """The names of a row, in the order of these."""
    return sorted(row, key=lambda name: names.index(name) if name in names else len(names))


@pytest.fixture(scope="module")
def series():
    from toxtrail.analysis.dose_response import dose_tables
    from toxtrail.analysis.score_table import build_score_table
    from toxtrail.config.schema import PosteriorConfig
    from toxtrail.records.rows import Score

    config = PosteriorConfig(threshold=0.5, rope_pp=1.0, level=0.95, prior=0.5, draws=1000, seed=1)
    rows = [Score(f"s-{i}", 0, "s", "judge", "ok", i / 9, {"toxic": i / 9}, 1) for i in range(10)]
    summaries = {name: {"parent": "p", "dose": dose} for name, dose in (("a", 1.0), ("b", 2.0))}
    return dose_tables({name: build_score_table(rows) for name in summaries}, summaries, config)


def test_no_page_holds_an_unresolved_merge():
    pages = [*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md"), ROOT / "benchmarks/RESULTS.md"]
    found = [p.name for p in pages if re.search(r"^(<{7}|>{7}) ", p.read_text("utf-8"), re.M)]
    assert found == []


if __name__ == "__main__":
    TABLES_PAGE.write_text(with_current_columns(TABLES_PAGE.read_text("utf-8")), "utf-8")
