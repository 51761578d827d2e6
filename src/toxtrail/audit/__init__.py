"""From any result back to what made it, and whether that is still valid."""
