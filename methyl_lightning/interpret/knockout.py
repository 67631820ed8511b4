"""Knock-out: what predictions become when a gene's expression is set to its training mean, for every gene.

Only the sample side is encoded anew. Networks that add up genes are done by algebra, exactly. For that of
Levy-Jurgenson all genes are screened by slopes, to first order, and those that come out largest are then predicted
again, exactly.

Legend: C CpGs, S samples, G genes, K units of the first connected layer, B classes of CpGs, N knocked-out genes.
"""

from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from methyl_lightning.files import InputError
from methyl_lightning.networks.baselines.linear import CisLinear
from methyl_lightning.networks.baselines.ridge import ComponentNetwork
from methyl_lightning.networks.contract import MethylationNetwork
from methyl_lightning.networks.factors.network import MethylationFactors
from methyl_lightning.networks.levy_jurgenson import CpgEncoding, LevyJurgenson, SampleEncoding
from methyl_lightning.networks.products import grid_product


class Expression(NamedTuple):
    """Scaled expression [S, G] of the samples that are predicted; each gene's mean and deviation in training: [G]."""

    expression_SG: Tensor
    mean_G: Tensor
    deviation_G: Tensor


class Knockout(NamedTuple):
    """What knocking out each gene does.

    Attributes
    ----------
    change_SG
        |change of beta|, averaged over the CpGs.
    change_BG
        The same, averaged over the samples and the CpGs of each class.
    effect_CG
        Change of beta with one training deviation more of the gene's expression: the direction.
    exact_G
        Whether the gene was predicted anew; elsewhere the change is to first order.
    first_order_G
        The mean |change| to first order; equal where that is exact.
    """

    change_SG: np.ndarray
    change_BG: np.ndarray
    effect_CG: np.ndarray
    exact_G: np.ndarray
    first_order_G: np.ndarray


def knock_out(
    network: MethylationNetwork, cpgs: Any, samples: Expression, class_BC: np.ndarray, n_exact: int
) -> Knockout:
    """Knock out every gene, one at a time.

    Parameters
    ----------
    network
        In evaluation mode.
    cpgs
        C encoded CpGs.
    samples
        Their expression.
    class_BC
        Classes of CpGs, as shares that add up to 1 in each class.
    n_exact
        Genes that are predicted anew, those that change most to first order.

    Raises
    ------
    InputError
        If the network does not read expression, or has no slopes.
    """
    weight_BC = torch.from_numpy(class_BC).float()
    with torch.no_grad():
        if isinstance(network, LevyJurgenson) and network.reads_expression:
            return _screen(network, cpgs, samples, weight_BC, n_exact)
        if (slope_CG := gene_slopes(network, cpgs)) is not None:
            return _add_up(network, slope_CG, samples, weight_BC)
    raise InputError(
        f"network={type(network).__name__}: has neither attention nor slopes on expression to interpret; "
        "take LevyJurgenson, MethylationFactors, BilinearRidge or another linear network"
    )


def gene_slopes(network: MethylationNetwork, cpgs: Any) -> Tensor | None:
    """Lay the slopes of an additive network out over genes [C, G]; None where it is not one.

    Loadings on components or factors, times what each is made of, and the slopes on near genes.
    """
    if isinstance(network, MethylationFactors):
        slope_CG = cpgs.loading_CQ @ network.weight_GQ.T
        return slope_CG.scatter_add_(1, cpgs.gene_CK, cpgs.slope_CK)
    if isinstance(network, ComponentNetwork):
        return cpgs.slope_CQ @ network.components.loading_GQ.T
    return cpgs.slope_CQ if isinstance(network, CisLinear) else None


def _prepared(network: Any, expression_SG: Tensor) -> Tensor:
    if isinstance(network, MethylationFactors):
        return network.expression(expression_SG)
    return (network.components.genes if isinstance(network, ComponentNetwork) else network.genes)(expression_SG)


def _add_up(network: MethylationNetwork, slope_CG: Tensor, samples: Expression, class_BC: Tensor) -> Knockout:
    """Knock out exactly, as beta is a sum over genes of slope × prepared expression."""
    step_SG = _prepared(network, samples.mean_G[None]) - _prepared(network, samples.expression_SG)
    z_SG = _standard(samples)
    size_CG = slope_CG.abs()
    mean_G, step_G = size_CG.mean(0), step_SG.abs().mean(0)
    per_deviation_G = -_regress(step_SG, z_SG)
    every_G = np.full(len(mean_G), True)
    return Knockout(
        (step_SG.abs() * mean_G).numpy(),
        (class_BC @ size_CG * step_G).numpy(),
        (slope_CG * per_deviation_G).numpy(),
        every_G,
        (mean_G * step_G).numpy(),
    )


def _standard(samples: Expression) -> Tensor:
    """Expression in training deviations from the training mean [S, G]; 0 for a gene that is constant there."""
    varies_G = samples.deviation_G > 0
    z_SG = (samples.expression_SG - samples.mean_G) / torch.where(varies_G, samples.deviation_G, 1.0)
    return torch.where(varies_G, z_SG, 0.0)


def _regress(change_SG: Tensor, z_SG: Tensor) -> Tensor:
    """Slope of changes on standardised expression, through 0: [G]."""
    return (change_SG * z_SG).sum(0) / z_SG.square().sum(0).clamp(min=1e-12)


class Grid(NamedTuple):
    """What the network of Levy-Jurgenson makes of encoded CpGs and samples."""

    cpgs: CpgEncoding
    samples: SampleEncoding
    connected_CKS: Tensor
    beta_CS: Tensor


