"""Track comparison: log a family's comparison as one sealed MLflow run.

reads   the comparison, the pooled estimates, and the receipts of the variants' runs
writes  the run, and mlruns/receipts/families/<family>.json after the run is complete
"""

from __future__ import annotations

from toxtrail.backends.protocols import RunContent, Tracker, TrackingFacts
from toxtrail.records.results import ComparisonSummary
from toxtrail.reporting.mlflow_run import build_receipt, comparison_run
from toxtrail.storage.artifacts import ArtifactStore, existing_files


def run(store: ArtifactStore, family: str, tracker: Tracker, facts: TrackingFacts) -> list[str]:
    """Collect, publish, write the receipt. See toxtrail.stages.track."""
    content = comparison_content(store, family, facts)
    published = tracker.publish(content)
    store.write_json(store.family_receipt_path(family), build_receipt(content))
    return list(published.remarks)


def comparison_content(store: ArtifactStore, family: str, facts: TrackingFacts) -> RunContent:
    """Return the contents of the run of a family's comparison."""
    folder, pooled = store.comparison_dir(family), store.pooled_dir(family)
    files = {
        **{path.name: path for path in sorted(folder.iterdir())},
        **{f"pooled/{path.name}": path for path in sorted(pooled.iterdir())},
    }
    snapshot = existing_files(store.root, "params.yaml", "dvc.lock")
    summary = store.read_results(ComparisonSummary, folder)
    return comparison_run(family, summary, files, snapshot, facts)
