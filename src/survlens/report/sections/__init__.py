"""Sections of the report, each a function from the run content to its blocks."""
