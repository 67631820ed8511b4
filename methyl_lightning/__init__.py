"""Predict DNA methylation from sequence, gene expression and gene distances.

``methyl_lightning.predict(checkpoint, adata, cpgs)`` predicts in Python (:func:`methyl_lightning.prediction.predict`);
``python -m methyl_lightning.predict`` is the command.
"""

import sys
from collections.abc import Callable
from importlib.metadata import version
from types import ModuleType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from methyl_lightning.prediction import predict  # noqa: F401 - the property below, for editors and type checkers

__version__ = version("methyl_lightning")


class _Package(ModuleType):
    """The package; ``predict`` is the function, also after its namesake, the command's module, has been imported."""

    @property
    def predict(self) -> Callable[..., Any]:
        """Import on first use: torch and anndata take seconds."""
        from methyl_lightning.prediction import predict

        return predict

    @predict.setter
    def predict(self, module: ModuleType) -> None:
        """Leave the submodule in sys.modules, where ``python -m`` and ``from methyl_lightning.predict import`` look."""


sys.modules[__name__].__class__ = _Package
