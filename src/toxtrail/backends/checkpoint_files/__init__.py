"""Weight files as they are stored."""
