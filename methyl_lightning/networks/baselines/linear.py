"""Ridge regressions for CpGs that were never seen: on expression, on near genes, and on CpG features × expression.

Legend: C CpGs, S samples, G genes, P features, Q components or genes, N (CpG, gene) entries or pairs.
"""

import torch
from torch import Tensor

from methyl_lightning.networks.baselines.features import (
    Standardiser,
    cpg_rows,
    distance_features,
    entry_cpg,
    gene_weights,
    near_gene_loadings,
    sequence_features,
)
from methyl_lightning.networks.baselines.ridge import (
    CONSTANT,
    ROW_FOLDS,
    ComponentNetwork,
    LinearNetwork,
    Lines,
    Products,
    Samples,
    cpg_means,
    fit_level,
    fit_ridge,
    fit_two_sided,
    folds,
    products,
)
from methyl_lightning.networks.contract import ClosedFormNetwork, CpgFeatures, TrainingView

CELL_ROWS = 64  # CpGs whose cells are expanded at once


class ExpressionOnly(ComponentNetwork):
    """One value a sample, for every CpG: ridge regression of the sample's mean beta on expression components.

    A sample's mean is that of its cells' differences from their CpG's mean, so that it does not depend on which cells
    are missing.
    """

    mean: Tensor
    slope_Q: Tensor

    def __init__(self, n_genes: int, n_components: int = 100):
        super().__init__(n_genes, n_components)
        self.add_buffers(mean=0, slope_Q=1)

    def fit_closed_form(self, view: TrainingView) -> None:
        """Fit components, overall mean and slopes."""
        self.components.fit(view.expression_SG)
        mean_C, residual_CS = cpg_means(view.beta_CS)
        self.mean = mean_C.mean()
        shift_S1 = residual_CS.mean(0)[:, None]
        self.slope_Q = fit_ridge(products(self.components(view.expression_SG), shift_S1))[:, 0].float()

    def encode_cpgs(self, cpgs: CpgFeatures) -> Lines:
        """Give every CpG the same line."""
        n_cpgs = len(cpgs.offset_C)
        return Lines(self.mean.expand(n_cpgs), self.slope_Q.expand(n_cpgs, -1))


class CisLinear(LinearNetwork, ClosedFormNetwork):
    """Gene distances for the CpG's level; the expression of near genes, weighted by distance, for the samples.

    The slope on a gene's standardised expression is Σ_k b_k exp(−|bp| / scale_k), with one b_k for each scale and side
    of the CpG in all. Level and b are two ridge regressions: of the CpGs' means, and of the cells' differences from
    them.

    Parameters
    ----------
    n_genes
        Number of genes G.
    """

    intercept: Tensor
    level_P: Tensor
    slope_P: Tensor

    def __init__(self, n_genes: int):
        super().__init__()
        self.n_genes = n_genes
        self.features, self.genes = Standardiser(), Standardiser()
        self.add_buffers(intercept=0, level_P=1, slope_P=1)

    def fit_closed_form(self, view: TrainingView) -> None:
        """Fit the level to the CpGs' means and the slopes to all measured cells."""
        mean_C, residual_CS = cpg_means(view.beta_CS)
        _, self.intercept, self.level_P = fit_level(self.features, distance_features(view.cpgs), mean_C)
        self.genes.fit(view.expression_SG)
        sums = self._cell_products(view, residual_CS)
        size_P = (sums.gram_FPP.sum(0).diagonal() / sums.rows_F.sum()).sqrt().clamp(min=1e-6)
        gram_FPP = sums.gram_FPP / size_P / size_P[:, None]
        slope_P = fit_ridge(Products(gram_FPP, sums.moment_FPQ / size_P[:, None], sums.rows_F))[:, 0] / size_P
        self.slope_P = slope_P.float()

    def _cell_products(self, view: TrainingView, residual_CS: Tensor) -> Products:
        """Sum over measured cells, whole CpGs a fold: a cell's features are weighted sums over its near genes."""
        standard_GS = self.genes(view.expression_SG).T.contiguous()
        fold_C = folds(len(residual_CS), ROW_FOLDS)
        n_features = gene_weights(view.cpgs.bp_N[:0]).shape[1]
        gram_FPP = torch.zeros(ROW_FOLDS, n_features, n_features, dtype=torch.float64)
        moment_FPQ = torch.zeros(ROW_FOLDS, n_features, 1, dtype=torch.float64)
        rows_F = torch.zeros(ROW_FOLDS, dtype=torch.float64)
        for rows, part in cpg_rows(view.cpgs, CELL_ROWS):
            measured_CS = ~view.beta_CS[rows].isnan()
            cpg_N, expression_NS = entry_cpg(part), standard_GS[part.gene_N]
            features_PCS = torch.stack(
                [
                    torch.zeros_like(residual_CS[rows]).index_add_(0, cpg_N, weight_N[:, None] * expression_NS)
                    for weight_N in gene_weights(part.bp_N).T
                ]
            )
            features_PCS *= measured_CS
            features_CPS = features_PCS.transpose(0, 1).double()
            gram_FPP.index_add_(0, fold_C[rows], features_CPS @ features_CPS.mT)
            moment_FPQ.index_add_(0, fold_C[rows], features_CPS @ residual_CS[rows][:, :, None].double())
            rows_F.index_add_(0, fold_C[rows], measured_CS.sum(1).double())
        return Products(gram_FPP, moment_FPQ, rows_F)

    def encode_cpgs(self, cpgs: CpgFeatures) -> Lines:
        """Predict the level, and lay the slopes out over the genes."""
        value_C = self.features(distance_features(cpgs)) @ self.level_P + self.intercept
        slope_N = gene_weights(cpgs.bp_N).to(self.slope_P.dtype) @ self.slope_P
        slope_CG = value_C.new_zeros(len(value_C), self.n_genes)
        return Lines(value_C, slope_CG.index_put_((entry_cpg(cpgs), cpgs.gene_N), slope_N, accumulate=True))

    def encode_samples(self, expression_SG: Tensor) -> Samples:
        """Standardise the expression."""
        return Samples(self.genes(expression_SG))


