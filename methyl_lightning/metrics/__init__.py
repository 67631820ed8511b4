"""Metrics of a predicted grid, and their intervals."""
