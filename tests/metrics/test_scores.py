"""Metrics against scipy and naive loops. Axis letters: C CpGs, S samples, R resamples, N cells."""

import math

import numpy as np
import pytest
from conftest import grids
from scipy.stats import pearsonr, spearmanr

from methyl_lightning.metrics import scores as metrics
from methyl_lightning.metrics.scores import (
    mac_pcc,
    mae,
    mas_pcc,
    mas_pcc_centred,
    mse,
    pearson,
    pearson_per_cpg,
    pearson_per_sample,
    spearman,
    spearman_batch50,
)

POOLED = (mae, mse, pearson, spearman, spearman_batch50, mas_pcc, mas_pcc_centred, mac_pcc)


def naive_pearson(measured_N: np.ndarray, predicted_N: np.ndarray) -> float:
    mask_N = ~np.isnan(measured_N)
    x, y = measured_N[mask_N].astype(float), predicted_N[mask_N].astype(float)
    if len(x) < 3 or len(set(x)) == 1 or len(set(y)) == 1:
        return math.nan
    return pearsonr(x, y).statistic


@pytest.mark.parametrize("digits", [4, 1])
def test_pooled_metrics_agree_with_numpy_and_scipy(digits):
    measured_CS, predicted_CS = grids(digits=digits)
    mask_CS = ~np.isnan(measured_CS)
    x_N, y_N = measured_CS[mask_CS].astype(float), predicted_CS[mask_CS].astype(float)
    assert mae(measured_CS, predicted_CS) == pytest.approx(np.abs(x_N - y_N).mean(), rel=1e-12)
    assert mse(measured_CS, predicted_CS) == pytest.approx(((x_N - y_N) ** 2).mean(), rel=1e-12)
    assert pearson(measured_CS, predicted_CS) == pytest.approx(pearsonr(x_N, y_N).statistic, abs=1e-12)
    assert spearman(measured_CS, predicted_CS) == pytest.approx(spearmanr(x_N, y_N).statistic, abs=1e-12)


@pytest.mark.parametrize("digits", [4, 1])
def test_pearson_agrees_with_scipy_row_by_row_and_column_by_column(digits):
    measured_CS, predicted_CS = grids(digits=digits)
    measured_CS[0] = np.nan
    measured_CS[1, 2:] = np.nan
    measured_CS[2] = 0.5
    predicted_CS[3] = 0.25
    per_cpg_C = [naive_pearson(x, y) for x, y in zip(measured_CS, predicted_CS, strict=True)]
    per_sample_S = [naive_pearson(x, y) for x, y in zip(measured_CS.T, predicted_CS.T, strict=True)]
    assert np.isnan(per_cpg_C[:4]).all() and not np.isnan(per_sample_S).any()
    np.testing.assert_allclose(pearson_per_cpg(measured_CS, predicted_CS), per_cpg_C, atol=1e-12)
    np.testing.assert_allclose(pearson_per_sample(measured_CS, predicted_CS), per_sample_S, atol=1e-12)
    assert mas_pcc(measured_CS, predicted_CS) == pytest.approx(np.nanmedian(per_cpg_C), abs=1e-12)
    assert mac_pcc(measured_CS, predicted_CS) == pytest.approx(np.median(per_sample_S), abs=1e-12)


def test_correlation_takes_any_shift_and_scale():
    measured_CS, predicted_CS = grids()
    shifted_CS = 1000 + 5 * predicted_CS.astype(float)
    expected_C = pearson_per_cpg(measured_CS, predicted_CS)
    np.testing.assert_allclose(pearson_per_cpg(measured_CS, shifted_CS), expected_C, atol=1e-9)
    np.testing.assert_allclose(pearson_per_cpg(measured_CS, 1e-6 * predicted_CS), expected_C, atol=1e-6)


def additive(grid_CS, mask_CS):
    """Fit one value a CpG and one a sample by least squares, from the design of all measured cells."""
    c_N, s_N = np.nonzero(mask_CS)
    n_cpgs, n_samples = grid_CS.shape
    design = np.zeros((len(c_N), n_cpgs + n_samples))
    design[np.arange(len(c_N)), c_N] = design[np.arange(len(c_N)), n_cpgs + s_N] = 1
    effects = np.linalg.lstsq(design, grid_CS[c_N, s_N].astype(float), rcond=None)[0]
    return effects[:n_cpgs, None] + effects[n_cpgs:]


def test_what_all_cpgs_of_a_sample_share_does_not_count_when_centred():
    measured_CS, predicted_CS = grids()
    measured_CS[5, :20] = np.nan
    mask_CS = ~np.isnan(measured_CS)
    left = [grid_CS - additive(grid_CS, mask_CS) for grid_CS in (measured_CS, predicted_CS)]
    expected = mas_pcc(np.where(mask_CS, left[0], np.nan), left[1])
    assert mas_pcc_centred(measured_CS, predicted_CS) == pytest.approx(expected, abs=1e-5)
    shift_S = np.random.default_rng(0).normal(size=24).astype(np.float32)
    assert mas_pcc_centred(measured_CS + shift_S, predicted_CS - shift_S) == pytest.approx(expected, abs=1e-5)
    assert mas_pcc(measured_CS + shift_S, predicted_CS - shift_S) < -0.9
    one_number_CS = predicted_CS[:, :1] + np.arange(24, dtype=np.float32) / 100
    assert not math.isnan(mas_pcc(measured_CS, one_number_CS))
    assert math.isnan(mas_pcc_centred(measured_CS, one_number_CS))


