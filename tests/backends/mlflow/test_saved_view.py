"""The saved view of the table of runs, as MLflow's page reads it."""

from __future__ import annotations

import json

from toxtrail.backends.mlflow.saved_view import VIEW, VIEW_TAG, page, saved_view


def test_a_view_has_the_fields_that_the_page_requires():
    view = json.loads(saved_view("judge/all/rate_pct"))
    assert {name: type(value) for name, value in view.items()} == {
        "name": str, "createdAt": int, "updatedAt": int, "state": str,
    }  # fmt: skip
    state = json.loads(view["state"])
    assert state["orderByKey"] == "metrics.`judge/all/rate_pct`"
    assert state["selectedColumns"][:3] == ["tags.`rate`", "tags.`difference`", "tags.`verdict`"]
    assert set(state["columnWidths"]) == set(state["columnOrder"]) == set(state["selectedColumns"])
    sections = {section["uuid"] for section in state["compareRunSections"]}
    assert {chart["metricSectionId"] for chart in state["compareRunCharts"]} == sections
    assert state["compareRunCharts"][0]["metricKey"] == "judge/all/rate_pct"


def test_the_address_of_the_table_names_the_view_of_the_tag():
    assert VIEW_TAG.endswith(f".{VIEW}")
    assert f"viewStateShareKey={VIEW}&" in page("7")
    assert len(saved_view("a" * 200 + "/all/rate_pct")) < 5000  # MLflow's limit of a tag
