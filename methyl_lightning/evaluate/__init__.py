"""A trained module on the test views: ``python -m methyl_lightning.evaluate``."""
