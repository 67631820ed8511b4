"""The fast products equal torch's plain ones in value and gradient, and bfloat16 stays near float32."""

import pytest
import torch
from test_networks import N_GENES, WINDOW, features
from torch import nn
from torch.nn import functional

from methyl_lightning.networks.levy_jurgenson import LevyJurgenson
from methyl_lightning.networks.products import WideLinear, grid_product, times_transposed
from methyl_lightning.networks.sequence import SequenceConvolution


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


def test_a_change_of_the_private_product_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []
    operator = torch.ops.mkldnn._linear_pointwise
    monkeypatch.setattr(torch.ops.mkldnn, "_linear_pointwise", lambda *given: asked.append(given) or operator(*given))
    left, right, bias = torch.randn(5, 300), torch.randn(7, 300), torch.randn(7)
    close(times_transposed(left, right, bias), functional.linear(left, right, bias), 1e-6)
    assert len(asked) == torch.backends.mkldnn.is_available()


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-13), (torch.float32, 1e-5)])
def test_convolution_is_that_of_plain_layers(
    dtype: torch.dtype, tolerance: float, training: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("methyl_lightning.networks.sequence.ROWS", 5)
    torch.manual_seed(0)
    fused = SequenceConvolution(43).to(dtype).train(training)
    convolution = nn.Conv1d(5, 64, 11, padding=5).double()
    normalisation = nn.BatchNorm1d(64).double().train(training)
    for name in ("weight", "running_var"):
        nn.init.uniform_(getattr(normalisation, name), 0.5, 2)
    for name in ("bias", "running_mean"):
        nn.init.normal_(getattr(normalisation, name))
    convolution.load_state_dict(fused.convolution.state_dict())
    fused.normalisation.load_state_dict(normalisation.state_dict())
    sequence_CL, target_CN = torch.randint(0, 5, (13, 43), dtype=torch.uint8), torch.randn(13, 256, dtype=dtype)
    one_hot_CAL = functional.one_hot(sequence_CL.long(), 5).transpose(1, 2).double()
    expected_CN = functional.avg_pool1d(functional.elu(normalisation(convolution(one_hot_CAL))), 10).flatten(1)
    actual_CN = fused(sequence_CL)
    close(actual_CN, expected_CN, tolerance)
    (actual_CN * target_CN).sum().backward()
    (expected_CN * target_CN).sum().backward()
    for actual, expected in ((fused.convolution, convolution), (fused.normalisation, normalisation)):
        assert actual.weight.grad is not None and expected.weight.grad is not None
        close(actual.weight.grad, expected.weight.grad, tolerance)
        if actual is fused.normalisation or not training:  # the bias before a batch normalisation has no effect
            close(actual.bias.grad, expected.bias.grad, tolerance)  # type: ignore[arg-type]
    for name in ("running_mean", "running_var"):
        close(getattr(fused.normalisation, name), getattr(normalisation, name), tolerance)


def test_convolution_takes_halves_and_no_rows() -> None:
    torch.manual_seed(0)
    convolution, sequence_CL = SequenceConvolution(800), torch.randint(0, 4, (96, 800), dtype=torch.uint8)
    expected_CN = convolution(sequence_CL)
    close(convolution.half()(sequence_CL), expected_CN, 1e-2)
    assert convolution.eval()(sequence_CL[:0]).shape == (0, 5120)


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
