"""Figures of the report; each is a function from values to a matplotlib figure."""
