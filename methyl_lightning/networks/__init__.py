"""Networks of the two-tower contract: torch, no store, no Lightning, no Hydra."""

from methyl_lightning.networks.baselines import Constant, SequenceOnly
from methyl_lightning.networks.boosting import KmerGbm
from methyl_lightning.networks.contract import ClosedFormNetwork, CpgFeatures, MethylationNetwork, TrainingView
from methyl_lightning.networks.levy_jurgenson import LevyJurgenson
from methyl_lightning.networks.linear import BilinearRidge, CisLinear, ExpressionOnly
from methyl_lightning.networks.own_labels import CpgMean, OwnLabelRidge

__all__ = [
    "BilinearRidge",
    "CisLinear",
    "ClosedFormNetwork",
    "Constant",
    "CpgFeatures",
    "CpgMean",
    "ExpressionOnly",
    "KmerGbm",
    "LevyJurgenson",
    "MethylationNetwork",
    "OwnLabelRidge",
    "SequenceOnly",
    "TrainingView",
]
