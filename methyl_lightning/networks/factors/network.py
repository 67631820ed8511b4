"""Methylation factors: beta = the CpG's mean + its loadings × the sample's factors + the expression of its near genes.

Legend: C CpGs, S samples, G genes, Q factors, K near genes.
"""

from collections.abc import Iterator

import torch
from torch import Tensor

from methyl_lightning.networks.baselines.features import cpg_rows
from methyl_lightning.networks.baselines.ridge import cpg_means
from methyl_lightning.networks.contract import ClosedFormNetwork, CpgFeatures, TrainingView
from methyl_lightning.networks.factors.cis import ROWS as CIS_ROWS
from methyl_lightning.networks.factors.cis import Cis, circumstances, near_classes
from methyl_lightning.networks.factors.cpgs import CpgDescription, gene_levels
from methyl_lightning.networks.factors.lines import Lines, Samples, on_grid, on_pairs
from methyl_lightning.networks.factors.loadings import Loadings, chromosome_folds, slices
from methyl_lightning.networks.factors.samples import Expression, complete, fit_factors, leading_scores

NEAR_FACTORS = 8  # whose loadings on near genes describe a CpG


class MethylationFactors(ClosedFormNetwork):
    """Factors over samples, predicted from expression, times loadings over CpGs, predicted from what is known of them.

    Factors are the leading singular vectors of beta's deviations from the CpGs' means; a kernel ridge regression on the
    expression of all genes predicts each. A CpG that was seen has its own mean and loadings. Those of another
    are predicted from sequence, near genes, islands and density of the probes by a Gaussian process, and from the
    training CpGs within 1 Mb; and what the factors leave is predicted from the expression of its near genes.

    Parameters
    ----------
    n_genes
        Number of genes G.
    n_factors
        Number of factors Q, at most.
    n_inducing
        CpGs that stand for all in the Gaussian process, at most.
    """

    most_cells = 1_000_000_000  # a mean and loadings of every CpG of a whole array; they are read in blocks
    weight_GQ: Tensor
    key_C: Tensor
    mean_C: Tensor
    loading_CQ: Tensor

    def __init__(self, n_genes: int, n_factors: int = 40, n_inducing: int = 1_000):
        super().__init__()
        if n_factors < 1 or n_inducing < 2:
            raise ValueError(f"n_factors={n_factors}, n_inducing={n_inducing}: must be at least 1 and 2")
        self.n_factors = n_factors
        self.expression = Expression(n_genes)
        self.description = CpgDescription(n_genes)
        self.loadings = Loadings(n_inducing)
        self.cis, self.own_cis = Cis(), Cis()
        self.register_buffer("key_C", torch.zeros(0, dtype=torch.int64))
        for name, shape in (("weight_GQ", (n_genes, 0)), ("mean_C", (0,)), ("loading_CQ", (0, 0))):
            self.register_buffer(name, torch.zeros(shape))

    def fit_closed_form(self, view: TrainingView) -> None:
        """Fit factors, loadings, what predicts both, and the slopes on near genes; fill missing cells in place."""
        measured_C = ~view.beta_CS.isnan().all(1)
        if not measured_C.all():
            view = view._replace(cpgs=_some(view.cpgs, measured_C), beta_CS=view.beta_CS[measured_C])
        kernel, scale = self.expression.fit(view.expression_SG)
        standard_SG = self.expression(view.expression_SG)
        complete(view.beta_CS, kernel)
        scores_SQ, noise_C = self._fit_own_loadings(view.beta_CS)
        self.weight_GQ, left_SQ = fit_factors(standard_SG, kernel, scale, scores_SQ)

        near_GQ = standard_SG.T @ scores_SQ.float() / len(scores_SQ)
        level_GP = gene_levels(view.expression_SG)
        features_CP = self.description.fit(view.cpgs, view.genes, level_GP, near_GQ[:, :NEAR_FACTORS], self.loading_CQ)
        target_CT = torch.cat([self.mean_C[:, None], self.loading_CQ], 1)
        place = view.cpgs.chrom_C, view.cpgs.position_C
        predicted_CT = self.loadings.fit(features_CP, *place, target_CT)
        genes, own_SQ = self.description.genes, scores_SQ.float()
        unseen = self._residuals(view, predicted_CT[:, 0], predicted_CT[:, 1:], left_SQ)
        self.cis.fit(unseen, genes, standard_SG)
        seen = self._residuals(view, self.mean_C, self.loading_CQ, own_SQ)
        self.own_cis.fit(seen, genes, standard_SG - own_SQ @ near_GQ.T)
        self._shrink_own_loadings(view.cpgs, predicted_CT, near_GQ, noise_C)

        self.key_C, order_C = view.cpgs.key_C.sort()
        self.mean_C, self.loading_CQ = self.mean_C[order_C], self.loading_CQ[order_C]

    def _fit_own_loadings(self, beta_CS: Tensor) -> tuple[Tensor, Tensor]:
        """Keep means and loadings of the CpGs.

        Returns
        -------
        tuple
            Scores of the samples, variance 1 each: [S, Q]; and variance of the error of a CpG's loadings: [C].
        """
        scores_SQ = leading_scores(beta_CS, self.n_factors)
        means, loadings, noises = [], [], []
        for rows in slices(len(beta_CS)):
            mean_C, residual_CS = cpg_means(beta_CS[rows])
            means.append(mean_C)
            loadings.append(residual_CS @ scores_SQ.float() / len(scores_SQ))
            noises.append(residual_CS.square().mean(1) - loadings[-1].square().sum(1))
        self.mean_C, self.loading_CQ = torch.cat(means), torch.cat(loadings)
        return scores_SQ, torch.cat(noises) / len(scores_SQ)

    def _shrink_own_loadings(self, cpgs: CpgFeatures, predicted_CT: Tensor, near_GQ: Tensor, noise_C: Tensor) -> None:
        """Shrink the own loadings towards those that other chromosomes predict.

        Of what own labels say beyond them as much is kept as its mean square over CpGs, in units of each one's noise,
        exceeds 1. What the factors tell of the near genes' expression is taken out, as the slopes on it are added.
        """
        excess_CQ = self.loading_CQ - predicted_CT[:, 1:]
        ratio_Q = (excess_CQ.square() / noise_C[:, None].clamp(min=1e-9)).mean(0)
        self.loading_CQ = predicted_CT[:, 1:] + (1 - 1 / ratio_Q.clamp(min=1)) * excess_CQ
        for rows, part in cpg_rows(cpgs):
            gene_CK, class_CKB = near_classes(part, self.description.genes)
            slope_CK = self.own_cis(class_CKB, circumstances(part, self.mean_C[rows]))
            self.loading_CQ[rows] -= torch.einsum("ck,ckq->cq", slope_CK, near_GQ[gene_CK])

    def _residuals(
        self, view: TrainingView, mean_C: Tensor, loading_CQ: Tensor, factor_SQ: Tensor
    ) -> Iterator[tuple[CpgFeatures, Tensor, Tensor, Tensor]]:
        """Yield what loadings and factors leave, block by block: CpGs, means, residuals and folds."""
        fold_C = chromosome_folds(view.cpgs.chrom_C, view.cpgs.position_C)
        for rows, cpgs in cpg_rows(view.cpgs, CIS_ROWS):
            residual_CS = cpg_means(view.beta_CS[rows])[1]
            yield cpgs, mean_C[rows], residual_CS - loading_CQ[rows] @ factor_SQ.T, fold_C[rows]

    def encode_cpgs(self, cpgs: CpgFeatures) -> Lines:
        """Look up means and loadings of CpGs that were seen, and predict those of the others."""
        row_C = torch.searchsorted(self.key_C, cpgs.key_C).clamp(max=len(self.key_C) - 1)
        seen_C = self.key_C[row_C] == cpgs.key_C
        mean_C, loading_CQ = self.mean_C[row_C], self.loading_CQ[row_C]
        if not seen_C.all():
            new = _some(cpgs, ~seen_C)
            predicted_CT = self.loadings(self.description(new), new.chrom_C, new.position_C)
            mean_C[~seen_C], loading_CQ[~seen_C] = predicted_CT[:, 0], predicted_CT[:, 1:]
        gene_CK, class_CKB = near_classes(cpgs, self.description.genes)
        state_CI = circumstances(cpgs, mean_C)
        slope_CK, own_slope_CK = self.cis(class_CKB, state_CI), self.own_cis(class_CKB, state_CI)
        return Lines(mean_C, loading_CQ, gene_CK, torch.where(seen_C[:, None], own_slope_CK, slope_CK))

    def encode_samples(self, expression_SG: Tensor) -> Samples:
        """Predict the factors."""
        prepared_SG = self.expression(expression_SG)
        return Samples(prepared_SG @ self.weight_GQ, prepared_SG.T.contiguous().T)

    def combine(self, cpgs: Lines, samples: Samples) -> Tensor:
        """Fill the grid: beta_hat_CS."""
        return on_grid(cpgs, samples)

    def combine_pairs(self, cpgs: Lines, samples: Samples) -> Tensor:
        """Predict pair by pair: beta_hat_N."""
        return on_pairs(cpgs, samples)


def _some(cpgs: CpgFeatures, kept_C: Tensor) -> CpgFeatures:
    """Take some CpGs, with their genes."""
    bounds = torch.cat([cpgs.offset_C, cpgs.offset_C.new_tensor([len(cpgs.gene_N)])]).diff()
    kept_N, count_C = kept_C.repeat_interleave(bounds), bounds[kept_C]
    return CpgFeatures(
        cpgs.sequence_CL[kept_C],
        cpgs.gene_N[kept_N],
        cpgs.bp_N[kept_N],
        count_C.cumsum(0) - count_C,
        *(part[kept_C] for part in (cpgs.key_C, cpgs.chrom_C, cpgs.position_C, cpgs.annotation_CP)),
    )
