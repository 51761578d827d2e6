"""How a stage is run: processes, progress, records of executions."""
