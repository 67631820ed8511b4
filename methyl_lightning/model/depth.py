"""Thin samples: what the expression of a sample would be at full depth, estimated from the molecules that it has.

The training samples are brought to the sample's depth, not the sample to theirs. Their expression is a mean, a few
components and a gene's own rest; from these follow the mean and the variance of every gene's value among n drawn
molecules, without drawing any. The components are then regressed on those values, each gene weighted by its noise: the
ridge regression that infinitely many thinned copies of each training sample would give, solved in its dual form. A
gene's own rest is estimated from the gene alone. So a sample of no molecules has the training mean, each molecule tells
as much as its depth justifies, and at full depth expression stays what it is.

Legend: S training samples, G genes of the training, K those that are matched, Q components, N new samples, B values.
"""

import math
from functools import cache
from typing import Any, NamedTuple

import numpy as np
from scipy import sparse
from scipy.linalg import cho_factor, cho_solve
from scipy.stats import poisson

from methyl_lightning.files import InputError
from methyl_lightning.model.record import TrainingRecord, is_log2

LEVELS_A_DECADE = 4  # depths at which the regression is fitted; between them its centre is interpolated
MOLECULES, MASK = "molecules", "mask"
GENES_AT_ONCE = 1024
ROWS_AT_ONCE = 256  # whose arrays stay near the processor
OCTAVES, STEPS = (-14, 30), 16  # of the table of log1p of Poisson counts, and its steps an octave
EXACT_BELOW = 2000.0  # of the mean count; above, moments by their Taylor series
POINTS = ((-math.sqrt(3), 1 / 6), (0.0, 2 / 3), (math.sqrt(3), 1 / 6))  # Gauss-Hermite: deviations and weights
LEAST_NOISE = 1e-6  # share of the mean noise that each gene has at least
LEAST_SPREAD = 1e-3  # of a sample's total, natural logarithm


class _Fit(NamedTuple):
    """What a depth makes of values [N, G]: mean + (values − centre) · weight · loading, + slope of each gene's own.

    Of genes that are not matched, centre, weight and slope are 0.
    """

    centre_G: np.ndarray
    weight_GQ: np.ndarray
    loading_QG: np.ndarray
    slope_G: np.ndarray


