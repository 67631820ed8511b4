"""The CpG side: what is known of a CpG, in blocks that a kernel weighs.

Legend: C CpGs, G genes, L bases, P features, Q factors, A scales of distance, K k-mers, N (CpG, gene) entries.
"""

import torch
from torch import Tensor, nn

from methyl_lightning.networks.baselines.features import (
    FAR_BP,
    cpg_density,
    cpg_rows,
    entry_cpg,
    kmer_frequencies,
    near_gene_loadings,
)
from methyl_lightning.networks.baselines.ridge import fit_ridge, products
from methyl_lightning.networks.contract import CpgFeatures, GenePlaces

LONGEST_KMER = 3
MOTIF_BASES, MOTIF_Z, MOTIF_FACTORS = 6, 5.0, 8
CROWD_BP = (5_000, 50_000)
COUNT_BP = (1_000, 5_000, 25_000, 100_000)
LARGEST = 4.0  # standard deviations of a feature
# weight of each block in the squared distance of two CpGs; of the annotation's blocks the columns, too
WEIGHTS = {"sequence": 0.3, "density": 0.4, "motif": 0.8, "geometry": 0.4, "level": 0.4, "loadings": 0.35}
ANNOTATION_WEIGHTS = {"islands": (slice(0, 13), 1.2), "genome": (slice(13, 19), 0.6)}


def gene_offsets(cpgs: CpgFeatures, genes: GenePlaces) -> tuple[Tensor, Tensor]:
    """Place the CpG of each entry: bases downstream of the transcription start, and length of the gene: [N] each.

    Without positions the listed distance stands for it, and the gene has no length.
    """
    start_N, end_N, strand_N = (place_G[cpgs.gene_N] for place_G in genes)
    position_N = cpgs.position_C[entry_cpg(cpgs)]
    known_N = (position_N >= 0) & (start_N >= 0) & (strand_N != 0)
    tss_N = torch.where(strand_N > 0, start_N, end_N - 1)
    downstream_N = torch.where(known_N, strand_N * (position_N - tss_N), -cpgs.bp_N.long())
    return downstream_N, torch.where(known_N, end_N - start_N, 0)


def gene_geometry(cpgs: CpgFeatures, genes: GenePlaces) -> Tensor:
    """Say where the CpG stands among the genes: the nearest start, the body it lies in, how crowded it is: [C, P]."""
    cpg_N, n_cpgs = entry_cpg(cpgs), len(cpgs.offset_C)
    downstream_N, length_N = gene_offsets(cpgs, genes)
    far_N = downstream_N.abs()

    def total(value_N: Tensor) -> Tensor:
        return torch.zeros(n_cpgs, device=far_N.device).index_add_(0, cpg_N, value_N.float())

    def largest(value_N: Tensor) -> Tensor:
        return torch.zeros(n_cpgs, device=far_N.device).scatter_reduce_(0, cpg_N, value_N.float(), "amax")

    nearest_C = torch.full((n_cpgs,), FAR_BP, device=far_N.device).scatter_reduce_(0, cpg_N, far_N, "amin")
    side_C = total((far_N == nearest_C[cpg_N]) * downstream_N.sign()).sign()
    inside_N = (downstream_N >= 0) & (downstream_N < length_N)
    return torch.stack(
        [
            nearest_C.float().log1p(),
            torch.exp(-nearest_C / 300),
            torch.exp(-nearest_C / 2_000),
            side_C * torch.exp(-nearest_C / 1_000),
            largest(inside_N),
            largest(inside_N * length_N).log1p(),
            largest(inside_N * downstream_N / length_N.clamp(min=1)),
            *(total(torch.exp(-far_N / scale)).log1p() for scale in CROWD_BP),
            *(total(far_N <= reach).log1p() for reach in COUNT_BP),
        ],
        1,
    )


def gene_levels(expression_SG: Tensor) -> Tensor:
    """Return mean, deviation and squared mean of each gene's expression, standardised over genes: [G, 3]."""
    deviation_G, mean_G = torch.std_mean(expression_SG, 0, correction=0)
    level_GP = torch.stack([mean_G, deviation_G, mean_G.square()], 1)
    return (level_GP - level_GP.mean(0)) / level_GP.std(0).clamp(min=1e-6)


