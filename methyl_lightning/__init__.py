"""Predict DNA methylation from sequence, gene expression and gene distances."""

from importlib.metadata import version

__version__ = version("methyl_lightning")
