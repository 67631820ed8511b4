"""Grids that mostly miss their cells, as those of single cells do, filled for networks that fit whole grids.

Legend: C CpGs, S samples.
"""

import torch
from torch import Tensor

FEW_MEASURED = 0.5  # share of the cells; where more are, means of what is measured serve as well
TURNS = 20


def fill_sparse(beta_CS: Tensor) -> Tensor:
    """Fill what is missing with the sum of one value a sample and one a CpG; a grid that has most cells stays.

    A CpG's mean over the few samples in which it is measured tells mostly which ones these are. So the sample's value
    is taken out of it, and what is left shrinks towards 0 by as much as CpGs, measured so seldom, do not differ more
    than their noise does (empirical Bayes, the variances by the method of moments).
    """
    known_CS = ~beta_CS.isnan()
    if int(known_CS.sum()) > FEW_MEASURED * known_CS.numel() or not known_CS.any():
        return beta_CS
    count_C, count_S = known_CS.sum(1).clamp(min=1), known_CS.sum(0).clamp(min=1)
    value_CS = torch.where(known_CS, beta_CS, 0.0)
    some_C = known_CS.any(1)
    own_C, sample_S = torch.zeros(len(beta_CS)), torch.zeros(beta_CS.shape[1])
    for _ in range(TURNS):
        sample_S = torch.where(known_CS, value_CS - own_C[:, None], 0.0).sum(0) / count_S
        left_CS = torch.where(known_CS, value_CS - sample_S, 0.0)
        mean_C = left_CS.sum(1) / count_C
        noise = float(torch.where(known_CS, left_CS - mean_C[:, None], 0.0).square().sum())
        noise /= max(float((count_C - 1).sum()), 1.0)
        spread = float((mean_C.square() - noise / count_C)[some_C].mean())
        own_C = mean_C * (count_C / (count_C + noise / spread) if spread > 0 else 0.0)
    # a sample without any measured cell is an average one
    sample_S = torch.where(known_CS.any(0), sample_S, sample_S[known_CS.any(0)].mean())
    return torch.where(known_CS, beta_CS, own_C[:, None] + sample_S)
