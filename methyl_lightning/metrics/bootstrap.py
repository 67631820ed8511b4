"""95 % intervals by bootstrap over patients and over CpGs, and the difference between two models on the same cells.

A resample is one weight per sample (how often its patient was drawn) or per CpG, and every metric is computed from
weights, exactly as if the resampled grid had been copied together. Two things come from the whole grid: the bins where
ranks of the pooled Spearman are counted, and the shift of each sample that ``mas_pcc_centred`` leaves out. Drawing CpGs
is the same on the transposed grid, where the medians over CpGs and over samples change places.

Axis letters: C CpGs, S samples, A rows, B columns (what is drawn), R resamples, P patients, M sums, X and Y bins,
J joint bins.
"""

import math
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
from scipy.sparse import csr_array

from methyl_lightning.metrics import scores as metrics
from methyl_lightning.metrics.names import BETA
from methyl_lightning.metrics.scores import VALUES_IN_MEMORY, pieces
from methyl_lightning.metrics.streaming import stream_metrics

METRICS = tuple(BETA)
N_RESAMPLES = 500
N_RESAMPLES_COSTLY = 200  # of the batches of 50, and of everything on a large grid
LARGE = 2_000_000  # cells
N_RESAMPLES_OVER_SEEDS = 2000  # of which each takes one of those that the runs left
N_BINS = 128


class Interval(NamedTuple):
    """A metric and its 95 % interval.

    Attributes
    ----------
    value
        The metric on the grid as it is.
    low, high
        Percentile bootstrap bounds; NaN where there are fewer than two patients (CpGs) or nothing is defined.
    """

    value: float
    low: float
    high: float


class Bootstrap(NamedTuple):
    """A metric, and what it is in each resample of patients and of CpGs (float64, NaN where not defined)."""

    value: float
    patients_R: np.ndarray
    cpgs_R: np.ndarray


class Difference(NamedTuple):
    """What one model's metric is above another's on the same cells, its 95 % interval and two-sided p value."""

    value: float
    low: float
    high: float
    p: float


class JointBins(NamedTuple):
    """The bin of each cell among n_x bins of measured × n_y bins of predicted values; n_x · n_y where missing."""

    joint_AB: np.ndarray
    n_x: int
    n_y: int


def bootstrap_grid(
    measured_CS: np.ndarray,
    predicted_CS: np.ndarray,
    patient_S: np.ndarray,
    seed: int = 0,
    n_resamples: int | None = None,
    over: tuple[str, ...] = ("patients", "cpgs"),
    batches: bool = True,
) -> dict[str, Bootstrap]:
    """Every metric of a grid, and its values in resamples of patients and of CpGs.

    All samples of a patient are drawn together. A patient (CpG) without a measured cell is none of the bootstrap. Two
    predictions of the same cells meet the same resamples, if the seed is the same: see :func:`difference`.

    Parameters
    ----------
    measured_CS, predicted_CS
        Float [C, S] grids, NaN in the first where missing.
    patient_S
        str [S], the patient of each sample.
    seed
        Of the resamples and of the batches.
    n_resamples
        Bootstrap resamples (default: 500, or 200 on a grid of more than two million cells).
    over
        ``patients``, ``cpgs`` or both; what is not named has no resamples.
    batches
        Whether to draw batches for ``spearman_batch50``, the costly one.

    Returns
    -------
    dict
        For each of ``METRICS`` a :class:`Bootstrap`. ``spearman_batch50`` has at most 200 resamples; each draws its own
        batches, so its interval holds the noise of that draw, too, and the value, one such draw, can fall outside. On a
        grid of more than two million cells its batches are drawn from some of the CpGs (samples, where CpGs are
        resampled), and the values come from :func:`methyl_lightning.metrics.streaming.stream_metrics`.

    Raises
    ------
    ValueError
        If shapes differ, a predicted value is not finite, a measured one infinite, or no cell is measured.
    """
    if np.shape(patient_S) != measured_CS.shape[1:]:
        raise ValueError(f"patient_S has shape {np.shape(patient_S)}: must be {measured_CS.shape[1:]}, one a sample")
    known_CS = metrics.measured_mask(measured_CS, predicted_CS)
    known_C, known_S = known_CS.any(axis=1), known_CS.any(axis=0)
    n_resamples = n_resamples or (N_RESAMPLES_COSTLY if np.count_nonzero(known_CS) > LARGE else N_RESAMPLES)
    value = grid_values(measured_CS, predicted_CS, seed, batches)
    pairs = dict.fromkeys(("mas_pcc", "mac_pcc"), (measured_CS, predicted_CS))
    pairs["mas_pcc_centred"] = metrics.without_shift(measured_CS, predicted_CS)
    unit_S = np.full(len(patient_S), -1)
    unit_S[known_S] = np.unique(np.asarray(patient_S)[known_S], return_inverse=True)[1]
    unit_C = np.where(known_C, np.cumsum(known_C) - 1, -1)
    bins = _joint_bins(measured_CS, predicted_CS)
    resampled: dict[str, dict[str, np.ndarray]] = {"patients": {}, "cpgs": {}}
    if "patients" in over and unit_S.max() > 0:
        rng = np.random.default_rng(seed)
        weight_RS = draw(unit_S, n_resamples, rng)
        resampled["patients"] = _resample(pairs, bins, weight_RS, ("mas_pcc", "mas_pcc_centred"), value, rng)
    if "cpgs" in over and unit_C.max() > 0:
        rng = np.random.default_rng([seed, 1])
        weight_RC = draw(unit_C, n_resamples, rng)
        turned = {name: (measured.T, predicted.T) for name, (measured, predicted) in pairs.items()}
        turned_bins = bins._replace(joint_AB=bins.joint_AB.T)
        resampled["cpgs"] = _resample(turned, turned_bins, weight_RC, ("mac_pcc",), value, rng)
    nothing = np.full(n_resamples, math.nan)
    return {
        name: Bootstrap(value[name], *(resampled[unit].get(name, nothing) for unit in ("patients", "cpgs")))
        for name in value
    }


