"""docs/tables.md names every column of every table, and no other; what a page says to write into
params.yaml is valid.

`python tests/test_docs.py` writes the columns of result rows into docs/tables.md again.
"""

from __future__ import annotations

import ast
import re
from pathlib import Path
from typing import Any

import pytest
import yaml

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
    assert set(documented) == {*TABLES, *SCHEMAS, "flips"}


@pytest.mark.parametrize("name", SCHEMAS)
def test_the_columns_of_rows_are_documented(documented, name):
    assert documented[name] == SCHEMAS[name].names


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


def literals() -> set[str]:
    """String constants of the source; "..." is in place of inserted values."""
    found = set()
    for path in (ROOT / "src/toxtrail").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            if isinstance(node, ast.JoinedStr):
                parts = [p.value if isinstance(p, ast.Constant) else "..." for p in node.values]
                found.add("".join(map(str, parts)))
            elif isinstance(node, ast.Constant) and isinstance(node.value, str):
                found.add(node.value)
    return found


def test_the_code_has_every_message_that_a_page_explains():
    page = (ROOT / "docs/servers.md").read_text("utf-8")
    rows = "".join(re.findall(r"^\| message \|.*\n((?:\|.*\n)+)", page, re.M))
    cells = re.findall(r"^\|([^|]*)", rows, re.M)
    messages = [m for cell in cells for m in re.findall(r"\*([^*]+)\*", cell)]
    assert len(messages) >= len(cells) - 2  # but for the lines below the headings
    texts = literals()
    pieces = {m: [p for p in re.split(r"[\s\"]*\.\.\.[\s\"]*", m) if p] for m in messages}
    missing = [m for m in messages if not any(all(p in t for p in pieces[m]) for t in texts)]
    assert missing == []


def test_no_page_holds_an_unresolved_merge():
    pages = [*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md"), ROOT / "benchmarks/RESULTS.md"]
    found = [p.name for p in pages if re.search(r"^(<{7}|>{7}) ", p.read_text("utf-8"), re.M)]
    assert found == []


if __name__ == "__main__":
    TABLES_PAGE.write_text(with_current_columns(TABLES_PAGE.read_text("utf-8")), "utf-8")
