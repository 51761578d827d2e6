"""`toxtrail ui`: open the MLflow UI."""

from __future__ import annotations

import click

from toxtrail.console import echo
from toxtrail.experiment import Experiment


@click.command("ui", short_help="Open the MLflow UI on this experiment.")
@click.option("--host", default="127.0.0.1", show_default=True, help="Host to bind.")
@click.option("--port", default=5000, show_default=True, help="Port to bind.")
@click.pass_context
def ui(ctx: click.Context, host: str, port: int) -> None:
    """Open the MLflow UI on this experiment's own store. Ctrl-C stops it. With a team's server
    (MLFLOW_TRACKING_URI), print the address of the experiment there.

    \b
    Examples:
      toxtrail ui
      toxtrail ui --port 5001
    """
    from toxtrail.backends.mlflow.ui import serve_ui, server_address
    from toxtrail.execution.factories import make_tracker

    experiment: Experiment = ctx.obj
    page = make_tracker(experiment).page()
    if address := server_address(experiment.root, page):
        echo(f"MLflow UI: {address}")
        return
    echo(f"MLflow UI: http://{host}:{port}{page}  (Ctrl-C stops it)")
    ctx.exit(serve_ui(experiment.root, host, port))
