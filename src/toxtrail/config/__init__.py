"""params.yaml: its schema, reading, checks, and how pins and entries are written into it."""