def test_float_noise_in_a_constant_prediction_creates_no_correlation():
    measured_CS, predicted_CS = grids()
    rng = np.random.default_rng(1)
    constant_CS = np.broadcast_to(predicted_CS[:, :1], predicted_CS.shape)
    noisy_CS = constant_CS * (1 + rng.choice([-1, 0, 1], predicted_CS.shape) * np.finfo(np.float32).eps)
    for flat_CS in (constant_CS, noisy_CS.astype(np.float32)):
        assert np.isnan(pearson_per_cpg(measured_CS, flat_CS)).all()
        assert math.isnan(mas_pcc(measured_CS, flat_CS))
        assert mac_pcc(measured_CS, flat_CS) > 0.8


def test_constant_side_has_no_correlation():
    measured_CS, predicted_CS = grids()
    assert math.isnan(pearson(measured_CS, np.full_like(predicted_CS, 0.3)))
    assert math.isnan(spearman(measured_CS, np.full_like(predicted_CS, 0.3)))
    assert math.isnan(spearman_batch50(measured_CS, np.full_like(predicted_CS, 0.3)))


def test_batches_are_a_partition_of_few_cells_and_undefined_ones_are_left_out():
    measured_CS = np.arange(101, dtype=float).reshape(1, 101)
    assert spearman_batch50(measured_CS, measured_CS) == pytest.approx(1)  # the third batch, of one cell, is undefined
    cells = metrics.cells_of(measured_CS, measured_CS)
    seen = []

    def record(measured_BK, predicted_BK):
        seen.append(measured_BK)
        return np.full(len(measured_BK), math.nan)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(metrics, "_spearman_rows", record)
        weight_S = np.array([2, 0, 1] + [1] * 98)
        assert math.isnan(metrics.batch_spearman(cells, weight_S, 50, 1000, np.random.default_rng(0)))
    assert [batch.shape for batch in seen] == [(2, 50), (1, 1)]
    drawn_N = np.concatenate([batch.ravel() for batch in seen])
    np.testing.assert_array_equal(np.sort(drawn_N), np.repeat(np.arange(101), weight_S))


def test_resample_without_a_cell_is_undefined():
    cells = metrics.cells_of(np.array([[0.1, 0.2, np.nan]]), np.array([[0.3, 0.1, 0.2]]))
    assert math.isnan(metrics.batch_spearman(cells, np.array([0, 0, 3]), 50, 1000, np.random.default_rng(0)))


def test_batch_spearman_is_the_mean_of_scipy_over_batches():
    rng = np.random.default_rng(0)
    x_BK, y_BK = rng.integers(0, 9, (2, 30, 50)) / 8
    y_BK[4] = 0.5
    expected_B = [math.nan if b == 4 else spearmanr(x_BK[b], y_BK[b]).statistic for b in range(30)]
    np.testing.assert_allclose(metrics._spearman_rows(x_BK, y_BK), expected_B, atol=1e-12)
    measured_CS, predicted_CS = grids(200, 50)
    pooled = spearman(measured_CS, predicted_CS)
    assert spearman_batch50(measured_CS, predicted_CS) == pytest.approx(pooled, abs=0.03)
    # One batch of all cells is the pooled correlation.
    assert spearman_batch50(measured_CS, predicted_CS, batch_size=10_000) == pytest.approx(pooled, abs=1e-12)


@pytest.mark.parametrize("digits", [4, 1])
def test_weights_equal_repeated_columns(digits):
    measured_CS, predicted_CS = grids(digits=digits)
    weight_RS = np.random.default_rng(0).integers(0, 4, (9, 24))
    found_CR = metrics.weighted_pearson(measured_CS, predicted_CS, weight_RS)
    for weight_S, found_C in zip(weight_RS, found_CR.T, strict=True):
        drawn_D = np.repeat(np.arange(24), weight_S)
        naive = [naive_pearson(x, y) for x, y in zip(measured_CS[:, drawn_D], predicted_CS[:, drawn_D], strict=True)]
        np.testing.assert_allclose(found_C, naive, atol=1e-10)


def test_pieces_do_not_change_metrics(monkeypatch):
    measured_CS, predicted_CS = grids()
    weight_RS = np.random.default_rng(0).integers(0, 4, (9, 24))
    expected_CR = metrics.weighted_pearson(measured_CS, predicted_CS, weight_RS)
    expected = [metric(measured_CS, predicted_CS) for metric in POOLED]
    monkeypatch.setattr(metrics.pieces, "__defaults__", (100,))
    assert len(list(metrics.pieces(60, 24))) == 15 and len(list(metrics.pieces(24, 9))) == 3
    np.testing.assert_allclose(metrics.weighted_pearson(measured_CS, predicted_CS, weight_RS), expected_CR, atol=1e-12)
    np.testing.assert_allclose([metric(measured_CS, predicted_CS) for metric in POOLED], expected, atol=1e-12)


@pytest.mark.parametrize("metric", [*POOLED, pearson_per_cpg, pearson_per_sample])
def test_wrong_input_is_named(metric):
    measured_CS, predicted_CS = grids(10, 6)
    with pytest.raises(ValueError, match=r"predicted_CS has shape"):
        metric(measured_CS, predicted_CS[:, :5])
    with pytest.raises(ValueError, match=r"predicted_CS .* not finite"):
        metric(measured_CS, np.where(np.eye(10, 6), np.nan, predicted_CS))
    with pytest.raises(ValueError, match=r"measured_CS .* infinite"):
        metric(np.where(np.eye(10, 6), np.inf, measured_CS), predicted_CS)
    with pytest.raises(ValueError, match=r"measured_CS .* no measured cell"):
        metric(np.full((10, 6), np.nan), predicted_CS)
