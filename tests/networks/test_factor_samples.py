"""The sample side of methylation factors: each closed form equals a naive solution."""

import pytest
import torch
from torch import Tensor

from methyl_lightning.networks.factors.samples import PENALTIES as SAMPLE_PENALTIES
from methyl_lightning.networks.factors.samples import (
    Expression,
    Kernel,
    complete,
    fill,
    fill_operator,
    fit_factors,
    regress,
    sharpened,
)


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def small_kernel(n_samples: int = 12) -> tuple[Kernel, Tensor]:
    """Return the kernel of random expression, and the matrix that it is the spectrum of."""
    kernel, _ = Expression(30).fit(normal(n_samples, 30).float())
    return kernel, (kernel.vector_SS * kernel.value_S) @ kernel.vector_SS.T


def test_leave_one_out_of_the_kernel_is_leaving_out() -> None:
    kernel, gram = small_kernel()
    target = normal(12, 3, seed=1)
    target -= target.mean(0)
    penalty = 0.3
    actual = kernel.leave_one_out(penalty) @ target
    for s in range(12):
        kept = torch.arange(12) != s
        n = int(kept.sum())
        # a constant without penalty beside the kernel: the saddle point system
        system = torch.zeros(n + 1, n + 1, dtype=torch.float64)
        system[:n, :n] = gram[kept][:, kept] + penalty * torch.eye(n)
        system[:n, n] = system[n, :n] = 1
        solution = torch.linalg.solve(system, torch.cat([target[kept], torch.zeros(1, 3, dtype=torch.float64)]))
        torch.testing.assert_close(actual[s], gram[s, kept] @ solution[:n] + solution[n], rtol=1e-5, atol=1e-5)


def test_each_factor_has_the_penalty_of_least_left_out_error() -> None:
    kernel, gram = small_kernel()
    target = torch.stack([gram[0] / gram[0].std(), normal(12, seed=5)], 1)
    target -= target.mean(0)
    fitted = regress(kernel, target)
    for q in range(2):
        errors = [(kernel.leave_one_out(p) @ target[:, q] - target[:, q]).square().sum() for p in SAMPLE_PENALTIES]
        best = SAMPLE_PENALTIES[int(torch.stack(errors).argmin())]
        expected = torch.linalg.solve(gram + best * torch.eye(12), target[:, q])
        torch.testing.assert_close(fitted.dual_SQ[:, q], expected, rtol=1e-6, atol=1e-8)


def test_measured_cells_stay_and_rows_sum_to_zero_when_filled() -> None:
    kernel, _ = small_kernel()
    beta = normal(6, 12, seed=3).sigmoid().float()
    beta[2, 4] = beta[2, 7] = beta[5, 0] = torch.nan
    mean, residual = fill(beta, kernel.leave_one_out(1.0).float())
    known = ~beta.isnan()
    torch.testing.assert_close((mean[:, None] + residual)[known], beta[known])
    torch.testing.assert_close(residual.sum(1), torch.zeros(6), atol=1e-5, rtol=0)
    assert not residual.isnan().any()


def test_a_grid_is_completed_in_place() -> None:
    kernel, _ = small_kernel()
    beta = normal(9, 12, seed=3).sigmoid().float()
    beta[2, 4] = beta[5, 0] = torch.nan
    before = beta.clone()
    complete(beta, kernel)
    known = ~before.isnan()
    torch.testing.assert_close(beta[known], before[known])
    mean, residual = fill(before, fill_operator(kernel, before))
    torch.testing.assert_close(beta[~known], (mean[:, None] + residual)[~known])


def test_factors_times_loadings_is_the_dense_kronecker_system() -> None:
    """Two ridge regressions in a row are one Gaussian process on the grid of CpGs × samples."""
    kernel, gram_SS = small_kernel(8)
    features = normal(9, 4, seed=4)
    gram_CC = torch.exp(-torch.cdist(features, features))
    residual_CS = normal(9, 8, seed=6)
    residual_CS -= residual_CS.mean(1, keepdim=True)
    a, b = 0.5, 2.0
    smooth = gram_CC @ torch.linalg.solve(gram_CC + a * torch.eye(9), residual_CS) @ kernel.hat(b).T
    # (K_C ⊗ K_S)(K_C ⊗ K_S + b K_C ⊗ I + a I ⊗ K_S + ab I)⁻¹ vec R
    eye_C, eye_S = torch.eye(9, dtype=torch.float64), torch.eye(8, dtype=torch.float64)
    system = torch.kron(gram_CC + a * eye_C, gram_SS + b * eye_S)
    dense = torch.kron(gram_CC, gram_SS) @ torch.linalg.solve(system, residual_CS.reshape(-1))
    torch.testing.assert_close(smooth.reshape(-1), dense, rtol=1e-6, atol=1e-8)


def test_a_factor_of_one_gene_is_sharpened_and_one_of_all_is_not() -> None:
    expression = normal(60, 300, seed=7).float()
    prepared = Expression(300)
    kernel, scale = prepared.fit(expression)
    rows = prepared(expression)
    scores = torch.stack([rows[:, 5], rows @ normal(300, seed=8).float() / 15], 1).double()
    weight, left = fit_factors(rows, kernel, scale, scores)
    flat = regress(kernel, scores)
    assert float((left[:, 0] - scores[:, 0]).square().mean()) < 0.7 * float(
        (flat.left_SQ[:, 0] - scores[:, 0]).square().mean()
    )
    assert int(weight[:, 0].abs().argmax()) == 5
    torch.testing.assert_close(
        weight[:, 1], (rows.T.double() @ flat.dual_SQ[:, 1] * scale).float(), rtol=1e-3, atol=1e-5
    )


def test_sharpened_genes_solve_their_weighted_ridge() -> None:
    rows, target = normal(20, 6, seed=1), normal(20, seed=2)
    centred, y = rows - rows.mean(0), target - target.mean()
    share = ((centred.T @ y).abs() / centred.norm(dim=0) / y.norm()) ** 2
    share /= share.mean()
    weight, constant = sharpened(rows.float(), target, 2.0)
    size = 20 / ((centred * share) * centred).sum()
    errors = []
    for penalty in SAMPLE_PENALTIES:  # of the weights over the roots of their shares
        ridge = torch.diag(penalty / (size * share))
        candidate = torch.linalg.solve(centred.T @ centred + ridge, centred.T @ y)
        errors.append(float((candidate - weight).abs().max()))
    assert min(errors) < 1e-4
    assert constant == pytest.approx(float(target.mean() - rows.mean(0) @ weight.double()), abs=1e-5)