def _screen(network: LevyJurgenson, cpgs: CpgEncoding, samples: Expression, class_BC: Tensor, n_exact: int) -> Knockout:
    encoded = network.encode_samples(samples.expression_SG)
    connected_CKS = network.connect(cpgs, encoded)
    grid = Grid(cpgs, encoded, connected_CKS, network.finish(connected_CKS))
    change_SG, change_BG, effect_CG = _first_order(network, grid, samples, class_BC)
    first_order_G = change_SG.mean(0)
    z_SG, exact_G = _standard(samples), torch.full(first_order_G.shape, False)
    for g in first_order_G.argsort(descending=True)[:n_exact].tolist():
        change_CS = predict_anew(network, grid, samples, [g]) - grid.beta_CS
        change_SG[:, g], exact_G[g] = change_CS.abs().mean(0), True
        change_BG[:, g] = class_BC @ change_CS.abs().mean(1)
        effect_CG[:, g] = -_regress(change_CS.T, z_SG[:, g, None])
    return Knockout(*(part.numpy() for part in (change_SG, change_BG, effect_CG, exact_G, first_order_G)))


def _first_order(
    network: LevyJurgenson, grid: Grid, samples: Expression, class_BC: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """Knock out all genes by ∂beta/∂expression: |change| [S, G] and [B, G], effect [C, G]."""
    connected_CKS = grid.connected_CKS.clone().requires_grad_()
    with torch.enable_grad():
        (slope_CKS,) = torch.autograd.grad(network.finish(connected_CKS).sum(), connected_CKS)
    step_SG, z_SG = samples.mean_G - samples.expression_SG, _standard(samples)
    branches = _branches(network, grid.cpgs)
    change_SG, change_BG = torch.zeros_like(step_SG), class_BC.new_zeros(len(class_BC), step_SG.shape[1])
    effect_CG = step_SG.new_zeros(len(slope_CKS), step_SG.shape[1])
    for s in range(len(step_SG)):
        slope_CK = slope_CKS[:, :, s]
        slope_CG = slope_CK @ _sample_slopes(network, samples.expression_SG[s])
        for attention_CG, weight_KG in branches:
            slope_CG.addcmul_(attention_CG, slope_CK @ weight_KG)
        effect_CG.addcmul_(slope_CG, z_SG[s].square())
        size_CG = slope_CG.abs_()
        change_SG[s] = size_CG.mean(0) * step_SG[s].abs()
        change_BG += class_BC @ size_CG * step_SG[s].abs() / len(step_SG)
    effect_CG *= samples.deviation_G / z_SG.square().sum(0).clamp(min=1e-12)
    return change_SG, change_BG, effect_CG


def _branches(network: LevyJurgenson, cpgs: CpgEncoding) -> list[tuple[Tensor, Tensor]]:
    """Pair the attentions of the CpGs [C, G] with their part of the first connected layer [K, G]."""
    _, distance_KG, _, sequence_KG = network.connected.weight.split(network.widths, dim=1)
    near_G = 1.0 if network.near_G is None else network.near_G.float()
    pairs = (cpgs.distance_attention_CG, distance_KG), (cpgs.sequence_attention_CG, sequence_KG)
    return [(attention_CG, weight_KG * near_G) for attention_CG, weight_KG in pairs if attention_CG is not None]


def _sample_part(network: LevyJurgenson, samples: SampleEncoding) -> Tensor:
    """Return the part of the first connected layer that depends on the sample alone: [S, K], or 0."""
    expression_KG = network.connected.weight.split(network.widths, dim=1)[2]
    if samples.attended_SG is None:
        return expression_KG.new_zeros(1, len(expression_KG))
    return functional.linear(samples.attended_SG, expression_KG)


def _sample_slopes(network: LevyJurgenson, expression_G: Tensor) -> Tensor:
    """Differentiate the sample's own part of the first connected layer by its expression: [K, G]."""
    n_units = network.connected.out_features
    if network.expression_attention is None:
        return expression_G.new_zeros(n_units, len(expression_G))
    # a row a unit, as layers with their own backward pass cannot be vectorised over gradients
    rows_KG = expression_G.repeat(n_units, 1).requires_grad_()
    with torch.enable_grad():
        total = _sample_part(network, network.encode_samples(rows_KG)).diagonal().sum()
        return torch.autograd.grad(total, rows_KG)[0]


def predict_anew(network: LevyJurgenson, grid: Grid, samples: Expression, gene_N: list[int]) -> Tensor:
    """Predict with genes at their training means, exactly: beta_hat_CS."""
    expression_SG = samples.expression_SG.clone()
    expression_SG[:, gene_N] = samples.mean_G[gene_N]
    encoded = network.encode_samples(expression_SG)
    step_SN = encoded.expression_SG[:, gene_N] - grid.samples.expression_SG[:, gene_N]
    step_SK = _sample_part(network, encoded) - _sample_part(network, grid.samples)
    factors = [part[:, gene_N] for pair in _branches(network, grid.cpgs) for part in pair]
    connected_CKS = grid.connected_CKS + step_SK.T
    return network.finish(connected_CKS + grid_product(step_SN, *factors) if factors else connected_CKS)


def knock_out_set(network: MethylationNetwork, cpgs: Any, samples: Expression, gene_N: list[int]) -> np.ndarray:
    """Return the change of beta when genes are knocked out together, exactly: [C, S]."""
    expression_SG = samples.expression_SG.clone()
    expression_SG[:, gene_N] = samples.mean_G[gene_N]
    with torch.no_grad():
        knocked, whole = (
            network.combine(cpgs, network.encode_samples(rows_SG)) for rows_SG in (expression_SG, samples.expression_SG)
        )
    return (knocked - whole).numpy()
