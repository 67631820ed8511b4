"""The form of MethylProphet (Huang et al. 2025), small: a transformer over tokens of the CpG and one of the sample.

Legend: C CpGs, S samples, G genes, L bases, T tokens, D width of a token, N pairs.
"""

from typing import NamedTuple

import torch
from torch import Tensor, nn

from methyl_lightning.networks.contract import CpgFeatures, MethylationNetwork

K, N_BASES = 6, 4  # a token of the sequence is a 6-mer
N_RELATIONS = 4  # to an island: the leading columns of the annotation
N_HEADS, N_BLOCKS = 4, 2  # of the attention; of the bottleneck MLP
TILE_PAIRS = 512  # that go through the transformer at once


class CpgTokens(NamedTuple):
    """Tokens of the sequence and of the island [C, T, D]."""

    token_CTD: Tensor


class SampleToken(NamedTuple):
    """The token that expression is pressed into [S, D]."""

    token_SD: Tensor


class Bottleneck(nn.Module):
    """Layer normalisation → wide layer → GELU → narrow layer, added to what comes in."""

    def __init__(self, width: int):
        super().__init__()
        wide = nn.Linear(width, 4 * width)
        self.layers = nn.Sequential(nn.LayerNorm(width), wide, nn.GELU(), nn.Linear(4 * width, width))

    def forward(self, row_SD: Tensor) -> Tensor:
        """Map [S, D] to [S, D]."""
        return row_SD + self.layers(row_SD)


class MethylProphet(MethylationNetwork):
    """Expression → bottleneck MLP → a token; sequence → 6-mers → tokens; a transformer over both for every pair.

    Samples and CpGs meet in the attention, so nothing is shared between cells but the tokens: the grid costs C · S
    passes of the transformer, in tiles, where networks of two towers cost C + S encodings and a product.

    Parameters
    ----------
    n_genes
        Number of genes G.
    window
        Bases around the CpG.
    width, n_layers
        Of the transformer.

    Notes
    -----
    Kept from the paper and its code: residual bottleneck blocks, widened fourfold; tokens of 6-mers with places; a
    token of the island; a leading token whose last state a linear layer and a sigmoid turn into beta. Differs:

    - 32 wide, 2 layers and 2 blocks, where the paper's are 512 or more, 4 or more, and 6;
    - 6-mers follow each other without overlap, and one that holds an N is a token of its own;
    - the token of the island says its relation (island, shore, shelf, sea or unknown), not which island it is;
    - no token of the chromosome, which is off in the published settings, and no dropout;
    - normalisation before attention, which trains without a warm-up;
    - the loss is the module's.
    """

    bounded = True

    def __init__(self, n_genes: int, window: int, width: int = 32, n_layers: int = 2):
        super().__init__()
        if window < K:
            raise ValueError(f"window={window}: must be at least {K} bases, the length of a token")
        if min(width, n_layers) < 1 or width % N_HEADS:
            raise ValueError(
                f"width={width}, n_layers={n_layers}: must be at least 1, the width a multiple of {N_HEADS}"
            )
        self.n_tokens = window // K
        self.expression = nn.Sequential(
            nn.Linear(n_genes, width), *(Bottleneck(width) for _ in range(N_BLOCKS)), nn.Linear(width, width)
        )
        self.kmer = nn.Embedding(N_BASES**K + 1, width)
        self.island = nn.Embedding(N_RELATIONS + 1, width)
        self.leading_D = nn.Parameter(torch.zeros(width))
        self.place_TD = nn.Parameter(0.02 * torch.randn(self.n_tokens, width))
        layer = nn.TransformerEncoderLayer(
            width, N_HEADS, 4 * width, dropout=0.0, activation="gelu", batch_first=True, norm_first=True
        )
        self.transformer = nn.TransformerEncoder(layer, n_layers, nn.LayerNorm(width), enable_nested_tensor=False)
        self.output = nn.Linear(width, 1)

    def encode_cpgs(self, cpgs: CpgFeatures) -> CpgTokens:
        """Look the tokens up: the island's, and those of the 6-mers of the middle of the window."""
        first = (cpgs.sequence_CL.shape[1] - K * self.n_tokens) // 2
        base_CTK = cpgs.sequence_CL[:, first : first + K * self.n_tokens].long().unflatten(1, (self.n_tokens, K))
        power_K = N_BASES ** torch.arange(K, device=base_CTK.device)
        known_CT = (base_CTK < N_BASES).all(2)
        kmer_CT = torch.where(known_CT, (base_CTK * power_K).sum(2), N_BASES**K)
        relation_CP = cpgs.annotation_CP[:, :N_RELATIONS].nan_to_num(0.0)
        relation_C = torch.where(relation_CP.amax(1) > 0, relation_CP.argmax(1), N_RELATIONS)
        return CpgTokens(torch.cat([self.island(relation_C)[:, None], self.kmer(kmer_CT) + self.place_TD], 1))

    def encode_samples(self, expression_SG: Tensor) -> SampleToken:
        """Press expression into a token."""
        return SampleToken(self.expression(expression_SG))

    def combine(self, cpgs: CpgTokens, samples: SampleToken) -> Tensor:
        """Fill the grid, pair by pair: beta_hat_CS."""
        n_cpgs, n_samples = len(cpgs.token_CTD), len(samples.token_SD)
        cpg_N = torch.arange(n_cpgs, device=cpgs.token_CTD.device).repeat_interleave(n_samples)
        sample_N = torch.arange(n_samples, device=cpg_N.device).repeat(n_cpgs)
        tiles = zip(cpg_N.split(TILE_PAIRS), sample_N.split(TILE_PAIRS), strict=True)
        beta = [self._transform(cpgs.token_CTD[c], samples.token_SD[s]) for c, s in tiles]
        return torch.cat(beta).unflatten(0, (n_cpgs, n_samples))

    def combine_pairs(self, cpgs: CpgTokens, samples: SampleToken) -> Tensor:
        """Predict pair by pair: beta_hat_N."""
        return self._transform(cpgs.token_CTD, samples.token_SD)

    def _transform(self, token_NTD: Tensor, token_ND: Tensor) -> Tensor:
        leading_ND = self.leading_D.expand_as(token_ND)
        state_NTD = self.transformer(torch.cat([torch.stack([leading_ND, token_ND], 1), token_NTD], 1))
        return self.output(state_NTD[:, 0]).squeeze(1).sigmoid()
