"""Near genes: what the expression of the genes around a CpG adds to what the factors tell.

Legend: C CpGs, S samples, G genes, K near genes, B distance classes, I circumstances of a CpG, F folds.
"""

from collections.abc import Iterable

import torch
from torch import Tensor, nn

from methyl_lightning.networks.baselines.features import SCALES_BP, nearest_genes
from methyl_lightning.networks.baselines.ridge import Products, fit_ridge
from methyl_lightning.networks.contract import CpgFeatures, GenePlaces
from methyl_lightning.networks.factors.loadings import N_FOLDS

N_GENES = 16  # the nearest
ISLAND, SHORE = 0, 1  # columns of the annotation
ROWS = 256  # CpGs whose cells are expanded at once
LEAST_SIZE = 0.1  # of a class's weights over the training, in that of the most frequent one


class Cis(nn.Module):
    """Slopes on the expression of near genes, the same rule for all CpGs.

    A gene weighs exp(−|bp| / scale) at each of four scales, apart for CpGs upstream of it, in its body and beyond it;
    these 12 slopes differ between islands, shores and other CpGs, and with 4 m (1 − m) of the CpG's predicted mean m,
    as nothing moves much where beta is near 0 or 1.
    """

    coefficient_BI: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("coefficient_BI", torch.zeros(3 * len(SCALES_BP), 4))

    def fit(
        self, parts: Iterable[tuple[CpgFeatures, Tensor, Tensor, Tensor]], genes: GenePlaces, expression_SG: Tensor
    ) -> None:
        """Fit to parts of the training view: CpGs, predicted means [C], residuals [C, S] and folds [C]."""
        n = self.coefficient_BI.numel()
        gram_FPP = torch.zeros(N_FOLDS, n, n, dtype=torch.float64)
        moment_FPQ = torch.zeros(N_FOLDS, n, 1, dtype=torch.float64)
        rows_F = torch.zeros(N_FOLDS, dtype=torch.float64)
        expression_GS = expression_SG.T.contiguous()
        for cpgs, mean_C, residual_CS, fold_C in parts:
            gene_CK, class_CKB = near_classes(cpgs, genes)
            near_CBS = torch.einsum("ckb,cks->cbs", class_CKB, expression_GS[gene_CK])
            state_CI = circumstances(cpgs, mean_C)
            gram_CBB = near_CBS @ near_CBS.mT
            moment_CB = torch.einsum("cbs,cs->cb", near_CBS, residual_CS)
            for f in fold_C.unique().tolist():
                of_C = fold_C == f
                state = state_CI[of_C]
                gram = torch.einsum("cab,ci,cj->aibj", gram_CBB[of_C], state, state)
                gram_FPP[f] += gram.reshape(n, n)
                moment_FPQ[f, :, 0] += torch.einsum("cb,ci->bi", moment_CB[of_C], state).reshape(n)
                rows_F[f] += residual_CS[of_C].numel()
        size_P = (gram_FPP.sum(0).diagonal() / rows_F.sum()).sqrt()
        # a class that hardly any training CpG is in gets no slope that another one would multiply to nonsense
        size_P = size_P.clamp(min=LEAST_SIZE * float(size_P.max().clamp(min=1e-6)))
        scaled_FPP, scaled_FPQ = gram_FPP / size_P / size_P[:, None], moment_FPQ / size_P[:, None]
        slope_P = fit_ridge(Products(scaled_FPP, scaled_FPQ, rows_F))[:, 0] / size_P
        self.coefficient_BI = slope_P.reshape(self.coefficient_BI.shape).float()

    def forward(self, class_CKB: Tensor, state_CI: Tensor) -> Tensor:
        """Return the slopes on the expression of near genes: [C, K].

        Parameters
        ----------
        class_CKB
            Weights of the genes by scale and side, of :func:`near_classes`.
        state_CI
            Of :func:`circumstances`.
        """
        return torch.einsum("ckb,bi,ci->ck", class_CKB, self.coefficient_BI, state_CI)


def circumstances(cpgs: CpgFeatures, mean_C: Tensor) -> Tensor:
    """Return what the slopes on near genes depend on: [C, I]."""
    island_C, shore_C = (cpgs.annotation_CP[:, column].nan_to_num(0.0) for column in (ISLAND, SHORE))
    mean_C = mean_C.clamp(0, 1)
    return torch.stack([torch.ones_like(mean_C), island_C, shore_C, 4 * mean_C * (1 - mean_C)], 1)


def near_classes(cpgs: CpgFeatures, genes: GenePlaces) -> tuple[Tensor, Tensor]:
    """List the nearest genes [C, K], 0 where there are no more, and their weights by scale and side [C, K, B]."""
    gene_CK, bp_CK = nearest_genes(cpgs, N_GENES)
    listed_CK = gene_CK >= 0
    gene_CK = gene_CK.clamp(min=0)
    start_CK, end_CK, strand_CK = (place_G[gene_CK] for place_G in genes)
    placed_CK = (cpgs.position_C >= 0)[:, None] & (start_CK >= 0) & (strand_CK != 0)
    tss_CK = torch.where(strand_CK > 0, start_CK, end_CK - 1)
    downstream_CK = torch.where(placed_CK, strand_CK * (cpgs.position_C[:, None] - tss_CK), -bp_CK.long())
    length_CK = torch.where(placed_CK, end_CK - start_CK, 0)
    upstream_CK = downstream_CK < 0
    beyond_CK = downstream_CK >= length_CK.clamp(min=1)
    side_CK3 = (
        torch.stack([upstream_CK, ~upstream_CK & ~beyond_CK, beyond_CK & ~upstream_CK], 2) & listed_CK[:, :, None]
    )
    weight_CKA = torch.exp(-bp_CK.abs()[:, :, None] / torch.tensor(SCALES_BP, device=bp_CK.device))
    return gene_CK, (side_CK3[:, :, :, None] * weight_CKA[:, :, None]).flatten(2)
