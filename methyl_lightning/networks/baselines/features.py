"""What closed-form networks know of a CpG and of a sample: k-mers, CpG density, near genes, expression components.

Legend: C CpGs, S samples, G genes, L bases, P features, Q components, N (CpG, gene) entries.
"""

from collections.abc import Iterator
from functools import cache

import torch
from torch import Tensor, nn

from methyl_lightning.networks.contract import CpgFeatures

N_BASES = 4  # A C G T; a k-mer that holds an N does not count
C_CODE, G_CODE = 1, 2
DENSITY_SHARES = (1, 2, 4, 8)  # CpG density is taken over the whole window, its middle half, …
SCALES_BP = (1_000, 5_000, 25_000, 100_000)
FAR_BP = 2 * SCALES_BP[-1]  # stands for a gene that isn't there
ROWS = 1024  # CpGs whose features are made at once


def cpg_rows(cpgs: CpgFeatures, size: int = ROWS) -> Iterator[tuple[slice, CpgFeatures]]:
    """Cut CpGs into consecutive parts of at most ``size``."""
    n_cpgs, n_entries = len(cpgs.offset_C), len(cpgs.gene_N)
    for start in range(0, n_cpgs, size):
        stop = min(start + size, n_cpgs)
        first = int(cpgs.offset_C[start])
        entries = slice(first, int(cpgs.offset_C[stop]) if stop < n_cpgs else n_entries)
        yield (
            slice(start, stop),
            CpgFeatures(
                cpgs.sequence_CL[start:stop],
                cpgs.gene_N[entries],
                cpgs.bp_N[entries],
                cpgs.offset_C[start:stop] - first,
                cpgs.key_C[start:stop],
                cpgs.chrom_C[start:stop],
                cpgs.position_C[start:stop],
                cpgs.annotation_CP[start:stop],
            ),
        )


