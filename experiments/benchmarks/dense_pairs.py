"""The published network as published: every pair with its own one-hot sequence and dense vectors over genes.

Written from the paper's description, in plain layers, as a yardstick of speed: no grid, no sparse gather, no oneDNN.

Legend: N pairs, L bases, G genes, H hidden units.
"""

from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional

BASES, CONNECTED = 5, (50, 45, 40)


def dense(n_in: int, n_out: int) -> nn.Sequential:
    """Linear → batch normalisation → ELU."""
    return nn.Sequential(nn.Linear(n_in, n_out), nn.BatchNorm1d(n_out), nn.ELU())


def convolution() -> nn.Sequential:
    """Sixty-four filters of width 11 → batch normalisation → ELU → average pool 10/10 → flat."""
    return nn.Sequential(
        nn.Conv1d(BASES, 64, 11, padding=5), nn.BatchNorm1d(64), nn.ELU(), nn.AvgPool1d(10), nn.Flatten()
    )


class DensePairs(nn.Module):
    """Model 3 of Levy-Jurgenson et al. (2019) on N expanded pairs.

    Parameters
    ----------
    n_genes, window
        G and L.
    """

    def __init__(self, n_genes: int, window: int):
        super().__init__()
        n_hidden, n_convolved = n_genes // 6, 64 * (window // 10)
        self.motif = nn.Sequential(convolution(), dense(n_convolved, 50), dense(50, 45), dense(45, 40))
        self.by_distance = nn.Sequential(dense(n_genes, n_hidden), dense(n_hidden, n_genes), nn.Softmax(1))
        self.by_expression = nn.Sequential(dense(n_genes, n_hidden), dense(n_hidden, n_genes), nn.Softmax(1))
        self.by_sequence = nn.Sequential(convolution(), dense(n_convolved, 20), dense(20, n_genes), nn.Softmax(1))
        widths = (40 + 3 * n_genes, *CONNECTED)
        self.connected = nn.Sequential(*(dense(*pair) for pair in pairwise(widths)))
        self.output = nn.Linear(CONNECTED[-1], 1)

    def forward(self, sequence_NL: Tensor, distance_NG: Tensor, expression_NG: Tensor) -> Tensor:
        """Predict beta_hat_N."""
        one_hot_NAL = functional.one_hot(sequence_NL.long(), BASES).to(expression_NG.dtype).transpose(1, 2)
        attended = [
            expression_NG * self.by_sequence(one_hot_NAL),
            expression_NG * self.by_expression(expression_NG),
            expression_NG * self.by_distance(distance_NG),
        ]
        return self.output(self.connected(torch.cat([self.motif(one_hot_NAL), *attended], 1))).squeeze(1)
