"""Search an MLflow store, page by page."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Run

PAGE = 500


def search(
    client: MlflowClient, experiment: str, filter_string: str, view: int | None = None
) -> list[Run]:
    """Return all pages of a search, newest first; `view`: ViewType (default: not deleted)."""
    from mlflow.entities import ViewType

    runs: list[Run] = []
    token = None
    while True:
        page = client.search_runs(
            [experiment], filter_string, max_results=PAGE, page_token=token,
            run_view_type=ViewType.ACTIVE_ONLY if view is None else view,
            order_by=["attributes.start_time DESC"],
        )  # fmt: skip
        runs += page
        token = page.token
        if not token:
            return runs