class ExpressionEstimator:
    """Estimates expression in the store's units from thin samples, with what the checkpoint carries of its training.

    Parameters
    ----------
    record
        Of the checkpoint.
    units
        Of the training, log2(x + 1) of something linear.
    gene_K
        Genes of the training that the new samples have, ascending (default: all).
    draws
        ``molecules``: values are counts of molecules; ``mask``: they are expression in the store's units, of genes
        drawn as :func:`methyl_lightning.data.expression.dilute` does with ``method=mask``, the others 0.

    Raises
    ------
    InputError
        If the training's units are not log2(x + 1).
    """

    def __init__(
        self, record: TrainingRecord, units: str, gene_K: np.ndarray | None = None, draws: str = MOLECULES
    ) -> None:
        if not is_log2(units):
            raise InputError(f"match=depth: the training's units, {units!r}, are not log2(x+1); use match=quantile")
        self.gene_K = np.arange(len(record.mean_G)) if gene_K is None else gene_K
        self.record, self.draws = record, draws
        # the total of a sample in the store's linear units: what 1 is added to there before the logarithm is taken
        self.full = float(record.linear_mean_G[self.gene_K].sum(dtype=np.float64))
        self._fits: dict[int, _Fit] = {}

    def estimate(self, value_NK: np.ndarray | sparse.csr_matrix, depth_N: np.ndarray | None = None) -> np.ndarray:
        """Estimate the full expression of thin samples, genes that they lack included: float32 [N, G].

        Parameters
        ----------
        value_NK
            Counts of molecules of the matched genes, dense or sparse; or with ``mask`` what the draws have left.
        depth_N
            Number of draws of each sample (default: its counts' sum); with less than one it has the training mean.
        """
        depth_N = np.asarray(value_NK.sum(axis=1)).ravel() if depth_N is None else depth_N
        if self.draws == MOLECULES:
            value_NK = _log1p(value_NK, np.minimum(self.full / np.maximum(depth_N, 1), 1))
        level_N = LEVELS_A_DECADE * np.log10(np.maximum(depth_N, 1))
        estimate_NG = np.empty((len(depth_N), len(self.record.mean_G)), dtype=np.float32)
        estimate_NG[depth_N < 1] = self.record.mean_G
        for level in np.unique(nearest_N := np.rint(level_N).astype(int)):
            row_N = np.flatnonzero((nearest_N == level) & (depth_N >= 1))
            for rows in (row_N[start : start + ROWS_AT_ONCE] for start in range(0, len(row_N), ROWS_AT_ONCE)):
                estimate_NG[rows] = self._estimated(value_NK[rows], level, level_N[rows] - level)
        return estimate_NG

    def _estimated(self, value_NK: np.ndarray | sparse.csr_matrix, level: int, beyond_N: np.ndarray) -> np.ndarray:
        """Estimate the expression [N, G] of samples ``beyond_N`` (±0.5) levels from one that is fitted."""
        fit = self.fit(level)
        # the centre of a sample's own depth, on the line to that of the next level
        steps_2G = np.stack([fit.centre_G - self.fit(level - 1).centre_G, self.fit(level + 1).centre_G - fit.centre_G])
        share_N2 = np.stack([np.minimum(beyond_N, 0), np.maximum(beyond_N, 0)], axis=1).astype(np.float32)
        value_NG = self._of_all_genes(value_NK)
        score_NQ = value_NG @ fit.weight_GQ - fit.centre_G @ fit.weight_GQ - share_N2 @ (steps_2G @ fit.weight_GQ)
        # one product for what does not depend on a gene's own value: large arrays are gone through as rarely as may be
        known_NX = np.hstack([score_NQ, share_N2, np.ones_like(share_N2[:, :1])])
        own_3G = np.concatenate([-steps_2G * fit.slope_G, (self.record.mean_G - fit.centre_G * fit.slope_G)[None]])
        estimate_NG = known_NX @ np.concatenate([fit.loading_QG, own_3G])
        value_NG *= fit.slope_G
        estimate_NG += value_NG
        return np.maximum(estimate_NG, 0, out=estimate_NG)

    def _of_all_genes(self, value_NK: np.ndarray | sparse.csr_matrix) -> np.ndarray:
        """Write values of matched genes as float32 [N, G], 0 for the others."""
        n_genes = len(self.record.mean_G)
        if not isinstance(value_NK, np.ndarray):
            placed = (value_NK.data.astype(np.float32, copy=False), self.gene_K[value_NK.indices], value_NK.indptr)
            return sparse.csr_matrix(placed, shape=(value_NK.shape[0], n_genes)).toarray()
        value_NG = np.zeros((len(value_NK), n_genes), dtype=np.float32)
        value_NG[:, self.gene_K] = value_NK
        return value_NG

    def fit(self, level: int) -> _Fit:
        """Fit the regression to training samples of 10^(level / 4) molecules, once."""
        if level not in self._fits:
            self._fits[level] = self._fitted(10 ** (level / LEVELS_A_DECADE))
        return self._fits[level]

    def _fitted(self, depth: float) -> _Fit:
        record, gene_K = self.record, self.gene_K
        loading_QG = record.loading_QG.astype(np.float32)
        n_samples, n_genes = len(record.score_SQ), len(gene_K)
        expression_SK = record.score_SQ @ loading_QG[:, gene_K]
        expression_SK += record.mean_G[gene_K]
        total_S1 = _total(expression_SK, self.draws)
        # one row more: a sample whose depth is misjudged, by as much as totals vary, says nothing of components
        deviation_SK = np.empty((n_samples + 1, n_genes), dtype=np.float32)
        centre_K, noise_K, cross_K = (np.empty(n_genes, dtype=np.float32) for _ in range(3))
        for start in range(0, n_genes, GENES_AT_ONCE):
            part = slice(start, start + GENES_AT_ONCE)
            rest_k = record.residual_G[gene_K[part]]
            moments = _moments(expression_SK[:, part], rest_k, total_S1, depth, self.draws, self.full)
            centre_K[part], noise_K[part], cross_K[part] = (
                moments.mean_SK.mean(axis=0),
                moments.noise_K,
                moments.cross_K,
            )
            deviation_SK[:-1, part], deviation_SK[-1, part] = moments.mean_SK - centre_K[part], moments.gain_K
        del expression_SK
        noise_K = np.maximum(noise_K, LEAST_NOISE * noise_K.mean())
        gain_K, spread = deviation_SK[-1].copy(), max(float(np.log(total_S1).std()), LEAST_SPREAD)
        deviation_SK[-1] *= spread * math.sqrt(n_samples)
        score_SQ = np.zeros((n_samples + 1, len(loading_QG)))
        score_SQ[:-1] = record.score_SQ - record.score_SQ.mean(axis=0)
        known_SQ = score_SQ[:-1]
        of_scores_QK = np.linalg.solve(known_SQ.T @ known_SQ, known_SQ.T @ deviation_SK[:-1]).astype(np.float32)
        gram_SS = ((deviation_SK / noise_K) @ deviation_SK.T).astype(np.float64)
        gram_SS[np.diag_indices_from(gram_SS)] += n_samples  # the noise of so many samples is the penalty
        dual_SQ = cho_solve(cho_factor(gram_SS), score_SQ).astype(np.float32)
        weight_KQ = (deviation_SK.T @ dual_SQ) / noise_K[:, None]
        # what a sample's values have in common beyond its components is its depth, not the genes' own
        share_K = gain_K / noise_K
        depth_K = (share_K - weight_KQ @ (of_scores_QK @ share_K)) / (share_K @ gain_K + spread**-2)
        slope_K = cross_K / noise_K
        loading_QG[:, gene_K] -= of_scores_QK * slope_K
        depth_1G = np.zeros((1, loading_QG.shape[1]), dtype=np.float32)
        depth_1G[0, gene_K] = -gain_K * slope_K
        weight_KQ = np.hstack([weight_KQ, depth_K[:, None]])
        centre_G, weight_GQ, slope_G = (
            _placed(own, gene_K, loading_QG.shape[1]) for own in (centre_K, weight_KQ, slope_K)
        )
        return _Fit(centre_G, weight_GQ, np.concatenate([loading_QG, depth_1G]), slope_G)


