"""Networks of the two-tower contract: torch, no store, no Lightning, no Hydra."""

from methyl_lightning.networks.baselines.boosting import KmerGbm
from methyl_lightning.networks.baselines.linear import BilinearRidge, CisLinear, ExpressionOnly
from methyl_lightning.networks.baselines.own_labels import CpgMean, OwnLabelRidge
from methyl_lightning.networks.baselines.simple import Constant, SequenceOnly
from methyl_lightning.networks.contract import CpgFeatures, MethylationNetwork, TrainingData, TrainingView
from methyl_lightning.networks.factor_network import FactorNetwork
from methyl_lightning.networks.factors.network import MethylationFactors
from methyl_lightning.networks.levy_jurgenson import LevyJurgenson
from methyl_lightning.networks.methylprophet import MethylProphet

__all__ = [
    "BilinearRidge",
    "CisLinear",
    "Constant",
    "CpgFeatures",
    "CpgMean",
    "ExpressionOnly",
    "FactorNetwork",
    "KmerGbm",
    "LevyJurgenson",
    "MethylProphet",
    "MethylationFactors",
    "MethylationNetwork",
    "OwnLabelRidge",
    "SequenceOnly",
    "TrainingData",
    "TrainingView",
]
