"""The sample side: kernel ridge regression on the expression of all genes, its penalty chosen by leaving out samples.

Legend: C CpGs, S samples, G genes, Q targets.
"""

from typing import NamedTuple

import torch
from torch import Tensor, nn

from methyl_lightning.networks.baselines.features import Standardiser
from methyl_lightning.networks.baselines.ridge import cpg_means, folds
from methyl_lightning.networks.factors.loadings import slices

PENALTIES = tuple(0.003 * 10 ** (i / 4) for i in range(17))  # of a kernel whose trace is the number of samples
LARGEST = 5.0  # standard deviations of a gene's expression
FILL_PASSES = 4
POWERS = (1.0, 2.0)  # of a gene's correlation with a factor, by which it may weigh
FILLED_CPGS = 2_000  # on which the penalty of filling is chosen
SHARPENED, SHARPENED_FOLDS = 8, 3  # leading factors for which that is tried, on held-out samples


class Kernel(NamedTuple):
    """Eigenvalues [S] and eigenvectors [S, S] of a centred kernel of the training samples."""

    value_S: Tensor
    vector_SS: Tensor

    def hat(self, penalty: float) -> Tensor:
        """Map targets that sum to 0 to their fit: [S, S]."""
        return (self.vector_SS * (self.value_S / (self.value_S + penalty))) @ self.vector_SS.T

    def leave_one_out(self, penalty: float) -> Tensor:
        """Map targets that sum to 0 to what each sample is predicted without itself: [S, S].

        The constant is fitted, too: without its share 1/S of the leverage a sample would know itself from the sum.
        """
        hat_SS = self.hat(penalty)
        left_S = 1 - hat_SS.diagonal() - 1 / len(hat_SS)
        eye_SS = torch.eye(len(hat_SS), dtype=hat_SS.dtype)
        return eye_SS - (eye_SS - hat_SS) / left_S[:, None]


class Expression(nn.Module):
    """Standardised expression, its outliers cut, centred on the training samples; and its kernel.

    Parameters
    ----------
    n_genes
        Number of genes G.
    """

    centre_G: Tensor

    def __init__(self, n_genes: int):
        super().__init__()
        self.genes = Standardiser()
        self.register_buffer("centre_G", torch.zeros(n_genes))

    def fit(self, expression_SG: Tensor) -> tuple[Kernel, float]:
        """Fit the scale; return the kernel, and the factor that brought its trace to the number of samples."""
        self.genes.fit(expression_SG)
        self.centre_G = self.genes(expression_SG).clamp(-LARGEST, LARGEST).mean(0)
        rows_SG = self(expression_SG)
        return make_kernel(rows_SG)

    def forward(self, expression_SG: Tensor) -> Tensor:
        """Prepare expression [S, G]."""
        return self.genes(expression_SG).clamp(-LARGEST, LARGEST) - self.centre_G


def make_kernel(rows_SG: Tensor) -> tuple[Kernel, float]:
    """Return the linear kernel of centred rows, and the factor that brings its trace to their number."""
    gram_SS = (rows_SG @ rows_SG.T).double()
    scale = len(gram_SS) / max(float(gram_SS.trace()), 1e-12)
    value_S, vector_SS = torch.linalg.eigh(gram_SS * scale)
    return Kernel(value_S.clamp(min=0), vector_SS), scale


class Regression(NamedTuple):
    """Ridge regressions of several targets, each with its own penalty.

    Attributes
    ----------
    dual_SQ
        Weights of the training samples.
    left_SQ
        What each training sample is predicted without itself.
    """

    dual_SQ: Tensor
    left_SQ: Tensor


def regress(kernel: Kernel, target_SQ: Tensor) -> Regression:
    """Fit targets that sum to 0, and choose each one's penalty by leaving out samples."""
    rotated_SQ, square_SS = kernel.vector_SS.T @ target_SQ, kernel.vector_SS.square()
    left = []
    for penalty in PENALTIES:  # as Kernel.leave_one_out, without a matrix of samples × samples
        share_S = kernel.value_S / (kernel.value_S + penalty)
        residual_SQ = target_SQ - kernel.vector_SS @ (share_S[:, None] * rotated_SQ)
        left.append(target_SQ - residual_SQ / (1 - square_SS @ share_S - 1 / len(target_SQ))[:, None])
    best_Q = torch.stack([(part - target_SQ).square().sum(0) for part in left]).argmin(0)
    penalty_Q = torch.tensor(PENALTIES, dtype=target_SQ.dtype)[best_Q]
    dual_SQ = kernel.vector_SS @ (rotated_SQ / (kernel.value_S[:, None] + penalty_Q))
    return Regression(dual_SQ, torch.stack([left[int(i)][:, q] for q, i in enumerate(best_Q)], 1))


