"""From rows to result rows."""
