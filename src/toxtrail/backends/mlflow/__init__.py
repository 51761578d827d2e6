"""MLflow stores: runs, their files, the UI."""
