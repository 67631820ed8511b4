"""Metrics of calls against pairwise loops, and their resamples against grids that are copied together."""

import math

import numpy as np
import pytest

from methyl_lightning.metrics.calls import (
    WEIGHTED,
    auroc,
    auroc_per_cpg,
    bootstrap_calls,
    mean_auroc_per_cpg,
    sample_mean_r,
)


def grids(seed: int, n_cpgs: int = 12, n_samples: int = 9) -> tuple[np.ndarray, np.ndarray]:
    """Make calls with gaps and shares of reads, and predictions with ties."""
    rng = np.random.default_rng(seed)
    measured_CS = rng.choice([0, 0.25, 0.5, 1, np.nan], (n_cpgs, n_samples), p=[0.3, 0.1, 0.05, 0.25, 0.3])
    return measured_CS.astype(np.float32), rng.integers(0, 6, (n_cpgs, n_samples)).astype(np.float32) / 5


def naive(measured_N: np.ndarray, predicted_N: np.ndarray) -> float:
    pairs = [
        1.0 if high > low else 0.5 if high == low else 0.0
        for high, one in zip(predicted_N, measured_N, strict=True)
        for low, other in zip(predicted_N, measured_N, strict=True)
        if one > 0.5 and other < 0.5
    ]
    return float(np.mean(pairs)) if pairs else math.nan


@pytest.mark.parametrize("seed", range(4))
def test_aurocs_equal_loops_over_pairs(seed: int) -> None:
    measured_CS, predicted_CS = grids(seed)
    assert auroc(measured_CS, predicted_CS) == pytest.approx(naive(measured_CS.ravel(), predicted_CS.ravel()))
    of_rows = [naive(*rows) for rows in zip(measured_CS, predicted_CS, strict=True)]
    np.testing.assert_allclose(auroc_per_cpg(measured_CS, predicted_CS), of_rows)
    assert mean_auroc_per_cpg(measured_CS, predicted_CS) == pytest.approx(np.nanmean(of_rows))


def test_auroc_of_a_perfect_an_inverted_and_a_constant_prediction() -> None:
    measured_CS = grids(0)[0]
    perfect_CS = np.nan_to_num(measured_CS)
    assert (auroc(measured_CS, perfect_CS), auroc(measured_CS, -perfect_CS)) == (1, 0)
    assert auroc(measured_CS, np.zeros_like(perfect_CS)) == 0.5
    assert math.isnan(auroc(np.zeros((2, 3)), np.zeros((2, 3))))
    assert math.isnan(mean_auroc_per_cpg(np.zeros((2, 3)), np.zeros((2, 3))))


def test_the_mean_of_a_sample_is_predicted_over_all_cpgs() -> None:
    measured_CS = np.array([[1, np.nan, 0, 1], [np.nan, 0, 0, 1]])
    predicted_CS = np.array([[0.9, 0.1, 0.0, 0.5], [0.9, 0.3, 0.2, 0.5]])
    expected = np.corrcoef([1, 0, 0, 1], [0.9, 0.2, 0.1, 0.5])[0, 1]
    assert sample_mean_r(measured_CS, predicted_CS) == pytest.approx(expected)


@pytest.mark.parametrize("name", WEIGHTED)
def test_weights_stand_for_copies_of_samples(name: str) -> None:
    measured_CS, predicted_CS = grids(7)
    weight_RS = np.random.default_rng(1).multinomial(9, np.full(9, 1 / 9), size=5)
    expected = []
    for weight_S in weight_RS:
        copies = np.repeat(np.arange(9), weight_S)
        expected += [WEIGHTED[name](measured_CS[:, copies], predicted_CS[:, copies], np.ones((1, len(copies))))[0]]
    np.testing.assert_allclose(WEIGHTED[name](measured_CS, predicted_CS, weight_RS), expected, rtol=1e-9)


def test_bootstrap_draws_donors_and_keeps_the_values() -> None:
    measured_CS, predicted_CS = grids(3)
    found = bootstrap_calls(measured_CS, predicted_CS, np.array(list("aabbccdde")), seed=1)
    assert found["auroc"].value == pytest.approx(auroc(measured_CS, predicted_CS))
    assert found["auroc_per_cpg"].value == pytest.approx(mean_auroc_per_cpg(measured_CS, predicted_CS))
    assert np.nanstd(found["auroc"].patients_R) > 0.01 and np.isnan(found["auroc"].cpgs_R).all()
