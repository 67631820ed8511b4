"""Ridge regression from sums of products, its penalty chosen on held-out rows, and what linear networks share.

Legend: N rows, P features, Q targets or components, C CpGs, S samples, G genes, F folds.
"""

from typing import NamedTuple

import torch
from torch import Tensor, nn

from methyl_lightning.networks.baselines.features import Standardiser
from methyl_lightning.networks.contract import ClosedFormNetwork, MethylationNetwork

PENALTIES = tuple(10 ** (i / 2) for i in range(-8, 5))  # times the number of rows
ROW_FOLDS, GRID_FOLDS = 5, 3
COMPONENT_SAMPLES = 2_000
CONSTANT = 10.0  # a constant feature of this size bears a hundredth of the penalty


class Products(NamedTuple):
    """Sums over the rows of each fold: features × features [F, P, P], features × targets [F, P, Q], rows [F]."""

    gram_FPP: Tensor
    moment_FPQ: Tensor
    rows_F: Tensor


def folds(n: int, n_folds: int) -> Tensor:
    """Put each of n rows into a fold at random, always alike: [n]."""
    return torch.randperm(n, generator=torch.Generator().manual_seed(n)) % n_folds


def products(features_NP: Tensor, target_NQ: Tensor) -> Products:
    """Sum over the rows of each fold, in float64."""
    fold_N = folds(len(features_NP), ROW_FOLDS)
    parts = [(features_NP[fold_N == f].double(), target_NQ[fold_N == f].double()) for f in range(ROW_FOLDS)]
    return Products(
        torch.stack([features.T @ features for features, _ in parts]),
        torch.stack([features.T @ target for features, target in parts]),
        torch.tensor([len(features) for features, _ in parts], dtype=torch.float64),
    )


def solve(gram_PP: Tensor, moment_PQ: Tensor, penalty: float) -> Tensor:
    """Solve (gram + penalty · I) weight = moment: [P, Q]."""
    return torch.linalg.solve(gram_PP + penalty * torch.eye(len(gram_PP), dtype=gram_PP.dtype), moment_PQ)


def fit_ridge(sums: Products) -> Tensor:
    """Return ridge weights [P, Q], one penalty for all targets, chosen by leaving out each fold in turn."""
    gram_PP, moment_PQ, n = sums.gram_FPP.sum(0), sums.moment_FPQ.sum(0), float(sums.rows_F.sum())
    errors = []
    for penalty in PENALTIES:
        error = 0.0
        for gram, moment, rows in zip(*sums, strict=True):
            weight_PQ = solve(gram_PP - gram, moment_PQ - moment, penalty * (n - float(rows)))
            error += float((weight_PQ * (gram @ weight_PQ - 2 * moment)).sum())  # but for the targets' squares
        errors.append(error)
    return solve(gram_PP, moment_PQ, PENALTIES[errors.index(min(errors))] * n)


def fit_ridge_left_out(features_NP: Tensor, target_NQ: Tensor) -> Tensor:
    """Ridge weights [P, Q] for targets that sum to 0, one penalty for all, chosen by leaving out each row.

    The constant, which the targets' sum has taken, adds its 1/n to the leverage of each row: without it a row that is
    left out is known from the sum of the others, and next to no penalty looks best.
    """
    n, target_NQ = len(features_NP), target_NQ.double()
    left_NR, size_R, right_RP = torch.linalg.svd(features_NP.double(), full_matrices=False)
    rotated_RQ, errors = left_NR.T @ target_NQ, []
    for penalty in PENALTIES:
        share_R = size_R.square() / (size_R.square() + penalty * n)
        leverage_N1 = (left_NR.square() @ share_R + 1 / n)[:, None]
        residual_NQ = (target_NQ - left_NR @ (share_R[:, None] * rotated_RQ)) / (1 - leverage_N1)
        errors.append(float(residual_NQ.square().sum()))
    penalty = PENALTIES[errors.index(min(errors))] * n
    return right_RP.T @ (rotated_RQ * (size_R / (size_R.square() + penalty))[:, None])


def two_sided(
    gram_PP: Tensor, middle_PQ: Tensor, gram_QQ: Tensor, penalties: list[tuple[float, float]]
) -> list[Tensor]:
    """Return (XᵀX + λ I)⁻¹ Xᵀ R Z (ZᵀZ + μ I)⁻¹ for each (λ, μ), from XᵀX, Xᵀ R Z and ZᵀZ: [P, Q] each."""
    left_P, left_PP = torch.linalg.eigh(gram_PP)
    right_Q, right_QQ = torch.linalg.eigh(gram_QQ)
    rotated_PQ = left_PP.T @ middle_PQ @ right_QQ
    return [left_PP @ (rotated_PQ / (left_P[:, None] + a) / (right_Q + b)) @ right_QQ.T for a, b in penalties]


