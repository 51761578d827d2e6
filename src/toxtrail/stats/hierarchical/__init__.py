"""The pooled model of a family: its density, its checks, its seeds."""