def _placed(own_KX: np.ndarray, gene_K: np.ndarray, n_genes: int) -> np.ndarray:
    """Write rows of matched genes among those of all genes, the others 0: [G, …]."""
    own_GX = np.zeros((n_genes, *own_KX.shape[1:]), dtype=np.float32)
    own_GX[gene_K] = own_KX
    return own_GX


def _total(expression_SK: np.ndarray, draws: str) -> np.ndarray:
    """Sum what genes are drawn by, over the genes of each sample: [S, 1]."""
    weight_SK = np.maximum(expression_SK, 0)
    if draws == MOLECULES:
        weight_SK = np.exp2(weight_SK, out=weight_SK) - 1
    return weight_SK.sum(axis=1, keepdims=True)


class _Moments(NamedTuple):
    """What draws make of expression.

    Mean of each value [S, K]; its variance, its covariance with the gene's own rest, and its derivative by the
    logarithm of depth, each the mean over samples [K].
    """

    mean_SK: np.ndarray
    noise_K: np.ndarray
    cross_K: np.ndarray
    gain_K: np.ndarray


def _moments(
    expression_SK: np.ndarray, rest_K: np.ndarray, total_S1: np.ndarray, depth: float, draws: str, full: float
) -> _Moments:
    """Compute what ``depth`` draws make of expression that varies by ``rest_K`` (standard deviation) around a mean."""
    mean_SK, square_SK = np.zeros_like(expression_SK), np.zeros_like(expression_SK)
    cross_K, gain_K = np.zeros_like(rest_K), np.zeros_like(rest_K)
    for deviation, weight in POINTS:
        value_SK = np.maximum(expression_SK + np.float32(deviation) * rest_K, 0)
        if draws == MASK:
            value_SK, noise_SK, gain_SK = _of_mask(value_SK, total_S1, depth)
        else:
            rate_SK = (np.exp2(value_SK) - 1) * (min(depth, full) / total_S1)
            value_SK, noise_SK, gain_SK = _of_molecules(rate_SK, min(1.0, full / depth))
        mean_SK += weight * value_SK
        square_SK += weight * (noise_SK + value_SK**2)
        cross_K += weight * deviation * rest_K * value_SK.mean(axis=0)
        gain_K += weight * gain_SK.mean(axis=0)
    return _Moments(mean_SK, np.maximum(square_SK - mean_SK**2, 0).mean(axis=0), cross_K, gain_K)


