"""Prompts, training data and labels, read from user files."""