def interval(value: float, resampled_R: np.ndarray) -> Interval:
    """Take the 2.5th and the 97.5th percentile of the resamples in which the metric is defined."""
    defined = resampled_R[~np.isnan(resampled_R)]
    if not len(defined):
        return Interval(value, math.nan, math.nan)
    low, high = np.percentile(defined, [2.5, 97.5])
    return Interval(value, float(low), float(high))


def over_seeds(runs: Sequence[Bootstrap], cells_N: Sequence[str], seed: int = 0) -> Bootstrap:
    """Take the mean of a metric over N runs that differ in their seeds, and resample it on two levels.

    Runs are drawn with replacement, and what each was tested on by the resamples that it left. Runs that were tested on
    the same cells meet the same resample, as their patients are the same. The mean of a few runs drawn so varies too
    little, by (N − 1) / N, so their deviations from the mean are widened by the root of that. Equal arguments but for
    the values of the metric give equal draws, so that :func:`difference` may compare two models. A single run is
    returned as it is.

    Parameters
    ----------
    runs
        The metric in each run.
    cells_N
        What each run was tested on, see :func:`methyl_lightning.evaluate.comparisons.cells_key`.
    seed
        Of the draws.
    """
    n = len(runs)
    if n == 1:
        return runs[0]
    rng = np.random.default_rng([seed, 2])
    run_RN = rng.integers(n, size=(N_RESAMPLES_OVER_SEEDS, n))
    at_R = {cells: rng.random(N_RESAMPLES_OVER_SEEDS) for cells in sorted(set(cells_N))}
    mean = float(np.mean([run.value for run in runs]))
    means = []
    for unit in ("patients_R", "cpgs_R"):
        deviation_NR = []
        for run, cells in zip(runs, cells_N, strict=True):
            resampled_R = getattr(run, unit)
            drawn_R = resampled_R[(at_R[cells] * len(resampled_R)).astype(int)]
            deviation_NR.append(drawn_R - run.value + math.sqrt(n / (n - 1)) * (run.value - mean))
        drawn_RN = np.stack(deviation_NR)[run_RN, np.arange(N_RESAMPLES_OVER_SEEDS)[:, None]]
        means.append(mean + drawn_RN.mean(axis=1))
    return Bootstrap(mean, *means)


def difference(value: float, other: float, resampled_R: np.ndarray, other_R: np.ndarray) -> Difference:
    """Compare two models by their resamples of the same cells with the same seed (paired bootstrap).

    The p value is two-sided: twice the smaller share of resamples in which the difference is at most, or at least, 0,
    one resample added to each, so it is never below 2 / (R + 1).
    """
    difference_R = resampled_R - other_R
    difference_R = difference_R[~np.isnan(difference_R)]
    found = interval(value - other, difference_R)
    if not len(difference_R) or math.isnan(found.value):
        return Difference(found.value, math.nan, math.nan, math.nan)
    fewer = min((difference_R <= 0).sum(), (difference_R >= 0).sum())
    return Difference(*found, min(1.0, float(2 * (fewer + 1) / (len(difference_R) + 1))))


def draw(unit_B: np.ndarray, n_resamples: int, rng: np.random.Generator) -> np.ndarray:
    """Draw units with replacement: uint16 [R, B], how often the unit of each column was drawn; 0 where it is −1."""
    n_units, known_B = int(unit_B.max()) + 1, unit_B >= 0
    weight_RB = np.zeros((n_resamples, len(unit_B)), dtype=np.uint16)
    for part in pieces(n_resamples, n_units):
        n = len(weight_RB[part])
        at_RP = rng.integers(n_units, size=(n, n_units)) + n_units * np.arange(n)[:, None]
        drawn_RP = np.bincount(at_RP.ravel(), minlength=n * n_units).reshape(n, n_units)
        weight_RB[part, known_B] = drawn_RP[:, unit_B[known_B]]
    return weight_RB


