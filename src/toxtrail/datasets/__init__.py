"""Prompts, training data and labels, read from the files of other people."""