class Motifs(nn.Module):
    """Scores of 6-mers whose presence near a CpG marks its loadings.

    A 6-mer counts, a reverse complement being the same, where |z| of its correlation with what a ridge regression on
    the other features leaves of a leading factor's loadings is 5 or more: among 2,080 of them none does by chance.
    """

    weight_KQ: Tensor
    share_K: Tensor

    def __init__(self) -> None:
        super().__init__()
        for name, shape in (("weight_KQ", (0, 0)), ("share_K", (0,))):
            self.register_buffer(name, torch.zeros(shape))

    def fit(self, cpgs: CpgFeatures, features_CP: Tensor, loading_CQ: Tensor) -> None:
        """Screen the 6-mers of the training CpGs."""
        target_CQ = loading_CQ[:, :MOTIF_FACTORS]
        target_CQ = (target_CQ - target_CQ.mean(0)).double()
        residual_CQ = target_CQ - features_CP.double() @ fit_ridge(products(features_CP, target_CQ))
        residual_CQ = residual_CQ / residual_CQ.std(0).clamp(min=1e-12)
        sums = [
            (present_CK.sum(0).double(), present_CK.T.double() @ residual_CQ[rows])
            for rows, part in cpg_rows(cpgs)
            for present_CK in [self._present(part)]
        ]
        count_K, cross_KQ = (torch.stack(parts).sum(0) for parts in zip(*sums, strict=True))
        share_K = count_K / len(residual_CQ)
        spread_K = (share_K * (1 - share_K)).sqrt()
        z_KQ = (cross_KQ - count_K[:, None] * residual_CQ.mean(0)) / spread_K[:, None] / len(residual_CQ) ** 0.5
        marks_KQ = (z_KQ.abs() >= MOTIF_Z) & (count_K >= 10)[:, None]
        weight_KQ = torch.where(marks_KQ, z_KQ / spread_K[:, None], 0.0)
        self.weight_KQ, self.share_K = weight_KQ[:, marks_KQ.any(0)].float(), share_K.float()

    def _present(self, cpgs: CpgFeatures) -> Tensor:
        return (kmer_frequencies(cpgs.sequence_CL, MOTIF_BASES, MOTIF_BASES) > 0).float()

    def forward(self, cpgs: CpgFeatures) -> Tensor:
        """Score CpGs: [C, factors that have a 6-mer of their own]."""
        if not self.weight_KQ.numel():
            return self.weight_KQ.new_zeros(len(cpgs.offset_C), 0)
        return (self._present(cpgs) - self.share_K) @ self.weight_KQ


class BlockScaler(nn.Module):
    """Standardises features and weighs each block, whatever its number of features; what is unknown counts as average.

    Squared differences, summed over the columns of a block that vary, come to twice the block's weight on average.
    """

    mean_P: Tensor
    factor_P: Tensor
    weight_P: Tensor

    def __init__(self) -> None:
        super().__init__()
        for name in ("mean_P", "factor_P", "weight_P"):
            self.register_buffer(name, torch.zeros(0))

    def fit(self, blocks: list[tuple[float, Tensor]]) -> None:
        """Take means and deviations of the training CpGs from weights and blocks [C, P]."""
        weights, raw_CP = [], torch.cat([block_CP for _, block_CP in blocks], 1)
        self.mean_P = raw_CP.nanmean(0).nan_to_num(0.0)
        deviation_P = (raw_CP - self.mean_P).square().nanmean(0).nan_to_num(0.0).sqrt()
        varies_P = deviation_P > 1e-6 * (1 + self.mean_P.abs())
        self.factor_P = torch.where(varies_P, 1 / torch.where(varies_P, deviation_P, 1.0), 0.0)
        for (weight, block_CP), varies in zip(
            blocks, varies_P.split([block_CP.shape[1] for _, block_CP in blocks]), strict=True
        ):
            size = (weight / max(int(varies.sum()), 1)) ** 0.5
            weights.append(self.mean_P.new_full((block_CP.shape[1],), size))
        self.weight_P = torch.cat(weights)

    def forward(self, raw_CP: Tensor) -> Tensor:
        """Scale features [C, P]."""
        standard_CP = ((raw_CP - self.mean_P) * self.factor_P).clamp(-LARGEST, LARGEST)
        return standard_CP.nan_to_num(0.0) * self.weight_P


