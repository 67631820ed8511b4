"""Baselines that know the labels of the CpGs that were seen in training: their means, and their own regressions.

Legend: C CpGs, S samples, G genes, P features, Q components.
"""

import torch
from torch import Tensor

from methyl_lightning.networks.baselines.features import Standardiser, cpg_rows, sequence_features
from methyl_lightning.networks.baselines.ridge import (
    ComponentNetwork,
    CpgNetwork,
    Lines,
    cpg_means,
    fit_level,
    fit_ridge_left_out,
    level_lines,
)
from methyl_lightning.networks.contract import ClosedFormNetwork, CpgFeatures, TrainingView


class CpgMean(CpgNetwork, ClosedFormNetwork):
    """The CpG's training mean where the CpG was seen in training; elsewhere the mean that its sequence predicts.

    That prediction is a ridge regression of the training CpGs' means on k-mer shares and CpG density.

    Parameters
    ----------
    longest_kmer
        k-mers of 1 … so many bases.
    """

    key_C: Tensor
    mean_C: Tensor
    weight_P: Tensor
    intercept: Tensor

    def __init__(self, longest_kmer: int = 3):
        super().__init__()
        self.longest_kmer = longest_kmer
        self.features = Standardiser()
        self.register_buffer("key_C", torch.zeros(0, dtype=torch.int64))
        self.add_buffers(mean_C=1, weight_P=1, intercept=0)

    def fit_closed_form(self, view: TrainingView) -> None:
        """Take the means of the CpGs with any value, and fit the regression to them."""
        measured_C = (~view.beta_CS.isnan()).any(1)
        mean_C = view.beta_CS.nanmean(1)[measured_C]
        raw_CP = self._features(view.cpgs)[measured_C]
        _, self.intercept, self.weight_P = fit_level(self.features, raw_CP, mean_C)
        self.key_C, order_C = view.cpgs.key_C[measured_C].sort()
        self.mean_C = mean_C[order_C]

    def _features(self, cpgs: CpgFeatures) -> Tensor:
        return torch.cat([sequence_features(part, self.longest_kmer) for _, part in cpg_rows(cpgs)])

    def find(self, cpgs: CpgFeatures) -> tuple[Tensor, Tensor]:
        """Tell which CpGs were seen (bool [C]) and in which row of the buffers they stand ([C], 0 where not)."""
        row_C = torch.searchsorted(self.key_C, cpgs.key_C).clamp(max=len(self.key_C) - 1)
        seen_C = self.key_C[row_C] == cpgs.key_C
        return seen_C, torch.where(seen_C, row_C, 0)

    def encode_cpgs(self, cpgs: CpgFeatures) -> Lines:
        """Look the means up, or predict them."""
        seen_C, row_C = self.find(cpgs)
        predicted_C = self.features(self._features(cpgs)) @ self.weight_P + self.intercept
        return level_lines(torch.where(seen_C, self.mean_C[row_C], predicted_C))


class OwnLabelRidge(ComponentNetwork):
    """Each seen CpG's own ridge regression on expression components: what its own labels would give.

    A CpG that was not seen in training has no labels of its own and falls back to the mean that :class:`CpgMean`
    predicts for it, for every sample. One penalty for all CpGs.

    Parameters
    ----------
    n_genes, n_components
        See :class:`ComponentNetwork`.
    longest_kmer
        Of :class:`CpgMean`.
    """

    slope_CQ: Tensor

    def __init__(self, n_genes: int, n_components: int = 100, longest_kmer: int = 3):
        super().__init__(n_genes, n_components)
        self.means = CpgMean(longest_kmer)
        self.add_buffers(slope_CQ=2)

    def fit_closed_form(self, view: TrainingView) -> None:
        """Fit means, components and the slopes of every CpG with any value."""
        self.means.fit_closed_form(view)
        self.components.fit(view.expression_SG)
        residual_SC = cpg_means(view.beta_CS)[1].T
        slope_QC = fit_ridge_left_out(self.components(view.expression_SG), residual_SC)
        row_C = torch.searchsorted(view.cpgs.key_C.sort().values, self.means.key_C)
        self.slope_CQ = slope_QC.T[view.cpgs.key_C.argsort()[row_C]].float()

    def encode_cpgs(self, cpgs: CpgFeatures) -> Lines:
        """Look the slopes up; a CpG that was not seen has none."""
        seen_C, row_C = self.means.find(cpgs)
        return Lines(self.means.encode_cpgs(cpgs).value_C, self.slope_CQ[row_C] * seen_C[:, None])
