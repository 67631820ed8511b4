"""Fit a network and test it: ``python -m methyl_lightning.train``."""
