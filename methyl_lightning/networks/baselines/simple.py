"""What a model must beat: a constant, and the sequence alone."""

import torch
from torch import Tensor, nn

from methyl_lightning.networks.baselines.ridge import CpgNetwork, Lines, level_lines
from methyl_lightning.networks.contract import ClosedFormNetwork, CpgFeatures, TrainingView
from methyl_lightning.networks.sequence import motif_branch, on_known


class Constant(CpgNetwork, ClosedFormNetwork):
    """The median beta of the training view, for every cell."""

    median: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("median", torch.tensor(0.5))

    def fit_closed_form(self, view: TrainingView) -> None:
        """Take the training median."""
        beta_N = view.beta_CS[~view.beta_CS.isnan()].sort().values
        self.median.copy_(beta_N[[(len(beta_N) - 1) // 2, len(beta_N) // 2]].mean())

    def encode_cpgs(self, cpgs: CpgFeatures) -> Lines:
        """Repeat the median for each CpG."""
        return level_lines(self.median.expand(len(cpgs.offset_C)))


class SequenceOnly(CpgNetwork):
    """The motif branch of Levy-Jurgenson et al. with an output of its own: what sequence alone can tell.

    Parameters
    ----------
    window
        Bases around the CpG.
    """

    def __init__(self, window: int):
        super().__init__()
        self.motif = motif_branch(window)
        self.output = nn.Linear(40, 1)

    def encode_cpgs(self, cpgs: CpgFeatures) -> Lines:
        """Predict one value a CpG."""
        motif_CM = on_known(self.motif, cpgs.sequence_CL, self.output.weight.new_zeros(self.output.in_features))
        return level_lines(self.output(motif_CM).squeeze(1))
