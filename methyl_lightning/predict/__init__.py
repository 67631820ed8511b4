"""New samples → methylation: ``python -m methyl_lightning.predict``, in Python :func:`predict`."""

from methyl_lightning.predict.prediction import predict

__all__ = ["predict"]
