"""Predict DNA methylation from sequence, gene expression and gene distances.

Each command is a package: ``python -m methyl_lightning.train`` and ``prepare``, ``evaluate``, ``predict``, ``report``.
:func:`methyl_lightning.predict.predict` predicts in Python.
"""

from importlib.metadata import version

from methyl_lightning.command.threads import share_processors

share_processors()  # before anything imports torch
__version__ = version("methyl_lightning")
