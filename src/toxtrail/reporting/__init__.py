"""Presentation of result rows: text, tables, figures and pages."""
