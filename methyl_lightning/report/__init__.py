"""Run folders → tables, figures and one HTML page: ``python -m methyl_lightning.report``."""
