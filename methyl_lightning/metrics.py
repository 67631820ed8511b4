"""Metrics of a predicted grid, with intervals over patients.

A grid is measured and predicted beta values of CpGs × samples; a cell whose measured value is NaN is missing and never
counts. Intervals come from a bootstrap over patients: a resample is one weight per sample (how often its patient was
drawn), and every metric is computed from weights, exactly as if the resampled grid had been copied together.

Axis letters: C CpGs, S samples, R resamples, N cells, P patients, U distinct values, B batches, K cells of a
batch, D drawn samples.
"""

import math
from typing import NamedTuple

import numpy as np
from scipy.stats import rankdata

MIN_CELLS = 3
# A standard deviation below this fraction of the values' magnitude is float32 noise (and below the store's beta step).
RELATIVE_NOISE = 1e-5
BATCH_SIZE = 50
N_BATCHES = 1000
VALUES_IN_MEMORY = 2**22


class Interval(NamedTuple):
    """A metric and its 95 % interval.

    Attributes
    ----------
    value
        The metric on the grid as it is.
    low, high
        Percentile bootstrap bounds over patients; NaN where there are fewer than two patients or nothing is defined.
    """

    value: float
    low: float
    high: float


class _Cells(NamedTuple):
    """Measured cells in sample-major order, float64."""

    measured_N: np.ndarray
    predicted_N: np.ndarray
    count_S: np.ndarray


class _Moments(NamedTuple):
    """Deviations of CpGs from their mean, their weighted sums, and squares about the weighted mean (0 if constant)."""

    deviation_CS: np.ndarray
    sum_CR: np.ndarray
    spread_CR: np.ndarray


def mae(measured_CS: np.ndarray, predicted_CS: np.ndarray) -> float:
    """Mean absolute error over the measured cells of float [C, S] grids."""
    cells = _cells(measured_CS, predicted_CS)
    return float(np.abs(cells.measured_N - cells.predicted_N).mean())


def mse(measured_CS: np.ndarray, predicted_CS: np.ndarray) -> float:
    """Mean squared error over the measured cells of float [C, S] grids."""
    cells = _cells(measured_CS, predicted_CS)
    return float(np.square(cells.measured_N - cells.predicted_N).mean())


def spearman(measured_CS: np.ndarray, predicted_CS: np.ndarray) -> float:
    """Spearman correlation (midranks) pooled over the measured cells of float [C, S] grids; NaN if a side is constant.

    Mostly tells low CpGs from high ones; see :func:`mas_pcc` for the differences between samples.
    """
    cells = _cells(measured_CS, predicted_CS)
    return _weighted_spearman(_codes(cells.measured_N), _codes(cells.predicted_N), np.ones(len(cells.measured_N)))


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
    cells = _cells(measured_CS, predicted_CS)
    once_S = np.ones(len(cells.count_S), dtype=np.int64)
    return _batch_spearman(cells, once_S, batch_size, n_batches, np.random.default_rng(seed))


def pearson_per_cpg(measured_CS: np.ndarray, predicted_CS: np.ndarray) -> np.ndarray:
    """Pearson correlation across samples, one for each CpG.

    Returns
    -------
    numpy.ndarray
        float64 [C]; NaN where fewer than three cells are measured or a side is constant, that is, its standard
        deviation is below 1e-5 of its magnitude, so that rounding in a constant predictor correlates with nothing.
    """
    _measured(measured_CS, predicted_CS)
    return _weighted_pearson(measured_CS, predicted_CS, np.ones((1, measured_CS.shape[1])))[:, 0]


def pearson_per_sample(measured_CS: np.ndarray, predicted_CS: np.ndarray) -> np.ndarray:
    """Pearson correlation across CpGs, one for each sample: float64 [S], NaN as in :func:`pearson_per_cpg`."""
    return pearson_per_cpg(measured_CS.T, predicted_CS.T)


def mas_pcc(measured_CS: np.ndarray, predicted_CS: np.ndarray) -> float:
    """Median over CpGs of the Pearson correlation across samples (MAS-PCC, MethylProphet 2025); NaN left out."""
    return _median(pearson_per_cpg(measured_CS, predicted_CS))


