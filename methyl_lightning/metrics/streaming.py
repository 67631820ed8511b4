"""Metrics of a grid that is read in blocks of CpGs: memory does not grow with the number of cells.

Everything but Spearman is a sum. For Spearman both sides are counted in a million bins between their smallest and
largest values, and cells of a bin share a rank. Where a bin holds one value only, as with beta in steps of 1e-4,
nothing is lost; for the others a bound of the error is computed from the counts.

Axis letters: C CpGs of a block, S samples, U bins.
"""

import math
from collections.abc import Callable, Iterable
from typing import NamedTuple

import numpy as np

from methyl_lightning.metrics.scores import check_block, correlation_of_sums, median, weighted_pearson

N_BINS = 2**20

Blocks = Callable[[], Iterable[tuple[np.ndarray, np.ndarray]]]


class Streamed(NamedTuple):
    """Metrics of a grid.

    Attributes
    ----------
    values
        ``mae``, ``mse``, ``pearson``, ``spearman``, ``mas_pcc``, ``mac_pcc`` as in
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


class _Side:
    """Counts of one side in bins, and the midranks that follow from them."""

    def __init__(self, low: float, high: float):
        self.low, self.scale = low, (N_BINS - 1) / (high - low) if high > low else 0.0
        self.count_U = np.zeros(N_BINS, dtype=np.int64)
        self.value_U = np.full(N_BINS, np.nan)  # one of the bin's values
        self.mixed_U = np.zeros(N_BINS, dtype=bool)  # whether it has others, too

    def bin(self, values: np.ndarray) -> np.ndarray:
        """Find the bins of float64 values."""
        return ((values - self.low) * self.scale).astype(np.int32)

    def count(self, values: np.ndarray) -> None:
        bins = self.bin(values)
        np.add.at(self.count_U, bins, 1)
        new = np.isnan(self.value_U[bins])
        self.value_U[bins[new]] = values[new]
        self.mixed_U[bins[self.value_U[bins] != values]] = True

    def rank(self) -> tuple[float, float]:
        """Rank the bins; return the sum of squares, and the angle by which the exact ranks may point elsewhere."""
        total = int(self.count_U.sum())
        self.rank_U = np.cumsum(self.count_U) - (self.count_U + total) / 2
        square = float(self.count_U @ np.square(self.rank_U))
        mixed = self.count_U[self.mixed_U].astype(np.float64)
        lost = float((mixed**3 - mixed).sum()) / 12  # were all values of the mixed bins different
        return square, math.atan(math.sqrt(lost / square)) if square > 0 else 0.0


def stream_metrics(blocks: Blocks) -> Streamed:
    """Compute the metrics of a grid from its blocks.

    Parameters
    ----------
    blocks
        Called three times; gives the same pairs of float [C, S] arrays, measured (NaN missing) and predicted, each
        time: some CpGs, and all samples.

    Raises
    ------
    ValueError
        If shapes differ, a predicted value is not finite, a measured one infinite, or no cell is measured.
    """
    sums, per_cpg = None, []
    error = square_error = 0.0
    lows, highs = np.full(2, np.inf), np.full(2, -np.inf)
    for measured_CS, predicted_CS in blocks():
        mask_CS = check_block(measured_CS, predicted_CS)
        per_cpg.append(weighted_pearson(measured_CS, predicted_CS, np.ones((1, mask_CS.shape[1])))[:, 0])
        if not mask_CS.any():
            continue
        x_CS, y_CS = (np.where(mask_CS, grid_CS, 0).astype(np.float64) for grid_CS in (measured_CS, predicted_CS))
        error += float(np.abs(x_CS - y_CS).sum())
        square_error += float(np.square(x_CS - y_CS).sum())
        if sums is None:  # sums of what is left of the first block's means do not lose digits
            centres = (x_CS.sum() / mask_CS.sum(), y_CS.sum() / mask_CS.sum())
            sums = np.zeros((6, mask_CS.shape[1]))
        for i, grid_CS in enumerate((x_CS, y_CS)):
            known = grid_CS[mask_CS]
            lows[i], highs[i] = min(lows[i], known.min()), max(highs[i], known.max())
        x_CS, y_CS = (np.where(mask_CS, grid - centre, 0) for grid, centre in zip((x_CS, y_CS), centres, strict=True))
        factors = (mask_CS, x_CS, np.square(x_CS), y_CS, np.square(y_CS), x_CS * y_CS)
        sums += np.stack([factor_CS.sum(axis=0) for factor_CS in factors])
    if sums is None:
        raise ValueError("measured_CS holds no measured cell: at least one must not be NaN")
    per_cpg_C, per_sample_S = np.concatenate(per_cpg), correlation_of_sums(sums, centres)
    spearman, spearman_error = _spearman(blocks, lows, highs)
    n_cells = float(sums[0].sum())
    values = {
        "mae": error / n_cells,
        "mse": square_error / n_cells,
        "pearson": float(correlation_of_sums(sums.sum(axis=1), centres)),
        "spearman": spearman,
        "mas_pcc": median(per_cpg_C),
        "mac_pcc": median(per_sample_S),
    }
    return Streamed(values, spearman_error, per_cpg_C, per_sample_S)


def _spearman(blocks: Blocks, lows: np.ndarray, highs: np.ndarray) -> tuple[float, float]:
    """Correlate the ranks of bins; NaN if a side is constant.

    Ranks of a bin's cells average to the bin's, so exact ranks are the bin's plus something orthogonal to all that bins
    tell. The angle between the two is known from the counts, and angles between the sides change by no more than both.
    """
    x, y = (_Side(float(low), float(high)) for low, high in zip(lows, highs, strict=True))
    for measured_CS, predicted_CS in blocks():
        mask_CS = ~np.isnan(measured_CS)
        x.count(measured_CS[mask_CS].astype(np.float64))
        y.count(predicted_CS[mask_CS].astype(np.float64))
    (x_square, x_angle), (y_square, y_angle) = x.rank(), y.rank()
    if x_square == 0 or y_square == 0:
        return math.nan, 0.0
    product = 0.0
    for measured_CS, predicted_CS in blocks():
        mask_CS = ~np.isnan(measured_CS)
        x_N, y_N = measured_CS[mask_CS].astype(np.float64), predicted_CS[mask_CS].astype(np.float64)
        product += float(x.rank_U[x.bin(x_N)] @ y.rank_U[y.bin(y_N)])
    value = float(np.clip(product / math.sqrt(x_square * y_square), -1, 1))
    return value, min(2.0, x_angle + y_angle)
