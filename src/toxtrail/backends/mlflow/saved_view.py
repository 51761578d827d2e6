"""A saved view of MLflow's table of runs: its columns, order and charts.

MLflow stores a saved view as a tag of the experiment, and lists it in the menu *Views* of the
table. MLflow without saved views (before 3.17) ignores the tag.
"""

from __future__ import annotations

import json
from typing import Any

from toxtrail.records.run_tags import (
    DIFFERENCE_TAG,
    FAMILY_TAG,
    PARENT_TAG,
    RATE_TAG,
    ROLE_TAG,
    VERDICT_TAG,
)

VIEW = "toxtrail"
"""Its id in addresses, and its name in the menu."""
VIEW_TAG = f"mlflow.sharedViewState.{VIEW}"

COLUMNS = {
    f"tags.`{RATE_TAG}`": 160,
    f"tags.`{DIFFERENCE_TAG}`": 380,
    f"tags.`{VERDICT_TAG}`": 140,
    f"tags.`{PARENT_TAG}`": 150,
    f"tags.`{ROLE_TAG}`": 100,
    f"tags.`{FAMILY_TAG}`": 130,
    "attributes.`User`": 90,
    "attributes.`Version`": 90,
}
"""Column -> width in pixels. `Version` is the git commit."""
FIGURES = ("rate_pct", "rate_lo_pct", "rate_hi_pct")


def saved_view(primary_metric: str) -> str:
    """Return the value of the tag, in MLflow's format.

    Args:
        primary_metric: metric by which runs are sorted, the highest first; runs of comparisons do
            not have it and are last.
    """
    scorer_and_subset = primary_metric.rpartition("/")[0]
    metrics = [f"{scorer_and_subset}/{figure}" for figure in FIGURES]
    state = {
        "orderByKey": f"metrics.`{primary_metric}`",
        "orderByAsc": False,
        "selectedColumns": list(COLUMNS),
        "columnOrder": list(COLUMNS),
        "columnWidths": COLUMNS,
        "isAccordionReordered": True,  # else MLflow sorts the sections
        "compareRunSections": [_section()],
        "compareRunCharts": [_chart(number, metric) for number, metric in enumerate(metrics)],
    }
    view = {"name": VIEW, "createdAt": 0, "updatedAt": 0, "state": json.dumps(state)}
    return json.dumps(view)


def page(experiment: str) -> str:
    """Return the part of a URL of the UI that shows the table of runs in this view.

    Args:
        experiment: id of the MLflow experiment.
    """
    # without the workflow, a browser that has not been here before opens a page of traces
    query = f"viewStateShareKey={VIEW}&workflowType=machine_learning"
    return f"/#/experiments/{experiment}/runs?{query}"


def _section() -> dict[str, Any]:
    return {"uuid": VIEW, "name": "Toxicity", "display": True, "isReordered": False}


def _chart(number: int, metric: str) -> dict[str, Any]:
    return {
        "uuid": f"{VIEW}-{number}",
        "type": "BAR",
        "metricKey": metric,
        "metricSectionId": VIEW,
        "runsCountToCompare": 10,
        "deleted": False,
        "isGenerated": False,
    }
