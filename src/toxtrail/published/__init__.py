"""Published rates and claims of other people."""
