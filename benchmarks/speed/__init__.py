"""Speed measurements of benchmarks/generation.py."""
