"""The world: models, scorers, assets and trackers. Slow, impure, replaceable."""
