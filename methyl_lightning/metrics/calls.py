"""Metrics of calls in single cells, where a measured value stands for a read or two: which of two cells is methylated.

A cell of the grid counts as methylated where more than half of its reads are, as not where fewer are, and not at all
where half of them are. An AUROC is the chance that of a methylated and another one the methylated is predicted higher,
half of it where both are predicted alike.

Axis letters: C CpGs, S samples (cells that were sequenced), R resamples (weights of samples), N cells of the grid.
"""

from collections.abc import Iterator, Mapping

import numpy as np

from methyl_lightning.metrics.bootstrap import N_RESAMPLES, Bootstrap, draw
from methyl_lightning.metrics.scores import check_block, pieces, weighted_pearson


def auroc(measured_CS: np.ndarray, predicted_CS: np.ndarray) -> float:
    """AUROC pooled over all cells of float [C, S] grids, NaN without both classes; mostly about telling CpGs apart."""
    return float(weighted_auroc(measured_CS, predicted_CS, np.ones((1, measured_CS.shape[1])))[0])


def auroc_per_cpg(measured_CS: np.ndarray, predicted_CS: np.ndarray) -> np.ndarray:
    """AUROC over samples, one for each CpG: float64 [C], NaN where not both classes occur."""
    auroc_C = np.full(len(measured_CS), np.nan)
    for c, (_, _, ahead_PN) in _ahead(measured_CS, predicted_CS):
        auroc_C[c] = ahead_PN.mean()
    return auroc_C


def mean_auroc_per_cpg(measured_CS: np.ndarray, predicted_CS: np.ndarray) -> float:
    """Mean over CpGs of :func:`auroc_per_cpg`, whose values are 0, ½ or 1 where cells are few; NaN if there is none."""
    auroc_C = auroc_per_cpg(measured_CS, predicted_CS)
    return float(np.nanmean(auroc_C)) if not np.isnan(auroc_C).all() else np.nan


def sample_mean_r(measured_CS: np.ndarray, predicted_CS: np.ndarray) -> float:
    """Pearson correlation over samples of mean methylation; NaN as in ``scores.pearson_per_cpg``.

    The measured mean is of the CpGs that are measured in the sample, the predicted one of all, so that which CpGs are
    measured is no help.
    """
    return float(weighted_sample_mean_r(measured_CS, predicted_CS, np.ones((1, measured_CS.shape[1])))[0])


def weighted_auroc(measured_CS: np.ndarray, predicted_CS: np.ndarray, weight_RS: np.ndarray) -> np.ndarray:
    """:func:`auroc` with each sample counted ``weight_RS`` times: float64 [R]."""
    called_CS = _called(measured_CS, predicted_CS)
    cell_N = np.nonzero(~np.isnan(called_CS).T)
    predicted_N, methylated_N = predicted_CS.T[cell_N], called_CS.T[cell_N] == 1
    order_N = np.argsort(predicted_N, kind="stable")
    predicted_N, methylated_N, sample_N = predicted_N[order_N], methylated_N[order_N], cell_N[0][order_N]
    auroc_R = np.full(len(weight_RS), np.nan)
    if not len(predicted_N):
        return auroc_R
    first_U = np.flatnonzero(np.concatenate([[True], np.diff(predicted_N) > 0]))
    for part in pieces(len(weight_RS), len(predicted_N)):
        weight_RN = weight_RS[part][:, sample_N].astype(np.float64)
        methylated_RU, others_RU = (
            np.add.reduceat(weight_RN * of_N, first_U, axis=1) for of_N in (methylated_N, ~methylated_N)
        )
        below_RU = np.cumsum(others_RU, axis=1) - others_RU / 2
        pairs_R = methylated_RU.sum(axis=1) * others_RU.sum(axis=1)
        ahead_R = (methylated_RU * below_RU).sum(axis=1)
        auroc_R[part] = np.divide(ahead_R, pairs_R, out=np.full(len(pairs_R), np.nan), where=pairs_R > 0)
    return auroc_R