def _of_molecules(rate_SK: np.ndarray, scale: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Mean, variance and gain of log1p of counts with Poisson noise times ``scale``: linear between those of the table.

    Counts of more molecules than the store's units have are multiplied by ``scale``, and noise with them.
    """
    place_SK = np.log2(np.maximum(rate_SK, 2.0 ** OCTAVES[0]), dtype=np.float32)
    place_SK -= OCTAVES[0]
    place_SK *= STEPS
    mean_B, variance_B = _table()
    if scale < 1:
        mean_B = scale * mean_B + np.float32(1 - scale) * np.log1p(_rates(), dtype=np.float32)
        variance_B = scale * variance_B
    row_SK = np.minimum(place_SK.astype(np.int32), len(mean_B) - 2)
    place_SK -= row_SK
    step_SK = np.diff(mean_B)[row_SK]
    mean_SK = mean_B[row_SK] + place_SK * step_SK
    variance_SK = variance_B[row_SK] + place_SK * np.diff(variance_B)[row_SK]
    nothing_SK = rate_SK == 0
    for moment_SK in (mean_SK, variance_SK, step_SK):
        moment_SK[nothing_SK] = 0
    return mean_SK, variance_SK, step_SK * np.float32(STEPS / math.log(2))


def _of_mask(
    expression_SK: np.ndarray, total_S1: np.ndarray, depth: float
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Mean, variance and gain of a value that stays if its gene is drawn at least once, and else becomes 0."""
    rate_SK = -depth * np.log1p(-np.minimum(expression_SK / total_S1, 1 - 1e-6))
    lost_SK = np.exp(-rate_SK)
    mean_SK = expression_SK * (1 - lost_SK)
    return mean_SK, expression_SK * mean_SK * lost_SK, expression_SK * rate_SK * lost_SK


def _rates() -> np.ndarray:
    """Mean counts of the table: [B]."""
    return 2.0 ** (np.arange(OCTAVES[0] * STEPS, OCTAVES[1] * STEPS + 1) / STEPS)


def _log1p(count_NK: np.ndarray | sparse.csr_matrix, scale_N: np.ndarray) -> np.ndarray | sparse.csr_matrix:
    """Compute log1p of scaled counts, float32."""
    if isinstance(count_NK, np.ndarray):
        return np.log1p(count_NK * scale_N[:, None], dtype=np.float32)
    value = np.log1p(count_NK.data * np.repeat(scale_N, np.diff(count_NK.indptr)), dtype=np.float32)
    return sparse.csr_matrix((value, count_NK.indices, count_NK.indptr), shape=count_NK.shape)


@cache
def _table() -> tuple[np.ndarray, np.ndarray]:
    """Mean and variance of log1p of a Poisson count, at STEPS mean counts an octave: float32 [B] each."""
    rate_B = _rates()
    mean_B = np.log1p(rate_B) - rate_B / (2 * (1 + rate_B) ** 2)
    variance_B = rate_B / (1 + rate_B) ** 2
    for b in np.flatnonzero(rate_B < EXACT_BELOW):
        count = np.arange(int(rate_B[b] + 12 * math.sqrt(rate_B[b]) + 20))
        share, value = poisson.pmf(count, rate_B[b]), np.log1p(count)
        mean_B[b] = share @ value
        variance_B[b] = share @ (value - mean_B[b]) ** 2
    return mean_B.astype(np.float32), variance_B.astype(np.float32)


def estimate_diluted(
    estimator: ExpressionEstimator, diluted_NG: np.ndarray, method: str, retention: float
) -> np.ndarray:
    """Estimate what expression was before :func:`methyl_lightning.data.expression.dilute` has diluted it: [N, G]."""
    if method == MASK:
        return estimator.estimate(diluted_NG, np.full(len(diluted_NG), retention))
    linear_NG = np.exp2(diluted_NG.astype(np.float64)) - 1
    total_N1 = linear_NG.sum(axis=1, keepdims=True)
    # diluted values have the total of the whole sample again; binomial: the share of its molecules
    depth_N1: Any = retention * total_N1 if method == "binomial" else retention
    return estimator.estimate(np.rint(linear_NG * (depth_N1 / np.maximum(total_N1, 1e-9))))
