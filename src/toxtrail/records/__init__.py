"""Typed rows, without input or output."""
