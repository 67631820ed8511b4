"""What both networks of factors say of a CpG and of a sample, and how that fills the grid.

Legend: C CpGs, S samples, G genes, Q factors, K near genes, N pairs.
"""

from typing import NamedTuple

import torch
from torch import Tensor


class Lines(NamedTuple):
    """Each CpG's level [C], loadings [C, Q], near genes and the slopes on them [C, K]."""

    level_C: Tensor
    loading_CQ: Tensor
    gene_CK: Tensor
    slope_CK: Tensor


class Samples(NamedTuple):
    """Predicted factors [S, Q], and the standardised expression [S, G], which lies gene by gene in memory."""

    factor_SQ: Tensor
    expression_SG: Tensor


def on_grid(cpgs: Lines, samples: Samples) -> Tensor:
    """Add level, loadings × factors and slopes × expression of near genes: [C, S]."""
    near_CKS = samples.expression_SG.T[cpgs.gene_CK]
    sum_CS = torch.addmm(cpgs.level_C[:, None], cpgs.loading_CQ, samples.factor_SQ.T)
    return sum_CS + torch.einsum("ck,cks->cs", cpgs.slope_CK, near_CKS)


def on_pairs(cpgs: Lines, samples: Samples) -> Tensor:
    """Add the same pair by pair: [N]."""
    near_NK = samples.expression_SG.gather(1, cpgs.gene_CK)
    return cpgs.level_C + (cpgs.loading_CQ * samples.factor_SQ).sum(1) + (cpgs.slope_CK * near_NK).sum(1)
