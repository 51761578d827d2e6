"""Status of results: outdated, unpublished or damaged."""
