"""Raw files → store: ``python -m methyl_lightning.prepare``."""
