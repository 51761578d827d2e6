"""The files of an experiment."""
