"""The fast products equal torch's plain ones in value and gradient, and bfloat16 stays near float32."""

import pytest
import torch
from torch import nn

from methyl_lightning.networks.levy_jurgenson import LevyJurgenson
from methyl_lightning.networks.products import WideLinear, grid_product, times_transposed
from tests.test_networks import N_GENES, WINDOW, features


def close(actual: torch.Tensor, expected: torch.Tensor, tolerance: float) -> None:
    error = (actual.double() - expected.double()).abs().max() / expected.double().abs().max()
    assert error <= tolerance, error


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-14), (torch.float32, 1e-6)])
def test_wide_layer_is_a_linear_layer(dtype: torch.dtype, tolerance: float) -> None:
    torch.manual_seed(0)
    wide, plain = WideLinear(300, 70).to(dtype), nn.Linear(300, 70).double()
    plain.load_state_dict(wide.state_dict())
    rows = torch.randn(33, 300, dtype=dtype, requires_grad=True)
    expected_rows = rows.detach().double().requires_grad_()
    target = torch.randn(33, 70, dtype=torch.float64)
    (wide(rows) * target.to(dtype)).sum().backward()
    (plain(expected_rows) * target).sum().backward()
    close(wide(rows), plain(expected_rows), tolerance)
    for actual, expected in ((rows, expected_rows), (wide.weight, plain.weight), (wide.bias, plain.bias)):
        assert actual.grad is not None and expected.grad is not None
        close(actual.grad, expected.grad, tolerance)


def test_product_takes_any_layout() -> None:
    left, right = torch.randn(70, 40).T, torch.randn(70, 30).T
    close(times_transposed(left, right), left.double() @ right.double().T, 1e-6)
    close(times_transposed(left[:, 3:9], right[:, 3:9]), left[:, 3:9].double() @ right[:, 3:9].double().T, 1e-6)


@pytest.mark.parametrize("n_parts", [1, 2])
@pytest.mark.parametrize(("bf16", "tolerance"), [(False, 2e-6), (True, 2e-2)])
def test_tiles_make_up_the_grid_product(
    n_parts: int, bf16: bool, tolerance: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("methyl_lightning.networks.products.TILE_GENES", 16)
    monkeypatch.setattr("methyl_lightning.networks.products.TILE_BYTES", 3 * 5 * 16 * 4)
    torch.manual_seed(0)
    expression = torch.rand(6, 50)
    factors = [torch.randn(size, 50, requires_grad=True) for _ in range(n_parts) for size in (7, 5)]
    exact = [factor.detach().double().requires_grad_() for factor in factors]
    gradient = torch.randn(7, 5, 6)
    with torch.autocast("cpu", torch.bfloat16, enabled=bf16):
        product = grid_product(expression, *factors)
    assert product.dtype == torch.float32
    product.backward(gradient)
    expected = sum(
        torch.einsum("cg,kg,sg->cks", attention, weight, expression.double())
        for attention, weight in zip(exact[::2], exact[1::2], strict=True)
    )
    expected.backward(gradient.double())
    close(product, expected, tolerance)
    for factor, exact_factor in zip(factors, exact, strict=True):
        assert factor.grad is not None and exact_factor.grad is not None
        close(factor.grad, exact_factor.grad, tolerance)


def test_bfloat16_step_is_near_the_float32_step() -> None:
    torch.manual_seed(0)
    network = LevyJurgenson(N_GENES, WINDOW)
    cpgs, expression = features()
    expression = expression.float()
    outputs, gradients = [], []
    for enabled in (False, True):
        network.zero_grad()
        with torch.autocast("cpu", torch.bfloat16, enabled=enabled):
            output = network(cpgs, expression)
        assert output.dtype == torch.float32
        output.abs().mean().backward()
        outputs.append(output.detach())
        gradients.append(torch.cat([parameter.grad.flatten() for parameter in network.parameters()]))
    assert not torch.equal(*outputs)
    torch.testing.assert_close(outputs[1], outputs[0], rtol=0, atol=0.05)
    assert nn.functional.cosine_similarity(*gradients, dim=0) > 0.98
