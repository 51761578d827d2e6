"""Tiny replacements of a preset's assets, and a preset that uses them."""
