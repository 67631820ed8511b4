"""Ridges and components of the closed forms equal naive computations."""

import numpy as np
import pytest
import torch
from naive import naive_ridge, ridge_rows

from methyl_lightning.networks.baselines.ridge import (
    GRID_FOLDS,
    PENALTIES,
    ROW_FOLDS,
    ExpressionComponents,
    fit_ridge,
    fit_ridge_left_out,
    fit_two_sided,
    folds,
    products,
)


def naive_left_out(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Take the ridge, beside a free constant, whose penalty has the least squared error when each row is left out."""

    def error(share: float) -> float:
        total, penalty = 0.0, np.diag([0.0] + [share * len(x)] * x.shape[1])
        design = np.column_stack([np.ones(len(x)), x])
        for row in range(len(x)):
            kept = np.arange(len(x)) != row
            weight = np.linalg.solve(design[kept].T @ design[kept] + penalty, design[kept].T @ y[kept])
            total += ((y[row] - design[row] @ weight) ** 2).sum()
        return total

    return ridge_rows(x, y, min(PENALTIES, key=error) * len(x))


@pytest.mark.parametrize("noise", [0.1, 1.0, 10.0])
def test_left_out_ridge_counts_the_constant(noise: float) -> None:
    rng = np.random.default_rng(0)
    x, weight = rng.normal(size=(25, 8)), rng.normal(size=(8, 3))
    y = x @ weight + noise * rng.normal(size=(25, 3))
    x, y = x - x.mean(axis=0), y - y.mean(axis=0)
    actual = fit_ridge_left_out(torch.from_numpy(x), torch.from_numpy(y))
    np.testing.assert_allclose(actual, naive_left_out(x, y), rtol=1e-8, atol=1e-10)


@pytest.mark.parametrize("noise", [0.1, 1.0, 10.0])
def test_ridge_equals_least_squares_with_ridge_rows(noise: float) -> None:
    rng = np.random.default_rng(0)
    x, weight = rng.normal(size=(60, 8)), rng.normal(size=(8, 3))
    y = x @ weight + noise * rng.normal(size=(60, 3))
    expected = naive_ridge(x, y, folds(60, ROW_FOLDS).numpy())
    actual = fit_ridge(products(torch.from_numpy(x), torch.from_numpy(y)))
    np.testing.assert_allclose(actual, expected, rtol=1e-8, atol=1e-10)


def naive_two_sided(x: np.ndarray, r: np.ndarray, z: np.ndarray, left: float, right: float) -> np.ndarray:
    a, b = x.T @ x + left * np.eye(x.shape[1]), z.T @ z + right * np.eye(z.shape[1])
    return np.linalg.inv(a) @ x.T @ r @ z @ np.linalg.inv(b)


def test_two_sided_ridge_is_its_formula_at_the_best_penalties() -> None:
    rng = np.random.default_rng(1)
    x, z, weight = rng.normal(size=(40, 5)), rng.normal(size=(30, 4)), rng.normal(size=(5, 4))
    r = x @ weight @ z.T + 4 * rng.normal(size=(40, 30))
    row, column = folds(40, GRID_FOLDS).numpy(), folds(30, GRID_FOLDS).numpy()

    def error(shares: tuple[float, float]) -> float:
        total = 0.0
        for f in range(GRID_FOLDS):
            i, j = row != f, column != f
            weight = naive_two_sided(x[i], r[np.ix_(i, j)], z[j], shares[0] * i.sum(), shares[1] * j.sum())
            total += ((r[np.ix_(~i, ~j)] - x[~i] @ weight @ z[~j].T) ** 2).sum()
        return total

    best = min(((a, b) for a in PENALTIES for b in PENALTIES), key=error)
    expected = naive_two_sided(x, r, z, best[0] * 40, best[1] * 30)
    actual = fit_two_sided(torch.from_numpy(x), torch.from_numpy(r), torch.from_numpy(z))
    np.testing.assert_allclose(actual, expected, rtol=1e-8)


def test_components_are_those_of_the_singular_value_decomposition() -> None:
    expression_SG = torch.randn(20, 30, generator=torch.Generator().manual_seed(0)) * 3 + 5
    expression_SG[:, 4] = 7.0  # a gene that does not vary tells nothing
    components = ExpressionComponents(30, 5)
    components.fit(expression_SG)
    varies = np.delete(expression_SG.numpy(), 4, axis=1).astype(np.float64)
    left, size, _ = np.linalg.svd((varies - varies.mean(0)) / varies.std(0), full_matrices=False)
    expected = left[:, :5] * size[:5] / size[0] * np.sqrt(20)
    np.testing.assert_allclose(components(expression_SG).abs(), np.abs(expected), atol=1e-4)
    assert not components.loading_GQ[4].any()


def test_components_of_many_samples_are_those_of_some(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("methyl_lightning.networks.baselines.ridge.COMPONENT_SAMPLES", 60)
    generator = torch.Generator().manual_seed(0)
    factor_SK = torch.randn(200, 2, generator=generator) * torch.tensor([3.0, 1.5])
    expression_SG = factor_SK @ torch.randn(2, 30, generator=generator) + 0.1 * torch.randn(
        200, 30, generator=generator
    )
    some, again = ExpressionComponents(30, 2), ExpressionComponents(30, 2)
    some.fit(expression_SG)
    again.fit(expression_SG)
    assert torch.equal(some.loading_GQ, again.loading_GQ)
    left, _, _ = np.linalg.svd(some.genes(expression_SG).numpy(), full_matrices=False)
    overlap = np.linalg.svd(left[:, :2].T @ np.linalg.qr(some(expression_SG).numpy())[0])[1]
    assert overlap.min() > 0.99
