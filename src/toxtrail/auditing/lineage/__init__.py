"""References and the lineage of results."""
