"""params.yaml: its schema, how it is read and checked, and how pins and entries are written into it."""
