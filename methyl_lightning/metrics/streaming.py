"""Metrics whose cells come in parts, as torchmetrics classes: what they keep adds up, between processes, too.

:class:`Spearman` keeps the cells and is exact: for the validation subset. :func:`stream_metrics` is for grids of any
size, read in blocks of CpGs, and its memory does not grow with the number of cells. Everything but Spearman is a sum
(:class:`GridSums`). For Spearman both sides are counted in a million bins between their smallest and largest values
(:class:`RankCounts`), and cells of a bin share a rank. Where a bin holds one value only, as with beta in steps of 1e-4,
nothing is lost; for the others a bound of the error is computed from the counts.

Axis letters: C CpGs of a block, S samples, N cells, U bins, M sums; 2 is measured, predicted.
"""

import math
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor
from torchmetrics import Metric
from torchmetrics.utilities import dim_zero_cat

from methyl_lightning.metrics.names import BETA
from methyl_lightning.metrics.scores import (
    Blocks,
    check_block,
    column_sums,
    correlation_of_sums,
    correlation_per_row,
    median,
    midranks,
    rank_correlation,
    sample_shifts,
    spearman,
    subtract,
)

N_BINS = 2**20
CENTRE = 0.5  # of beta: sums of what is left of it do not lose digits


class Streamed(NamedTuple):
    """Metrics of a grid.

    Attributes
    ----------
    values
        ``mae``, ``mse``, ``pearson``, ``spearman``, ``mas_pcc``, ``mas_pcc_centred``, ``mac_pcc`` as in
        :mod:`methyl_lightning.metrics.scores`.
    spearman_error
        The exact Spearman correlation is at most so far away.
    per_cpg, per_sample
        float64 [all CpGs], [S]: the Pearson correlations that ``mas_pcc`` and ``mac_pcc`` are the medians of.
    """

    values: dict[str, float]
    spearman_error: float
    per_cpg: np.ndarray
    per_sample: np.ndarray


class Spearman(Metric):
    """Exact Spearman correlation of all cells, NaN if a side is constant.

    torchmetrics' own is 0 there, adds 1e-6 to the denominator, and counts ties in int32, which overflows.
    """

    full_state_update = False
    predicted: list[Tensor]
    measured: list[Tensor]

    def __init__(self, **settings: bool):
        super().__init__(**settings)
        self.add_state("predicted", [], dist_reduce_fx="cat")
        self.add_state("measured", [], dist_reduce_fx="cat")

    def update(self, predicted_N: Tensor, measured_N: Tensor) -> None:
        """Keep cells, none of them missing."""
        self.predicted.append(predicted_N)
        self.measured.append(measured_N)

    def compute(self) -> Tensor:
        """Rank all cells together."""
        measured_1N, predicted_1N = (
            dim_zero_cat(cells).cpu().numpy()[None] for cells in (self.measured, self.predicted)
        )
        return torch.tensor(spearman(measured_1N, predicted_1N), dtype=torch.float64)


class GridSums(Metric):
    """Sums over the columns of a grid that comes in blocks of CpGs, and what each CpG has by itself."""

    full_state_update = False
    sums: Tensor
    low: Tensor
    high: Tensor
    per_cpg: list[Tensor]

    def __init__(self, n_samples: int):
        super().__init__()
        self.add_state("sums", torch.zeros(8, n_samples, dtype=torch.float64), dist_reduce_fx="sum")
        self.add_state("low", torch.full((2,), math.inf, dtype=torch.float64), dist_reduce_fx="min")
        self.add_state("high", torch.full((2,), -math.inf, dtype=torch.float64), dist_reduce_fx="max")
        self.add_state("per_cpg", [], dist_reduce_fx="cat")

    def update(self, measured_CS: np.ndarray, predicted_CS: np.ndarray) -> None:
        """Add some CpGs of all samples; measured is NaN where missing."""
        mask_CS = check_block(measured_CS, predicted_CS)
        self.sums += torch.from_numpy(column_sums(measured_CS, predicted_CS, (CENTRE, CENTRE)))
        for i, grid_CS in enumerate((measured_CS, predicted_CS)):
            self.low[i] = np.minimum(self.low[i], grid_CS.min(initial=np.inf, where=mask_CS))
            self.high[i] = np.maximum(self.high[i], grid_CS.max(initial=-np.inf, where=mask_CS))
        self.per_cpg.append(torch.from_numpy(correlation_per_row(measured_CS, predicted_CS)))

    def compute(self) -> tuple[dict[str, float], np.ndarray, np.ndarray]:
        """Return all metrics but Spearman, and the correlations of every CpG and of every sample."""
        sums_MS, centres = self.sums.numpy(), (CENTRE, CENTRE)
        per_cpg_C, per_sample_S = dim_zero_cat(self.per_cpg).numpy(), correlation_of_sums(sums_MS[2:], centres)
        error, square, n_cells = sums_MS[:3].sum(axis=1)
        if not n_cells:
            raise ValueError("measured_CS holds no measured cell: at least one must not be NaN")
        values = {
            "mae": float(error / n_cells),
            "mse": float(square / n_cells),
            "pearson": float(correlation_of_sums(sums_MS[2:].sum(axis=1), centres)),
            "mas_pcc": median(per_cpg_C),
            "mac_pcc": median(per_sample_S),
        }
        return values, per_cpg_C, per_sample_S