def mac_pcc(measured_CS: np.ndarray, predicted_CS: np.ndarray) -> float:
    """Median over samples of the Pearson correlation across CpGs (MAC-PCC, MethylProphet 2025); NaN left out."""
    return _median(pearson_per_sample(measured_CS, predicted_CS))


def evaluate_grid(
    measured_CS: np.ndarray,
    predicted_CS: np.ndarray,
    patient_S: np.ndarray,
    seed: int = 0,
    n_resamples: int = 200,
    max_cells: int = 2_000_000,
) -> dict[str, Interval]:
    """Every metric of a grid with its 95 % percentile bootstrap interval over patients.

    All samples of a patient are drawn together. A patient without a measured cell is no patient of the bootstrap.

    Parameters
    ----------
    measured_CS, predicted_CS
        Float [C, S] grids, NaN in the first where missing.
    patient_S
        str [S], the patient of each sample.
    seed
        Of the resamples and of the batches.
    n_resamples
        Bootstrap resamples.
    max_cells
        On a grid with more measured cells the intervals of ``spearman`` and ``spearman_batch50`` are computed on the
        cells of a random subset of CpGs of about this size. Their values, and all else, always use every cell.

    Returns
    -------
    dict
        ``mae``, ``mse``, ``spearman``, ``spearman_batch50``, ``mas_pcc`` and ``mac_pcc``, each an :class:`Interval`.
        Every resample of ``spearman_batch50`` draws its own batches, so its interval holds the noise of that draw, too,
        and the value, one such draw, can fall outside where this noise outweighs that of the patients.

    Raises
    ------
    ValueError
        If shapes differ, a predicted value is not finite, a measured one infinite, or no cell is measured.
    """
    if np.shape(patient_S) != measured_CS.shape[1:]:
        raise ValueError(f"patient_S has shape {np.shape(patient_S)}: must be {measured_CS.shape[1:]}, one a sample")
    per_sample_S = pearson_per_sample(measured_CS, predicted_CS)
    value = {
        "mae": mae(measured_CS, predicted_CS),
        "mse": mse(measured_CS, predicted_CS),
        "spearman": spearman(measured_CS, predicted_CS),
        "spearman_batch50": spearman_batch50(measured_CS, predicted_CS, seed=seed),
        "mas_pcc": mas_pcc(measured_CS, predicted_CS),
        "mac_pcc": _median(per_sample_S),
    }
    present_S = ~np.isnan(measured_CS).all(axis=0)
    patient_P, patient_of_S = np.unique(np.asarray(patient_S)[present_S], return_inverse=True)
    n_patients = len(patient_P)
    if n_patients < 2:
        return {name: Interval(point, math.nan, math.nan) for name, point in value.items()}
    rng = np.random.default_rng(seed)
    drawn_RP = rng.multinomial(n_patients, np.full(n_patients, 1 / n_patients), size=n_resamples)
    weight_RS = np.zeros((n_resamples, len(patient_S)), dtype=np.int64)
    weight_RS[:, present_S] = drawn_RP[:, patient_of_S]

    cells = _cells(measured_CS, predicted_CS)
    sample_N = np.repeat(np.arange(len(patient_S)), cells.count_S)
    error_N = cells.measured_N - cells.predicted_N
    count_R = weight_RS @ cells.count_S
    resampled_R = {
        "mae": weight_RS @ np.bincount(sample_N, np.abs(error_N), len(patient_S)) / count_R,
        "mse": weight_RS @ np.bincount(sample_N, np.square(error_N), len(patient_S)) / count_R,
        "mas_pcc": _resampled_mas_pcc(measured_CS, predicted_CS, weight_RS),
        "mac_pcc": np.array([_median(np.repeat(per_sample_S, weight_S)) for weight_S in weight_RS]),
    }
    if len(error_N) > max_cells:
        # Only ranks cost N operations a resample; CpGs are left out, not samples, so that every patient stays.
        order_C = rng.permutation(len(measured_CS))
        cells_up_to_C = np.cumsum((~np.isnan(measured_CS)).sum(axis=1)[order_C])
        chosen_C = order_C[: np.searchsorted(cells_up_to_C, max_cells) + 1]
        cells = _cells(measured_CS[chosen_C], predicted_CS[chosen_C])
        sample_N = np.repeat(np.arange(len(patient_S)), cells.count_S)
    measured_code_N, predicted_code_N = _codes(cells.measured_N), _codes(cells.predicted_N)
    resampled_R["spearman"] = np.array(
        [
            _weighted_spearman(measured_code_N, predicted_code_N, weight_S[sample_N])
            for weight_S in weight_RS.astype(float)
        ]
    )
    resampled_R["spearman_batch50"] = np.array(
        [_batch_spearman(cells, weight_S, BATCH_SIZE, N_BATCHES, rng) for weight_S in weight_RS]
    )
    return {name: _interval(point, resampled_R[name]) for name, point in value.items()}


