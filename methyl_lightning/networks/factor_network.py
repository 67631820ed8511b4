"""A trained network of the factors' form: a sequence CNN and near genes give level and loadings of a CpG.

Legend: C CpGs, S samples, G genes, L bases, P features, Q factors, K near genes, B distance classes, F filters,
H hidden units.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional

from methyl_lightning.networks.contract import CpgFeatures, MethylationNetwork, RowBatchNorm1d, TrainingData
from methyl_lightning.networks.factors.cis import near_classes
from methyl_lightning.networks.factors.cpgs import CpgDescription, gene_levels
from methyl_lightning.networks.factors.lines import Lines, Samples, on_grid, on_pairs
from methyl_lightning.networks.factors.samples import Expression, complete, fit_factors, leading_scores
from methyl_lightning.networks.sequence import Dense, on_known

WIDTH, N_HIDDEN = 11, 64  # of a filter, in bases; units of the connected layers
N_BASES = 4  # A C G T in an order that is complemented by turning it round; an N is no base
MIDDLES = (1, 2, 4, 8)  # filters are averaged over the whole window, its middle half, …
N_CLASSES = 12  # of near genes, by scale and side
NEAR_FACTORS = 8  # whose loadings on near genes describe a CpG
N_DESCRIBED = 44 + 8 + 13 + 12 + 4 * NEAR_FACTORS + 19  # k-mers, density, geometry, levels, loadings, annotation


class StrandConvolution(nn.Module):
    """Filters that read both strands alike, pooled over the window: [C, L] → [C, F · (1 + middles)].

    Of each filter the maximum over all positions and both strands is kept, and its mean over both strands in ever
    narrower middles of the window. So a sequence and its reverse complement give the same.
    """

    def __init__(self, n_filters: int):
        super().__init__()
        self.convolution = nn.Conv1d(N_BASES, n_filters, WIDTH, padding=WIDTH // 2, bias=False)
        self.normalisation = RowBatchNorm1d(n_filters)
        self.activation = nn.ReLU()
        self.n_out = n_filters * (1 + len(MIDDLES))

    def forward(self, sequence_CL: Tensor) -> Tensor:
        """Describe sequences of codes of ACGTN."""
        one_hot_CAL = functional.one_hot(sequence_CL.long(), N_BASES + 1)[:, :, :N_BASES].transpose(1, 2)
        one_hot_CAL = one_hot_CAL.to(self.convolution.weight.dtype)
        strands = [self.convolution(strand_CAL) for strand_CAL in (one_hot_CAL, one_hot_CAL.flip(1, 2))]
        filtered_SFL = self.activation(self.normalisation(torch.cat(strands)))
        length = filtered_SFL.shape[2]
        middles = [filtered_SFL.narrow(2, (length - length // n) // 2, length // n).mean(2) for n in MIDDLES]
        largest_2CF, mean_2CF = filtered_SFL.amax(2).chunk(2), torch.cat(middles, 1).chunk(2)
        return torch.cat([torch.maximum(*largest_2CF), (mean_2CF[0] + mean_2CF[1]) / 2], 1)


class FactorNetwork(MethylationNetwork):
    """beta = sigmoid(level + loadings × factors + slopes × expression of near genes); the CpG's part is trained.

    Factors are what the training CpGs' beta shares, predicted from the expression of all genes by the kernel ridge
    regression of :class:`methyl_lightning.networks.MethylationFactors`; they are fitted before the first step. Level,
    loadings and slopes come from one network, which reads the sequence with the same filters on both strands, and the
    features that the closed form describes a CpG by: k-mers, CpG density, near genes as a set, and annotation where it
    is given. The slope on a near gene is a kernel of its signed distance, the same for all genes, whose weights depend
    on the CpG. Neither name nor place of a CpG is looked at, nor are the labels of its neighbours.

    Parameters
    ----------
    n_genes
        Number of genes G.
    n_factors
        Number of factors Q, at most.
    n_filters
        Of the sequence, 11 bases wide.
    """

    weight_GQ: Tensor
    most_cells = 50_000_000  # of the training view that the factors are fitted on

    bounded = True

    def __init__(self, n_genes: int, n_factors: int = 16, n_filters: int = 64):
        super().__init__()
        if min(n_factors, n_filters) < 1:
            raise ValueError(f"n_factors={n_factors}, n_filters={n_filters}: must be at least 1")
        self.n_factors = n_factors
        self.expression, self.description = Expression(n_genes), CpgDescription(n_genes)
        self.register_buffer("weight_GQ", torch.zeros(n_genes, n_factors))
        self.sequence = StrandConvolution(n_filters)
        n_in = N_DESCRIBED + self.sequence.n_out
        self.connected = nn.Sequential(RowBatchNorm1d(n_in), Dense(n_in, N_HIDDEN), Dense(N_HIDDEN, N_HIDDEN))
        self.head = nn.Linear(N_HIDDEN, 1 + n_factors + N_CLASSES)

    def fit_statistics(self, data: TrainingData) -> None:
        """Fit the factors, and the scale of what describes a CpG."""
        view = data.view(self.most_cells)
        kernel, scale = self.expression.fit(view.expression_SG)
        standard_SG = self.expression(view.expression_SG)
        complete(view.beta_CS, kernel)
        scores_SQ = leading_scores(view.beta_CS, self.n_factors)
        weight_GQ = fit_factors(standard_SG, kernel, scale, scores_SQ)[0]
        self.weight_GQ = functional.pad(weight_GQ, (0, self.n_factors - weight_GQ.shape[1]))
        near_GQ = standard_SG.T @ scores_SQ[:, :NEAR_FACTORS].float() / len(scores_SQ)
        near_GQ = functional.pad(near_GQ, (0, NEAR_FACTORS - near_GQ.shape[1]))
        # without the motifs of the closed form: they are the filters' task
        self.description.fit(view.cpgs, view.genes, gene_levels(view.expression_SG), near_GQ)

    def encode_cpgs(self, cpgs: CpgFeatures) -> Lines:
        """Predict level, loadings and slopes."""
        unknown_F = self.head.weight.new_zeros(self.sequence.n_out)
        sequence_CF = on_known(self.sequence, cpgs.sequence_CL, unknown_F)
        state_CH = self.connected(torch.cat([self.description(cpgs), sequence_CF], 1))
        level_C1, loading_CQ, kernel_CB = self.head(state_CH).split([1, self.n_factors, N_CLASSES], 1)
        gene_CK, class_CKB = near_classes(cpgs, self.description.genes)
        slope_CK = torch.einsum("ckb,cb->ck", class_CKB.to(kernel_CB.dtype), kernel_CB)
        return Lines(level_C1[:, 0], loading_CQ, gene_CK, slope_CK)

    def encode_samples(self, expression_SG: Tensor) -> Samples:
        """Predict the factors."""
        prepared_SG = self.expression(expression_SG)
        return Samples(prepared_SG @ self.weight_GQ, prepared_SG.T.contiguous().T)

    def combine(self, cpgs: Lines, samples: Samples) -> Tensor:
        """Fill the grid: beta_hat_CS."""
        return on_grid(cpgs, samples).sigmoid()

    def combine_pairs(self, cpgs: Lines, samples: Samples) -> Tensor:
        """Predict pair by pair: beta_hat_N."""
        return on_pairs(cpgs, samples).sigmoid()
