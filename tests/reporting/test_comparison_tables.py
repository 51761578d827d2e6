"""The list of a comparison's tables and notes, and who takes them from it."""

from __future__ import annotations

from dataclasses import replace

import pytest

from toxtrail.cli._compare_output import SECTIONS as CLI_SECTIONS
from toxtrail.cli._compare_output import ComparisonOptions, LoadedComparison, print_comparisons
from toxtrail.pipeline import manifest_of
from toxtrail.provenance.identity import BaseWeights, InputFile, ModelIdentity
from toxtrail.records.results import Comparability
from toxtrail.reporting import comparison_tables
from toxtrail.reporting.comparison_tables import (
    NOTES,
    SECTIONS,
    TABLES,
    behaviour_differences,
    comparison_notes,
    differences,
    rates,
    section_tables,
)
from toxtrail.reporting.comparison_view import EVERY, MAX_TABLE_ROWS, ComparisonView
from toxtrail.reporting.first_screen import plain_answer
from toxtrail.reporting.hf_model_card import model_card
from toxtrail.reporting.html_report import FamilyPage, render
from toxtrail.reporting.mlflow_page import comparison_description
from toxtrail.reporting.table import Table, text_columns

NO_PROMPTS = {"seed": 1, "prompts": 0, "subsets": {}}
BASE = BaseWeights(
    uri="hf:org/base@" + "a" * 40, resolved="a" * 40, sha256="b" * 64, files=(), converted=(),
    architecture="Llama", parameters=10, stored_dtype="float32", quantization=None,
    tokenizer_sha256="c" * 64, chat_template_sha256=None, license="apache-2.0",
)  # fmt: skip


@pytest.fixture
def summary(score_rows, settings, measured):
    values = {
        "base": {"mild": [0.1] * 40, "severe": [0.1] * 20 + [0.9] * 20},
        "tuned": {"mild": [0.1] * 39 + [0.9], "severe": [0.9] * 40},
    }
    rows = {name: score_rows(own) for name, own in values.items()}
    compared = measured(rows, {"base": None, "tuned": "base"}).compared(settings).summary
    inputs = {
        name: InputFile(
            path=f"{name}.json", sha256="0" * 64,
            manifest=manifest_of(
                "score", name, {}, {}, {}, ModelIdentity(key=name, base=BASE, adapters=())
            ),
        )
        for name in values
    }  # fmt: skip
    return replace(
        compared,
        comparability=Comparability(fingerprint="x", fields={"prompts": "80:0123"}),
        manifest=manifest_of("compare", "f", {}, inputs, {}).to_json(),
    )


def terminal(summary, capsys):
    item = LoadedComparison(summary, "a test")
    print_comparisons([item], ComparisonOptions(None, None), "text", SECTIONS, False, explain=True)
    return capsys.readouterr().out


def report(summary):
    rows = {variant.variant: [] for variant in summary.variants}
    page = FamilyPage(summary, {}, {}, rows, rows)
    return render([page], NO_PROMPTS, manifest_of("report", None, {}, {}, {}))


def test_a_new_note_is_in_terminal_report_mlflow_page_and_card(summary, monkeypatch, capsys):
    notes = (*NOTES, lambda view: [f"new note of {view.scorer}"])
    monkeypatch.setattr(comparison_tables, "NOTES", notes)
    pages = {
        "terminal": terminal(summary, capsys),
        "report": report(summary),
        "MLflow": comparison_description("f", summary),
        "card": model_card(summary, "tuned"),
    }
    assert {name: page.count("new note of judge") for name, page in pages.items()} == (
        dict.fromkeys(pages, 1)
    )


@pytest.mark.parametrize("section", TABLES)
def test_a_new_table_is_in_terminal_and_report_and_of_most_sections_in_the_card(
    section, summary, monkeypatch, capsys
):
    new = Table("new table", text_columns("variant", "new column"), [("tuned", "new cell")])
    tables = {**TABLES, section: (*TABLES[section], lambda view: new)}
    monkeypatch.setattr(comparison_tables, "TABLES", tables)
    assert "new cell" in terminal(summary, capsys)
    assert report(summary).count("new cell") == 1
    assert ("new cell" in model_card(summary, "tuned")) == (section != "behaviour")


def test_the_command_offers_every_section():
    assert CLI_SECTIONS == SECTIONS


def test_every_section_has_the_rows_of_the_selected_subset(summary):
    view = ComparisonView(summary, "judge", "severe")
    for table in section_tables(view):
        subset = [column.name for column in table.columns].index("subset")
        assert {row[subset] for row in table.rows} == {"severe"}


def test_a_long_table_is_shortened_unless_a_subset_is_selected(summary):
    copies = MAX_TABLE_ROWS // len(summary.pairs) + 1
    many = replace(
        summary,
        pairs=[*summary.pairs] * copies,
        behaviour_pairs=[*summary.behaviour_pairs] * copies,
        rates=[*summary.rates] * copies,
    )
    by_default, every = ComparisonView(many, "judge", None), ComparisonView(many, "judge", EVERY)
    for table, rows in ((differences, many.pairs), (behaviour_differences, many.behaviour_pairs)):
        assert len(table(by_default).rows) == copies
        assert len(table(every).rows) == len(rows)
    assert [column.name for column in rates(by_default).columns][3:] == ["all", "mild", "severe"]
    assert len(rates(every).rows) == len(many.rates)
    shown = section_tables(by_default)
    extra = comparison_notes(by_default, shown)[len(comparison_notes(by_default)) :]
    assert extra == [table.note for table in shown if table.note]
    assert len(extra) == 2


def test_the_card_has_the_rows_of_its_variant_alone(summary):
    assert "| base |" not in model_card(summary, "tuned")
    assert "no pairs" not in model_card(summary, "base")


def test_the_mlflow_page_begins_with_the_plain_answer(summary):
    answer, *_ = plain_answer(ComparisonView(summary, "judge"))
    assert comparison_description("f", summary).startswith(f"**f**: **{answer}** ")


def test_the_mlflow_page_says_how_many_notes_have_no_room(summary, monkeypatch):
    long = tuple(lambda view, i=i: [f"note {i} " + "x" * 700] for i in range(20))
    monkeypatch.setattr(comparison_tables, "NOTES", long)
    page = comparison_description("f", summary)
    assert len(page) <= 8000
    n = page.count("xxx ") + page.count("x\n")
    assert f"{20 - n} more" in page
