"""Verification: files are hashed and numbers recomputed."""
