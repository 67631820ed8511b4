"""What can be asked of predictions without measured methylation: functions of arrays.

Legend: N spots or cells, C CpGs, S samples, P permutations.
"""

import math

import numpy as np
from scipy import sparse
from sklearn.neighbors import NearestNeighbors

GRID_NEIGHBOURS = 4  # of a spot in the square grid of these sections
PERMUTATIONS, PERMUTED_CPGS = 200, 200


def neighbours(spatial_N2: np.ndarray, k: int = GRID_NEIGHBOURS) -> sparse.csr_matrix:
    """Return [N, N] weights: 1/k for the k nearest other spots."""
    index = NearestNeighbors(n_neighbors=k).fit(spatial_N2).kneighbors(return_distance=False)
    n = len(index)
    return sparse.csr_matrix((np.full(n * k, 1 / k), index.ravel(), np.arange(n + 1) * k), shape=(n, n))


def morans_i(values_NC: np.ndarray, weight_NN: sparse.csr_matrix) -> np.ndarray:
    """Return Moran's I of each column [C], with row sums of the weights 1; NaN where a column is constant."""
    centred_NC = values_NC - values_NC.mean(axis=0)
    spread_C = (centred_NC**2).sum(axis=0)
    shared_C = (centred_NC * (weight_NN @ centred_NC)).sum(axis=0)
    return np.where(spread_C > 1e-12, shared_C / np.where(spread_C > 1e-12, spread_C, 1), np.nan)


def permuted_morans_i(values_NC: np.ndarray, weight_NN: sparse.csr_matrix, rng: np.random.Generator) -> np.ndarray:
    """Return Moran's I [P, C'] after the spots have changed places at random, for up to 200 evenly spaced columns."""
    columns = np.unique(np.linspace(0, values_NC.shape[1] - 1, PERMUTED_CPGS).astype(int))
    shown_NC = values_NC[:, columns]
    return np.stack([morans_i(shown_NC[rng.permutation(len(shown_NC))], weight_NN) for _ in range(PERMUTATIONS)])


def explained(values_N: np.ndarray, by_N: np.ndarray) -> float:
    """Return R² of a straight line; NaN where either is constant."""
    if np.std(values_N) < 1e-9 or np.std(by_N) < 1e-9:
        return math.nan
    return float(np.corrcoef(values_N, by_N)[0, 1] ** 2)


def without(values_NC: np.ndarray, by_N: np.ndarray) -> np.ndarray:
    """Remove from each column its mean and its straight line on ``by_N``."""
    design_N2 = np.stack([np.ones_like(by_N, dtype=np.float64), by_N], axis=1)
    return values_NC - design_N2 @ np.linalg.lstsq(design_N2, values_NC, rcond=None)[0]


def one_number_share(values_NC: np.ndarray) -> float:
    """Return the share of the variance between spots that lies along one direction: one number a spot."""
    singular = np.linalg.svd(values_NC - values_NC.mean(axis=0), compute_uv=False)
    total = (singular**2).sum()
    return float(singular[0] ** 2 / total) if total > 0 else math.nan


def tertile_difference(beta_CS: np.ndarray, score_S: np.ndarray) -> np.ndarray:
    """Return the mean beta [C] of the samples in the upper third of a score minus that of the lower third."""
    low, high = np.quantile(score_S, [1 / 3, 2 / 3])
    return np.nanmean(beta_CS[:, score_S >= high], axis=1) - np.nanmean(beta_CS[:, score_S <= low], axis=1)


def moved_r(weight_N: np.ndarray, beta_NC: np.ndarray, direction_C: np.ndarray) -> float:
    """Return what |r| of a contrast with a direction stays below in 95 % of random exchanges of the contrast's spots.

    Neighbouring spots are alike, so the true chance is higher than of spots that change places at random.
    """
    rng, used_N = np.random.default_rng(0), np.flatnonzero(weight_N)
    found = []
    for _ in range(PERMUTATIONS):
        moved_N = np.zeros_like(weight_N)
        moved_N[used_N] = weight_N[rng.permutation(used_N)]
        found.append(abs(agreement(moved_N @ beta_NC, direction_C)["r"]))
    return float(np.quantile(found, 0.95))


def agreement(one_C: np.ndarray, other_C: np.ndarray) -> dict[str, float]:
    """Compare two directions: Pearson's r over CpGs, the share of equal signs, and the share that chance gives.

    Chance keeps how often each of the two is positive: two directions that are both mostly positive agree often.
    """
    known_C = np.isfinite(one_C) & np.isfinite(other_C) & (one_C != 0) & (other_C != 0)
    one_C, other_C = one_C[known_C], other_C[known_C]
    if len(one_C) < 3 or np.std(one_C) < 1e-9 or np.std(other_C) < 1e-9:
        return {"n": len(one_C), "r": math.nan, "same_sign": math.nan, "same_sign_chance": math.nan}
    p, q = (one_C > 0).mean(), (other_C > 0).mean()
    return {
        "n": len(one_C),
        "r": float(np.corrcoef(one_C, other_C)[0, 1]),
        "same_sign": float(((one_C > 0) == (other_C > 0)).mean()),
        "same_sign_chance": float(p * q + (1 - p) * (1 - q)),
    }
