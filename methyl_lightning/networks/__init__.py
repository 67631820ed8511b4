"""Networks of the two-tower contract: pure torch, no store, no Lightning, no Hydra."""

from methyl_lightning.networks.baselines import Constant, SequenceOnly
from methyl_lightning.networks.contract import CpgFeatures, MethylationNetwork
from methyl_lightning.networks.levy_jurgenson import LevyJurgenson

__all__ = ["Constant", "CpgFeatures", "LevyJurgenson", "MethylationNetwork", "SequenceOnly"]
