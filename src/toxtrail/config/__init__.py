"""params.yaml: schema, loading, checks, and writing of pins and entries."""
