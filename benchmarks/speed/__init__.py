"""Speed side by side: what benchmarks/generation.py measures with."""
