"""Intervals around predictions: split-conformal calibration on cells that neither training nor testing has seen.

The residual (measured − predicted) is looked at within bins of the predicted beta, because a prediction near 0.5 errs
more than one near 0 or 1. Of each bin the lower and the upper residual quantile are kept, with the correction for its
finite number of cells, so that a new cell exchangeable with them lies inside with at least the level's probability.
Cells of one CpG, or of one patient, are not independent: the promise holds over many new CpGs and patients, not within
one; and as few of them fit quantiles closer than their cells are many, the quantiles are those with which CpGs and
patients that are left out are covered. Thin samples have calibrations of their own, from validation samples that were
thinned to a ladder of depths; and CpGs that were trained on have others than those that were not.

Legend: N cells, B bins, S samples, C CpGs.
"""

import math
from collections.abc import Mapping
from typing import NamedTuple

import numpy as np

LEVEL = 0.9
N_BINS, LEAST_CELLS, LEAST_CPGS = 10, 200, 50  # of a bin at least
FOLDS, STEPS = 4, 5  # of CpGs and of samples; and halvings of the range in which the quantiles are looked for
MOST_CPGS = 2_000  # of so many nothing is gained by leaving some out


class Calibration(NamedTuple):
    """Residual quantiles by predicted beta, as plain lists.

    Attributes
    ----------
    level
        Share of new cells that lie inside.
    edges
        B − 1 bounds between bins of the predicted beta.
    low, high
        B values each, what is added to a prediction; low ≤ 0 ≤ high, so that an interval holds its prediction.
    cells
        Number of calibration cells.
    """

    level: float
    edges: list[float]
    low: list[float]
    high: list[float]
    cells: int


def calibrate_grid(measured_CS: np.ndarray, predicted_CS: np.ndarray, level: float = LEVEL) -> Calibration:
    """Calibrate on CpGs × samples, as wide as to cover those that are left out in turns."""
    n_cpgs, n_samples = measured_CS.shape
    most_bins = max(1, min(N_BINS, n_cpgs // LEAST_CPGS))

    def fit(of_C: np.ndarray | slice, of_S: np.ndarray | slice, level: float) -> Calibration:
        measured_N, predicted_N = (grid_CS[of_C][:, of_S].ravel() for grid_CS in (measured_CS, predicted_CS))
        return calibrate(measured_N, predicted_N, level, most_bins)

    def covers(level_tried: float) -> bool:
        """Tell whether cells of left-out CpGs and samples lie inside as often as they should."""
        inside, known = 0.0, 0
        for f, g in np.ndindex(FOLDS, FOLDS):
            calibration = fit(fold_C != f, fold_S != g, level_tried)
            held = [grid_CS[fold_C == f][:, fold_S == g].ravel() for grid_CS in (measured_CS, predicted_CS)]
            n_known = int(np.isfinite(held[0]).sum())
            inside, known = inside + np.nan_to_num(coverage(calibration, *held)) * n_known, known + n_known
        return inside >= level * known

    widened = level
    if n_cpgs <= MOST_CPGS and min(n_cpgs, n_samples) >= 2 * FOLDS:
        rng = np.random.default_rng(0)
        fold_C, fold_S = (rng.permutation(n) % FOLDS for n in (n_cpgs, n_samples))
        if not covers(level):
            low, widened = level, (1 + level) / 2
            for _ in range(STEPS):
                tried = (low + widened) / 2
                low, widened = (low, tried) if covers(tried) else (tried, widened)
    return fit(slice(None), slice(None), widened)._replace(level=level)


def calibrate(
    measured_N: np.ndarray, predicted_N: np.ndarray, level: float = LEVEL, most_bins: int = N_BINS
) -> Calibration:
    """Calibrate on cells (NaN where not measured): at most 10 bins, equally full, of at least 200 cells each."""
    known_N = np.isfinite(measured_N)
    predicted_N = np.clip(predicted_N[known_N], 0, 1).astype(np.float64)
    residual_N = measured_N[known_N] - predicted_N
    n_bins = max(1, min(most_bins, len(residual_N) // LEAST_CELLS))
    edges = np.unique(np.quantile(predicted_N, np.arange(1, n_bins) / n_bins)) if n_bins > 1 else np.zeros(0)
    bin_N = np.searchsorted(edges, predicted_N, side="right")
    low, high = [], []
    for b in range(len(edges) + 1):
        sorted_n = np.sort(residual_N[bin_N == b])
        rank = math.ceil((len(sorted_n) + 1) * (1 + level) / 2)  # of one tail
        known = rank <= len(sorted_n)
        high.append(max(0.0, float(sorted_n[rank - 1])) if known else 1.0)
        low.append(min(0.0, float(sorted_n[len(sorted_n) - rank])) if known else -1.0)
    return Calibration(level, edges.tolist(), low, high, len(residual_N))


def interval(calibration: Calibration, predicted: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the lower and upper bound of each prediction, float32 within 0…1, of the shape given."""
    clipped = np.clip(predicted, 0, 1)
    bins = np.searchsorted(np.asarray(calibration.edges), clipped, side="right")
    low, high = (np.asarray(bound, dtype=np.float32)[bins] for bound in (calibration.low, calibration.high))
    return np.clip(clipped + low, 0, 1).astype(np.float32), np.clip(clipped + high, 0, 1).astype(np.float32)


def interval_by_depth(
    calibrations: Mapping[float, Calibration], depth_S: np.ndarray, predicted_SC: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Return the bounds of predictions [S, C], each sample's by the calibration whose depth is nearest to its own."""
    depths = np.array(list(calibrations))
    nearest_S = np.searchsorted(np.sqrt(depths[:-1] * depths[1:]), depth_S)
    lower_SC, upper_SC = (np.empty(predicted_SC.shape, dtype=np.float32) for _ in range(2))
    for number, calibration in enumerate(calibrations.values()):
        rows = np.flatnonzero(nearest_S == number)
        lower_SC[rows], upper_SC[rows] = interval(calibration, predicted_SC[rows])
    return lower_SC, upper_SC


def coverage(calibration: Calibration, measured_N: np.ndarray, predicted_N: np.ndarray) -> float:
    """Return the share of measured cells inside their interval; NaN where none is measured."""
    known_N = np.isfinite(measured_N)
    if not known_N.any():
        return math.nan
    lower_N, upper_N = interval(calibration, predicted_N[known_N])
    # half a beta step of the store, so that a bound met exactly in float32 counts as inside
    inside_N = (measured_N[known_N] >= lower_N - 5e-5) & (measured_N[known_N] <= upper_N + 5e-5)
    return float(inside_N.mean())