def grid_values(measured_CS: np.ndarray, predicted_CS: np.ndarray, seed: int, batches: bool) -> dict[str, float]:
    """Return the metrics of a grid, from a stream where it is large; see :func:`bootstrap_grid`."""
    if np.count_nonzero(~np.isnan(measured_CS)) <= LARGE:
        names = [name for name in METRICS if name != "spearman_batch50"]
        values = {name: getattr(metrics, name)(measured_CS, predicted_CS) for name in names}
    else:
        rows = list(pieces(*measured_CS.shape))
        values = stream_metrics(lambda: ((measured_CS[part], predicted_CS[part]) for part in rows)).values
        some_C = some_rows(measured_CS, np.random.default_rng(seed))
        measured_CS, predicted_CS = measured_CS[some_C], predicted_CS[some_C]
    if batches:
        values["spearman_batch50"] = metrics.spearman_batch50(measured_CS, predicted_CS, seed=seed)
    return {name: values[name] for name in METRICS if name in values}


def some_rows(measured_AB: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Draw rows at random until they have ``LARGE`` cells."""
    order_A = rng.permutation(len(measured_AB))
    counts = [np.count_nonzero(~np.isnan(measured_AB[rows]), axis=1) for rows in pieces(*measured_AB.shape)]
    cells_A = np.concatenate(counts)[order_A]
    return np.sort(order_A[: np.searchsorted(np.cumsum(cells_A), LARGE) + 1])


def _resample(
    pairs: Mapping[str, tuple[np.ndarray, np.ndarray]],
    bins: JointBins,
    weight_RB: np.ndarray,
    over_rows: tuple[str, ...],
    value: Mapping[str, float],
    rng: np.random.Generator,
) -> dict[str, np.ndarray]:
    """Compute the metrics of every resample of columns; ``pairs`` are the [A, B] grids of each median correlation."""
    measured_AB, predicted_AB = pairs["mas_pcc"]
    centres = (float(np.nanmean(measured_AB, dtype=np.float64)), float(np.mean(predicted_AB, dtype=np.float64)))
    sums_BM = metrics.column_sums(measured_AB, predicted_AB, centres).T
    sums_RM = np.zeros((len(weight_RB), sums_BM.shape[1]))
    for columns in pieces(len(sums_BM), len(weight_RB)):
        sums_RM += weight_RB[:, columns].astype(np.float64) @ sums_BM[columns]
    error_R, square_R, count_R = sums_RM[:, :3].T
    found = {
        "mae": error_R / count_R,
        "mse": square_R / count_R,
        "pearson": metrics.correlation_of_sums(sums_RM[:, 2:].T, centres),
        "spearman": _resampled_spearman(bins, weight_RB, value["spearman"]),
    }
    for name, pair in pairs.items():
        if name in over_rows:
            found[name] = _median_over_rows(*pair, weight_RB)
        else:
            found[name] = _weighted_medians(metrics.pearson_per_sample(*pair), weight_RB)
    if "spearman_batch50" in value:
        if sums_BM[:, 2].sum() > LARGE:
            some_A = some_rows(measured_AB, rng)
            measured_AB, predicted_AB = measured_AB[some_A], predicted_AB[some_A]
        cells = metrics.cells_of(measured_AB, predicted_AB)
        sizes = (metrics.BATCH_SIZE, metrics.N_BATCHES)
        found["spearman_batch50"] = np.array(
            [metrics.batch_spearman(cells, weight_B, *sizes, rng) for weight_B in weight_RB[:N_RESAMPLES_COSTLY]]
        )
    return found


def _median_over_rows(measured_AB: np.ndarray, predicted_AB: np.ndarray, weight_RB: np.ndarray) -> np.ndarray:
    """Median over rows of the correlation across columns, float64 [R]; some resamples at a time keep all A of them."""
    medians = []
    for part in pieces(len(weight_RB), len(measured_AB), 4 * VALUES_IN_MEMORY):
        value_RA = metrics.weighted_pearson(measured_AB, predicted_AB, weight_RB[part]).T
        count_R = (~np.isnan(value_RA)).sum(axis=1)
        places = [np.maximum(place, 0) for place in ((count_R - 1) // 2, count_R // 2)]
        value_RA = np.partition(value_RA, np.unique(places), axis=1)  # NaN last
        middle = [value_RA[np.arange(len(count_R)), place] for place in places]
        medians.append(np.where(count_R > 0, (middle[0] + middle[1]) / 2, math.nan))
    return np.concatenate(medians)


def _weighted_medians(value_B: np.ndarray, weight_RB: np.ndarray) -> np.ndarray:
    """Median of values repeated ``weight_RB`` times, NaN left out: float64 [R]."""
    order_B = np.argsort(value_B)[: np.count_nonzero(~np.isnan(value_B))]
    if not len(order_B):
        return np.full(len(weight_RB), math.nan)
    medians = []
    for part in pieces(len(weight_RB), len(order_B)):
        up_to_RB = np.cumsum(weight_RB[part][:, order_B], axis=1, dtype=np.int64)
        total_R1 = up_to_RB[:, -1:]
        lower_R, upper_R = (
            value_B[order_B[np.minimum((up_to_RB <= place_R1).sum(axis=1), len(order_B) - 1)]]
            for place_R1 in ((total_R1 - 1) // 2, total_R1 // 2)
        )
        medians.append(np.where(total_R1[:, 0] > 0, (lower_R + upper_R) / 2, math.nan))
    return np.concatenate(medians)


def _bin_edges(values_AB: np.ndarray, mask_AB: np.ndarray) -> np.ndarray:
    """Upper bounds of bins that hold about equally many cells each, and frequent values alone."""
    step = -(-mask_AB.size // LARGE)
    ordered = np.sort(values_AB[::step][mask_AB[::step]])
    at = np.linspace(0, len(ordered) - 1, N_BINS + 1).round().astype(int)
    edges, times = np.unique(ordered[at], return_counts=True)
    below = np.nextafter(edges[times > 1], -np.inf, dtype=edges.dtype)
    return np.unique(np.concatenate([edges, below]))[:-1]


def _joint_bins(measured_AB: np.ndarray, predicted_AB: np.ndarray) -> JointBins:
    """Put each cell into a bin of measured and of predicted values."""
    mask_AB = ~np.isnan(measured_AB)
    edges = [_bin_edges(grid_AB, mask_AB) for grid_AB in (measured_AB, predicted_AB)]
    n_x, n_y = (len(one) + 1 for one in edges)
    joint_AB = np.empty(mask_AB.shape, np.min_scalar_type(n_x * n_y))
    for rows in pieces(*mask_AB.shape):
        x_AB, y_AB = (
            np.searchsorted(one, grid_AB[rows]) for one, grid_AB in zip(edges, (measured_AB, predicted_AB), strict=True)
        )
        joint_AB[rows] = np.where(mask_AB[rows], x_AB * n_y + y_AB, n_x * n_y)
    return JointBins(joint_AB, n_x, n_y)


def _resampled_spearman(bins: JointBins, weight_RB: np.ndarray, value: float) -> np.ndarray:
    """Pooled Spearman of each resample, from midranks of bins: float64 [R].

    What binning changes in the grid as it is gets subtracted, so that only its effect on differences remains.
    """
    joint_AB, n_x, n_y = bins
    n_joint = n_x * n_y
    weight_RB = np.concatenate([np.ones_like(weight_RB[:1]), weight_RB])
    found = []
    for part in pieces(len(weight_RB), n_joint, VALUES_IN_MEMORY):
        count_JR = np.zeros((n_joint, len(weight_RB[part])))
        for columns in pieces(joint_AB.shape[1], len(joint_AB), VALUES_IN_MEMORY):
            joint_BA = joint_AB[:, columns].T
            known_BA = joint_BA < n_joint
            at = (joint_BA[known_BA].astype(np.int32), np.repeat(np.arange(len(joint_BA)), known_BA.sum(axis=1)))
            joint_JB = csr_array((np.ones(len(at[0]), np.int32), at), shape=(n_joint, len(joint_BA)))
            count_JR += joint_JB @ weight_RB[part, columns].T.astype(np.int32)  # a piece has fewer than 2^31 cells
        found.append(_spearman_of_counts(count_JR.reshape(n_x, n_y, -1)))
    rho_R = np.concatenate(found)
    return np.clip(rho_R[1:] + (value - rho_R[0]), -1, 1)


def _spearman_of_counts(count_XYR: np.ndarray) -> np.ndarray:
    """Spearman correlation of two-way tables of counts, float64 [R]; NaN if a side is constant."""
    count_XR, count_YR = count_XYR.sum(axis=1), count_XYR.sum(axis=0)
    rank_XR, rank_YR = metrics.midranks(count_XR), metrics.midranks(count_YR)
    xy_R = (np.einsum("xyr,yr->xr", count_XYR, rank_YR) * rank_XR).sum(axis=0)
    squares = ((count * np.square(rank)).sum(axis=0) for count, rank in ((count_XR, rank_XR), (count_YR, rank_YR)))
    return metrics.rank_correlation(xy_R, *squares)
