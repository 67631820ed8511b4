"""The products over genes, which are nearly all of the arithmetic: wide layers, and the grid product in tiles.

Legend: C CpGs, S samples, G genes, K units, M rows, N columns.
"""

from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

TILE_GENES, TILE_BYTES = 1024, 4 << 20  # a tile of the CpG × unit × gene intermediate stays in the processor's cache
ACCELERATOR_TILE_BYTES = 256 << 20  # many small kernels would only wait for each other


def times_transposed(left_MG: Tensor, right_NG: Tensor, bias_N: Tensor | None = None) -> Tensor:
    """Multiply [M, G] by the transpose of [N, G], and add [N].

    On a CPU, float32 goes to oneDNN, which reaches the full rate where the library behind ``torch.matmul`` (MKL) does
    not: on AMD processors, and on rows that no cache line begins with.
    """
    if _by_onednn(left_MG):
        return torch.ops.mkldnn._linear_pointwise(_dense(left_MG), _dense(right_NG), bias_N, "none", [], "")
    return nn.functional.linear(left_MG, right_NG, bias_N)


def _dense(matrix: Tensor) -> Tensor:
    """Copy a slice or a broadcast: on strides other than a dense matrix's oneDNN falls back to its reference loops."""
    return matrix if matrix.is_contiguous() or matrix.T.is_contiguous() else matrix.contiguous()


def _by_onednn(tensor: Tensor) -> bool:
    on_cpu = tensor.device.type == "cpu" and tensor.dtype == torch.float32
    return on_cpu and torch.backends.mkldnn.is_available() and not torch.is_autocast_enabled("cpu")


class _WideProduct(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, input_MG: Tensor, weight_NG: Tensor, bias_N: Tensor) -> Tensor:
        ctx.save_for_backward(input_MG, weight_NG)
        return times_transposed(input_MG, weight_NG, bias_N)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient_MN: Tensor) -> tuple[Tensor | None, ...]:
        input_MG, weight_NG = ctx.saved_tensors
        return (
            times_transposed(gradient_MN, weight_NG.T) if ctx.needs_input_grad[0] else None,
            times_transposed(gradient_MN.T, input_MG.T) if ctx.needs_input_grad[1] else None,
            gradient_MN.sum(0) if ctx.needs_input_grad[2] else None,
        )


class WideLinear(nn.Linear):
    """``torch.nn.Linear``, its three products by :func:`times_transposed`."""

    def forward(self, input: Tensor) -> Tensor:
        """Map [M, G] to [M, N]."""
        if not _by_onednn(input):
            return super().forward(input)
        return _WideProduct.apply(input, self.weight, self.bias)


def grid_product(expression_SG: Tensor, *factors: Tensor) -> Tensor:
    """Sum over genes and parts i: Σ_i Σ_g a_i[c, g] · w_i[k, g] · e[s, g] → [C, K, S].

    Under autocast, tiles and their gradients are of its type; sums over tiles stay in that of the weights.

    Parameters
    ----------
    expression_SG
        e.
    *factors
        a_1 [C, G], w_1 [K, G], a_2, w_2, …
    """
    kind = expression_SG.device.type
    operand = torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else factors[1].dtype
    with torch.autocast(kind, enabled=False):
        return _GridProduct.apply(operand, expression_SG, *(factor.to(factors[1].dtype) for factor in factors))


class _GridProduct(torch.autograd.Function):
    """Tile by tile over genes and CpGs.

    The C × K × G intermediate is never stored: a tile is built in the cache, multiplied and dropped, and the backward
    pass needs one matrix product a tile (plus one when the expression itself wants a gradient).
    """

    @staticmethod
    def forward(ctx: Any, operand: torch.dtype, expression_SG: Tensor, *factors: Tensor) -> Tensor:
        ctx.save_for_backward(expression_SG, *factors)
        ctx.operand = operand
        n_cpgs, n_units, n_samples = len(factors[0]), len(factors[1]), len(expression_SG)
        output_CKS = factors[1].new_zeros(n_cpgs, n_units, n_samples)
        for genes in _gene_slices(factors[1]):
            part_SG = expression_SG[:, genes].to(operand).contiguous()
            sliced = [factor[:, genes].to(operand).contiguous() for factor in factors]
            for rows in _cpg_slices(n_cpgs, sliced[1]):
                tile_CKG = _tile(rows, *sliced)
                output_CKS[rows].view(-1, n_samples).add_(times_transposed(tile_CKG.flatten(0, 1), part_SG))
        return output_CKS

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient_CKS: Tensor) -> tuple[Tensor | None, ...]:
        expression_SG, *factors = ctx.saved_tensors
        gradients = [torch.zeros_like(factor, memory_format=torch.contiguous_format) for factor in factors]
        expression_gradient_SG = torch.zeros_like(expression_SG) if ctx.needs_input_grad[1] else None
        gradient_CKS = gradient_CKS.to(ctx.operand)
        for genes in _gene_slices(factors[1]):
            part_GS = expression_SG[:, genes].to(ctx.operand).T.contiguous()
            sliced = [factor[:, genes].to(ctx.operand).contiguous() for factor in factors]
            for rows in _cpg_slices(len(factors[0]), sliced[1]):
                flat_gradient = gradient_CKS[rows].flatten(0, 1)
                tile_gradient_CKG = times_transposed(flat_gradient, part_GS).view(-1, *sliced[1].shape)
                for attention_CG, weight_KG, d_attention_CG, d_weight_KG in zip(
                    sliced[::2], sliced[1::2], gradients[::2], gradients[1::2], strict=True
                ):
                    d_attention_CG[rows, genes] = (tile_gradient_CKG * weight_KG).sum(1)
                    d_weight_KG[:, genes] += (tile_gradient_CKG * attention_CG[rows, None]).sum(0)
                if expression_gradient_SG is not None:
                    expression_gradient_SG[:, genes] += flat_gradient.T @ _tile(rows, *sliced).flatten(0, 1)
        return (None, expression_gradient_SG, *gradients)


def _gene_slices(weight_KG: Tensor) -> list[slice]:
    n_genes = weight_KG.shape[1]
    size = TILE_GENES if weight_KG.device.type == "cpu" else n_genes
    return [slice(start, min(start + size, n_genes)) for start in range(0, n_genes, size)]


def _cpg_slices(n_cpgs: int, weight_KG: Tensor) -> list[slice]:
    return row_tiles(n_cpgs, weight_KG.numel() * weight_KG.element_size(), weight_KG.device)


def row_tiles(n_rows: int, row_bytes: int, device: torch.device) -> list[slice]:
    """Cut rows into tiles: what is made of one stays in the processor's cache."""
    size = max(1, (TILE_BYTES if device.type == "cpu" else ACCELERATOR_TILE_BYTES) // row_bytes)
    return [slice(start, min(start + size, n_rows)) for start in range(0, max(n_rows, 1), size)]


def _tile(rows: slice, *factors: Tensor) -> Tensor:
    tile_CKG = factors[0][rows, None] * factors[1]
    for attention_CG, weight_KG in zip(factors[2::2], factors[3::2], strict=True):
        tile_CKG.addcmul_(attention_CG[rows, None], weight_KG)
    return tile_CKG
