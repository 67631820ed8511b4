"""Dilution against theory, and the scaler."""

import numpy as np
import pytest
import torch

from methyl_lightning.data.expression import METHODS, SCALERS, MinMaxScaler, dilute
from methyl_lightning.files import InputError


@pytest.fixture
def expression_SG() -> np.ndarray:
    """Five samples × 200 genes, a fifth of the values 0."""
    rng = np.random.default_rng(1)
    values_SG = rng.gamma(2, 3, (5, 200)).clip(max=14).astype(np.float32)
    values_SG[rng.random(values_SG.shape) < 0.2] = 0
    return values_SG


def counts(values_SG: np.ndarray) -> np.ndarray:
    return np.exp2(values_SG.astype(float)) - 1


@pytest.mark.parametrize("retention", [1, 20, 100, 1000])
def test_mask_keeps_as_many_distinct_genes_as_theory_says(expression_SG: np.ndarray, retention: int) -> None:
    share_SG = expression_SG / expression_SG.sum(axis=1, dtype=float, keepdims=True)
    stays_SG = 1 - (1 - share_SG) ** retention
    repeats = 400
    rng = np.random.default_rng(0)
    kept_RS = np.array([(dilute(expression_SG, "mask", retention, rng) > 0).sum(axis=1) for _ in range(repeats)])
    # draws of genes are negatively associated, so independence bounds the variance
    deviation_S = np.sqrt((stays_SG * (1 - stays_SG)).sum(axis=1) / repeats)
    np.testing.assert_array_less(np.abs(kept_RS.mean(axis=0) - stays_SG.sum(axis=1)), 4 * deviation_S + 1e-9)


def test_mask_keeps_full_values_or_nothing(expression_SG: np.ndarray) -> None:
    diluted_SG = dilute(expression_SG, "mask", 50, np.random.default_rng(0))
    kept_SG = diluted_SG != 0
    assert (diluted_SG[kept_SG] == expression_SG[kept_SG]).all()
    assert ((kept_SG.sum(axis=1) > 20) & (kept_SG.sum(axis=1) <= 50)).all()


def test_mask_draws_by_the_log_value_and_multinomial_by_the_count() -> None:
    values_SG = np.tile(np.array([[2.0, 6.0]]), (4000, 1))
    for method, share in (("mask", 6 / 8), ("multinomial", 63 / 66)):
        second_S = dilute(values_SG, method, 1, np.random.default_rng(0))[:, 1] > 0
        assert abs(second_S.mean() - share) < 4 * np.sqrt(share * (1 - share) / 4000)


@pytest.mark.parametrize(("method", "retention"), [("multinomial", 3000), ("binomial", 0.05)])
def test_thinning_is_unbiased_on_the_count_scale(method: str, retention: float) -> None:
    count_SG = np.random.default_rng(2).integers(1, 400, (3, 60)).astype(float)
    rng, repeats = np.random.default_rng(0), 600
    kept_RSG = np.array([counts(dilute(np.log2(count_SG + 1), method, retention, rng)) for _ in range(repeats)])
    total_S1 = count_SG.sum(axis=1, keepdims=True)
    share_SG = count_SG / total_S1
    variance_SG = (
        total_S1**2 * share_SG * (1 - share_SG) / retention
        if method == "multinomial"
        else count_SG * (1 - retention) / retention
    )
    z_SG = (kept_RSG.mean(axis=0) - count_SG) / np.sqrt(variance_SG / repeats)
    assert np.abs(z_SG).max() < 4.5
    np.testing.assert_allclose(kept_RSG.var(axis=0).mean(), variance_SG.mean(), rtol=0.1)


def test_multinomial_returns_to_the_sample_s_own_total(expression_SG: np.ndarray) -> None:
    diluted_SG = dilute(expression_SG, "multinomial", 500, np.random.default_rng(0))
    np.testing.assert_allclose(counts(diluted_SG).sum(axis=1), counts(expression_SG).sum(axis=1), rtol=1e-4)
    # whole molecules, each standing for total / 500
    molecules_SG = counts(diluted_SG) * 500 / counts(expression_SG).sum(axis=1, keepdims=True)
    np.testing.assert_allclose(molecules_SG, np.rint(molecules_SG), atol=1e-3)


