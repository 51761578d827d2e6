"""Export of results: bundles, signatures, metadata for archives."""
