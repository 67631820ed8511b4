"""The sequence around a CpG: convolution, batch normalisation, ELU and pooling at once, in tiles in the cache.

Legend: C CpGs, L bases, W width of a filter, P = 5·W + 1 entries of a one-hot patch and a constant 1, K filters or
units, N patches, B pools of 10 bases.
"""

from collections.abc import Iterable, Iterator
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn import functional

from methyl_lightning.networks.contract import RowBatchNorm1d
from methyl_lightning.networks.products import row_tiles, times_transposed

ALPHABET_SIZE = 5  # ACGTN
POOL = 10


class Dense(nn.Sequential):
    """Linear → batch normalisation → ELU, on [n, in]."""

    def __init__(self, n_in: int, n_out: int):
        super().__init__(nn.Linear(n_in, n_out), RowBatchNorm1d(n_out), nn.ELU())


class SequenceConvolution(nn.Module):
    """Sequence [C, L] → one-hot → 64 filters of width 11 → batch normalisation → ELU → average pool 10/10 → flat.

    The output of a filter is linear in a patch of W bases, so its mean and variance over a batch follow from the mean
    and covariance of the patches, w·m and w·Σ·w. Batch normalisation thus becomes part of the weights before any
    filter is applied, and what it normalises is never stored. Statistics are those of the rows of this process.

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
        self.n_out = self.N_FILTERS * (window // POOL)

    def forward(self, sequence_CL: Tensor) -> Tensor:
        """Return [C, 64 · (L // 10)]."""
        normalisation, bias_K = self.normalisation, self.convolution.bias
        assert bias_K is not None and normalisation.running_mean is not None and normalisation.running_var is not None
        # where operands are rounded, these products are not: what they cost is building patches and ELU
        with torch.autocast(sequence_CL.device.type, enabled=False):
            weight_KP = torch.cat([self.convolution.weight.transpose(1, 2).flatten(1), bias_K[:, None]], dim=1)
            mean_K, variance_K = normalisation.running_mean, normalisation.running_var
            if self.training:
                mean_P, covariance_PP = patch_moments(sequence_CL, weight_KP.shape[1], bias_K.dtype)
                mean_K, variance_K = weight_KP @ mean_P, ((weight_KP @ covariance_PP) * weight_KP).sum(1)
                normalisation.track(mean_K, variance_K, sequence_CL.numel())
            scale_K = normalisation.weight * (variance_K + normalisation.eps).rsqrt()
            constant_KP = functional.pad((normalisation.bias - mean_K * scale_K)[:, None], (weight_KP.shape[1] - 1, 0))
            folded_KP = weight_KP * scale_K[:, None] + constant_KP
            return _PooledFilters.apply(sequence_CL, folded_KP).flatten(1)


def patch_tiles(
    sequence_CL: Tensor, n_bases: int, n_entries: int, dtype: torch.dtype
) -> Iterator[tuple[slice, Tensor]]:
    """One-hot patches around the first ``n_bases`` bases of each sequence, zero beyond its ends, and a 1.

    Yields rows of ``sequence_CL`` and their patches [N, P]; the next tile overwrites them.
    """
    n_letters = n_entries - 1
    letters_A = torch.arange(ALPHABET_SIZE, dtype=torch.uint8, device=sequence_CL.device)
    margin = n_letters // ALPHABET_SIZE // 2
    row_bytes = n_bases * (n_entries + SequenceConvolution.N_FILTERS) * dtype.itemsize
    tiles = row_tiles(len(sequence_CL), row_bytes, sequence_CL.device)
    patch_CLP = torch.ones(tiles[0].stop, n_bases, n_entries, dtype=dtype, device=sequence_CL.device)
    for rows in tiles:
        padded_CL = functional.pad(sequence_CL[rows], (margin, margin), value=ALPHABET_SIZE)  # which is no letter
        one_hot_CLA = (padded_CL[:, :, None] == letters_A).flatten(1)
        patch_CLP[: len(padded_CL), :, :-1] = one_hot_CLA.unfold(1, n_letters, ALPHABET_SIZE)[:, :n_bases]
        yield rows, patch_CLP[: len(padded_CL)].flatten(0, 1)


@torch.no_grad()
def patch_moments(sequence_CL: Tensor, n_entries: int, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """Mean [P] and covariance [P, P] (divided by N) of all patches; the sums before are of ones, and exact."""
    exact = torch.promote_types(dtype, torch.float32)  # half precision cannot count so far
    sum_PP = torch.zeros(n_entries, n_entries, dtype=exact, device=sequence_CL.device)
    for _, patch_NP in patch_tiles(sequence_CL, sequence_CL.shape[1], n_entries, exact):
        sum_PP += patch_NP.T @ patch_NP
    second_PP = sum_PP / sequence_CL.numel()
    mean_P = second_PP[-1]  # that of the products with the constant 1
    return mean_P.to(dtype), (second_PP - mean_P[:, None] * mean_P).to(dtype)


class _PooledFilters(torch.autograd.Function):
    """Filters → ELU → average of each pool; backward filters again instead of keeping what forward filtered."""

    @staticmethod
    def forward(ctx: Any, sequence_CL: Tensor, weight_KP: Tensor) -> Tensor:
        ctx.save_for_backward(sequence_CL, weight_KP)
        n_pools, (n_filters, n_entries) = sequence_CL.shape[1] // POOL, weight_KP.shape
        output_CKB = weight_KP.new_empty(len(sequence_CL), n_filters, n_pools)
        for rows, patch_NP in patch_tiles(sequence_CL, n_pools * POOL, n_entries, weight_KP.dtype):
            elu_NK = functional.elu_(times_transposed(patch_NP, weight_KP))
            output_CKB[rows] = elu_NK.view(-1, n_pools, POOL, n_filters).mean(2).transpose(1, 2)
        return output_CKB

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient_CKB: Tensor) -> tuple[Tensor | None, ...]:
        sequence_CL, weight_KP = ctx.saved_tensors
        n_pools, (n_filters, n_entries) = sequence_CL.shape[1] // POOL, weight_KP.shape
        gradient_CBK = gradient_CKB.transpose(1, 2) / POOL
        weight_gradient_KP = torch.zeros_like(weight_KP)
        for rows, patch_NP in patch_tiles(sequence_CL, n_pools * POOL, n_entries, weight_KP.dtype):
            elu_NK = functional.elu_(times_transposed(patch_NP, weight_KP))
            slope_NK = elu_NK.clamp_(max=0).add_(1)  # of ELU, from its value
            slope_NK.view(-1, n_pools, POOL, n_filters).mul_(gradient_CBK[rows, :, None])
            weight_gradient_KP += slope_NK.T @ patch_NP
        return None, weight_gradient_KP


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