def _measured(measured_CS: np.ndarray, predicted_CS: np.ndarray) -> np.ndarray:
    """Check a pair of grids and return the mask of measured cells, bool [C, S]."""
    if measured_CS.shape != predicted_CS.shape:
        raise ValueError(
            f"predicted_CS has shape {predicted_CS.shape}: must be that of measured_CS, {measured_CS.shape}"
        )
    if not np.isfinite(predicted_CS).all():
        raise ValueError("predicted_CS holds a value that is not finite: every cell must be predicted")
    if np.isinf(measured_CS).any():
        raise ValueError("measured_CS holds an infinite value: cells must be finite, or NaN where missing")
    mask_CS = ~np.isnan(measured_CS)
    if not mask_CS.any():
        raise ValueError("measured_CS holds no measured cell: at least one must not be NaN")
    return mask_CS


def _cells(measured_CS: np.ndarray, predicted_CS: np.ndarray) -> _Cells:
    mask_CS = _measured(measured_CS, predicted_CS)
    # float64, as sums over millions of float32 cells lose digits; sample-major, as resamples weigh whole samples.
    measured_N, predicted_N = (values.T[mask_CS.T].astype(np.float64) for values in (measured_CS, predicted_CS))
    return _Cells(measured_N, predicted_N, mask_CS.sum(axis=0))


def _median(values: np.ndarray) -> float:
    defined = values[~np.isnan(values)]
    return float(np.median(defined)) if len(defined) else math.nan


def _interval(value: float, resampled_R: np.ndarray) -> Interval:
    defined = resampled_R[~np.isnan(resampled_R)]
    if not len(defined):
        return Interval(value, math.nan, math.nan)
    low, high = np.percentile(defined, [2.5, 97.5])
    return Interval(value, float(low), float(high))


def _codes(values_N: np.ndarray) -> np.ndarray:
    """Give each value its place among the distinct ones: int [N] in 0…U − 1."""
    return np.unique(values_N, return_inverse=True)[1]


def _centred_midranks(code_N: np.ndarray, weight_N: np.ndarray) -> np.ndarray:
    """Midranks of cells repeated ``weight_N`` times, less their mean (total + 1) / 2; exactly 0 if constant."""
    weight_U = np.bincount(code_N, weight_N)
    weight_up_to_U = np.cumsum(weight_U)
    return (weight_up_to_U - (weight_U + weight_up_to_U[-1]) / 2)[code_N]


def _weighted_spearman(measured_code_N: np.ndarray, predicted_code_N: np.ndarray, weight_N: np.ndarray) -> float:
    """Spearman correlation of cells repeated ``weight_N`` (float64) times; NaN if a side is constant."""
    x_N = _centred_midranks(measured_code_N, weight_N)
    y_N = _centred_midranks(predicted_code_N, weight_N)
    weighted_x_N = weight_N * x_N
    spread = math.sqrt((weighted_x_N @ x_N) * ((weight_N * y_N) @ y_N))
    return float(np.clip((weighted_x_N @ y_N) / spread, -1, 1)) if spread > 0 else math.nan


def _batch_spearman(
    cells: _Cells, weight_S: np.ndarray, batch_size: int, n_batches: int, rng: np.random.Generator
) -> float:
    """Mean Spearman correlation over batches drawn from the cells, sample s standing there ``weight_S[s]`` times."""
    start_of_S = np.cumsum(cells.count_S) - cells.count_S
    copy_D = np.repeat(np.arange(len(weight_S)), weight_S)
    end_D = np.cumsum(cells.count_S[copy_D])
    drawn_N = rng.choice(end_D[-1], size=min(batch_size * n_batches, end_D[-1]), replace=False)
    copy_N = np.searchsorted(end_D, drawn_N, side="right")
    # Position in the copied-together cells -> position in the cells, without making the copies.
    cell_N = drawn_N - (end_D - cells.count_S[copy_D] - start_of_S[copy_D])[copy_N]
    full = len(cell_N) // batch_size * batch_size
    batches = cell_N[:full].reshape(-1, batch_size), cell_N[None, full:]
    rho_B = np.concatenate([_spearman_rows(cells.measured_N[at], cells.predicted_N[at]) for at in batches])
    defined = rho_B[~np.isnan(rho_B)]
    return float(defined.mean()) if len(defined) else math.nan


