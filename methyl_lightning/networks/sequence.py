"""The sequence around a CpG: convolution, batch normalisation, ELU and pooling, and what comes after them.

Legend: C CpGs, L bases, A letters, K filters or units.
"""

from collections.abc import Iterable

import torch
from torch import Tensor, nn
from torch.nn import functional

from methyl_lightning.networks.contract import RowBatchNorm1d

ALPHABET_SIZE = 5  # ACGTN
POOL = 10
ROWS = 16  # sequences predicted at once on a CPU: what their filters give stays in its cache


class Dense(nn.Sequential):
    """Linear → batch normalisation → ELU, on [n, in]."""

    def __init__(self, n_in: int, n_out: int):
        super().__init__(nn.Linear(n_in, n_out), RowBatchNorm1d(n_out), nn.ELU())


class SequenceConvolution(nn.Module):
    """Sequence [C, L] → one-hot → 64 filters of width 11 → batch normalisation → ELU → average pool 10/10 → flat.

    Parameters
    ----------
    window
        Number of bases L, at least 10.
    """

    N_FILTERS, WIDTH = 64, 11

    def __init__(self, window: int):
        super().__init__()
        if window < POOL:
            raise ValueError(f"window={window}: must be at least {POOL} bases, the width of a pool")
        self.convolution = nn.Conv1d(ALPHABET_SIZE, self.N_FILTERS, self.WIDTH, padding=self.WIDTH // 2)
        self.normalisation = RowBatchNorm1d(self.N_FILTERS)
        self.activation = nn.ELU()
        self.pool = nn.AvgPool1d(POOL)
        self.n_out = self.N_FILTERS * (window // POOL)

    def forward(self, sequence_CL: Tensor) -> Tensor:
        """Return [C, 64 · (L // 10)]."""
        # where operands are rounded, filters are not: it would gain nothing
        with torch.autocast(sequence_CL.device.type, enabled=False):
            if self.training or sequence_CL.device.type != "cpu":
                return self._filter(sequence_CL)
            # all at once, predicting 10,000 CpGs × 200 samples takes 1.4 of its time: arrays of 13 MB are cleared anew
            return torch.cat([self._filter(rows_RL) for rows_RL in sequence_CL.split(ROWS)])

    def _filter(self, sequence_CL: Tensor) -> Tensor:
        one_hot_CLA = functional.one_hot(sequence_CL.long(), ALPHABET_SIZE).to(self.convolution.weight.dtype)
        filtered_CKL = self.normalisation(self.convolution(one_hot_CLA.transpose(1, 2)))
        return self.pool(self.activation(filtered_CKL)).flatten(1)


def on_known(branch: nn.Module, sequence_CL: Tensor, unknown: Tensor) -> Tensor:
    """Run a sequence branch on the CpGs that have a sequence; rows of N alone get ``unknown``, and no gradient.

    Without this, equal rows leave batch normalisation without variance, and evaluation blows up the lag of its mean.

    Parameters
    ----------
    branch
        From uint8 [C, L] to [C, K].
    sequence_CL
        Codes of ACGTN.
    unknown
        [K] or [1], the output for a CpG without a sequence.
    """
    known_C = (sequence_CL != ALPHABET_SIZE - 1).any(dim=1)
    n_known = int(known_C.sum())
    if n_known == len(known_C):
        return branch(sequence_CL)
    if n_known < (2 if branch.training else 1):  # one row has no variance to normalise by
        return unknown.expand(len(known_C), -1)
    known_RK = branch(sequence_CL[known_C])
    output_CK = unknown.expand(len(known_C), known_RK.shape[1]).to(known_RK.dtype, copy=True)
    return output_CK.index_put((known_C.nonzero().squeeze(1),), known_RK)


def motif_branch(window: int, units: Iterable[int] = (50, 45, 40)) -> nn.Sequential:
    """Sequence → convolution → fully connected 50 → 45 → 40."""
    convolution = SequenceConvolution(window)
    layers: list[nn.Module] = [convolution]
    n_in = convolution.n_out
    for n_out in units:
        layers.append(Dense(n_in, n_out))
        n_in = n_out
    return nn.Sequential(*layers)
