"""The network of Levy-Jurgenson et al. (2019): a sequence CNN and three gene attentions, on the grid.

Legend: C CpGs, S samples, G genes, L bases, K units of the first connected layer, M motif features, H hidden units,
N (CpG, gene) entries or pairs.
"""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

from methyl_lightning.networks.contract import CpgFeatures, MethylationNetwork, RowBatchNorm1d, TrainingData
from methyl_lightning.networks.products import WideLinear, grid_product
from methyl_lightning.networks.sequence import SequenceConvolution, motif_branch, on_known

VARIANTS: tuple[int | str, ...] = (1, 2, 3, "port1")
WEIGHTINGS = ("window", "buckets")
BUCKET_BP, N_BUCKETS = 2_000, 10
ABLATIONS = ("sequence", "expression", "distance_attention", "expression_attention", "sequence_attention", "far_genes")


class CpgEncoding(NamedTuple):
    """Motif features [C, M] (M = 0 without them) and the attentions that depend on the CpG, each [C, G]."""

    motif_CM: Tensor
    distance_attention_CG: Tensor | None
    sequence_attention_CG: Tensor | None


class SampleEncoding(NamedTuple):
    """Scaled expression [S, G] and expression times its own attention [S, G]."""

    expression_SG: Tensor
    attended_SG: Tensor | None


class SparseLinear(nn.Module):
    """A linear layer on rows given by their few non-zero entries; initialised as ``torch.nn.Linear``."""

    def __init__(self, n_in: int, n_out: int):
        super().__init__()
        dense = nn.Linear(n_in, n_out)
        self.weight_GH = nn.Parameter(dense.weight.detach().T.contiguous())
        self.bias_H = nn.Parameter(dense.bias.detach().clone())

    def forward(self, index_N: Tensor, offset_C: Tensor, value_N: Tensor) -> Tensor:
        """Sum the weight rows of each CpG's entries: [C, H]."""
        return (
            functional.embedding_bag(index_N, self.weight_GH, offset_C, mode="sum", per_sample_weights=value_N)
            + self.bias_H
        )


class Attention(nn.Module):
    """Softmax over genes of a two-layer network: first layer → BN → ELU → linear → BN → ELU → softmax.

    Parameters
    ----------
    first
        Layer from the branch's input to ``n_hidden``.
    n_hidden, n_genes
        Hidden and output width.
    elu
        Whether the two normalisations are followed by ELU (not in Model 1).
    """

    def __init__(self, first: nn.Module, n_hidden: int, n_genes: int, elu: bool = True):
        super().__init__()
        self.first = first
        layers: list[nn.Module] = [RowBatchNorm1d(n_hidden)]
        layers += [nn.ELU()] if elu else []
        layers += [WideLinear(n_hidden, n_genes), RowBatchNorm1d(n_genes)]
        layers += [nn.ELU()] if elu else []
        self.rest = nn.Sequential(*layers, nn.Softmax(dim=-1))

    def forward(self, *inputs: Tensor) -> Tensor:
        """Return attention weights [rows, G] that sum to one."""
        return self.rest(self.first(*inputs))


class PairDense(nn.Module):
    """Linear → BN → ELU along the unit axis of [C, K, S], the layout in which the grid product leaves its result."""

    def __init__(self, n_in: int, n_out: int):
        super().__init__()
        self.linear = nn.Linear(n_in, n_out)
        self.normalisation = RowBatchNorm1d(n_out)
        self.activation = nn.ELU()

    def forward(self, features_CKS: Tensor) -> Tensor:
        """Map [C, in, S] to [C, out, S]."""
        linear_CKS = torch.matmul(self.linear.weight, features_CKS) + self.linear.bias[:, None]
        return self.activation(self.normalisation(linear_CKS))