class CpgDescription(nn.Module):
    """All features of CpGs, scaled for the kernel.

    Parameters
    ----------
    n_genes
        Number of genes G.
    """

    level_GP: Tensor
    loading_GQ: Tensor
    start_G: Tensor
    end_G: Tensor
    strand_G: Tensor

    def __init__(self, n_genes: int):
        super().__init__()
        self.motifs, self.scaler = Motifs(), BlockScaler()
        for name in ("level_GP", "loading_GQ"):
            self.register_buffer(name, torch.zeros(n_genes, 0))
        for name in ("start_G", "end_G", "strand_G"):
            self.register_buffer(name, torch.zeros(n_genes, dtype=torch.int64))

    @property
    def genes(self) -> GenePlaces:
        """Places of the genes."""
        return GenePlaces(self.start_G, self.end_G, self.strand_G)

    def fit(
        self,
        cpgs: CpgFeatures,
        genes: GenePlaces,
        level_GP: Tensor,
        gene_loading_GQ: Tensor,
        loading_CQ: Tensor | None = None,
    ) -> Tensor:
        """Fit to the training CpGs and return their features [C, P].

        Parameters
        ----------
        cpgs, genes
            CpGs, and places of the genes.
        level_GP, gene_loading_GQ
            How strongly each gene is expressed, and its loadings on the leading factors.
        loading_CQ
            Loadings of the CpGs, that motifs mark (None: no motifs).
        """
        self.start_G, self.end_G, self.strand_G = genes
        self.level_GP, self.loading_GQ = level_GP, gene_loading_GQ
        blocks = self._blocks(cpgs)
        self.scaler.fit(blocks)
        if loading_CQ is not None:
            self.motifs.fit(cpgs, self.scaler(torch.cat([block_CP for _, block_CP in blocks], 1)), loading_CQ)
        blocks.append((WEIGHTS["motif"], self._motif_scores(cpgs)))
        self.scaler.fit(blocks)
        return self.scaler(torch.cat([block_CP for _, block_CP in blocks], 1))

    def _motif_scores(self, cpgs: CpgFeatures) -> Tensor:
        return torch.cat([self.motifs(part) for _, part in cpg_rows(cpgs)])

    def _blocks(self, cpgs: CpgFeatures) -> list[tuple[float, Tensor]]:
        parts = [self._block_row(part) for _, part in cpg_rows(cpgs)]
        return [(row[0][0], torch.cat([block_CP for _, block_CP in row])) for row in zip(*parts, strict=True)]

    def _block_row(self, cpgs: CpgFeatures) -> list[tuple[float, Tensor]]:
        summed_CP = near_gene_loadings(cpgs, torch.cat([self.level_GP, self.loading_GQ], 1))
        n_levels, n_loadings = self.level_GP.shape[1], self.loading_GQ.shape[1]
        level_CAP, loading_CAQ = summed_CP.unflatten(1, (-1, n_levels + n_loadings)).split([n_levels, n_loadings], 2)
        blocks = {
            "sequence": kmer_frequencies(cpgs.sequence_CL, LONGEST_KMER),
            "density": cpg_density(cpgs.sequence_CL),
            "geometry": gene_geometry(cpgs, self.genes),
            "level": level_CAP.flatten(1),
            "loadings": loading_CAQ.flatten(1),
        }
        known = [(WEIGHTS[name], block_CP) for name, block_CP in blocks.items()]
        return known + [(weight, cpgs.annotation_CP[:, columns]) for columns, weight in ANNOTATION_WEIGHTS.values()]

    def forward(self, cpgs: CpgFeatures) -> Tensor:
        """Describe CpGs: [C, P]."""
        blocks = [block_CP for _, block_CP in self._blocks(cpgs)]
        return self.scaler(torch.cat([*blocks, self._motif_scores(cpgs)], 1))