def sharpened(rows_SG: Tensor, target_S: Tensor, power: float) -> tuple[Tensor, float]:
    """Regress one target on genes that weigh by a power of their correlation with it: weights [G] and the constant."""
    centre_G, mean = rows_SG.mean(0), target_S.mean()
    centred_SG, centred_S = rows_SG - centre_G, target_S - mean
    norm_G = centred_SG.square().sum(0).sqrt().clamp(min=1e-9)
    share_G = ((centred_SG.T @ centred_S.float()).abs() / norm_G / centred_S.norm().float()) ** power
    root_G = (share_G / share_G.mean().clamp(min=1e-12)).sqrt()
    kernel, scale = make_kernel(centred_SG * root_G)
    dual_S = regress(kernel, centred_S[:, None]).dual_SQ[:, 0].float()
    weight_G = root_G.square() * (centred_SG.T @ dual_S) * scale
    return weight_G, float(mean - centre_G @ weight_G)


def fit_factors(rows_SG: Tensor, kernel: Kernel, scale: float, scores_SQ: Tensor) -> tuple[Tensor, Tensor]:
    """Predict factors from prepared expression.

    All genes weigh alike, or, for a leading factor that few genes drive, by their correlation with it, if that predicts
    held-out samples better.

    Returns
    -------
    tuple
        Weights of the genes [G, Q], and what each training sample is predicted when it is left out [S, Q].
    """
    flat = regress(kernel, scores_SQ)
    weight_GQ, left_SQ = rows_SG.T @ flat.dual_SQ.float() * scale, flat.left_SQ.float()
    fold_S, leading_SQ = folds(len(rows_SG), SHARPENED_FOLDS), scores_SQ[:, :SHARPENED]
    held = {power: torch.zeros_like(leading_SQ, dtype=torch.float32) for power in (0.0, *POWERS)}
    for fold in range(SHARPENED_FOLDS):
        out_S = fold_S == fold
        centre_G, mean_Q = rows_SG[~out_S].mean(0), leading_SQ[~out_S].mean(0)
        centred_SG = rows_SG[~out_S] - centre_G
        of_fold, of_scale = make_kernel(centred_SG)
        dual_SQ = regress(of_fold, leading_SQ[~out_S] - mean_Q).dual_SQ.float() * of_scale
        held[0.0][out_S] = (rows_SG[out_S] - centre_G) @ (centred_SG.T @ dual_SQ) + mean_Q.float()
        for power in POWERS:
            for q, target_S in enumerate(leading_SQ[~out_S].T):
                weight_G, constant = sharpened(rows_SG[~out_S], target_S, power)
                held[power][out_S, q] = rows_SG[out_S] @ weight_G + constant
    for q, target_S in enumerate(leading_SQ.T):
        best = min(held, key=lambda power: float((held[power][:, q] - target_S).square().sum()))
        if best:
            weight_GQ[:, q], left_SQ[:, q] = sharpened(rows_SG, target_S, best)[0], held[best][:, q]
    return weight_GQ, left_SQ


def fill_operator(kernel: Kernel, beta_CS: Tensor) -> Tensor:
    """Choose, on some CpGs, by which penalty missing cells are filled best: the map that leaves out samples [S, S]."""
    beta_CS = beta_CS[:: -(-len(beta_CS) // FILLED_CPGS)]
    missing_CS = beta_CS.isnan()
    residual_CS = cpg_means(beta_CS)[1]
    operators = [kernel.leave_one_out(penalty).float() for penalty in PENALTIES]
    errors = [float(((residual_CS @ o.T - residual_CS)[~missing_CS]).square().sum()) for o in operators]
    return operators[errors.index(min(errors))]


def fill(beta_CS: Tensor, operator_SS: Tensor) -> tuple[Tensor, Tensor]:
    """Return the mean of each CpG [C] and the deviations from it [C, S].

    A missing cell is filled with what the other samples predict for it, in a few passes.
    """
    missing_CS = beta_CS.isnan()
    mean_C, residual_CS = cpg_means(beta_CS)
    some_C = missing_CS.any(1).nonzero().squeeze(1)
    if len(some_C):
        rows_CS, gaps_CS = residual_CS[some_C], missing_CS[some_C]
        for _ in range(FILL_PASSES):
            shift_C1 = rows_CS.mean(1, keepdim=True)
            rows_CS = torch.where(gaps_CS, (rows_CS - shift_C1) @ operator_SS.T + shift_C1, rows_CS)
        residual_CS[some_C] = rows_CS
    shift_C = residual_CS.mean(1)
    return mean_C + shift_C, residual_CS - shift_C[:, None]


def complete(beta_CS: Tensor, kernel: Kernel) -> None:
    """Fill the missing cells in place."""
    operator_SS = fill_operator(kernel, beta_CS)
    for rows in slices(len(beta_CS)):
        mean_C, residual_CS = fill(beta_CS[rows], operator_SS)
        torch.add(mean_C[:, None], residual_CS, out=beta_CS[rows])


def leading_scores(beta_CS: Tensor, n_factors: int) -> Tensor:
    """Return what deviations from the CpGs' means share: scores of the samples, variance 1 each, float64 [S, Q]."""
    gram_SS = torch.zeros(2 * beta_CS.shape[1:], dtype=torch.float64)
    for rows in slices(len(beta_CS)):
        residual_CS = cpg_means(beta_CS[rows])[1]
        gram_SS += (residual_CS.T @ residual_CS).double()
    return torch.linalg.eigh(gram_SS)[1].flip(1)[:, :n_factors] * len(gram_SS) ** 0.5
