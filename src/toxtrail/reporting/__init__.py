"""From result rows to words, tables, pictures and pages."""
