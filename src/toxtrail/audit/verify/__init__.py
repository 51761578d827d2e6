"""Every file hashed again, every number computed again."""