class BilinearRidge(ComponentNetwork):
    """CpG features × expression components, with ridge penalties on both sides.

    Features of a CpG: k-mer shares, CpG density, how near the genes are, and the expression loadings of the near genes
    weighted by distance at several scales. A ridge regression on them predicts the CpG's mean. With the features X
    [C, P] and the components Z [S, Q] of the training view, what is left of beta is ≈ X B Zᵀ with
    B = (XᵀX + λ I)⁻¹ Xᵀ R Z (ZᵀZ + μ I)⁻¹, missing cells being 0 in R. A CpG that was seen is predicted as if it were
    new.

    Parameters
    ----------
    n_genes, n_components
        See :class:`ComponentNetwork`.
    longest_kmer
        k-mers of 1 … so many bases.
    n_loadings
        Leading components whose loadings describe near genes.
    """

    intercept: Tensor
    level_P: Tensor
    weight_PQ: Tensor

    def __init__(self, n_genes: int, longest_kmer: int = 3, n_components: int = 100, n_loadings: int = 20):
        super().__init__(n_genes, n_components)
        self.longest_kmer, self.n_loadings = longest_kmer, n_loadings
        self.features = Standardiser()
        self.add_buffers(intercept=0, level_P=1, weight_PQ=2)

    def fit_closed_form(self, view: TrainingView) -> None:
        """Fit components, level and weights."""
        self.components.fit(view.expression_SG)
        mean_C, residual_CS = cpg_means(view.beta_CS)
        features_CP, self.intercept, self.level_P = fit_level(self.features, self._features(view.cpgs), mean_C)
        component_SQ = self.components(view.expression_SG)
        self.weight_PQ = fit_two_sided(_with_constant(features_CP), residual_CS, component_SQ).float()

    def _features(self, cpgs: CpgFeatures) -> Tensor:
        loading_GQ = self.components.loading_GQ[:, : self.n_loadings]
        parts = [
            (sequence_features(part, self.longest_kmer), distance_features(part), near_gene_loadings(part, loading_GQ))
            for _, part in cpg_rows(cpgs)
        ]
        return torch.cat([torch.cat(part, 1) for part in parts])

    def encode_cpgs(self, cpgs: CpgFeatures) -> Lines:
        """Predict the level and the slopes on the components."""
        features_CP = self.features(self._features(cpgs))
        return Lines(features_CP @ self.level_P + self.intercept, _with_constant(features_CP) @ self.weight_PQ)


def _with_constant(features_CP: Tensor) -> Tensor:
    """Add a constant feature, whose slopes all CpGs share."""
    return torch.cat([features_CP, features_CP.new_full((len(features_CP), 1), CONSTANT)], 1)