def fit_two_sided(features_CP: Tensor, residual_CS: Tensor, component_SQ: Tensor) -> Tensor:
    """Fit a two-sided ridge [P, Q], both penalties chosen on held-out CpGs × held-out samples of the training view."""
    cpg_fold_C, sample_fold_S = folds(len(features_CP), GRID_FOLDS), folds(len(component_SQ), GRID_FOLDS)
    shares = [(a, b) for a in PENALTIES for b in PENALTIES]
    error = torch.zeros(len(shares), dtype=torch.float64)

    def sums(rows_C: Tensor, columns_S: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        x_CP, z_SQ = features_CP[rows_C].double(), component_SQ[columns_S].double()
        middle_PS = features_CP[rows_C].T @ residual_CS[rows_C][:, columns_S]
        return x_CP.T @ x_CP, middle_PS.double() @ z_SQ, z_SQ.T @ z_SQ

    def scaled(rows: int, columns: int) -> list[tuple[float, float]]:
        return [(a * rows, b * columns) for a, b in shares]

    for f in range(GRID_FOLDS):
        kept_C, kept_S = cpg_fold_C != f, sample_fold_S != f
        held_PP, held_PQ, held_QQ = sums(~kept_C, ~kept_S)
        weights = two_sided(*sums(kept_C, kept_S), scaled(int(kept_C.sum()), int(kept_S.sum())))
        for i, weight_PQ in enumerate(weights):  # but for the squares of the residuals
            error[i] += (weight_PQ * (held_PP @ weight_PQ @ held_QQ - 2 * held_PQ)).sum()
    everything = sums(torch.full((len(features_CP),), True), torch.full((len(component_SQ),), True))
    best = scaled(len(features_CP), len(component_SQ))[int(error.argmin())]
    return two_sided(*everything, [best])[0]


def fit_level(features: Standardiser, raw_CP: Tensor, mean_C: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Fit a standardiser, and means to what it returns: standardised features [C, P], intercept, ridge weights [P]."""
    features.fit(raw_CP)
    features_CP, intercept = features(raw_CP), mean_C.mean()
    return features_CP, intercept, fit_ridge(products(features_CP, (mean_C - intercept)[:, None]))[:, 0].float()


def cpg_means(beta_CS: Tensor) -> tuple[Tensor, Tensor]:
    """Return the mean of each CpG [C] (without any value, that of all) and what is left [C, S], 0 where missing."""
    mean_C = beta_CS.nanmean(1)
    mean_C = torch.where(mean_C.isnan(), mean_C.nanmean(), mean_C)
    return mean_C, (beta_CS - mean_C[:, None]).nan_to_num(0.0)


class ExpressionComponents(nn.Module):
    """Principal components of standardised expression; the first has variance 1 over the samples they are taken from.

    Parameters
    ----------
    n_genes
        Number of genes G.
    n_components
        How many are kept at most.
    """

    loading_GQ: Tensor

    def __init__(self, n_genes: int, n_components: int):
        super().__init__()
        self.n_components = n_components
        self.genes = Standardiser()
        self.register_buffer("loading_GQ", torch.zeros(n_genes, 0))

    def fit(self, expression_SG: Tensor) -> None:
        """Take them from at most 2,000 of the training samples, at random: eigenvectors of the S × S products."""
        self.genes.fit(expression_SG)
        n_samples = len(expression_SG)
        sample_S = torch.randperm(n_samples, generator=torch.Generator().manual_seed(n_samples))[:COMPONENT_SAMPLES]
        standard_SG = self.genes(expression_SG[sample_S.sort().values]).double()
        square_Q, vector_SQ = torch.linalg.eigh(standard_SG @ standard_SG.T)
        kept_Q = torch.arange(len(square_Q) - 1, -1, -1)[: self.n_components]
        kept_Q = kept_Q[square_Q[kept_Q] > 1e-9 * square_Q[-1]]
        unit_GQ = standard_SG.T @ (vector_SQ[:, kept_Q] / square_Q[kept_Q].sqrt())
        self.loading_GQ = (unit_GQ / (square_Q[-1] / len(standard_SG)).sqrt()).float()

    def forward(self, expression_SG: Tensor) -> Tensor:
        """Return components of samples: [S, Q]."""
        return self.genes(expression_SG) @ self.loading_GQ


class Lines(NamedTuple):
    """Each CpG's value at the mean expression [C] and its slopes on what describes a sample [C, Q]."""

    value_C: Tensor
    slope_CQ: Tensor


class Samples(NamedTuple):
    """What describes each sample, 0 on average in training [S, Q]."""

    component_SQ: Tensor


class LinearNetwork(MethylationNetwork):
    """Predictors that are linear in what describes the sample: value + slope · component."""

    def combine(self, cpgs: Lines, samples: Samples) -> Tensor:
        """Fill the grid: beta_hat_CS."""
        return cpgs.value_C[:, None] + cpgs.slope_CQ @ samples.component_SQ.T

    def combine_pairs(self, cpgs: Lines, samples: Samples) -> Tensor:
        """Predict pair by pair: beta_hat_N."""
        return cpgs.value_C + (cpgs.slope_CQ * samples.component_SQ).sum(1)


class CpgNetwork(LinearNetwork):
    """Predictors that depend on the CpG alone."""

    def encode_samples(self, expression_SG: Tensor) -> Samples:
        """Keep only the number of samples."""
        return Samples(expression_SG.new_zeros(len(expression_SG), 0))


def level_lines(value_C: Tensor) -> Lines:
    """Return one value a CpG, without any slope."""
    return Lines(value_C, value_C.new_zeros(len(value_C), 0))


class ComponentNetwork(LinearNetwork, ClosedFormNetwork):
    """Predictors that are linear in principal components of the expression.

    Parameters
    ----------
    n_genes
        Number of genes G.
    n_components
        Principal components of the expression.
    """

    def __init__(self, n_genes: int, n_components: int = 100):
        super().__init__()
        self.components = ExpressionComponents(n_genes, n_components)

    def encode_samples(self, expression_SG: Tensor) -> Samples:
        """Return the components of the expression."""
        return Samples(self.components(expression_SG))
