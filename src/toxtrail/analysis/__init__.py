"""Computation of result rows from rows of scores, responses and labels."""