def weighted_mean_auroc_per_cpg(measured_CS: np.ndarray, predicted_CS: np.ndarray, weight_RS: np.ndarray) -> np.ndarray:
    """:func:`mean_auroc_per_cpg` with each sample counted ``weight_RS`` times: float64 [R]."""
    weight_RS = weight_RS.astype(np.float64)
    sum_R, count_R = np.zeros(len(weight_RS)), np.zeros(len(weight_RS))
    for _, (methylated_P, others_N, ahead_PN) in _ahead(measured_CS, predicted_CS):
        one_RP, other_RN = weight_RS[:, methylated_P], weight_RS[:, others_N]
        pairs_R = one_RP.sum(axis=1) * other_RN.sum(axis=1)
        sum_R += ((one_RP @ ahead_PN) * other_RN).sum(axis=1) / np.maximum(pairs_R, 1)
        count_R += pairs_R > 0
    return np.divide(sum_R, count_R, out=np.full(len(sum_R), np.nan), where=count_R > 0)


def weighted_sample_mean_r(measured_CS: np.ndarray, predicted_CS: np.ndarray, weight_RS: np.ndarray) -> np.ndarray:
    """:func:`sample_mean_r` with each sample counted ``weight_RS`` times: float64 [R]."""
    known_S = check_block(measured_CS, predicted_CS).any(axis=0)
    measured_1S = np.asarray(np.nanmean(measured_CS[:, known_S], axis=0, dtype=np.float64, keepdims=True))
    predicted_1S = predicted_CS[:, known_S].mean(axis=0, dtype=np.float64, keepdims=True)
    return weighted_pearson(measured_1S, predicted_1S, weight_RS[:, known_S])[0]


WEIGHTED = {
    "auroc": weighted_auroc,
    "auroc_per_cpg": weighted_mean_auroc_per_cpg,
    "sample_mean_r": weighted_sample_mean_r,
}


def bootstrap_calls(
    measured_CS: np.ndarray, predicted_CS: np.ndarray, patient_S: np.ndarray, seed: int = 0
) -> Mapping[str, Bootstrap]:
    """Compute the metrics of calls, and what they are in resamples of patients (donors, or cells); not of CpGs."""
    _, unit_S = np.unique(np.asarray(patient_S), return_inverse=True)
    weight_RS = draw(unit_S, N_RESAMPLES, np.random.default_rng(seed))
    weight_RS = np.concatenate([np.ones_like(weight_RS[:1]), weight_RS])
    nothing = np.full(N_RESAMPLES, np.nan)
    found = {name: metric(measured_CS, predicted_CS, weight_RS) for name, metric in WEIGHTED.items()}
    return {name: Bootstrap(float(value_R[0]), value_R[1:], nothing) for name, value_R in found.items()}


def _called(measured_CS: np.ndarray, predicted_CS: np.ndarray) -> np.ndarray:
    """Call each cell methylated (1) or not (0), NaN where nothing was read, or as much of the one as of the other."""
    check_block(measured_CS, predicted_CS)
    return np.where(measured_CS == 0.5, np.nan, np.where(np.isnan(measured_CS), np.nan, measured_CS > 0.5))


def _ahead(
    measured_CS: np.ndarray, predicted_CS: np.ndarray
) -> Iterator[tuple[int, tuple[np.ndarray, np.ndarray, np.ndarray]]]:
    """Go through CpGs with both classes: row, samples methylated [P] and not [N], AUROC of each pair, 0, ½ or 1."""
    called_CS = _called(measured_CS, predicted_CS)
    for c in np.flatnonzero((called_CS == 1).any(axis=1) & (called_CS == 0).any(axis=1)):
        methylated_P, others_N = (np.flatnonzero(called_CS[c] == value) for value in (1, 0))
        difference_PN = predicted_CS[c, methylated_P][:, None] - predicted_CS[c, others_N]
        yield int(c), (methylated_P, others_N, (np.sign(difference_PN) + 1) / 2)
