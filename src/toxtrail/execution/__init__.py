"""Execution of stages: processes, progress, records of executions."""
