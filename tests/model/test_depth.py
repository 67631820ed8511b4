"""The expression estimator: against a ridge written out in float64, against real draws, and at both ends of depth."""

from pathlib import Path

import numpy as np
import pytest
from conftest import rewrite
from scipy import sparse
from scipy.stats import poisson

from methyl_lightning.data.expression import dilute
from methyl_lightning.data.splits import make_split
from methyl_lightning.data.store import Store
from methyl_lightning.files import InputError
from methyl_lightning.model.checkpoint import load_checkpoint
from methyl_lightning.model.depth import MASK, MOLECULES, ExpressionEstimator, estimate_diluted
from methyl_lightning.model.record import TrainingRecord, record_training
from methyl_lightning.prepare.simulated import simulate

UNITS = "log2(norm+1)"
N_GENES = 120


def expression(n_samples: int, seed: int) -> np.ndarray:
    """Expression of three programmes and a rest of each gene; a tenth of the genes is silent."""
    loading_QG = 0.5 * np.random.default_rng(0).normal(size=(3, N_GENES))
    rng = np.random.default_rng([1, seed])
    level_G = np.linspace(2, 7, N_GENES)
    varying_SG = rng.normal(size=(n_samples, 3)) @ loading_QG + 0.3 * rng.normal(size=(n_samples, N_GENES))
    expression_SG = np.maximum(level_G + varying_SG, 0)
    expression_SG[:, ::10] = 0
    return expression_SG.astype(np.float32)


@pytest.fixture(scope="module")
def record(tmp_path_factory: pytest.TempPathFactory) -> TrainingRecord:
    """Take the record of a cohort whose expression has that structure."""
    folder = tmp_path_factory.mktemp("depth")
    simulate(folder / "cohort.h5", n_cpgs=20, n_patients=140, n_genes=N_GENES, window=40, seed=3)
    cohort = Store(folder / "cohort.h5")
    store = rewrite(cohort, folder / "structured.h5", expression_SG=expression(len(cohort.samples), 0))
    return record_training(store, np.arange(20), np.arange(len(store.samples)))


def error(estimate_NG: np.ndarray, truth_NG: np.ndarray) -> float:
    return float(((estimate_NG - truth_NG) ** 2).mean())


@pytest.mark.parametrize("draws", [MOLECULES, MASK])
def test_weights_are_those_of_a_ridge_on_infinitely_many_thinned_copies(record: TrainingRecord, draws: str) -> None:
    depth = 100.0
    fit = ExpressionEstimator(record, UNITS, draws=draws).fit(8)
    score_SQ = record.score_SQ.astype(np.float64)
    mean_SG = record.mean_G + score_SQ @ record.loading_QG.astype(np.float64)
    drawn_SG = np.maximum(mean_SG, 0) if draws == MASK else np.exp2(np.maximum(mean_SG, 0)) - 1
    total_S1 = drawn_SG.sum(axis=1, keepdims=True)

    def moments(depth: float) -> np.ndarray:
        found = np.zeros((2, *mean_SG.shape))
        for node, weight in ((-np.sqrt(3), 1 / 6), (0, 2 / 3), (np.sqrt(3), 1 / 6)):
            value_SG = np.maximum(mean_SG + node * record.residual_G, 0)
            if draws == MASK:
                share_SG = 1 - (1 - value_SG / total_S1) ** depth
                found += weight * np.stack([value_SG * share_SG, value_SG**2 * share_SG])
            else:
                share_SGN = poisson.pmf(np.arange(120), ((np.exp2(value_SG) - 1) / total_S1 * depth)[..., None])
                logarithm_N = np.log1p(np.arange(120))
                found += weight * np.stack([share_SGN @ logarithm_N, share_SGN @ logarithm_N**2])
        return found

    value_SG, square_SG = moments(depth)
    noise_G = (square_SG - value_SG**2).mean(axis=0)
    noise_GG = np.diag(np.maximum(noise_G, 1e-6 * noise_G.mean()))
    gain_G = (moments(depth * 1.01)[0] - moments(depth / 1.01)[0]).mean(axis=0) / (2 * np.log(1.01))
    noise_GG += np.log(total_S1).var() * np.outer(gain_G, gain_G)  # a depth that is misjudged moves all genes together
    centred_SG = value_SG - value_SG.mean(axis=0)
    gram_GG = centred_SG.T @ centred_SG + len(score_SQ) * noise_GG
    weight_GQ = np.linalg.solve(gram_GG, centred_SG.T @ (score_SQ - score_SQ.mean(axis=0)))
    np.testing.assert_allclose(fit.centre_G, value_SG.mean(axis=0), atol=3e-3)
    np.testing.assert_allclose(fit.weight_GQ[:, :-1], weight_GQ, atol=0.02 * np.abs(weight_GQ).max())