def test_nothing_is_lost_as_retention_grows(expression_SG: np.ndarray) -> None:
    rng = np.random.default_rng(0)
    np.testing.assert_array_equal(dilute(expression_SG, "mask", 10**7, rng), expression_SG)
    np.testing.assert_allclose(dilute(expression_SG, "multinomial", 10**15, rng), expression_SG, atol=1e-3)
    whole_SG = np.log2(np.rint(counts(expression_SG)) + 1).astype(np.float32)
    np.testing.assert_allclose(dilute(whole_SG, "binomial", 1, rng), whole_SG, atol=1e-5)
    np.testing.assert_array_equal(dilute(expression_SG, "none", 1, rng), expression_SG)


@pytest.mark.parametrize("method", METHODS)
def test_the_generator_decides_and_the_input_stays(expression_SG: np.ndarray, method: str) -> None:
    retention = 0.2 if method == "binomial" else 30
    before_SG = expression_SG.copy()
    first, again, other = (dilute(expression_SG, method, retention, np.random.default_rng(s)) for s in (0, 0, 1))
    assert first.dtype == np.float32
    assert (first == again).all()
    assert (first == other).all() == (method == "none")
    first[:] = -1
    assert (expression_SG == before_SG).all()


@pytest.mark.parametrize("method", ["mask", "multinomial", "binomial"])
def test_a_sample_that_cannot_be_diluted_is_named(expression_SG: np.ndarray, method: str) -> None:
    expression_SG[3] = 0
    with pytest.raises(InputError, match="sample 3 has no expression"):
        dilute(expression_SG, method, 1, np.random.default_rng(0))
    with pytest.raises(InputError, match="sample 'd' has no expression"):
        dilute(expression_SG, method, 1, np.random.default_rng(0), list("abcde"))
    expression_SG[3, :2] = 1, -0.5
    with pytest.raises(InputError, match="sample 3 has negative expression"):
        dilute(expression_SG, method, 1, np.random.default_rng(0))


@pytest.mark.parametrize(
    ("method", "retention"),
    [("mask", 0), ("mask", 0.5), ("mask", 10.5), ("multinomial", -1), ("binomial", 0), ("binomial", 100)],
)
def test_a_retention_out_of_range_is_named(expression_SG: np.ndarray, method: str, retention: float) -> None:
    with pytest.raises(InputError, match=f"retention={retention:g}: with {method}"):
        dilute(expression_SG, method, retention, np.random.default_rng(0))


def test_an_unknown_method_is_named(expression_SG: np.ndarray) -> None:
    with pytest.raises(ValueError, match="method='half': must be one of"):
        dilute(expression_SG, "half", 1, np.random.default_rng(0))


def test_scaler_maps_the_training_range_to_10_and_100_and_lets_others_leave_it() -> None:
    scaler = MinMaxScaler(3)
    scaler.fit(torch.tensor([[1.0, 5.0, 0.0], [3.0, 5.0, 8.0], [2.0, 5.0, 2.0]]))
    scaled_SG = scaler(torch.tensor([[1.0, 5.0, 8.0], [3.0, 9.0, 0.0], [4.0, 0.0, 4.0]]))
    torch.testing.assert_close(scaled_SG, torch.tensor([[10.0, 10.0, 100.0], [100.0, 10.0, 10.0], [145.0, 10.0, 55.0]]))


def test_other_scalers() -> None:
    expression_SG = torch.tensor([[1.0, 0.1, 0.0], [3.0, 0.1, 8.0], [2.0, 0.1, 2.0]])
    scalers = {name: scaler(3) for name, scaler in SCALERS.items()}
    for scaler in scalers.values():
        scaler.fit(expression_SG)
    expected_SG = (expression_SG - expression_SG.mean(0)) / expression_SG.std(0, correction=0)
    expected_SG[:, 1] = 0  # constant in training
    np.testing.assert_allclose(scalers["zscore"](expression_SG), expected_SG, atol=1e-6)
    assert scalers["zscore"](torch.tensor([[1.0, 9.0, 0.0]]))[0, 1] == 0
    assert torch.equal(scalers["none"](expression_SG), expression_SG)