def _spearman_rows(measured_BK: np.ndarray, predicted_BK: np.ndarray) -> np.ndarray:
    """Spearman correlation of each row, float64 [B]; NaN if a side is constant."""
    x_BK, y_BK = (rankdata(values, axis=1) - (values.shape[1] + 1) / 2 for values in (measured_BK, predicted_BK))
    spread_B = np.sqrt(np.square(x_BK).sum(axis=1) * np.square(y_BK).sum(axis=1))
    covariance_B = (x_BK * y_BK).sum(axis=1)
    return np.divide(covariance_B, spread_B, out=np.full(len(spread_B), math.nan), where=spread_B > 0)


def _weighted_pearson(measured_CS: np.ndarray, predicted_CS: np.ndarray, weight_RS: np.ndarray) -> np.ndarray:
    """Pearson correlation across samples, each ``weight_RS`` times: float64 [C, R], NaN as in ``pearson_per_cpg``."""
    weight_SR = weight_RS.T.astype(np.float64)
    correlation_CR = np.full((len(measured_CS), len(weight_RS)), math.nan)
    step = max(1, VALUES_IN_MEMORY // sum(weight_SR.shape))
    for first in range(0, len(measured_CS), step):
        rows = slice(first, first + step)
        mask_CS = ~np.isnan(measured_CS[rows])
        count_CR = mask_CS.astype(np.float64) @ weight_SR
        measured, predicted = (
            _moments(grid[rows], mask_CS, weight_SR, count_CR) for grid in (measured_CS, predicted_CS)
        )
        product_CR = (measured.deviation_CS * predicted.deviation_CS) @ weight_SR
        covariance_CR = product_CR - measured.sum_CR * predicted.sum_CR / np.maximum(count_CR, 1)
        spread_CR = np.sqrt(measured.spread_CR * predicted.spread_CR)
        defined_CR = (count_CR >= MIN_CELLS) & (spread_CR > 0)
        np.divide(covariance_CR, spread_CR, out=correlation_CR[rows], where=defined_CR)
    return np.clip(correlation_CR, -1, 1)


def _moments(values_CS: np.ndarray, mask_CS: np.ndarray, weight_SR: np.ndarray, count_CR: np.ndarray) -> _Moments:
    count_CR = np.maximum(count_CR, 1)
    values_CS = np.where(mask_CS, values_CS, 0).astype(np.float64)
    centre_C1 = values_CS.sum(axis=1, keepdims=True) / np.maximum(mask_CS.sum(axis=1, keepdims=True), 1)
    deviation_CS = np.where(mask_CS, values_CS - centre_C1, 0)
    sum_CR, square_CR = deviation_CS @ weight_SR, np.square(deviation_CS) @ weight_SR
    spread_CR = square_CR - np.square(sum_CR) / count_CR
    # The magnitude counts the deviations of all samples, too, so that what cancels in a resample is noise as well.
    magnitude_CR = square_CR + count_CR * np.square(centre_C1 + sum_CR / count_CR)
    return _Moments(deviation_CS, sum_CR, np.where(spread_CR > RELATIVE_NOISE**2 * magnitude_CR, spread_CR, 0))


def _resampled_mas_pcc(measured_CS: np.ndarray, predicted_CS: np.ndarray, weight_RS: np.ndarray) -> np.ndarray:
    """MAS-PCC of every resample, float64 [R]; a block of resamples at a time, as each keeps all C correlations."""
    step = max(1, 4 * VALUES_IN_MEMORY // len(measured_CS))
    blocks = [weight_RS[first : first + step] for first in range(0, len(weight_RS), step)]
    return np.array([_median(r_C) for block in blocks for r_C in _weighted_pearson(measured_CS, predicted_CS, block).T])
