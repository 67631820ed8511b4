"""Metrics of a predicted grid.

A grid is measured and predicted beta values of CpGs × samples; a cell whose measured value is NaN is missing and never
counts. Intervals stand in :mod:`methyl_lightning.metrics.bootstrap`; what is kept between blocks or processes, in
:mod:`methyl_lightning.metrics.streaming`. Names and headings stand in :mod:`methyl_lightning.metrics.names`.

Every Spearman correlation is that of midranks that follow from counts (:func:`midranks`, :func:`rank_correlation`): of
single values here, of bins where cells are streamed, of bins and weights where they are resampled.

Axis letters: C CpGs, S samples, A rows, B columns, R resamples (weights of columns), N cells, U distinct values,
T batches, K cells of a batch, D drawn columns, M sums.
"""

import math
from collections.abc import Callable, Iterable, Iterator
from typing import NamedTuple

import numpy as np
from scipy.stats import rankdata

MIN_CELLS = 3
# A standard deviation below this fraction of the values' magnitude is float32 noise (and below the store's beta step).
RELATIVE_NOISE = 1e-5
BATCH_SIZE = 50
N_BATCHES = 1000
VALUES_IN_MEMORY = 2**22
VALUES_IN_CACHE = 2**20  # what passes over a grid take at once: larger pieces take half as long again
TURNS, STILL = 50, 1e-7  # a shift that moves by less stays: far below the store's beta step

# gives the same pairs of float [C, S] arrays, measured (NaN missing) and predicted, each time: some CpGs, all samples
Blocks = Callable[[], Iterable[tuple[np.ndarray, np.ndarray]]]


class Cells(NamedTuple):
    """Measured cells in column-major order, float64, and how many of them each column has."""

    measured_N: np.ndarray
    predicted_N: np.ndarray
    count_B: np.ndarray


def mae(measured_CS: np.ndarray, predicted_CS: np.ndarray) -> float:
    """Mean absolute error over the measured cells of float [C, S] grids."""
    return _mean_error(measured_CS, predicted_CS, np.abs)


def mse(measured_CS: np.ndarray, predicted_CS: np.ndarray) -> float:
    """Mean squared error over the measured cells of float [C, S] grids."""
    return _mean_error(measured_CS, predicted_CS, np.square)


def pearson(measured_CS: np.ndarray, predicted_CS: np.ndarray) -> float:
    """Pearson correlation pooled over the measured cells of float [C, S] grids; NaN as in :func:`pearson_per_cpg`."""
    mask_CS = measured_mask(measured_CS, predicted_CS)
    return float(correlation_per_row(measured_CS[mask_CS][None], predicted_CS[mask_CS][None])[0])


def spearman(measured_CS: np.ndarray, predicted_CS: np.ndarray) -> float:
    """Spearman correlation (midranks) pooled over the measured cells of float [C, S] grids; NaN if a side is constant.

    Mostly tells low CpGs from high ones; see :func:`mas_pcc` for the differences between samples. Takes some 60 bytes a
    cell: :func:`methyl_lightning.metrics.streaming.stream_metrics` is for large grids.
    """
    cells = cells_of(measured_CS, predicted_CS)
    codes = (np.unique(values_N, return_inverse=True)[1] for values_N in (cells.measured_N, cells.predicted_N))
    x_N, y_N = (midranks(np.bincount(code_N))[code_N] for code_N in codes)
    return float(rank_correlation(x_N @ y_N, x_N @ x_N, y_N @ y_N))


def spearman_batch50(
    measured_CS: np.ndarray,
    predicted_CS: np.ndarray,
    batch_size: int = BATCH_SIZE,
    n_batches: int = N_BATCHES,
    seed: int = 0,
) -> float:
    """Mean Spearman correlation over random batches of cells, as the PyTorch port of Levy-Jurgenson et al. reports it.

    Parameters
    ----------
    measured_CS, predicted_CS
        Float [C, S] grids.
    batch_size
        Cells of a batch.
    n_batches
        Batches at most. Cells are drawn without replacement, so a grid of N cells gives no more than
        ceil(N / batch_size) batches, the last one possibly short.
    seed
        Of the draw.

    Returns
    -------
    float
        Mean over the batches where neither side is constant; NaN if there is none.
    """
    cells = cells_of(measured_CS, predicted_CS)
    once_B = np.ones(len(cells.count_B), dtype=np.int64)
    return batch_spearman(cells, once_B, batch_size, n_batches, np.random.default_rng(seed))


def pearson_per_cpg(measured_CS: np.ndarray, predicted_CS: np.ndarray) -> np.ndarray:
    """Pearson correlation across samples, one for each CpG.

    Returns
    -------
    numpy.ndarray
        float64 [C]; NaN where fewer than three cells are measured or a side is constant, that is, its standard
        deviation is below 1e-5 of its magnitude, so that rounding in a constant predictor correlates with nothing.
    """
    measured_mask(measured_CS, predicted_CS)
    return correlation_per_row(measured_CS, predicted_CS)


