"""The products over genes, which are nearly all of the arithmetic: wide layers, and the grid product in tiles.

Legend: C CpGs, S samples, G genes, K units, M rows, N columns.
"""

from collections.abc import Iterator
from functools import reduce
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

TILE_GENES, TILE_BYTES = 1024, 4 << 20  # a tile of the CpG × unit × gene intermediate stays in the processor's cache
ACCELERATOR_TILE_BYTES = 256 << 20  # many small kernels would only wait for each other


def times_transposed(left_MG: Tensor, right_NG: Tensor, bias_N: Tensor | None = None) -> Tensor:
    """Multiply [M, G] by the transpose of [N, G], and add [N]; on a CPU, float32 goes to oneDNN."""
    on_cpu = left_MG.device.type == "cpu" and left_MG.dtype == torch.float32
    if on_cpu and torch.backends.mkldnn.is_available() and not torch.is_autocast_enabled("cpu"):
        return _OneDnn.apply(left_MG, right_NG, bias_N)
    return nn.functional.linear(left_MG, right_NG, bias_N)


def _onednn(left_MG: Tensor, right_NG: Tensor, bias_N: Tensor | None = None) -> Tensor:
    """Multiply by a private operator of torch.

    Training without it takes 1.37 (17,996 genes) and 1.09 (6,000) of its time on AMD, by ``Tensor.to_mkldnn`` 1.2.
    """
    # on the strides of a slice or a broadcast oneDNN falls back to its reference loops
    left_MG, right_NG = (x if x.is_contiguous() or x.T.is_contiguous() else x.contiguous() for x in (left_MG, right_NG))
    return torch.ops.mkldnn._linear_pointwise(left_MG, right_NG, bias_N, "none", [], "")


class _OneDnn(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, left_MG: Tensor, right_NG: Tensor, bias_N: Tensor | None) -> Tensor:
        # what nobody differentiates by need not be kept: mostly a tile of the grid product
        kept = ctx.needs_input_grad
        ctx.save_for_backward(left_MG if kept[1] else None, right_NG if kept[0] else None)
        return _onednn(left_MG, right_NG, bias_N)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient_MN: Tensor) -> tuple[Tensor | None, ...]:
        left_MG, right_NG = ctx.saved_tensors
        return (
            None if right_NG is None else _onednn(gradient_MN, right_NG.T),
            None if left_MG is None else _onednn(gradient_MN.T, left_MG.T),
            gradient_MN.sum(0) if ctx.needs_input_grad[2] else None,
        )


class WideLinear(nn.Linear):
    """``torch.nn.Linear``, its three products by :func:`times_transposed`."""

    def forward(self, input: Tensor) -> Tensor:
        """Map [M, G] to [M, N]."""
        return times_transposed(input, self.weight, self.bias)


def grid_product(expression_SG: Tensor, *factors: Tensor) -> Tensor:
    """Sum over genes and parts i: Σ_i Σ_g a_i[c, g] · w_i[k, g] · e[s, g] → [C, K, S].

    Tile by tile over genes and CpGs: a tile of the C × K × G intermediate is built in the cache, multiplied and dropped
    (kept where the expression wants a gradient). Training with tiles as wide as all genes takes 1.7 of its time at
    6,000 genes. Under autocast, tiles and their gradients are of its type; sums over tiles stay in that of the weights.

    Parameters
    ----------
    expression_SG
        e.
    *factors
        a_1 [C, G], w_1 [K, G], a_2, w_2, …
    """
    kind = expression_SG.device.type
    operand = torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else factors[1].dtype
    size = TILE_GENES if kind == "cpu" else max(1, expression_SG.shape[1])
    with torch.autocast(kind, enabled=False):
        parts = zip(*(tensor.split(size, 1) for tensor in (expression_SG, *factors)), strict=True)
        product_CKS = reduce(torch.add, (_product_of_genes(operand, *part) for part in parts))
    return product_CKS.view(len(factors[0]), len(factors[1]), len(expression_SG))


def _product_of_genes(operand: torch.dtype, expression_SG: Tensor, *factors: Tensor) -> Tensor:
    weight_KG = factors[1]
    tile_bytes = TILE_BYTES if weight_KG.device.type == "cpu" else ACCELERATOR_TILE_BYTES
    size = max(1, tile_bytes // max(1, weight_KG.numel() * weight_KG.element_size()))
    weights = [weight_KG.contiguous() for weight_KG in factors[1::2]]
    part_SG = expression_SG.to(operand).contiguous()

    def products() -> Iterator[Tensor]:
        for attentions in zip(*(attention_CG.split(size) for attention_CG in factors[::2]), strict=True):
            # the type is changed tile by tile, so that the gradients of weights are summed up in their own
            pairs = [(a.to(operand)[:, None], w.to(operand)) for a, w in zip(attentions, weights, strict=True)]
            tile_CKG = pairs[0][0] * pairs[0][1]
            for attention_C1G, weight_KG in pairs[1:]:
                tile_CKG = torch.addcmul(tile_CKG, attention_C1G, weight_KG)
            yield times_transposed(tile_CKG.flatten(0, 1), part_SG)

    return torch.cat(list(products())).to(weight_KG.dtype)
