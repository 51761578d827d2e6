"""External programs and libraries: models, scorers, assets, trackers, DVC, git."""
