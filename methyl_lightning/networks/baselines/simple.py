"""What a model must beat: a constant, and the sequence alone."""

from typing import NamedTuple

import torch
from torch import Tensor, nn

from methyl_lightning.networks.contract import ClosedFormNetwork, CpgFeatures, MethylationNetwork, TrainingView
from methyl_lightning.networks.sequence import motif_branch, on_known


class Rows(NamedTuple):
    """One value a row [C] or [S]."""

    value: Tensor


class _CpgOnly(MethylationNetwork):
    """A predictor whose value depends on the CpG alone."""

    def encode_samples(self, expression_SG: Tensor) -> Rows:
        """Keep only the number of samples."""
        return Rows(expression_SG.new_zeros(len(expression_SG)))

    def combine(self, cpgs: Rows, samples: Rows) -> Tensor:
        """Repeat the CpG's value for each sample: beta_hat_CS."""
        return cpgs.value[:, None] + samples.value

    def combine_pairs(self, cpgs: Rows, samples: Rows) -> Tensor:
        """Take the CpG's value: beta_hat_N."""
        return cpgs.value


class Constant(_CpgOnly, ClosedFormNetwork):
    """The median beta of the training view, for every cell."""

    median: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("median", torch.tensor(0.5))

    def fit_closed_form(self, view: TrainingView) -> None:
        """Take the training median."""
        beta_N = view.beta_CS[~view.beta_CS.isnan()].sort().values
        self.median.copy_(beta_N[[(len(beta_N) - 1) // 2, len(beta_N) // 2]].mean())

    def encode_cpgs(self, cpgs: CpgFeatures) -> Rows:
        """Repeat the median for each CpG."""
        return Rows(self.median.expand(len(cpgs.offset_C)))


class SequenceOnly(_CpgOnly):
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

    def encode_cpgs(self, cpgs: CpgFeatures) -> Rows:
        """Predict one value a CpG."""
        motif_CM = on_known(self.motif, cpgs.sequence_CL, self.output.weight.new_zeros(self.output.in_features))
        return Rows(self.output(motif_CM).squeeze(1))
