"""Frozen classifiers behind one Protocol."""
