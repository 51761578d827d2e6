"""The hierarchical model of a family: density, predictive checks and seed effects."""