def test_centre_is_the_mean_of_thinned_training_samples(record: TrainingRecord) -> None:
    values_SG = np.concatenate([expression(len(record.score_SQ), 0)] * 20)
    count_SG = np.exp2(dilute(values_SG, "multinomial", 300, np.random.default_rng(0)).astype(np.float64)) - 1
    count_SG *= 300 / count_SG.sum(axis=1, keepdims=True)
    estimator = ExpressionEstimator(record, UNITS)
    lower_G, centre_G = (estimator.fit(level).centre_G for level in (9, 10))
    centre_G = centre_G + (4 * np.log10(300) - 10) * (centre_G - lower_G)
    np.testing.assert_allclose(centre_G, np.log1p(count_SG).mean(axis=0), atol=0.06)


def test_the_shallower_the_nearer_to_the_training_mean_and_at_full_depth_nothing_changes(
    record: TrainingRecord,
) -> None:
    estimator, truth_SG = ExpressionEstimator(record, UNITS), expression(40, 1)
    none = error(record.mean_G, truth_SG)
    errors, spreads = [], []
    for depth in (1, 10, 100, 1000, 10_000, 10**9):
        diluted_SG = dilute(truth_SG, "multinomial", depth, np.random.default_rng(depth))
        estimate_SG = estimate_diluted(estimator, diluted_SG, "multinomial", depth)
        errors.append(error(estimate_SG, truth_SG) / none)
        spreads.append(float(estimate_SG.std(axis=0).mean()))
    assert errors == sorted(errors, reverse=True) and max(errors) < 1.02
    assert spreads[:3] == sorted(spreads[:3])
    assert spreads[0] < 0.35 * spreads[-1] and errors[-1] < 0.01 and errors[-3] < 0.15
    np.testing.assert_array_equal(estimator.estimate(np.zeros((2, N_GENES))), np.tile(record.mean_G, (2, 1)))


@pytest.mark.parametrize(("method", "levels"), [("mask", (10, 100, 3000)), ("binomial", (1e-3, 1e-1, 1.0))])
def test_other_draws_are_estimated_alike(record: TrainingRecord, method: str, levels: tuple[float, ...]) -> None:
    estimator = ExpressionEstimator(record, UNITS, draws=MASK if method == "mask" else MOLECULES)
    truth_SG = expression(40, 2)
    none, errors = error(record.mean_G, truth_SG), []
    for level in levels:
        diluted_SG = dilute(truth_SG, method, level, np.random.default_rng(0))
        errors.append(error(estimate_diluted(estimator, diluted_SG, method, level), truth_SG))
        assert errors[-1] < none
    assert errors == sorted(errors, reverse=True) and errors[-1] < 0.1 * none


def test_depths_between_levels_are_as_good(record: TrainingRecord) -> None:
    estimator, truth_SG = ExpressionEstimator(record, UNITS), expression(400, 3)
    errors = []
    for depth in (178, 205, 237, 274, 316):  # from a level to the next
        diluted_SG = dilute(truth_SG, "multinomial", depth, np.random.default_rng(0))
        errors.append(error(estimate_diluted(estimator, diluted_SG, "multinomial", depth), truth_SG))
    np.testing.assert_allclose(errors[1:-1], np.interp([1, 2, 3], [0, 4], errors[:: len(errors) - 1]), rtol=0.02)


def test_missing_genes_are_estimated_from_the_others(record: TrainingRecord) -> None:
    truth_SG, gene_K = expression(40, 4), np.arange(20, N_GENES)
    count_SG = np.rint(np.exp2(truth_SG) - 1)
    estimate_SG = ExpressionEstimator(record, UNITS, gene_K).estimate(count_SG[:, gene_K])
    missing = slice(10, 20)
    assert error(estimate_SG[:, missing], truth_SG[:, missing]) < 0.6 * error(
        record.mean_G[missing], truth_SG[:, missing]
    )
    order_K = np.arange(N_GENES)
    whole_SG = ExpressionEstimator(record, UNITS, order_K).estimate(count_SG)
    np.testing.assert_array_equal(whole_SG, ExpressionEstimator(record, UNITS).estimate(count_SG))