def pearson_per_sample(measured_CS: np.ndarray, predicted_CS: np.ndarray) -> np.ndarray:
    """Pearson correlation across CpGs, one for each sample: float64 [S], NaN as in :func:`pearson_per_cpg`."""
    return pearson_per_cpg(measured_CS.T, predicted_CS.T)


def mas_pcc(measured_CS: np.ndarray, predicted_CS: np.ndarray) -> float:
    """Median over CpGs of the Pearson correlation across samples (MAS-PCC, MethylProphet 2025); NaN left out."""
    return median(pearson_per_cpg(measured_CS, predicted_CS))


def mas_pcc_centred(measured_CS: np.ndarray, predicted_CS: np.ndarray) -> float:
    """:func:`mas_pcc` of what :func:`without_shift` leaves: what is known of a CpG beyond one number a sample.

    NaN where a prediction differs between samples by such a number alone.
    """
    return mas_pcc(*without_shift(measured_CS, predicted_CS))


def without_shift(measured_CS: np.ndarray, predicted_CS: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Take from measured and from predicted what all CpGs of a sample share: see :func:`sample_shifts`."""
    measured_mask(measured_CS, predicted_CS)
    rows = list(pieces(*measured_CS.shape))
    shift_2S = sample_shifts(lambda: ((measured_CS[at], predicted_CS[at]) for at in rows))
    return subtract(measured_CS, predicted_CS, shift_2S)


def subtract(measured_CS: np.ndarray, predicted_CS: np.ndarray, shift_2S: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Take its shift from every sample; grids keep their type, as another copy in float64 is large."""
    measured_S, predicted_S = shift_2S
    return (
        measured_CS - measured_S.astype(measured_CS.dtype),
        predicted_CS - predicted_S.astype(predicted_CS.dtype),
    )


def sample_shifts(blocks: Blocks) -> np.ndarray:
    """Fit by least squares, over the measured cells, a sum of one value a CpG and one a sample; return the latter.

    A sample's shift is the mean, over the CpGs measured in it, of what is left of them when each has lost its own mean
    over the samples; where cells are missing the two are taken by turns, so that a prediction that is such a sum
    leaves nothing.

    Parameters
    ----------
    blocks
        Called once a turn, twice where no cell is missing.

    Returns
    -------
    numpy.ndarray
        float64 [2, S], of measured and of predicted.
    """
    shift_2S: np.ndarray = np.zeros((2, 1))
    for _ in range(TURNS):
        step_2S, count_S = np.zeros((2, 1)), np.zeros(1)
        for grids in blocks():
            mask_CS = ~np.isnan(grids[0])
            left = [grid_CS - shift_S for grid_CS, shift_S in zip(grids, shift_2S, strict=True)]
            step_2S = step_2S + [_deviations(grid, mask_CS, _centres(grid, mask_CS)).sum(axis=0) for grid in left]
            count_S = count_S + mask_CS.sum(axis=0)
        step_2S = step_2S / np.maximum(count_S, 1)
        shift_2S = shift_2S + step_2S
        if np.abs(step_2S).max() < STILL:
            break
    return shift_2S


def mac_pcc(measured_CS: np.ndarray, predicted_CS: np.ndarray) -> float:
    """Median over samples of the Pearson correlation across CpGs (MAC-PCC, MethylProphet 2025); NaN left out."""
    return median(pearson_per_sample(measured_CS, predicted_CS))


def measured_mask(measured_CS: np.ndarray, predicted_CS: np.ndarray) -> np.ndarray:
    """Check a pair of grids and return the mask of measured cells, bool [C, S].

    Raises
    ------
    ValueError
        If shapes differ, a predicted value is not finite, a measured one infinite, or no cell is measured.
    """
    mask_CS = check_block(measured_CS, predicted_CS)
    if not mask_CS.any():
        raise ValueError("measured_CS holds no measured cell: at least one must not be NaN")
    return mask_CS


def check_block(measured_CS: np.ndarray, predicted_CS: np.ndarray) -> np.ndarray:
    """Do as :func:`measured_mask` does, for a part of a grid, which may be without a measured cell."""
    if measured_CS.shape != predicted_CS.shape:
        raise ValueError(
            f"predicted_CS has shape {predicted_CS.shape}: must be that of measured_CS, {measured_CS.shape}"
        )
    if not np.isfinite(predicted_CS).all():
        raise ValueError("predicted_CS holds a value that is not finite: every cell must be predicted")
    if np.isinf(measured_CS).any():
        raise ValueError("measured_CS holds an infinite value: cells must be finite, or NaN where missing")
    return ~np.isnan(measured_CS)


def cells_of(measured_AB: np.ndarray, predicted_AB: np.ndarray) -> Cells:
    """Copy the measured cells of a grid together."""
    mask_AB = measured_mask(measured_AB, predicted_AB)
    # float64, as sums over millions of float32 cells lose digits; column-major, as resamples weigh whole columns.
    measured_N, predicted_N = (values.T[mask_AB.T].astype(np.float64) for values in (measured_AB, predicted_AB))
    return Cells(measured_N, predicted_N, mask_AB.sum(axis=0))


def median(values: np.ndarray) -> float:
    """Median of what is not NaN; NaN if there is nothing."""
    defined = values[~np.isnan(values)]
    return float(np.median(defined)) if len(defined) else math.nan


def pieces(n: int, each: int, most: int = VALUES_IN_CACHE) -> Iterator[slice]:
    """Cut n rows of ``each`` values into slices that hold at most ``most`` values (one row at least)."""
    step = max(1, most // max(each, 1))
    return (slice(first, first + step) for first in range(0, n, step))


def _mean_error(measured_CS: np.ndarray, predicted_CS: np.ndarray, size: np.ufunc) -> float:
    mask_CS = measured_mask(measured_CS, predicted_CS)
    total = 0.0
    for rows in pieces(*measured_CS.shape):
        error_CS = np.subtract(measured_CS[rows], predicted_CS[rows], dtype=np.float64)
        total += size(error_CS).sum(where=mask_CS[rows])
    return float(total / np.count_nonzero(mask_CS))


def midranks(count_U: np.ndarray) -> np.ndarray:
    """Rank values from how often each occurs, in ascending order along the first axis.

    Returns
    -------
    numpy.ndarray
        float64 [U, …]: midranks less their mean; exactly 0 if all cells have one value.
    """
    up_to_U = np.cumsum(count_U, axis=0)
    return up_to_U - (count_U + up_to_U[-1]) / 2


def rank_correlation(xy: np.ndarray | float, xx: np.ndarray | float, yy: np.ndarray | float) -> np.ndarray:
    """Correlate centred ranks from sums of their products; NaN if a side is constant."""
    spread = np.sqrt(np.multiply(xx, yy))
    return np.clip(np.divide(xy, spread, out=np.full(np.shape(spread), math.nan), where=spread > 0), -1, 1)


def batch_spearman(
    cells: Cells, weight_B: np.ndarray, batch_size: int, n_batches: int, rng: np.random.Generator
) -> float:
    """Mean Spearman correlation over batches drawn from the cells, column b standing there ``weight_B[b]`` times."""
    start_of_B = np.cumsum(cells.count_B) - cells.count_B
    copy_D = np.repeat(np.arange(len(weight_B)), weight_B)
    end_D = np.cumsum(cells.count_B[copy_D])
    if not end_D[-1]:
        return math.nan
    drawn_N = rng.choice(end_D[-1], size=min(batch_size * n_batches, end_D[-1]), replace=False)
    # Position in the copied-together cells -> position in the cells, without making the copies.
    shift_D = end_D - cells.count_B[copy_D] - start_of_B[copy_D]
    cell_N = drawn_N - np.repeat(shift_D, cells.count_B[copy_D])[drawn_N]
    full = len(cell_N) // batch_size * batch_size
    batches = cell_N[:full].reshape(-1, batch_size), cell_N[None, full:]
    rho_T = np.concatenate([_spearman_rows(cells.measured_N[at], cells.predicted_N[at]) for at in batches if at.size])
    defined = rho_T[~np.isnan(rho_T)]
    return float(defined.mean()) if len(defined) else math.nan


def _spearman_rows(measured_TK: np.ndarray, predicted_TK: np.ndarray) -> np.ndarray:
    """Spearman correlation of each row, float64 [T]; NaN if a side is constant."""
    ranks_TK = rankdata(np.stack([measured_TK, predicted_TK]), axis=-1)  # many short rows: faster than counting each
    x_TK, y_TK = ranks_TK - (measured_TK.shape[1] + 1) / 2
    return rank_correlation(*((a_TK * b_TK).sum(axis=1) for a_TK, b_TK in ((x_TK, y_TK), (x_TK, x_TK), (y_TK, y_TK))))


def correlation_per_row(measured_AB: np.ndarray, predicted_AB: np.ndarray) -> np.ndarray:
    """Pearson correlation of each row across columns: float64 [A], NaN as in :func:`pearson_per_cpg`."""
    return weighted_pearson(measured_AB, predicted_AB, np.ones((1, measured_AB.shape[1])))[:, 0]


def weighted_pearson(measured_AB: np.ndarray, predicted_AB: np.ndarray, weight_RB: np.ndarray) -> np.ndarray:
    """Pearson correlation of each row across columns, these ``weight_RB`` times: float64 [A, R].

    NaN as in :func:`pearson_per_cpg`. Grids are read in pieces, each piece of the weights once for many rows.
    """
    (n_rows, n_columns), n_resamples = measured_AB.shape, len(weight_RB)
    correlation_AR = np.full((n_rows, n_resamples), math.nan)
    for rows in pieces(n_rows, n_resamples):
        x_AB, y_AB = measured_AB[rows], predicted_AB[rows]
        x_centre_A1, y_centre_A1 = (np.zeros((len(x_AB), 1)) for _ in "xy")
        for part in pieces(*x_AB.shape):
            mask_aB = ~np.isnan(x_AB[part])
            x_centre_A1[part], y_centre_A1[part] = (_centres(grid_AB[part], mask_aB) for grid_AB in (x_AB, y_AB))
        sums = np.zeros((6, len(x_AB), n_resamples))
        for columns in pieces(n_columns, n_resamples):
            weight_BR = weight_RB[:, columns].T.astype(np.float64)
            for part in pieces(len(x_AB), len(weight_BR)):
                mask_ab = ~np.isnan(x_AB[part, columns])
                x_ab = _deviations(x_AB[part, columns], mask_ab, x_centre_A1[part])
                y_ab = _deviations(y_AB[part, columns], mask_ab, y_centre_A1[part])
                factors = (mask_ab, x_ab, np.square(x_ab), y_ab, np.square(y_ab), x_ab * y_ab)
                for i, factor_ab in enumerate(factors):
                    sums[i, part] += factor_ab.astype(np.float64, copy=False) @ weight_BR
        correlation_AR[rows] = correlation_of_sums(sums, (x_centre_A1, y_centre_A1))
    return correlation_AR


def _centres(values_AB: np.ndarray, mask_AB: np.ndarray) -> np.ndarray:
    """Return the mean of each row where it is measured, float64 [A, 1]; 0 where it never is."""
    sum_A1 = np.where(mask_AB, values_AB, 0).sum(axis=1, keepdims=True, dtype=np.float64)
    return sum_A1 / np.maximum(mask_AB.sum(axis=1, keepdims=True), 1)


def _deviations(values_AB: np.ndarray, mask_AB: np.ndarray, centre_A1: np.ndarray) -> np.ndarray:
    deviation_AB = np.subtract(values_AB, centre_A1, dtype=np.float64)
    deviation_AB[~mask_AB] = 0
    return deviation_AB


def column_sums(measured_AB: np.ndarray, predicted_AB: np.ndarray, centres: tuple[float, float]) -> np.ndarray:
    """Sum |error|, error² and what :func:`correlation_of_sums` takes over the rows: float64 [8, B]."""
    sums_MB = np.zeros((8, measured_AB.shape[1]))
    for rows in pieces(*measured_AB.shape):
        mask_AB = ~np.isnan(measured_AB[rows])
        x_AB, y_AB = (
            np.where(mask_AB, grid_AB[rows].astype(np.float64) - centre, 0)
            for grid_AB, centre in zip((measured_AB, predicted_AB), centres, strict=True)
        )
        error_AB = np.where(mask_AB, x_AB - y_AB + (centres[0] - centres[1]), 0)
        factors = (np.abs(error_AB), np.square(error_AB), mask_AB)
        for i, factor_AB in enumerate((*factors, x_AB, np.square(x_AB), y_AB, np.square(y_AB), x_AB * y_AB)):
            sums_MB[i] += factor_AB.sum(axis=0)
    return sums_MB


def correlation_of_sums(sums: np.ndarray, centres: tuple[np.ndarray | float, np.ndarray | float]) -> np.ndarray:
    """Pearson correlation from (weighted) sums of deviations from centres; NaN as in :func:`pearson_per_cpg`.

    Parameters
    ----------
    sums
        float64 [6, …]: the number of cells, then of the deviations x and y the sums of x, x², y, y² and xy.
    centres
        What x and y deviate from. The magnitude that noise is compared with counts both, so that what cancels in a
        resample is noise.
    """
    count, x, xx, y, yy, xy = sums
    safe = np.maximum(count, 1)
    covariance = xy - x * y / safe
    spreads = []
    for linear, square, centre in ((x, xx, centres[0]), (y, yy, centres[1])):
        spread = square - np.square(linear) / safe
        magnitude = square + safe * np.square(centre + linear / safe)
        spreads.append(np.where(spread > RELATIVE_NOISE**2 * magnitude, spread, 0))
    product = np.sqrt(spreads[0] * spreads[1])
    defined = (count >= MIN_CELLS) & (product > 0)
    return np.clip(np.divide(covariance, product, out=np.full(np.shape(count), math.nan), where=defined), -1, 1)