class LevyJurgenson(MethylationNetwork):
    """Motif CNN, gene attentions by distance, expression and sequence, and a connected head 50-45-40-1.

    The first connected layer acts on [motif, e∘a_seq, e∘a_expr, e∘a_dist]. Being linear, it splits into a part of the
    CpG, a part of the sample, and a product over genes, (a_dist∘W_dist[k] + a_seq∘W_seq[k]) · e; nothing is computed
    twice and nothing is approximated.

    Parameters
    ----------
    n_genes
        Number of genes G of the expression vectors.
    window
        Bases around the CpG.
    variant
        1: motif and distance branches only, hidden G/2, no ELU in the attention, hard ±2 kb window.
        2, 3: all branches, signed 2 kb buckets (they differ in their CpGs: a gene within 10 kb, and all).
        port1: as 3, on CpGs with a gene within 2 kb, what the PyTorch port calls model 1.
    without
        What is left out: ``sequence`` (the motif branch), ``expression`` (each expression value becomes 1, and the
        attention that is computed from them goes), ``distance_attention``, ``expression_attention``,
        ``sequence_attention``; ``far_genes`` (the expression of genes that no training CpG has within the reach of
        the distance weights becomes 0). A model that sees no sequence at all leaves out both sequence parts.

    Notes
    -----
    Differs from the paper and its code in these points, and in no other that we know of:

    - a gene on either side makes a CpG eligible for Model 1 (upstream: only one with weight +1);
    - a gene at distance 0 weighs +1 (upstream stored 1/bp, where it would be infinite);
    - batch normalisation has PyTorch's momentum 0.1 and epsilon 1e-5, as in the port (TensorFlow: 0.99 and 1e-3);
    - no L1 penalty on the distance branch and PyTorch's default initialisation, as in the port;
    - a CpG without any known base has motif features 0 and a uniform sequence attention;
    - every layer runs in one precision (the port declares halves).

    Source: YakhiniGroup/Methylation ``src/model.py``; agotliber/CH3_project ``src/model.py``.
    """

    N_MOTIF, N_SEQUENCE_HIDDEN, CONNECTED = 40, 20, (50, 45, 40)
    near_G: Tensor | None

    def __init__(self, n_genes: int, window: int, variant: int | str = 3, without: Sequence[str] = ()):
        super().__init__()
        if variant not in VARIANTS:
            raise ValueError(f"variant={variant!r}: must be one of {VARIANTS}")
        if not set(without) <= set(ABLATIONS):
            raise ValueError(f"without={list(without)}: must be some of {ABLATIONS}")
        self.gene_within_bp = {1: 2_000, 2: 10_000, 3: None, "port1": 2_000}[variant]
        self.weighting = "window" if variant == 1 else "buckets"
        full = variant != 1
        n_hidden = max(1, n_genes // (6 if full else 2))
        self.reads_expression = "expression" not in without
        near_G = torch.ones(n_genes, dtype=torch.bool) if "far_genes" in without else None
        self.register_buffer("near_G", near_G)  # None: every gene counts
        self.motif: nn.Module | None = None
        self.distance_attention: nn.Module | None = None
        self.expression_attention: nn.Module | None = None
        self.sequence_attention: nn.Module | None = None
        if "sequence" not in without:
            self.motif = motif_branch(window)
        if "distance_attention" not in without:
            self.distance_attention = Attention(SparseLinear(n_genes, n_hidden), n_hidden, n_genes, elu=full)
        if full and self.reads_expression and "expression_attention" not in without:
            self.expression_attention = Attention(WideLinear(n_genes, n_hidden), n_hidden, n_genes)
        if full and "sequence_attention" not in without:
            convolution = SequenceConvolution(window)
            hidden = nn.Linear(convolution.n_out, self.N_SEQUENCE_HIDDEN)
            self.sequence_attention = Attention(nn.Sequential(convolution, hidden), self.N_SEQUENCE_HIDDEN, n_genes)
        attentions = (self.distance_attention, self.expression_attention, self.sequence_attention)
        self.widths = [self.N_MOTIF if self.motif else 0, *(n_genes if attention else 0 for attention in attentions)]
        if not any(self.widths):
            raise ValueError(f"variant={variant!r}, without={list(without)}: leaves nothing to predict from")
        first, second, third = self.CONNECTED
        self.connected = nn.Linear(sum(self.widths), first)
        self.connected_normalisation = RowBatchNorm1d(first)
        self.connected_activation = nn.ELU()
        self.head = nn.Sequential(PairDense(first, second), PairDense(second, third))
        self.output = nn.Linear(third, 1)

    def fit_statistics(self, data: TrainingData) -> None:
        """Keep the genes of those training entries whose distance has a weight; without ``far_genes`` only."""
        if self.near_G is not None:
            gene_N, bp_N = data.distances()
            near_N = distance_weights(bp_N, self.weighting, torch.float32) != 0
            self.near_G.zero_()[gene_N[near_N]] = True

    def encode_cpgs(self, cpgs: CpgFeatures) -> CpgEncoding:
        """Encode sequences and gene distances."""
        like = self.connected.weight
        motif_CM, distance_CG, sequence_CG = like.new_zeros(len(cpgs.offset_C), 0), None, None
        if self.motif is not None:
            motif_CM = on_known(self.motif, cpgs.sequence_CL, like.new_zeros(self.N_MOTIF))
        if self.distance_attention is not None:
            weight_N = distance_weights(cpgs.bp_N, self.weighting, like.dtype)
            near_N = weight_N != 0
            # entries beyond the reach of the weighting are dropped: the gather touches a handful of genes a CpG
            kept_N = functional.pad(near_N.cumsum(0), (1, 0))
            distance_CG = self._attend_near(cpgs.gene_N[near_N], kept_N[cpgs.offset_C], weight_N[near_N])
        if self.sequence_attention is not None:
            n_genes = self.widths[-1]
            sequence_CG = on_known(self.sequence_attention, cpgs.sequence_CL, like.new_full((n_genes,), 1 / n_genes))
        return CpgEncoding(motif_CM, distance_CG, sequence_CG)

    def _attend_near(self, gene_N: Tensor, offset_C: Tensor, weight_N: Tensor) -> Tensor:
        """Return the attention by distance [C, G]: in prediction once for all CpGs of the same genes and weights."""
        assert self.distance_attention is not None
        # batch normalisation counts every CpG in training, and a GPU would not gain
        if self.training or gene_N.device.type != "cpu":
            return self.distance_attention(gene_N, offset_C, weight_N)
        # of the 485,512 CpGs of an array half have no gene within reach; blocks of 64 in their order have 12 to 30 rows
        (gene_N, offset_U, weight_N), row_C = distinct_rows(gene_N, offset_C, weight_N)
        return self.distance_attention(gene_N, offset_U, weight_N)[row_C]

    def encode_samples(self, expression_SG: Tensor) -> SampleEncoding:
        """Encode scaled expression."""
        if not self.reads_expression:
            return SampleEncoding(torch.ones_like(expression_SG), None)
        if self.near_G is not None:
            expression_SG = torch.where(self.near_G, expression_SG, 0.0)
        if self.expression_attention is None:
            return SampleEncoding(expression_SG, None)
        return SampleEncoding(expression_SG, expression_SG * self.expression_attention(expression_SG))

    def _first_layer(self, cpgs: CpgEncoding, samples: SampleEncoding) -> tuple[Tensor, Tensor | None, list[Tensor]]:
        """Split the first connected layer: its CpG part [C, K], its sample part [S, K], and attention, weight, …."""
        motif_KM, distance_KG, expression_KG, sequence_KG = self.connected.weight.split(self.widths, dim=1)
        cpg_CK = functional.linear(cpgs.motif_CM, motif_KM, self.connected.bias)
        sample_SK = None if samples.attended_SG is None else functional.linear(samples.attended_SG, expression_KG)
        factors = []
        for attention_CG, weight_KG in (
            (cpgs.distance_attention_CG, distance_KG),
            (cpgs.sequence_attention_CG, sequence_KG),
        ):
            factors += [] if attention_CG is None else [attention_CG, weight_KG]
        return cpg_CK, sample_SK, factors

    def finish(self, connected_CKS: Tensor) -> Tensor:
        """Predict beta_hat_CS from what the first connected layer gives."""
        # a negligible part of the work; beta itself is not rounded where the products over genes are
        with torch.autocast(connected_CKS.device.type, enabled=False):
            connected_CKS = connected_CKS.to(self.output.weight.dtype)
            features_CKS = self.head(self.connected_activation(self.connected_normalisation(connected_CKS)))
            return (torch.matmul(self.output.weight, features_CKS) + self.output.bias[:, None]).squeeze(1)

    def connect(self, cpgs: CpgEncoding, samples: SampleEncoding) -> Tensor:
        """Return what the first connected layer gives: [C, K, S]."""
        cpg_CK, sample_SK, factors = self._first_layer(cpgs, samples)
        connected_CKS = cpg_CK[:, :, None].expand(-1, -1, len(samples.expression_SG))
        if factors:
            connected_CKS = grid_product(samples.expression_SG, *factors) + connected_CKS
        if sample_SK is not None:
            connected_CKS = connected_CKS + sample_SK.T
        return connected_CKS

    def combine(self, cpgs: CpgEncoding, samples: SampleEncoding) -> Tensor:
        """Fill the grid: beta_hat_CS."""
        return self.finish(self.connect(cpgs, samples))

    def combine_pairs(self, cpgs: CpgEncoding, samples: SampleEncoding) -> Tensor:
        """Predict pair by pair: beta_hat_N."""
        cpg_NK, sample_NK, factors = self._first_layer(cpgs, samples)
        connected_NK = cpg_NK if sample_NK is None else cpg_NK + sample_NK
        for attention_NG, weight_KG in zip(factors[::2], factors[1::2], strict=True):
            connected_NK = connected_NK + functional.linear(samples.expression_SG * attention_NG, weight_KG)
        return self.finish(connected_NK[:, :, None]).squeeze(1)


def distinct_rows(index_N: Tensor, offset_C: Tensor, value_N: Tensor) -> tuple[tuple[Tensor, Tensor, Tensor], Tensor]:
    """Take equal rows of a sparse matrix together: the distinct ones, in the same form, and which of them each is [C].

    Parameters
    ----------
    index_N, value_N
        Columns and values of the entries, row after row.
    offset_C
        First entry of each row.
    """
    count_C = torch.diff(offset_C, append=offset_C.new_tensor([len(index_N)]))
    row_N = torch.repeat_interleave(torch.arange(len(count_C), device=offset_C.device), count_C)
    place_N = torch.arange(len(index_N), device=offset_C.device) - offset_C[row_N]
    padded_C2K = value_N.new_zeros((len(count_C), 2, max(1, int(count_C.max()))), dtype=torch.float64)
    padded_C2K[row_N, 0, place_N], padded_C2K[row_N, 1, place_N] = index_N.double() + 1, value_N.double()
    padded_U2K, row_C = padded_C2K.unique(dim=0, return_inverse=True)
    there_UK = padded_U2K[:, 0] > 0
    index_N, value_N = padded_U2K[:, 0][there_UK].long() - 1, padded_U2K[:, 1][there_UK].to(value_N.dtype)
    end_U = there_UK.sum(1).cumsum(0)
    return (index_N, functional.pad(end_U[:-1], (1, 0)), value_N), row_C


def distance_weights(bp_N: Tensor, weighting: str, dtype: torch.dtype) -> Tensor:
    """Weigh signed distances as the original work did.

    ``window`` gives ±1 within ±2 kb and 0 beyond (Model 1). ``buckets`` halves the weight every 2 kb: ±1, ±.5, … ±.5^9,
    and 0 from 20 kb on (Models 2 and 3). The sign is that of the distance; a gene at 0 bp counts as positive.

    Parameters
    ----------
    bp_N
        Integer tensor of signed base pairs.
    weighting
        ``window`` or ``buckets``.
    dtype
        Floating type of the weights.
    """
    if weighting not in WEIGHTINGS:
        raise ValueError(f"weighting={weighting!r}: must be one of {WEIGHTINGS}")
    magnitude_N = bp_N.abs()
    if weighting == "window":
        weight_N = (magnitude_N <= BUCKET_BP).to(dtype)
    else:
        bucket_N = torch.div(magnitude_N, BUCKET_BP, rounding_mode="floor")
        weight_N = torch.where(bucket_N < N_BUCKETS, torch.pow(0.5, bucket_N.to(dtype)), 0.0).to(dtype)
    return torch.where(bp_N < 0, -weight_N, weight_N)
