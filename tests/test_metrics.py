"""Metrics against scipy and naive loops. Axis letters: C CpGs, S samples, R resamples, N cells."""

import math

import numpy as np
import pytest
from scipy.stats import pearsonr, spearmanr

from methyl_lightning import metrics
from methyl_lightning.metrics import (
    evaluate_grid,
    mac_pcc,
    mae,
    mas_pcc,
    mse,
    pearson_per_cpg,
    pearson_per_sample,
    spearman,
    spearman_batch50,
)

POOLED = (mae, mse, spearman, spearman_batch50, mas_pcc, mac_pcc)
KEYS = ["mae", "mse", "spearman", "spearman_batch50", "mas_pcc", "mac_pcc"]


def grids(n_cpgs: int = 60, n_samples: int = 24, digits: int = 4, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Make a float32 grid with missing cells, and a prediction that knows something of CpGs and of samples."""
    rng = np.random.default_rng(seed)
    level_C1 = rng.beta(0.5, 0.5, (n_cpgs, 1))
    effect_CS = 0.1 * rng.normal(size=(n_cpgs, n_samples))
    measured_CS = np.clip(level_C1 + effect_CS + 0.1 * rng.normal(size=effect_CS.shape), 0, 1).round(digits)
    measured_CS[rng.random(measured_CS.shape) < 0.1] = np.nan
    predicted_CS = np.clip(0.1 + 0.8 * level_C1 + effect_CS, 0, 1).round(digits)
    return measured_CS.astype(np.float32), predicted_CS.astype(np.float32)


def draw(n_samples: int, n_resamples: int, seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return rng.multinomial(n_samples, np.full(n_samples, 1 / n_samples), size=n_resamples)


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


def test_float_noise_in_a_constant_prediction_creates_no_correlation():
    measured_CS, predicted_CS = grids()
    rng = np.random.default_rng(1)
    constant_CS = np.broadcast_to(predicted_CS[:, :1], predicted_CS.shape)
    noisy_CS = constant_CS * (1 + rng.choice([-1, 0, 1], predicted_CS.shape) * np.finfo(np.float32).eps)
    for flat_CS in (constant_CS, noisy_CS.astype(np.float32)):
        assert np.isnan(pearson_per_cpg(measured_CS, flat_CS)).all()
        assert math.isnan(mas_pcc(measured_CS, flat_CS))
        assert mac_pcc(measured_CS, flat_CS) > 0.8
    interval = evaluate_grid(measured_CS, noisy_CS, np.arange(24).astype(str), n_resamples=20)["mas_pcc"]
    assert np.isnan(interval).all()


def test_constant_side_has_no_spearman():
    measured_CS, predicted_CS = grids()
    assert math.isnan(spearman(measured_CS, np.full_like(predicted_CS, 0.3)))
    assert math.isnan(spearman_batch50(measured_CS, np.full_like(predicted_CS, 0.3)))


def test_batches_are_a_partition_of_few_cells_and_undefined_ones_are_left_out():
    measured_CS = np.arange(101, dtype=float).reshape(1, 101)
    assert spearman_batch50(measured_CS, measured_CS) == pytest.approx(1)  # the third batch, of one cell, is undefined
    cells = metrics._cells(measured_CS, measured_CS)
    seen = []

    def record(measured_BK, predicted_BK):
        seen.append(measured_BK)
        return np.full(len(measured_BK), math.nan)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(metrics, "_spearman_rows", record)
        weight_S = np.array([2, 0, 1] + [1] * 98)
        assert math.isnan(metrics._batch_spearman(cells, weight_S, 50, 1000, np.random.default_rng(0)))
    assert [batch.shape for batch in seen] == [(2, 50), (1, 1)]
    drawn_N = np.concatenate([batch.ravel() for batch in seen])
    np.testing.assert_array_equal(np.sort(drawn_N), np.repeat(np.arange(101), weight_S))


def test_resample_without_a_cell_is_undefined():
    cells = metrics._cells(np.array([[0.1, 0.2, np.nan]]), np.array([[0.3, 0.1, 0.2]]))
    assert math.isnan(metrics._batch_spearman(cells, np.array([0, 0, 3]), 50, 1000, np.random.default_rng(0)))
    assert math.isnan(metrics._weighted_spearman(np.array([0, 1]), np.array([1, 0]), np.zeros(2)))


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
def test_weights_equal_a_materialised_resample(digits):
    measured_CS, predicted_CS = grids(digits=digits)
    cells = metrics._cells(measured_CS, predicted_CS)
    sample_N = np.repeat(np.arange(24), cells.count_S)
    code_N, predicted_code_N = metrics._codes(cells.measured_N), metrics._codes(cells.predicted_N)
    weight_RS = draw(24, 15)
    mas_R = metrics._resampled_mas_pcc(measured_CS, predicted_CS, weight_RS)
    for weight_S, mas in zip(weight_RS, mas_R, strict=True):
        drawn_D = np.repeat(np.arange(24), weight_S)
        x_CD, y_CD = measured_CS[:, drawn_D], predicted_CS[:, drawn_D]
        rho = metrics._weighted_spearman(code_N, predicted_code_N, weight_S[sample_N].astype(float))
        assert rho == pytest.approx(spearman(x_CD, y_CD), abs=1e-12)
        naive = np.nanmedian([naive_pearson(x, y) for x, y in zip(x_CD, y_CD, strict=True)])
        assert mas == pytest.approx(naive, abs=1e-10)


def test_chunks_do_not_change_mas_pcc(monkeypatch):
    measured_CS, predicted_CS = grids()
    weight_RS = draw(24, 15)
    expected_R = metrics._resampled_mas_pcc(measured_CS, predicted_CS, weight_RS)
    monkeypatch.setattr(metrics, "VALUES_IN_MEMORY", 120)
    np.testing.assert_allclose(metrics._resampled_mas_pcc(measured_CS, predicted_CS, weight_RS), expected_R, atol=1e-12)


def test_intervals_equal_those_of_materialised_resamples():
    measured_CS, predicted_CS = grids()
    patient_S = np.array([f"p{s // 2}" for s in range(24)])
    result = evaluate_grid(measured_CS, predicted_CS, patient_S, seed=3, n_resamples=30)
    weight_RP = np.random.default_rng(3).multinomial(12, np.full(12, 1 / 12), size=30)
    order = np.unique(patient_S, return_inverse=True)[1]
    drawn_R = [np.repeat(np.arange(24), weight_P[order]) for weight_P in weight_RP]
    for metric in (mae, mse, spearman, mas_pcc, mac_pcc):
        naive_R = [metric(measured_CS[:, drawn_D], predicted_CS[:, drawn_D]) for drawn_D in drawn_R]
        expected = [metric(measured_CS, predicted_CS), *np.percentile(naive_R, [2.5, 97.5])]
        np.testing.assert_allclose(result[metric.__name__], expected, atol=1e-10, err_msg=metric.__name__)


def test_values_are_those_of_the_functions_and_lie_in_their_intervals():
    measured_CS, predicted_CS = grids(120, 40)
    result = evaluate_grid(measured_CS, predicted_CS, np.arange(40).astype(str))
    assert list(result) == KEYS
    for metric in POOLED:
        interval = result[metric.__name__]
        assert interval.value == metric(measured_CS, predicted_CS)
        assert interval.low < interval.value < interval.high
        assert interval.high - interval.low < 0.2


def test_missing_cells_never_count():
    measured_CS, predicted_CS = grids()
    patient_S = np.arange(24).astype(str)
    changed_CS = np.where(np.isnan(measured_CS), np.float32(99), predicted_CS)
    result = evaluate_grid(measured_CS, predicted_CS, patient_S, n_resamples=20)
    assert evaluate_grid(measured_CS, changed_CS, patient_S, n_resamples=20) == result
    # A sample without a measured cell is no patient: the resamples are those of the grid without it.
    nothing_C1 = np.full((len(measured_CS), 1), np.nan, dtype=np.float32)
    wider = [np.hstack([measured_CS, nothing_C1]), np.hstack([predicted_CS, np.zeros_like(nothing_C1)])]
    padded = evaluate_grid(*wider, np.append(patient_S, "other"), n_resamples=20)
    for key in KEYS:
        np.testing.assert_allclose(padded[key], result[key], atol=1e-12)


def test_patients_not_samples_are_resampled():
    measured_CS, predicted_CS = (np.repeat(grid_CS, 4, axis=1) for grid_CS in grids(40, 12))
    together = evaluate_grid(measured_CS, predicted_CS, np.repeat(np.arange(12), 4).astype(str))
    apart = evaluate_grid(measured_CS, predicted_CS, np.arange(48).astype(str))
    for key in ("mae", "mse", "spearman", "mas_pcc", "mac_pcc"):
        assert together[key].value == apart[key].value
        assert together[key].high - together[key].low > 1.3 * (apart[key].high - apart[key].low), key


def test_a_subset_of_cpgs_moves_only_the_rank_intervals():
    measured_CS, predicted_CS = grids(200, 24)
    measured_CS[::2] = np.nan  # a CpG without a cell may be chosen, too
    patient_S = np.arange(24).astype(str)
    full = evaluate_grid(measured_CS, predicted_CS, patient_S, n_resamples=40)
    for max_cells in (1, 1000):
        part = evaluate_grid(measured_CS, predicted_CS, patient_S, n_resamples=40, max_cells=max_cells)
        assert [part[key].value for key in KEYS] == [full[key].value for key in KEYS]
        assert all(part[key] == full[key] for key in ("mae", "mse", "mas_pcc", "mac_pcc"))
        assert part["spearman"] != full["spearman"]
    assert abs(part["spearman"].low - full["spearman"].low) < 0.1


def test_one_patient_has_no_interval():
    measured_CS, predicted_CS = grids()
    for interval in evaluate_grid(measured_CS, predicted_CS, np.array(["p"] * 24)).values():
        assert math.isfinite(interval.value) and math.isnan(interval.low) and math.isnan(interval.high)


def test_seed_decides():
    measured_CS, predicted_CS = grids()
    patient_S = np.arange(24).astype(str)
    first, again, other = (
        evaluate_grid(measured_CS, predicted_CS, patient_S, seed=seed, n_resamples=20) for seed in (5, 5, 6)
    )
    assert first == again
    assert all(first[key].low != other[key].low for key in KEYS)


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


def test_patients_must_match_the_samples():
    measured_CS, predicted_CS = grids(10, 6)
    with pytest.raises(ValueError, match=r"patient_S has shape \(5,\)"):
        evaluate_grid(measured_CS, predicted_CS, np.array(["p"] * 5))
