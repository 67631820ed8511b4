"""Run folders → tables, figures and one HTML page."""