class RankCounts(Metric):
    """Counts of measured and predicted cells in bins of equal width, and the midranks that follow from them.

    Parameters
    ----------
    low, high
        Smallest and largest values, float64 [2].
    """

    full_state_update = False
    count: Tensor
    smallest: Tensor
    largest: Tensor

    def __init__(self, low: Tensor, high: Tensor):
        super().__init__()
        self.from_2 = low
        self.scale_2 = torch.where(high > low, (N_BINS - 1) / (high - low), 0.0)
        self.add_state("count", torch.zeros(2, N_BINS, dtype=torch.int64), dist_reduce_fx="sum")
        self.add_state("smallest", torch.full((2, N_BINS), math.inf, dtype=torch.float64), dist_reduce_fx="min")
        self.add_state("largest", torch.full((2, N_BINS), -math.inf, dtype=torch.float64), dist_reduce_fx="max")

    def bins(self, measured_CS: np.ndarray, predicted_CS: np.ndarray) -> tuple[Tensor, Tensor]:
        """Return the values of the measured cells, float64 [2, N], and their bins."""
        mask_CS = ~np.isnan(measured_CS)
        cells_2N = torch.from_numpy(np.stack([measured_CS[mask_CS], predicted_CS[mask_CS]]).astype(np.float64))
        return cells_2N, ((cells_2N - self.from_2[:, None]) * self.scale_2[:, None]).long()

    def update(self, measured_CS: np.ndarray, predicted_CS: np.ndarray) -> None:
        """Count the measured cells of a block."""
        cells_2N, bin_2N = self.bins(measured_CS, predicted_CS)
        self.count.scatter_add_(1, bin_2N, torch.ones_like(bin_2N))
        self.smallest.scatter_reduce_(1, bin_2N, cells_2N, "amin")
        self.largest.scatter_reduce_(1, bin_2N, cells_2N, "amax")

    def compute(self) -> tuple[np.ndarray, np.ndarray, float]:
        """Return the ranks of the bins, float64 [2, U], the sums of their squares, and what Spearman may be wrong by.

        Ranks of a bin's cells average to the bin's, so exact ranks are the bin's plus something orthogonal to all that
        bins tell. The angle between the two is known from the counts, and angles between the sides change by no more
        than both.
        """
        count_2U = self.count.numpy()
        rank_2U = midranks(count_2U.T).T
        square_2 = (count_2U * np.square(rank_2U)).sum(axis=1)
        mixed_2U = np.where(self.smallest < self.largest, count_2U, 0).astype(np.float64)
        lost_2 = (mixed_2U**3 - mixed_2U).sum(axis=1) / 12  # were all values of the mixed bins different
        angle_2 = np.arctan(np.sqrt(np.divide(lost_2, square_2, out=np.zeros(2), where=square_2 > 0)))
        return rank_2U, square_2, min(2.0, float(angle_2.sum()))


def stream_metrics(blocks: Blocks) -> Streamed:
    """Compute the metrics of a grid from its blocks.

    Parameters
    ----------
    blocks
        Called three times, and some more for :func:`methyl_lightning.metrics.scores.sample_shifts`.

    Raises
    ------
    ValueError
        If shapes differ, a predicted value is not finite, a measured one infinite, or no cell is measured.
    """
    sums = None
    for measured_CS, predicted_CS in blocks():
        sums = GridSums(measured_CS.shape[1]) if sums is None else sums
        sums.update(measured_CS, predicted_CS)
    assert sums is not None
    values, per_cpg_C, per_sample_S = sums.compute()
    counts, centred = RankCounts(sums.low, sums.high), []
    shift_2S = sample_shifts(blocks)
    for measured_CS, predicted_CS in blocks():
        counts.update(measured_CS, predicted_CS)
        centred.append(correlation_per_row(*subtract(measured_CS, predicted_CS, shift_2S)))
    values["mas_pcc_centred"] = median(np.concatenate(centred))
    rank_2U, square_2, error = counts.compute()
    product = 0.0
    for measured_CS, predicted_CS in blocks():
        x_N, y_N = np.take_along_axis(rank_2U, counts.bins(measured_CS, predicted_CS)[1].numpy(), axis=1)
        product += float(x_N @ y_N)
    values["spearman"] = float(rank_correlation(product, *square_2))
    values = {name: values[name] for name in BETA if name in values}
    return Streamed(values, error if square_2.all() else 0.0, per_cpg_C, per_sample_S)