@cache
def kmer_columns(k: int) -> tuple[Tensor, int]:
    """Give each k-mer and its reverse complement the same column: that of each code, and how many there are."""
    code = torch.arange(N_BASES**k)
    digits = [code // N_BASES**i % N_BASES for i in range(k)]
    complement = sum((N_BASES - 1 - digits[i]) * N_BASES ** (k - 1 - i) for i in range(k))
    column = torch.unique(torch.minimum(code, torch.as_tensor(complement)), return_inverse=True)[1]
    return column, int(column.max()) + 1


def kmer_frequencies(sequence_CL: Tensor, longest: int, shortest: int = 1) -> Tensor:
    """Return shares of k-mers [C, P], k = ``shortest`` … ``longest``; a k-mer and its reverse complement are one."""
    parts = []
    length = sequence_CL.shape[1]
    base_CL = sequence_CL.long()
    for k in range(shortest, longest + 1):
        column, n_columns = kmer_columns(k)
        parts_CL = [base_CL[:, i : length - k + 1 + i] for i in range(k)]
        known_CL = torch.stack([part < N_BASES for part in parts_CL]).all(0)
        code_CL = sum(part * N_BASES ** (k - 1 - i) for i, part in enumerate(parts_CL)) * known_CL
        count_CP = torch.zeros(len(base_CL), n_columns, device=base_CL.device)
        count_CP.scatter_add_(1, column.to(base_CL.device)[code_CL], known_CL.float())
        parts.append(count_CP / known_CL.sum(1, keepdim=True).clamp(min=1))
    return torch.cat(parts, 1)


def cpg_density(sequence_CL: Tensor) -> Tensor:
    """Return CpGs a base over ever narrower windows around the CpG, and their square roots: [C, P]."""
    length = sequence_CL.shape[1]
    is_cpg_CL = ((sequence_CL[:, :-1] == C_CODE) & (sequence_CL[:, 1:] == G_CODE)).float()
    middle = (length - 1) // 2
    density_CP = torch.stack(
        [
            is_cpg_CL[:, max(0, middle - length // (2 * n)) : middle + length // (2 * n) + 1].mean(1)
            for n in DENSITY_SHARES
        ],
        1,
    )
    return torch.cat([density_CP, density_CP.sqrt()], 1)


def sequence_features(cpgs: CpgFeatures, longest: int) -> Tensor:
    """Return k-mer shares and CpG density: [C, P]."""
    return torch.cat([kmer_frequencies(cpgs.sequence_CL, longest), cpg_density(cpgs.sequence_CL)], 1)


def gene_weights(bp_N: Tensor) -> Tensor:
    """Return exp(−|bp| / scale) for genes on the lower and on the higher side, at each scale: [N, 2 · scales]."""
    scale = torch.tensor(SCALES_BP, device=bp_N.device)
    weight_NP = torch.exp(-bp_N.abs()[:, None] / scale)
    lower_N1 = (bp_N < 0)[:, None]
    return torch.cat([weight_NP * lower_N1, weight_NP * ~lower_N1], 1)


def entry_cpg(cpgs: CpgFeatures) -> Tensor:
    """Tell which CpG each (CpG, gene) entry belongs to: [N]."""
    bounds = torch.cat([cpgs.offset_C, cpgs.offset_C.new_tensor([len(cpgs.gene_N)])])
    return torch.repeat_interleave(torch.arange(len(cpgs.offset_C), device=bounds.device), bounds.diff())


def distance_features(cpgs: CpgFeatures) -> Tensor:
    """Return how near the genes are: their weights summed, and the log distance of the nearest on each side: [C, P]."""
    cpg_N, n_cpgs = entry_cpg(cpgs), len(cpgs.offset_C)
    weight_NP = gene_weights(cpgs.bp_N)
    crowd_CP = weight_NP.new_zeros(n_cpgs, weight_NP.shape[1]).index_add_(0, cpg_N, weight_NP)
    nearest = []
    for side_N in (cpgs.bp_N < 0, cpgs.bp_N >= 0):
        far_C = torch.full((n_cpgs,), FAR_BP, dtype=cpgs.bp_N.dtype, device=cpgs.bp_N.device)
        nearest.append(far_C.scatter_reduce_(0, cpg_N[side_N], cpgs.bp_N[side_N].abs(), "amin"))
    return torch.cat([crowd_CP, torch.stack(nearest, 1).float().log1p()], 1)


def near_gene_loadings(cpgs: CpgFeatures, loading_GQ: Tensor) -> Tensor:
    """Sum the loadings of near genes, weighted by distance at each scale, both sides together: [C, scales · Q]."""
    cpg_N, n_cpgs = entry_cpg(cpgs), len(cpgs.offset_C)
    lower_NP, higher_NP = gene_weights(cpgs.bp_N).to(loading_GQ.dtype).chunk(2, 1)
    weight_NP = lower_NP + higher_NP
    summed = [
        loading_GQ.new_zeros(n_cpgs, loading_GQ.shape[1]).index_add_(0, cpg_N, weight_N1 * loading_GQ[cpgs.gene_N])
        for weight_N1 in weight_NP.split(1, 1)
    ]
    return torch.cat(summed, 1)


def nearest_genes(cpgs: CpgFeatures, n_genes: int) -> tuple[Tensor, Tensor]:
    """List the nearest genes of each CpG: index and signed distance (no more genes: −1 and FAR_BP), [C, n_genes]."""
    cpg_N = entry_cpg(cpgs)
    by_distance_N = cpgs.bp_N.abs().argsort(stable=True)
    order_N = by_distance_N[cpg_N[by_distance_N].argsort(stable=True)]
    rank_N = torch.arange(len(cpg_N), device=cpg_N.device) - cpgs.offset_C[cpg_N]  # CpGs stay in their places
    kept_N = rank_N < n_genes
    places = cpg_N[kept_N], rank_N[kept_N]
    gene_CK, bp_CK = (
        values_N.new_full((len(cpgs.offset_C), n_genes), fill)
        for values_N, fill in ((cpgs.gene_N, -1), (cpgs.bp_N, FAR_BP))
    )
    gene_CK[places] = cpgs.gene_N[order_N][kept_N]
    bp_CK[places] = cpgs.bp_N[order_N][kept_N]
    return gene_CK, bp_CK


class Standardiser(nn.Module):
    """Centres columns and divides them by their standard deviation; a constant column becomes 0."""

    mean_P: Tensor
    factor_P: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("mean_P", torch.zeros(0))
        self.register_buffer("factor_P", torch.zeros(0))

    def fit(self, rows_NP: Tensor) -> None:
        """Take mean and standard deviation of the rows."""
        deviation_P, self.mean_P = torch.std_mean(rows_NP, dim=0, correction=0)
        varies_P = deviation_P > 1e-6 * (1 + self.mean_P.abs())
        self.factor_P = torch.where(varies_P, 1 / torch.where(varies_P, deviation_P, 1.0), 0.0)

    def forward(self, rows_NP: Tensor) -> Tensor:
        """Standardise rows [N, P]."""
        return (rows_NP - self.mean_P) * self.factor_P