def test_samples_do_not_depend_on_their_company_nor_on_sparseness(record: TrainingRecord) -> None:
    rng = np.random.default_rng(5)
    depth_S = np.array([30, 500, 41, 7000, 0, 900])
    share_SG = np.exp2(expression(6, 5)) - 1
    share_SG = share_SG.astype(np.float64) / share_SG.sum(axis=1, keepdims=True, dtype=np.float64)
    count_SG = rng.multinomial(depth_S, share_SG)
    together_SG = ExpressionEstimator(record, UNITS).estimate(count_SG)
    alone_SG = np.concatenate([ExpressionEstimator(record, UNITS).estimate(row[None]) for row in count_SG])
    np.testing.assert_allclose(together_SG, alone_SG, atol=1e-4)
    np.testing.assert_allclose(
        ExpressionEstimator(record, UNITS).estimate(sparse.csr_matrix(count_SG)), together_SG, atol=1e-4
    )


@pytest.mark.parametrize("draws", [MOLECULES, MASK])
def test_estimates_are_those_of_the_formula_in_double_precision(record: TrainingRecord, draws: str) -> None:
    gene_K = np.flatnonzero(np.arange(N_GENES) % 7 != 0)
    estimator = ExpressionEstimator(record, UNITS, gene_K, draws)
    depth_N = np.array([100, 130, 170, 177.8, 180, 230, 300])  # levels 8 to 10, on both sides
    value_NK = np.random.default_rng(6).poisson(2, (len(depth_N), len(gene_K))).astype(np.float64)
    found = [estimator.estimate(own, depth_N) for own in (value_NK, sparse.csr_matrix(value_NK))]
    if draws == MOLECULES:
        value_NK = np.log1p(value_NK * np.minimum(estimator.full / depth_N, 1)[:, None])
    for n, depth in enumerate(depth_N):
        level = round(place := 4 * np.log10(depth))
        fit = estimator.fit(level)
        centre_G, weight_GQ, loading_QG, slope_G = (part.astype(np.float64) for part in fit)
        beyond = estimator.fit(level + (1 if place > level else -1)).centre_G.astype(np.float64)
        centre_G += abs(place - level) * (beyond - centre_G)
        deviation_G = np.zeros(N_GENES)
        deviation_G[gene_K] = value_NK[n] - centre_G[gene_K]
        expected_G = record.mean_G + deviation_G @ weight_GQ @ loading_QG + deviation_G * slope_G
        for estimate_NG in found:
            np.testing.assert_allclose(estimate_NG[n], np.maximum(expected_G, 0), atol=2e-5)


def test_a_checkpoint_carries_it_in_little_space(workplace: Path) -> None:
    module = load_checkpoint(workplace / "run" / "best.ckpt")
    store = Store(workplace / "stores" / "simulated.h5")
    record = module.training_record()
    assert record is not None
    sample_S = make_split(store, (0.8, 0.1, 0.1), 0).sample["train"]
    taken = record_training(store, np.arange(3), sample_S)
    for name in ("loading_QG", "score_SQ", "residual_G"):
        np.testing.assert_array_equal(getattr(record, name), getattr(taken, name))
    n_components, n_genes = record.loading_QG.shape
    assert record.loading_QG.nbytes == 2 * n_components * n_genes and n_components <= 128
    rebuilt_SG = record.mean_G + record.score_SQ @ record.loading_QG.astype(np.float32)
    rest_G = (store.expression_SG[sample_S] - rebuilt_SG).std(axis=0)
    share = n_components / len(sample_S)
    np.testing.assert_allclose(rest_G / np.sqrt(1 - share), record.residual_G, rtol=0.1, atol=0.01)


def test_units_that_are_no_logarithm_are_refused(record: TrainingRecord) -> None:
    with pytest.raises(InputError, match="'tpm', are not log2"):
        ExpressionEstimator(record, "tpm")
